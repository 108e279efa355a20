"""The lottery by power: whole numbers, fair, and untouched by who is left out behind the one that is taken."""

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import InvariantError
from freehold.crypto.hashing import sha256
from freehold.ledger.lottery import FRACTION_BITS, cost, ranking

ONE = 1 << FRACTION_BITS
tickets = st.binary(min_size=32, max_size=32)
members = st.lists(
    st.tuples(st.binary(min_size=32, max_size=32), st.integers(1, 1 << 53), tickets),
    min_size=1,
    max_size=8,
    unique_by=lambda member: member[0],
)


def test_the_logarithm_at_its_ends() -> None:
    assert cost(b"\xff" * 32) == 0
    assert cost(bytes(32)) == 256 * ONE
    assert cost(b"\x7f" + b"\xff" * 31) == ONE  # half of all: one bit
    assert cost((3 * (1 << 254) - 1).to_bytes(32, "big")) == 7656090530189244513  # log2(4/3), rounded up by one unit


@given(tickets)
def test_the_logarithm_is_that_of_floating_point(ticket: bytes) -> None:
    number = int.from_bytes(ticket, "big") + 1
    assert abs(cost(ticket) / ONE - (256 - log2(number))) < 1e-9


@given(tickets, tickets)
def test_a_higher_ticket_never_costs_more(left: bytes, right: bytes) -> None:
    low, high = sorted((left, right))
    assert cost(low) >= cost(high)


@given(members)
def test_the_order_depends_on_what_is_drawn_alone(entries: list[tuple[bytes, int, bytes]]) -> None:
    order = ranking(entries)
    assert ranking(reversed(entries)) == order
    for place in range(len(order)):
        left = [entry for entry in entries if entry[0] != order[place]]
        assert ranking(left) == order[:place] + order[place + 1 :]


def test_equal_costs_go_to_the_smaller_key() -> None:
    entries = [(bytes([n]) * 32, 5, b"\x11" * 32) for n in (3, 1, 2)]
    assert ranking(entries) == [bytes([n]) * 32 for n in (1, 2, 3)]


@pytest.mark.parametrize("powers", [[10, 10, 10, 10], [60, 20, 15, 5], [50] + [1] * 50])
def test_each_is_taken_as_often_as_its_power_says(powers: list[int]) -> None:
    rounds, wins = 400, [0] * len(powers)
    for number in range(rounds):
        entries = [(bytes([n]), power, sha256(b"%d %d" % (number, n))) for n, power in enumerate(powers)]
        wins[ranking(entries)[0][0]] += 1
    share = powers[0] / sum(powers)
    assert abs(wins[0] / rounds - share) < 4 * (share * (1 - share) / rounds) ** 0.5


def test_a_ticket_has_32_bytes() -> None:
    with pytest.raises(InvariantError):
        cost(bytes(31))
