"""A small strict protobuf codec: one accepted byte form per message.

CometBFT and ICS-23 speak protobuf, whose ordinary decoders accept many byte forms of one message (unknown fields, any
order, padded varints, explicit defaults). Here decoding refuses every form but the one that encoding gives, so a
header, commit or proof has one spelling and no byte of it is without meaning (docs/spec/light-client.md).

A message is a frozen struct with a table of its fields in ascending order of number. Messages are never recursive, so
the depth of decoding is bounded by the tables; lengths and counts are bounded by each field's `limit`.

What our own engine says to its application is read by the same codec, but a message that sets `SKIPS_UNKNOWN` passes
over fields outside its table. Nothing that is hashed, signed or proven does.
"""

from collections.abc import Callable
from enum import IntEnum, auto
from functools import cache
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import msgspec

from freehold.base.errors import CodecError, check
from freehold.base.limits import MAX_BLOCK_BYTES

MAX_MESSAGE_BYTES = 2 * MAX_BLOCK_BYTES  # a whole block with its header and commit

M = TypeVar("M", bound="Message")

_U64 = 1 << 64
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_SHORT_VARINTS = [bytes((value,)) for value in range(0x80)]  # nearly all tags and lengths


class Kind(IntEnum):
    """How a field is written; a field with its default value is left out unless its kind says otherwise."""

    UINT32 = auto()
    UINT64 = auto()
    INT32 = auto()
    INT64 = auto()
    ENUM = auto()  # non-negative int32
    BOOL = auto()
    SFIXED64 = auto()
    BYTES = auto()
    STRING = auto()
    ONEOF_BYTES = auto()  # written even when empty
    MESSAGE = auto()  # gogoproto's non-nullable: written even when empty
    OPTIONAL = auto()  # a message, None when absent
    REPEATED = auto()  # messages
    REPEATED_BYTES = auto()
    REPEATED_INT32 = auto()  # packed


class Field(NamedTuple):
    """One row of a message's table.

    Attributes:
        number: the field number.
        name: the attribute of the struct.
        kind: how it is written.
        message: the type of a nested message.
        limit: the longest bytes or string, in bytes, or the highest count of a repeated field.
    """

    number: int
    name: str
    kind: Kind
    message: "type[Message] | None" = None
    limit: int = 0


class Message(msgspec.Struct, frozen=True):
    """Base of every protobuf message; subclasses set `FIELDS`."""

    FIELDS: ClassVar[tuple[Field, ...]] = ()
    SKIPS_UNKNOWN: ClassVar[bool] = False  # of this message alone, not of those within it

    def encode(self) -> bytes:
        """Write the one byte form of this message."""
        return _encode(self)

    @classmethod
    def decode(cls, data: bytes, *, max_bytes: int = MAX_MESSAGE_BYTES) -> Self:
        """Read a message from the byte form that `encode` gives.

        Args:
            data: at most `max_bytes` long.
            max_bytes: refuse longer input before looking at it.

        Raises:
            CodecError: too long, or any other byte form.
        """
        if len(data) > max_bytes:
            raise CodecError(f"{len(data)} bytes, at most {max_bytes} allowed", code="oversized")
        return _decode(cls, bytes(data), 0, len(data))

    def validate(self) -> None:
        """Check what the table cannot say; called at the end of decoding.

        Raises:
            CodecError: a value is outside what the message allows.
        """


def encode_varint(value: int) -> bytes:
    """Write an unsigned 64-bit integer as a minimal varint.

    Args:
        value: 0 <= value < 2^64.
    """
    if 0 <= value < 0x80:
        return _SHORT_VARINTS[value]
    check(value >= 0, "varint_not_negative", value=value)
    check(value < _U64, "varint_in_range", value=value)
    out = bytearray()
    while value >= 0x80:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_varint(data: bytes, offset: int, end: int) -> tuple[int, int]:
    """Read a minimal varint of at most 64 bits.

    Returns:
        The value and the offset behind it.

    Raises:
        CodecError: cut short, longer than needed, or above 64 bits.
    """
    value = shift = 0
    while True:
        if offset >= end:
            raise CodecError("varint is cut short", code="undecodable")
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise CodecError("varint is longer than 64 bits", code="undecodable")
    if value >= _U64:
        raise CodecError("varint is longer than 64 bits", code="undecodable")
    if byte == 0 and shift:
        raise CodecError("varint is not minimal", code="not_canonical")
    return value, offset


def length_delimited(data: bytes) -> bytes:
    """Put the length of data in front of it, as a varint."""
    return encode_varint(len(data)) + data


# --- encoding -------------------------------------------------------------------------------------------------------

_RANGES: dict[Kind, tuple[int, int]] = {
    Kind.UINT32: (0, (1 << 32) - 1),
    Kind.UINT64: (0, _U64 - 1),
    Kind.INT32: (-(1 << 31), (1 << 31) - 1),
    Kind.INT64: (-(1 << 63), (1 << 63) - 1),
    Kind.ENUM: (0, (1 << 31) - 1),
    Kind.BOOL: (0, 1),
    Kind.SFIXED64: (-(1 << 63), (1 << 63) - 1),
    Kind.REPEATED_INT32: (-(1 << 31), (1 << 31) - 1),
}


