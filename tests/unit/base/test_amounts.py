"""Amounts are exact, bounded text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.amounts import MAX_AMOUNT, add, format_amount, parse_amount
from freehold.base.errors import InvalidInputError, InvariantError


@given(st.integers(0, MAX_AMOUNT))
def test_text_round_trips(units: int) -> None:
    assert parse_amount(format_amount(units)) == units


@pytest.mark.parametrize("text", ["", "-1", "1e3", "01", "1.", ".5", "1.12345678", "٣", "922337203686", "1\n2"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_amount(text)


def test_arithmetic_never_leaves_the_range() -> None:
    with pytest.raises(InvariantError):
        add(MAX_AMOUNT, 1)
