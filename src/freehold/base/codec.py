"""The one codec: msgspec msgpack with one canonical form per value.

A value is a `msgspec.Struct` with `array_like=True, frozen=True, forbid_unknown_fields=True` (`Record` below), or a
plain int, str, bytes, list. Decoding re-encodes and compares, so two encodings of one value cannot both be accepted
(docs/spec/codec.md). Maps are not used: their order is not canonical.
"""

from typing import Any, TypeVar, dataclass_transform

import msgspec

from freehold.base.decoders import msgpack_decoder
from freehold.base.errors import CodecError

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class _RecordMeta(msgspec.StructMeta):
    """Tells type checkers that every record is frozen, also where the subclass does not say so again."""


class Record(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, metaclass=_RecordMeta):
    """Base of everything that is hashed, signed, stored or sent: an array of its fields, in order."""


def encode(value: Any) -> bytes:
    """Encode a value in its canonical form."""
    return _encoder.encode(value)


def decode(data: bytes, kind: type[T], *, max_bytes: int = 1 << 20) -> T:
    """Decode canonical bytes.

    Args:
        data: at most `max_bytes` long.
        kind: the expected type.
        max_bytes: refuse longer input before looking at it.

    Raises:
        CodecError: too long, not of that type, or not the canonical encoding.
    """
    if len(data) > max_bytes:
        raise CodecError(f"{len(data)} bytes, at most {max_bytes} allowed", code="oversized")
    try:
        value = msgpack_decoder(kind).decode(data)  # type: ignore[arg-type]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CodecError(f"not a valid {_name(kind)}: {error}", code="undecodable") from None
    if _encoder.encode(value) != data:
        raise CodecError(f"not the canonical encoding of {_name(kind)}", code="not_canonical")
    return value  # type: ignore[no-any-return]


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
