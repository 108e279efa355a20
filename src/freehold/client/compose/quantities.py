"""Durations, sizes and CPU counts, exactly as the compose specification writes them, as whole numbers."""

import math
import re
from decimal import Decimal
from fractions import Fraction

from freehold.base.limits import GIB, KIB, MIB

_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:us|ms|s|m|h))+\Z", re.ASCII)
_DURATION_PART = re.compile(r"([0-9.]+)(us|ms|s|m|h)", re.ASCII)
_UNIT_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,9})?) ?([kmgt]?)(?:i?b)?\Z", re.ASCII | re.IGNORECASE)
_UNIT_BYTES = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}
_CPUS = re.compile(r"(?:[0-9]{1,6}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})\Z", re.ASCII)


def parse_duration_ms(text: str) -> int | None:
    """Read `1m30s`, `2.5s`, `500ms` or `0` into milliseconds, rounded up; None when it is no duration.

    Source: compose specification, "Specifying durations".
    """
    if text == "0":
        return 0
    if len(text) > 64 or _DURATION.match(text) is None:
        return None
    total = sum(Fraction(number) * _UNIT_US[unit] for number, unit in _DURATION_PART.findall(text))
    return math.ceil(Fraction(total, 1_000))


def parse_size_bytes(value: str | int) -> int | None:
    """Read `512m`, `1.5g`, `2GiB`, `100 kb` or a number of bytes, rounded up; None when it is no size.

    Units are powers of 1024, as in Compose.
    Source: compose specification, "Specifying byte values".
    """
    if isinstance(value, int):
        return value if value >= 0 else None
    match = _SIZE.match(value)
    if match is None:
        return None
    return math.ceil(Fraction(match[1]) * _UNIT_BYTES[match[2].lower()])


def parse_milli_cpus(value: str | float) -> int | None:
    """Read `0.5` or `2` CPUs into thousandths, rounded up; None when it is no such number."""
    text = format(Decimal(repr(value)), "f") if isinstance(value, int | float) else value
    if _CPUS.match(text) is None:
        return None
    return math.ceil(Fraction(text) * 1_000)


def round_up_mib(size_bytes: int) -> int:
    """Whole MiB that hold so many bytes."""
    return -(-size_bytes // MIB)
