"""Token amounts: int64 counts of 10^-7 token, as on Stellar; arithmetic is checked, text is exact."""

import re
from typing import NewType

from freehold.base.errors import InvalidInputError, check

Amount = NewType("Amount", int)

TOKEN = 10_000_000  # one token in units of 10^-7
MAX_AMOUNT = (1 << 63) - 1
_TEXT = re.compile(r"(0|[1-9][0-9]{0,11})(?:\.([0-9]{1,7}))?\Z", re.ASCII)


def is_amount(value: int) -> bool:
    """Whether value is a legal non-negative amount."""
    return 0 <= value <= MAX_AMOUNT


def add(a: int, b: int) -> int:
    """Add two amounts.

    Raises:
        InvariantError: the sum leaves int64; inputs from outside are bounded before they get here.
    """
    total = a + b
    check(is_amount(a) and is_amount(b) and is_amount(total), "amount_add_in_range", a=a, b=b)
    return total


def parse_amount(text: str) -> int:
    """Read `12` or `12.5` tokens into units of 10^-7.

    Raises:
        InvalidInputError: not a plain decimal with at most seven places, or out of range.
    """
    match = _TEXT.match(text.strip())
    if match is None:
        raise InvalidInputError(
            f"{text[:40]!r} is not an amount of tokens",
            code="bad_amount",
            hint="write a plain number with at most seven decimals, such as 12.5",
        )
    units = int(match[1]) * TOKEN + int((match[2] or "").ljust(7, "0"))
    if not is_amount(units):
        raise InvalidInputError(f"{text} tokens is more than can exist", code="bad_amount")
    return units


def format_amount(units: int) -> str:
    """Write units of 10^-7 as tokens without trailing zeros, such as `12.5` or `-0.001`."""
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), TOKEN)
    digits = f"{part:07d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
