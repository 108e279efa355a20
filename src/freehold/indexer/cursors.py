"""Places between rows of history, as text that callers carry and do not read.

A place is (height, position); rows are listed newest first, and a page goes on strictly below its cursor. Since a
block's rows never change once they stand, a cursor neither skips nor repeats, whatever comes after it was made.
"""

import base64
import struct
from typing import Final

import msgspec

from freehold.base.errors import InvalidInputError

VERSION: Final = 1
MAX_CURSOR_CHARS: Final = 18
_FORM: Final = struct.Struct(">BQI")


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a row stands: the height of its block, and its position in that block."""

    height: int
    position: int


TOP: Final = Place((1 << 63) - 1, (1 << 31) - 1)


def encode_cursor(place: Place) -> str:
    """Write a place as a cursor."""
    return base64.urlsafe_b64encode(_FORM.pack(VERSION, place.height, place.position)).decode().rstrip("=")


def decode_cursor(text: str) -> Place:
    """Read a cursor; the empty text is the top.

    Raises:
        InvalidInputError: this is no cursor of this API.
    """
    if not text:
        return TOP
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, height, position = _FORM.unpack(raw)
    except (ValueError, struct.error):
        raise _bad() from None
    place = Place(height, position)
    if version != VERSION or place > TOP or position > TOP.position or encode_cursor(place) != text:
        raise _bad()
    return place


def _bad() -> InvalidInputError:
    return InvalidInputError(
        "this is no cursor of this list", code="bad_cursor", hint="begin without one; take `next_cursor` as it is"
    )