def _encode(message: Message) -> bytes:
    out = bytearray()
    for name, tag, field, write in _writers(type(message)):
        value = getattr(message, name)
        if value or field.kind in _WRITTEN_EMPTY:
            write(out, tag, field, value)
    return bytes(out)


def _checked(field: Field, value: int) -> int:
    low, high = _RANGES[field.kind]
    check(low <= value <= high, "wire_integer_in_range", field=field.name, value=value)
    return value


def _put(out: bytearray, tag: bytes, _: Field, data: bytes) -> None:
    out += tag
    out += encode_varint(len(data))
    out += data


def _put_integer(out: bytearray, tag: bytes, field: Field, value: int) -> None:
    out += tag
    out += encode_varint(_checked(field, int(value)) % _U64)


def _put_fixed(out: bytearray, tag: bytes, field: Field, value: int) -> None:
    out += tag
    out += _checked(field, value).to_bytes(8, "little", signed=True)


def _put_string(out: bytearray, tag: bytes, field: Field, value: str) -> None:
    _put(out, tag, field, value.encode())


def _put_message(out: bytearray, tag: bytes, field: Field, value: Message) -> None:
    _put(out, tag, field, _encode(value))


def _put_messages(out: bytearray, tag: bytes, field: Field, value: tuple[Message, ...]) -> None:
    for item in value:
        _put(out, tag, field, _encode(item))


def _put_repeated_bytes(out: bytearray, tag: bytes, field: Field, value: tuple[bytes, ...]) -> None:
    for item in value:
        _put(out, tag, field, item)


def _put_packed(out: bytearray, tag: bytes, field: Field, value: tuple[int, ...]) -> None:
    _put(out, tag, field, b"".join(encode_varint(_checked(field, item) % _U64) for item in value))


_Write = Callable[[bytearray, bytes, Field, Any], None]

_ENCODERS: dict[Kind, _Write] = {
    Kind.UINT32: _put_integer,
    Kind.UINT64: _put_integer,
    Kind.INT32: _put_integer,
    Kind.INT64: _put_integer,
    Kind.ENUM: _put_integer,
    Kind.BOOL: _put_integer,
    Kind.SFIXED64: _put_fixed,
    Kind.BYTES: _put,
    Kind.STRING: _put_string,
    Kind.ONEOF_BYTES: _put,
    Kind.MESSAGE: _put_message,
    Kind.OPTIONAL: _put_message,
    Kind.REPEATED: _put_messages,
    Kind.REPEATED_BYTES: _put_repeated_bytes,
    Kind.REPEATED_INT32: _put_packed,
}
_WRITTEN_EMPTY = (Kind.ONEOF_BYTES, Kind.MESSAGE)  # every other kind leaves out its default


@cache
def _writers(kind: type[Message]) -> list[tuple[str, bytes, Field, _Write]]:
    """The fields of a message with their tags and how they are written."""
    return [
        (field.name, encode_varint(field.number << 3 | _WIRE_TYPES[field.kind]), field, _ENCODERS[field.kind])
        for field in kind.FIELDS
    ]


# --- decoding -------------------------------------------------------------------------------------------------------

_NESTED = (Kind.MESSAGE, Kind.OPTIONAL, Kind.REPEATED)
_WIRE_TYPES = {kind: _VARINT if kind <= Kind.BOOL else _LENGTH for kind in Kind} | {Kind.SFIXED64: _FIXED64}


@cache
def _table(kind: type[Message]) -> dict[int, tuple[Field, bool]]:
    """The fields of a message by tag, each with whether it may stand several times in a row."""
    return {
        field.number << 3 | _WIRE_TYPES[field.kind]: (field, field.kind in (Kind.REPEATED, Kind.REPEATED_BYTES))
        for field in kind.FIELDS
    }


def _decode(kind: type[M], data: bytes, offset: int, end: int) -> M:
    table = _table(kind)
    values: dict[str, Any] = {}
    last = 0
    while offset < end:
        # `decode_varint` of one byte, written out here and below: nearly all tags and lengths are of one
        tag = data[offset]
        if tag < 0x80:
            offset += 1
        else:
            tag, offset = decode_varint(data, offset, end)
        row = table.get(tag)
        if row is None:
            if kind.SKIPS_UNKNOWN and not _has_number(kind, tag >> 3):
                offset = _skip(kind, tag, data, offset, end)
                continue
            raise CodecError(f"{kind.__name__} has no field with tag {tag}", code="unknown_field")
        field, repeated = row
        if tag < last or (tag == last and not repeated):
            raise CodecError(f"{kind.__name__}.{field.name} is repeated or out of order", code="not_canonical")
        last = tag
        if tag & 7 == _LENGTH:
            length = data[offset] if offset < end else 0x80
            if length < 0x80:
                offset += 1
            else:
                length, offset = decode_varint(data, offset, end)
            if length > end - offset:
                raise CodecError(f"{kind.__name__}.{field.name} is cut short", code="undecodable")
            value = _read_delimited(kind, field, data, offset, offset + length)
            offset += length
        else:
            value, offset = _read_number(kind, field, data, offset, end)
        if repeated:
            items = values.setdefault(field.name, [])
            if len(items) >= field.limit:
                raise CodecError(f"{kind.__name__}.{field.name} has more than {field.limit} items", code="oversized")
            items.append(value)
        else:
            values[field.name] = value
    return _build(kind, values)


