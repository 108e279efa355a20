"""Wishes for nodes: `country=BE,farm=alpha`, from the command line or from `x-freehold: {prefer: ..}`.

A plain value is preferred where it can be had; one with `!` in front is excluded.
"""

import re

from freehold.base.errors import InvalidInputError
from freehold.base.ids import is_name

MAX_PREFERENCES = 16
_COUNTRY = re.compile(r"[A-Za-z]{2}\Z", re.ASCII)


def parse_preferences(text: str) -> tuple[tuple[str, str], ...]:
    """Read `country=BE,country=!US,farm=alpha` into pairs; a key given twice means either value.

    Raises:
        InvalidInputError: another key, or a value that is no country code or farm name.
    """
    pairs = [parse_preference(*part.strip().partition("=")[::2]) for part in text.split(",") if part.strip()]
    if len(pairs) > MAX_PREFERENCES:
        raise InvalidInputError(f"more than {MAX_PREFERENCES} preferences", code="bad_preference")
    return tuple(dict.fromkeys(pairs))


def parse_preference(key: str, value: str) -> tuple[str, str]:
    """Check one wish; countries are given back in upper case.

    Raises:
        InvalidInputError: as `parse_preferences`.
    """
    name = value.removeprefix("!")
    if key == "country" and _COUNTRY.match(name):
        return key, value.upper()
    if key == "farm" and is_name(name):
        return key, value
    raise InvalidInputError(
        f"{f'{key}={value}'[:60]!r} is not a preference",
        code="bad_preference",
        hint="write country=XX (two letters) or farm=NAME, with ! before the value to exclude it",
    )
