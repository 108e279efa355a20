"""Typed decoding that threads may share: the one place that asks msgspec what a type holds.

msgspec 0.22 works out a Struct's fields when the Struct is first decoded, and lets other threads run meanwhile. A
thread that decodes the same Struct then takes what is half made, follows a null pointer, and the process dies by
SIGSEGV without a word. Here one thread at a time works a type out, to its end, before anything is decoded by it; what
is known already waits for nobody. ruff refuses msgspec's own functions everywhere else.
"""

from functools import cache
from threading import Lock
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

_turn: Final = Lock()


@cache
def msgpack_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """The decoder of a type from msgpack."""
    with _turn:
        return msgspec.msgpack.Decoder(kind)


@cache
def json_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of a type from JSON."""
    with _turn:
        return msgspec.json.Decoder(kind)


def decode_json(data: bytes | bytearray | str, kind: type[T]) -> T:
    """Decode JSON.

    Raises:
        msgspec.DecodeError: it is no JSON, or not of that type.
        UnicodeDecodeError: it is no UTF-8.
        RecursionError: it is nested too deeply.
    """
    return json_decoder(kind).decode(data)  # type: ignore[arg-type, no-any-return]


def decode_toml(data: bytes | str, kind: type[T]) -> T:
    """Decode TOML.

    Raises:
        msgspec.DecodeError: it is no TOML, or not of that type.
        UnicodeDecodeError: it is no UTF-8.
    """
    json_decoder(kind)  # type: ignore[arg-type]
    return msgspec.toml.decode(data, type=kind)


def convert(value: object, kind: type[T]) -> T:
    """Take what a decoder without a type gave for a value of a type, strictly.

    Raises:
        msgspec.ValidationError: it is not of that type.
    """
    json_decoder(kind)  # type: ignore[arg-type]
    return msgspec.convert(value, kind)
