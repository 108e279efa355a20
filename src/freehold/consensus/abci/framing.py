"""ABCI's bytes on a socket: a length as a varint, then one `Request` or `Response`, a oneof of exactly one field.

`FrameBuffer` is fed with whatever arrives and gives whole frames; nothing longer than its limit is ever stored.
Source: CometBFT v0.38.25 libs/protoio, abci/types/messages.go.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, TypeVar

from freehold.base.errors import CodecError, check
from freehold.base.limits import MIB
from freehold.consensus.abci.message_parts import MAX_REQUEST_BYTES
from freehold.consensus.abci.messages import (
    REQUESTS,
    RESPONSES,
    CheckTxType,
    Request,
    RequestCheckTx,
    RequestFlush,
    Response,
    ResponseCheckTx,
    ResponseFlush,
)
from freehold.light.wire import Message, decode_varint, encode_varint, length_delimited

# A proposer is shown its last commit, and in each vote that came late an extension of up to 1 MiB, which nobody was
# asked about: those of 64 validators, mainnet's seats, are read before they are judged.
MAX_FRAME_BYTES: Final = MAX_REQUEST_BYTES + 64 * MIB
_LENGTH_BYTES: Final = 5  # of a length below 2^35
_DELIMITED: Final = 2

M = TypeVar("M", bound=Message)

_REQUEST_NUMBERS: Final = {kind: number for number, kind in REQUESTS.items()}
_RESPONSE_NUMBERS: Final = {kind: number for number, kind in RESPONSES.items()}
_FLUSH: Final = RequestFlush()
_FLUSH_FRAME: Final = bytes((_REQUEST_NUMBERS[RequestFlush] << 3 | _DELIMITED, 0))
_CHECK_TAG: Final = _REQUEST_NUMBERS[RequestCheckTx] << 3 | _DELIMITED
_TX_TAG: Final = 1 << 3 | _DELIMITED
_IS_RECHECK: Final = bytes((2 << 3, CheckTxType.RECHECK))
_OFTEN_THE_SAME: Final = (ResponseFlush, ResponseCheckTx)


class FrameBuffer:
    """Cuts a stream of bytes into frames."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._data = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes | bytearray) -> Iterator[bytes]:
        """Take in bytes and give the frames that are whole now, without their length.

        Raises:
            CodecError: `oversized`, or a malformed length; the stream cannot be read any further.
        """
        self._data += data
        if self._next(self._data, 0) is None:  # so a long one is copied once, and not at each read
            return
        whole, start = bytes(self._data), 0
        while (cut := self._next(whole, start)) is not None:
            first, start = cut
            yield whole[first:start]
        del self._data[:start]

    def _next(self, data: bytes | bytearray, start: int) -> tuple[int, int] | None:
        """Give where the frame that begins at an offset has its content, if all of it is there."""
        if start == len(data):
            return None
        length, first = data[start], start + 1
        if length >= 0x80:
            head = bytes(data[start : start + _LENGTH_BYTES])
            if all(byte & 0x80 for byte in head):
                if len(head) == _LENGTH_BYTES:
                    raise CodecError("the length of a message is malformed", code="oversized")
                return None
            length, size = decode_varint(head, 0, len(head))
            first = start + size
        if length > self._max_bytes:
            raise CodecError(f"a message of {length} bytes, at most {self._max_bytes} allowed", code="oversized")
        end = first + length
        return (first, end) if end <= len(data) else None


def decode_request(frame: bytes) -> Request:
    """Read a request.

    Raises:
        CodecError: it is not exactly one request that is known here.
    """
    if frame == _FLUSH_FRAME:  # the engine sends one with nearly every transaction
        return _FLUSH
    return _decode_check(frame) or _decode(frame, REQUESTS)


def _decode_check(frame: bytes) -> RequestCheckTx | None:
    """Read the most frequent request, in the one form that the engine gives it; None for all else."""
    try:
        if frame[0] != _CHECK_TAG:
            return None
        length, at = _short_length(frame, 1)
        if length != len(frame) - at or frame[at] != _TX_TAG:
            return None
        length, at = _short_length(frame, at + 1)
    except IndexError:
        return None
    end = at + length
    if not 0 < length <= MAX_REQUEST_BYTES:
        return None
    if end == len(frame):
        return RequestCheckTx(frame[at:end])
    return RequestCheckTx(frame[at:end], CheckTxType.RECHECK) if frame[end:] == _IS_RECHECK else None


def _short_length(frame: bytes, at: int) -> tuple[int, int]:
    """Read a length of one or two bytes, and the offset behind it; 0 for any other."""
    low, high = frame[at], frame[at + 1]
    if low < 0x80:
        return low, at + 1
    return (low & 0x7F | high << 7, at + 2) if 0 < high < 0x80 else (0, at)


def decode_response(frame: bytes) -> Response:
    """Read a response, as the engine does.

    Raises:
        CodecError: it is not exactly one response.
    """
    return _decode(frame, RESPONSES)


def encode_request(request: Request) -> bytes:
    """Write a request with its length, as the engine does."""
    return _encode(request, _REQUEST_NUMBERS[type(request)])


def encode_response(response: Response) -> bytes:
    """Write a response with its length."""
    if type(response) in _OFTEN_THE_SAME:
        return _encode_again(response)
    return _encode(response, _RESPONSE_NUMBERS[type(response)])


@lru_cache(1_024)
def _encode_again(response: Response) -> bytes:
    return _encode(response, _RESPONSE_NUMBERS[type(response)])


def _decode(frame: bytes, kinds: Mapping[int, type[M]]) -> M:
    end = len(frame)
    tag, offset = decode_varint(frame, 0, end)
    kind = kinds.get(tag >> 3)
    if kind is None or tag & 7 != _DELIMITED:
        raise CodecError(f"a message with tag {tag} is not known", code="unknown_message")
    length, offset = decode_varint(frame, offset, end)
    if length != end - offset:
        raise CodecError(f"{kind.__name__} does not fill its frame", code="undecodable")
    return kind.decode(frame[offset:], max_bytes=end)


def _encode(message: Message, number: int) -> bytes:
    check(number > 0, "message_has_number")
    return length_delimited(encode_varint(number << 3 | _DELIMITED) + length_delimited(message.encode()))
