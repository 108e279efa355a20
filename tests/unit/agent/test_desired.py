"""Whether a holder needs its fence."""

import pytest
from lease_kit import BLANK
from msgspec.structs import replace

from freehold.agent.core.desired import Want, desired_of
from freehold.ledger.records import Lease, Member, Term

ME, OTHER = bytes([1]) * 32, bytes([2]) * 32
ACCEPT_BY = 60_000


def _lease(*others: Member) -> Lease:
    return replace(
        BLANK,
        members=[Member(ME, 0, 10, bytes(32), False), *others],
        terms=[Term(0, 10, 10)],
        prepaid_ms=3_600_000,
        accept_by_ms=ACCEPT_BY,
        started_ms=10,
    )


@pytest.mark.parametrize(
    ("others", "now_ms", "fenced"),
    [
        ((), 20, False),
        ((Member(OTHER, 0, 15, bytes(32), False),), 20, True),
        # it may accept, and take over, without this node's ever hearing of it
        ((Member(OTHER, 0, 0, b"", False),), 20, True),
        ((Member(OTHER, 0, 0, b"", False),), ACCEPT_BY, True),
        ((Member(OTHER, 0, 0, b"", False),), ACCEPT_BY + 1, False),
        ((Member(OTHER, 0, 5, bytes(32), True),), 20, False),
    ],
)
def test_a_holder_is_fenced_while_another_may_take_over(
    others: tuple[Member, ...], now_ms: int, *, fenced: bool
) -> None:
    desired = desired_of(_lease(*others), ME, now_ms, 0, 60_000)
    assert (desired.want, desired.fenced) == (Want.RUN, fenced)
