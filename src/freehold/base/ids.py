"""Ids are raw bytes in code and on the wire; hex (nodes, leases) or StrKey (accounts, see crypto) for people."""

import re

from freehold.base.errors import InvalidInputError
from freehold.base.limits import ID_BYTES

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,61}[a-z0-9])?\Z", re.ASCII)


def parse_id(text: str) -> bytes:
    """Read a 64-digit hex id.

    Raises:
        InvalidInputError: not 64 lower-case hex digits.
    """
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != ID_BYTES or value.hex() != text:
        raise InvalidInputError(f"{text[:80]!r} is not an id of 64 hex digits", code="bad_id")
    return value


def is_id(value: bytes) -> bool:
    """Whether value has the length of an id."""
    return len(value) == ID_BYTES


def is_name(text: str) -> bool:
    """Whether text may name a farm, deployment or service: 1 to 63 of a-z 0-9 _ . -, a letter or digit at both ends."""
    return _NAME.match(text) is not None
