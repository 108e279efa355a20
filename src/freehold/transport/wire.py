"""The bytes of a call: heads, bodies, chunks (docs/spec/transport.md, "Call"). No policy here, only bounds.

    request   u16 length, RequestHead, then `request_bytes` bytes: the request record
    response  u16 length, ResponseHead, then `response_bytes` bytes: the response record, or an ErrorBody
    chunk     u32 length (1 to MAX_CHUNK_BYTES), bytes;   end: u32 0;   failed: u32 0xFFFFFFFF, then a response

Integers before records are big-endian; records are canonical msgpack (`base.codec`).
"""

import re
from typing import TypeVar

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import FreeholdError, RemoteProtocolError, check
from freehold.base.limits import KIB, MAX_FRAME_BYTES
from freehold.transport.errors import remote_answer
from freehold.transport.ports import StreamPort

T = TypeVar("T")

ALPN = "freehold/rpc/1"
VERSION = 1
MAX_HEAD_BYTES = 256
MAX_ERROR_BYTES = 2 * KIB
MAX_CHUNK_BYTES = MAX_FRAME_BYTES
MAX_MESSAGE_CHARS = 400
MAX_HINT_CHARS = 200

OK = 0
_FAILED = 0xFFFF_FFFF
_CODE = re.compile(r"[a-z][a-z0-9_]{0,62}\Z", re.ASCII)
_METHOD = re.compile(r"[a-z][a-z0-9_./]{0,63}\Z", re.ASCII)


class RequestHead(Record):
    """First frame of a call: version, method name, length of the request that follows."""

    version: int
    method: str
    request_bytes: int


class ResponseHead(Record):
    """First frame of an answer: version, 0 or the error's kind (1 to 5), length of what follows."""

    version: int
    status: int
    response_bytes: int


class ErrorBody(Record):
    """An error in words: stable code, message, hint."""

    code: str
    message: str
    hint: str


def is_method_name(text: str) -> bool:
    """Whether text may name a method: 1 to 64 of a-z 0-9 _ . /, a letter first."""
    return _METHOD.match(text) is not None


def request_bytes(method: str, body: bytes) -> bytes:
    """The bytes that open a call."""
    check(is_method_name(method), "method_name_is_legal", method=method)
    return _head(RequestHead(VERSION, method, len(body))) + body


def response_bytes(body: bytes) -> bytes:
    """The bytes of an answer that went well."""
    return _head(ResponseHead(VERSION, OK, len(body))) + body


def error_bytes(error: FreeholdError) -> bytes:
    """The bytes of an answer that says what went wrong; texts are cut to their bounds."""
    code = error.code if _CODE.match(error.code) else "failed"
    body = encode(ErrorBody(code, _clean(error.message, MAX_MESSAGE_CHARS), _clean(error.hint, MAX_HINT_CHARS)))
    status = error.exit_code if 1 <= error.exit_code <= 5 else 1
    return _head(ResponseHead(VERSION, status, len(body))) + body


def chunk_bytes(data: bytes) -> bytes:
    """One chunk of a body."""
    check(0 < len(data) <= MAX_CHUNK_BYTES, "chunk_is_bounded", size=len(data))
    return len(data).to_bytes(4, "big") + data


def end_bytes() -> bytes:
    """The end of a body."""
    return bytes(4)


def failed_bytes(error: FreeholdError) -> bytes:
    """The early end of a body, with the reason."""
    return _FAILED.to_bytes(4, "big") + error_bytes(error)


async def read_request_head(stream: StreamPort) -> RequestHead:
    """Read the head of a request.

    Raises:
        RemoteProtocolError: too long, malformed, or another version.
    """
    head = await _read_head(stream, RequestHead)
    _check_version(head.version)
    return head


async def read_response(stream: StreamPort, max_bytes: int) -> bytes:
    """Read an answer; returns the encoded response record.

    Raises:
        RemoteAnswer: the peer answered with an error.
        RemoteProtocolError: the answer is malformed or longer than `max_bytes`.
    """
    head = await _read_head(stream, ResponseHead)
    _check_version(head.version)
    if head.status == OK:
        return await read_body(stream, head.response_bytes, max_bytes, "the response")
    data = await read_body(stream, head.response_bytes, MAX_ERROR_BYTES, "the error")
    body = _decode(data, ErrorBody)
    if not _CODE.match(body.code):
        raise RemoteProtocolError("the peer's error code is malformed", code="bad_error")
    raise remote_answer(
        head.status, body.code, _clean(body.message, MAX_MESSAGE_CHARS), _clean(body.hint, MAX_HINT_CHARS)
    )


async def read_body(stream: StreamPort, size: int, max_bytes: int, what: str) -> bytes:
    """Read a body of a size that the peer announced.

    Raises:
        RemoteProtocolError: `size` is negative or above `max_bytes` (code `oversized`); nothing was read.
    """
    if not 0 <= size <= max_bytes:
        raise RemoteProtocolError(f"{what} has {size} bytes, at most {max_bytes} allowed", code="oversized")
    return await stream.read_exactly(size)


async def read_chunk(stream: StreamPort) -> bytes:
    """Read one chunk; b"" at the end of the body.

    Raises:
        RemoteAnswer: the sender failed half way and says why.
        RemoteProtocolError: the chunk is too long, or the stream ended without an end mark.
    """
    size = int.from_bytes(await stream.read_exactly(4), "big")
    if size == _FAILED:
        await read_response(stream, 0)
        raise RemoteProtocolError("the body failed without an error", code="bad_error")
    if size > MAX_CHUNK_BYTES:
        raise RemoteProtocolError(f"a chunk has {size} bytes, at most {MAX_CHUNK_BYTES} allowed", code="oversized")
    return await stream.read_exactly(size) if size else b""


def _head(record: Record) -> bytes:
    data = encode(record)
    check(len(data) <= MAX_HEAD_BYTES, "head_is_bounded", size=len(data))
    return len(data).to_bytes(2, "big") + data


async def _read_head(stream: StreamPort, kind: type[T]) -> T:
    size = int.from_bytes(await stream.read_exactly(2), "big")
    return _decode(await read_body(stream, size, MAX_HEAD_BYTES, "the head"), kind)


def _decode(data: bytes, kind: type[T]) -> T:
    try:
        return decode(data, kind)
    except FreeholdError as error:
        raise RemoteProtocolError(error.message, code=error.code) from None


def _check_version(version: int) -> None:
    if version != VERSION:
        raise RemoteProtocolError(
            f"the peer speaks version {version} of the call format, not {VERSION}",
            code="bad_version",
            hint="update the older side",
        )


def _clean(text: str, max_chars: int) -> str:
    """Bound a text and drop what could steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text[:max_chars])
