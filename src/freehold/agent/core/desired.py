"""What the ledger wants of one node for one lease: a pure function of the lease record and the newest header's time.

docs/spec/agent.md. The term rule: a new holder runs only from the first header at or after the term's `from_ms`, an
old one stops as soon as it sees the decision.
"""

from enum import StrEnum

from freehold.base.codec import Record
from freehold.ledger.leases import end_ms
from freehold.ledger.records import Lease


class Want(StrEnum):
    """What this node has to do for a lease."""

    GONE = "gone"  # not (or no longer) ours: stop, remove everything
    PREPARE = "prepare"  # get spec and image, then accept
    HOLD = "hold"  # accepted: keep image and capacity, run nothing
    RUN = "run"  # holder of the term in force
    SEAL = "seal"  # funds ended: stop, keep volumes for the grace


class Desired(Record):
    """`term` is the term to run (RUN) or the newest decided one; `fenced` that the fence must hold to run."""

    want: Want
    term: int
    fenced: bool
    reason: str


def desired_of(lease: Lease | None, node: bytes, header_ms: int, void_ms: int, grace_ms: int) -> Desired:
    """What the ledger wants of `node`.

    Args:
        lease: the verified record; None when the ledger has none.
        node: our id.
        header_ms: time of the newest verified header.
        void_ms: the ledger's running total of void time.
        grace_ms: how long volumes are kept after funds end.
    """
    if lease is None:
        return Desired(Want.GONE, 0, False, "the ledger no longer holds this lease")
    mine = next((member for member in lease.members if member.node == node), None)
    decided = len(lease.terms)
    if mine is None:
        return Desired(Want.GONE, decided, False, "this node is not a member")
    if mine.lost:
        return Desired(Want.GONE, decided, False, "the ledger gave the term to another member")
    if lease.closed_ms:
        return Desired(Want.GONE, decided, False, f"closed: {lease.close_reason}")
    if not mine.accepted_ms:
        if not lease.started_ms and header_ms > lease.accept_by_ms:
            return Desired(Want.GONE, decided, False, "the accept deadline has passed")
        return Desired(Want.PREPARE, decided, False, "")
    end = end_ms(lease, void_ms)
    if end and header_ms >= end + grace_ms:
        return Desired(Want.GONE, decided, False, "funds ended and the grace is over")
    if end and header_ms >= end:
        return Desired(Want.SEAL, decided, False, "funds ended; top up to go on")
    if not decided or lease.members[lease.terms[-1].member].node != node:
        return Desired(Want.HOLD, decided, False, "standby")
    if lease.terms[-1].from_ms > header_ms:
        return Desired(Want.HOLD, decided, False, "the new term is not yet in force")
    # One that may still accept counts: this node may never hear that it did, and that it took over.
    standbys = any(
        member.node != node and not member.lost and (member.accepted_ms or header_ms <= lease.accept_by_ms)
        for member in lease.members
    )
    return Desired(Want.RUN, decided, standbys, "")
