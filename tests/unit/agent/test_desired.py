"""Whether a holder needs its fence."""

import pytest

from freehold.agent.core.desired import Want, desired_of
from freehold.ledger.records import Lease, Member, Term
from freehold.ledger.transactions import Probe, Resources

ME, OTHER = bytes([1]) * 32, bytes([2]) * 32
ACCEPT_BY = 60_000


def _lease(*others: Member) -> Lease:
    return Lease(
        version=1,
        tenant=bytes(32),
        deployment=bytes(32),
        service="web",
        replica=0,
        members=[Member(ME, 0, 10, bytes(32), False), *others],
        terms=[Term(0, 10, 10)],
        resources=Resources(1, 1, 0),
        image_digest=bytes(32),
        spec_hash=bytes(32),
        probe=Probe(0, 0, ""),
        ports=[],
        price_per_hour=0,
        reserve_per_hour=0,
        prepaid_ms=3_600_000,
        failover_empty=True,
        created_ms=0,
        accept_by_ms=ACCEPT_BY,
        started_ms=10,
        void_ms_at_start=0,
        closed_ms=0,
        close_reason="",
        settled_epoch=0,
        escrow=0,
        bounty=0,
        deposit=0,
        bounty_epoch=-1,
        challenge=b"",
        paid=0,
        refunded=0,
        settlements=[],
        settled_ms=0,
        local_volume=False,
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
