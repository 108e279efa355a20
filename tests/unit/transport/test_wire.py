import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.codec import encode
from freehold.base.errors import FreeholdError, RefusedError, RemoteProtocolError
from freehold.transport.errors import RemoteAnswer, RemoteRefusedError
from freehold.transport.wire import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_CHARS,
    ErrorBody,
    RequestHead,
    ResponseHead,
    chunk_bytes,
    end_bytes,
    error_bytes,
    failed_bytes,
    is_method_name,
    read_chunk,
    read_request_head,
    read_response,
    request_bytes,
    response_bytes,
)


class Bytes:
    """A stream that holds some bytes and then ends."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read_exactly(self, count: int) -> bytes:
        if len(self.data) < count:
            raise RemoteProtocolError("ended", code="truncated")
        taken, self.data = self.data[:count], self.data[count:]
        return taken


def head_of(data: bytes) -> RequestHead:
    return asyncio.run(read_request_head(Bytes(data)))  # type: ignore[arg-type]


def response_of(data: bytes, max_bytes: int = 1 << 16) -> bytes:
    return asyncio.run(read_response(Bytes(data), max_bytes))  # type: ignore[arg-type]


def chunk_of(data: bytes) -> bytes:
    return asyncio.run(read_chunk(Bytes(data)))  # type: ignore[arg-type]


def test_golden_bytes() -> None:
    assert request_bytes("ping", b"\x91\x07").hex() == "0008" + "93" + "01" + "a470696e67" + "02" + "9107"
    assert response_bytes(b"\x91\x07").hex() == "0004" + "93" + "01" + "00" + "02" + "9107"
    error = RefusedError("no", code="busy", hint="wait")
    assert error_bytes(error).hex() == "0004" + "9301030e" + "93" + "a462757379" + "a26e6f" + "a477616974"
    assert chunk_bytes(b"abc").hex() == "00000003616263"
    assert end_bytes().hex() == "00000000"
    assert failed_bytes(error).hex() == "ffffffff" + error_bytes(error).hex()


def test_heads_and_chunks_come_back() -> None:
    assert head_of(request_bytes("lease.spec", b"xyz")) == RequestHead(1, "lease.spec", 3)
    assert response_of(response_bytes(b"body")) == b"body"
    assert chunk_of(chunk_bytes(b"abc")) == b"abc"
    assert chunk_of(end_bytes()) == b""


def test_an_error_keeps_its_kind_code_and_words() -> None:
    with pytest.raises(RemoteRefusedError) as caught:
        response_of(error_bytes(RefusedError("not today", code="not_allowed", hint="ask")))
    error = caught.value
    assert (error.code, error.message, error.hint, error.exit_code) == ("not_allowed", "not today", "ask", 3)
    with pytest.raises(RemoteRefusedError):
        chunk_of(failed_bytes(RefusedError("half way", code="full")))


def test_words_of_a_peer_are_bounded_and_cannot_steer_a_terminal() -> None:
    with pytest.raises(RemoteAnswer) as caught:
        response_of(error_bytes(FreeholdError("\x1b[2J" + "x" * 10_000, code="Bad Code!", hint="\r\n\u202e")))
    assert len(caught.value.message) == MAX_MESSAGE_CHARS
    assert "\x1b" not in caught.value.message
    assert caught.value.code == "failed"
    body = encode(ErrorBody("ok", "\x1b" + "y" * 1_000, ""))
    head = encode(ResponseHead(1, 3, len(body)))
    with pytest.raises(RemoteAnswer) as caught:
        response_of(len(head).to_bytes(2, "big") + head + body)
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) == MAX_MESSAGE_CHARS


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (RequestHead(2, "ping", 0), "bad_version"),
        (("x",), "undecodable"),
    ],
)
def test_bad_request_heads(head: object, code: str) -> None:
    data = encode(head)
    with pytest.raises(RemoteProtocolError) as caught:
        head_of(len(data).to_bytes(2, "big") + data)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("record", "body", "code"),
    [
        (ResponseHead(1, 0, 1 << 30), b"", "oversized"),
        (ResponseHead(1, 0, -1), b"", "oversized"),
        (ResponseHead(1, 3, 1 << 20), b"", "oversized"),
        (ResponseHead(1, 6, 4), encode(ErrorBody("", "", "")), "bad_error"),
        (ResponseHead(1, 6, 5), encode(ErrorBody("x", "", "")), "bad_status"),
        (ResponseHead(1, 0, 9), b"short", "truncated"),
        (ResponseHead(7, 0, 0), b"", "bad_version"),
    ],
)
def test_bad_responses(record: ResponseHead, body: bytes, code: str) -> None:
    head = encode(record)
    with pytest.raises(RemoteProtocolError) as caught:
        response_of(len(head).to_bytes(2, "big") + head + body)
    assert caught.value.code == code


def test_a_head_that_is_not_canonical_is_refused() -> None:
    plain = request_bytes("ping", b"")
    longer = plain[2:3] + b"\xcc\x01" + plain[4:]  # version 1 in two bytes
    with pytest.raises(RemoteProtocolError) as caught:
        head_of(len(longer).to_bytes(2, "big") + longer)
    assert caught.value.code == "not_canonical"


def test_a_long_head_or_chunk_is_refused_before_it_is_read() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        head_of(b"\xff\xff")
    assert caught.value.code == "oversized"
    with pytest.raises(RemoteProtocolError) as caught:
        chunk_of((MAX_CHUNK_BYTES + 1).to_bytes(4, "big"))
    assert caught.value.code == "oversized"


@given(st.binary(max_size=300))
def test_garbage_is_always_the_peers_fault(data: bytes) -> None:
    for read in (head_of, response_of, chunk_of):
        try:
            read(data)
        except (RemoteProtocolError, RemoteAnswer):
            continue


@given(st.text(max_size=70))
def test_method_names(text: str) -> None:
    legal = 0 < len(text) <= 64 and text[0] in "abcdefghijklmnopqrstuvwxyz"
    legal = legal and all(char in "abcdefghijklmnopqrstuvwxyz0123456789_./" for char in text)
    assert is_method_name(text) == legal
