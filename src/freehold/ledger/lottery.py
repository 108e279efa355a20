"""A lottery by power: who of several, each with a number drawn at random, is taken.

Invariants: whole numbers only, so every machine takes the same one; a member of power w among members of power W is
taken with the chance w / W, however the others' power is split; leaving out anyone but the one taken changes nothing.
Spec: docs/spec/beacon.md.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final

from freehold.base.errors import check

TICKET_BYTES: Final = 32
FRACTION_BITS: Final = 64
_BITS: Final = 8 * TICKET_BYTES
_PRECISION: Final = 128


def cost(ticket: bytes) -> int:
    """Give -log2 of (ticket + 1) / 2^256, in units of 2^-64, each digit of the logarithm cut off at 128 bits.

    Divided by its power this is the time at which a member's clock rings, were it to ring at random: the first wins.

    Args:
        ticket: 32 bytes, uniform; read as a big-endian number.
    """
    check(len(ticket) == TICKET_BYTES, "ticket_length", length=len(ticket))
    number = int.from_bytes(ticket, "big") + 1
    whole = number.bit_length() - 1
    mantissa = (number << _PRECISION) >> whole  # from 1 to below 2
    fraction = 0
    for _ in range(FRACTION_BITS):
        mantissa = mantissa * mantissa >> _PRECISION
        bit = mantissa >> (_PRECISION + 1)
        mantissa >>= bit
        fraction = fraction << 1 | bit
    return (_BITS << FRACTION_BITS) - (whole << FRACTION_BITS | fraction)


def most_left_out(powers: Sequence[int]) -> int:
    """Give how many members a lottery over more than 2/3 of the power can do without, and so how far it can be bent.

    Args:
        powers: of all members, each at least 1.
    """
    left = 0
    for count, power in enumerate(sorted(powers)):
        left += power
        if 3 * left >= sum(powers):
            return count
    return len(powers)


def ranking(entries: Iterable[tuple[bytes, int, bytes]]) -> list[bytes]:
    """Order members by the lottery: the first is taken, each next one would be if those before it were not there.

    Args:
        entries: id, power (at least 1) and ticket of each; ids differ.
    """
    return [id_ for _, id_ in sorted((Fraction(cost(ticket), power), id_) for id_, power, ticket in entries)]
