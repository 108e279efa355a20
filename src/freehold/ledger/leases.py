"""Arithmetic over a lease: its own clock, its end, who held it when. Pure functions of the record and of void time.

A lease's clock counts milliseconds of service since `started_ms` without the void epochs. `void_ms` is always the total
length of void epochs before the epoch that is looked at (`EpochRecord.void_ms_before`, or `Totals.void_ms` for the
present). An epoch that is void and holds the start extends the lease by its whole length: in the tenant's favour, by
less than an epoch. Spec: docs/spec/leases.md.
"""

from enum import StrEnum

from freehold.ledger.records import Lease


class LeaseStatus(StrEnum):
    """What a lease is, as the ledger sees it at an instant."""

    WAITING = "waiting"  # for its primary to accept
    EXPIRED = "expired"  # the primary let its deadline pass; anyone may refund
    RUNNING = "running"
    ENDED = "ended"  # the prepaid time is over; its last claim removes it
    CLOSED = "closed"  # by its tenant; its last claim removes it


def end_ms(lease: Lease, void_ms: int) -> int:
    """Give the instant at which a lease ends or ended; 0 when it has not started."""
    if lease.closed_ms:
        return lease.closed_ms
    if not lease.started_ms:
        return 0
    return lease.started_ms + lease.prepaid_ms + void_ms - lease.void_ms_at_start


def served_ms(lease: Lease, time_ms: int, void_ms: int) -> int:
    """Give the lease's own clock at an instant that is not before its start."""
    return max(0, time_ms - lease.started_ms - (void_ms - lease.void_ms_at_start))


def status(lease: Lease, now_ms: int, void_ms: int) -> LeaseStatus:
    """Give a lease's status at the present."""
    if lease.closed_ms:
        return LeaseStatus.CLOSED
    if not lease.started_ms:
        return LeaseStatus.EXPIRED if now_ms > lease.accept_by_ms else LeaseStatus.WAITING
    return LeaseStatus.ENDED if now_ms >= end_ms(lease, void_ms) else LeaseStatus.RUNNING


def is_running(lease: Lease, now_ms: int, void_ms: int) -> bool:
    """Whether a lease has started and not ended."""
    return status(lease, now_ms, void_ms) is LeaseStatus.RUNNING


def term_at(lease: Lease, time_ms: int) -> int:
    """Give the number of the term in force at an instant, from 1; 0 before the first."""
    number = 0
    for index, term in enumerate(lease.terms):
        if term.from_ms <= time_ms:
            number = index + 1
    return number


def holder_at(lease: Lease, time_ms: int) -> int | None:
    """Give the index of the member that holds the lease at an instant, or None."""
    number = term_at(lease, time_ms)
    return lease.terms[number - 1].member if number else None


def standby_span(lease: Lease, index: int) -> tuple[int, int | None] | None:
    """Give from when, and until when (None: to the end), a member stands by; None when it never does.

    The primary never stands by; a standby does from its acceptance until a term of its own is in force.
    """
    member = lease.members[index]
    if index == 0 or not member.accepted_ms:
        return None
    for term in lease.terms:
        if term.member == index:
            return (member.accepted_ms, term.from_ms)
    return (member.accepted_ms, None)


def next_standby(lease: Lease) -> int | None:
    """Give the index of the standby that would take over: the first that accepted, not lost, not the holder."""
    holder = lease.terms[-1].member if lease.terms else 0
    for index, member in enumerate(lease.members):
        if index != holder and index and member.accepted_ms and not member.lost:
            return index
    return None


def can_fail_over(lease: Lease) -> bool:
    """Whether the ledger may hand this lease to a standby: there is one, and no data would be lost unasked."""
    return next_standby(lease) is not None and (lease.failover_empty or not lease.local_volume)