def _has_number(kind: type[Message], number: int) -> bool:
    return any(field.number == number for field in kind.FIELDS)


def _skip(kind: type[Message], tag: int, data: bytes, offset: int, end: int) -> int:
    """Give the offset behind a field that is passed over."""
    shape, length = tag & 7, 0
    if shape == _VARINT:
        _, offset = decode_varint(data, offset, end)
    elif shape == _LENGTH:
        length, offset = decode_varint(data, offset, end)
    else:
        length = _FIXED_BYTES.get(shape, end + 1)
    if not tag >> 3 or length > end - offset:
        raise CodecError(f"{kind.__name__} has a field that cannot be passed over", code="undecodable")
    return offset + length


def _read_number(kind: type[Message], field: Field, data: bytes, offset: int, end: int) -> tuple[Any, int]:
    if field.kind is Kind.SFIXED64:
        if end - offset < 8:
            raise CodecError(f"{kind.__name__}.{field.name} is cut short", code="undecodable")
        value = int.from_bytes(data[offset : offset + 8], "little", signed=True)
        offset += 8
    else:
        value, offset = decode_varint(data, offset, end)
        value = _ranged(kind, field, value)
    if value == 0:
        raise CodecError(f"{kind.__name__}.{field.name} writes its default", code="not_canonical")
    return (True if field.kind is Kind.BOOL else value), offset


def _ranged(kind: type[Message], field: Field, value: int) -> int:
    low, high = _RANGES[field.kind]
    if low < 0 and value >> 63:
        value -= _U64
    if not low <= value <= high:
        raise CodecError(f"{kind.__name__}.{field.name} is out of range", code="undecodable")
    return value


def _read_delimited(kind: type[Message], field: Field, data: bytes, start: int, end: int) -> Any:
    shape = field.kind
    if shape in _NESTED:
        if field.message is None:
            raise CodecError(f"{kind.__name__}.{field.name} has no type", code="undecodable")
        return _decode(field.message, data, start, end)
    if shape is Kind.REPEATED_INT32:
        return _read_packed(kind, field, data, start, end)
    if shape is not Kind.REPEATED_BYTES and end - start > field.limit:
        raise CodecError(f"{kind.__name__}.{field.name} is longer than {field.limit} bytes", code="oversized")
    if start == end and shape in (Kind.BYTES, Kind.STRING):
        raise CodecError(f"{kind.__name__}.{field.name} writes its default", code="not_canonical")
    raw = data[start:end]
    if shape is not Kind.STRING:
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise CodecError(f"{kind.__name__}.{field.name} is not UTF-8", code="undecodable") from None


def _read_packed(kind: type[Message], field: Field, data: bytes, start: int, end: int) -> tuple[int, ...]:
    items: list[int] = []
    while start < end:
        value, start = decode_varint(data, start, end)
        items.append(_ranged(kind, field, value))
        if len(items) > field.limit:
            raise CodecError(f"{kind.__name__}.{field.name} has more than {field.limit} items", code="oversized")
    if not items:
        raise CodecError(f"{kind.__name__}.{field.name} writes its default", code="not_canonical")
    return tuple(items)


_ABSENT: dict[Kind, Any] = {
    **dict.fromkeys((Kind.UINT32, Kind.UINT64, Kind.INT32, Kind.INT64, Kind.ENUM, Kind.SFIXED64), 0),
    Kind.BOOL: False,
    Kind.BYTES: b"",
    Kind.STRING: "",
    Kind.OPTIONAL: None,
    **dict.fromkeys((Kind.REPEATED, Kind.REPEATED_BYTES, Kind.REPEATED_INT32), ()),
}


@cache
def _absent(kind: type[Message]) -> dict[str, Any]:
    """What the fields of a message are when they are not written."""
    return {field.name: _ABSENT[field.kind] for field in kind.FIELDS if field.kind in _ABSENT}


def _build(kind: type[M], values: dict[str, Any]) -> M:
    """Make the message; a field that was not written has protobuf's default, whatever the struct's own default is."""
    complete = _absent(kind) | values
    if len(complete) < len(kind.FIELDS):
        missing = next(field.name for field in kind.FIELDS if field.name not in complete)
        raise CodecError(f"{kind.__name__}.{missing} is missing", code="not_canonical")
    for name, value in values.items():
        if type(value) is list:
            complete[name] = tuple(value)
    message = kind(**complete)
    message.validate()
    return message
