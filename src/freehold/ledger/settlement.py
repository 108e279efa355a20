"""Lazy settlement: a claim pays a lease's epochs, in order, from what the reports on the ledger say.

Invariants: epochs are claimed strictly in order and only once their report window has closed, so for any history the
way in which claims are cut changes nothing for tenant, farms and witnesses; nothing is paid twice (`settled_ms` only
grows); what is not payable goes back to the tenant. No rule loops over nodes or leases. Spec: docs/spec/leases.md.
"""

from bisect import bisect_left
from collections import Counter
from itertools import pairwise

import msgspec
from msgspec.structs import replace

from freehold.base.errors import check
from freehold.base.limits import MAX_CLAIM_EPOCHS
from freehold.base.presets import Preset
from freehold.ledger import keys, leases, schedule
from freehold.ledger.accounts import credit
from freehold.ledger.challenges import resolve_expired
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.deployments import end_lease
from freehold.ledger.events import Payment
from freehold.ledger.pricing import PERMILL, cost_between, lease_cost
from freehold.ledger.records import EpochRecord, Lease, Member, Node, ReportRecord, Settlement
from freehold.ledger.transactions import Claim, Tx


class Seen(msgspec.Struct, frozen=True):
    """What a member's witnesses said of it for an epoch: owners of those that saw it, how many were drawn."""

    served: bool  # its own report has the lease's bit, and enough witnesses list it
    owners: tuple[bytes, ...] = ()
    drawn: int = 0


class Shares(msgspec.Struct, frozen=True):
    """How a payment is split."""

    farm: int
    each_witness: int
    treasury: int


class _Tally:
    """What a claim moves, summed up so that each account is written once."""

    __slots__ = ("credits", "lease", "treasury")

    def __init__(self, lease: bytes) -> None:
        self.lease = lease
        self.credits: Counter[bytes] = Counter()
        self.treasury = 0


def split_payment(preset: Preset, amount: int, witnesses: int) -> Shares:
    """Split a payment: the farm's part, one share for each witness that counted, the rest to the treasury."""
    farm = amount * preset.farm_permill // PERMILL
    each = amount * preset.witness_permill // PERMILL // witnesses
    return Shares(farm, each, amount - farm - each * witnesses)


def witnesses_seen(ctx: Context, member: Member, epoch: int) -> Seen:
    """Look up what a member's own report and its drawn witnesses' reports say of it."""
    depth = ctx.preset.report_epochs
    report = ctx.state.get(keys.report_key(member.node, epoch, depth), ReportRecord)
    if report is None or report.epoch != epoch or not has_bit(report.lease_bits, member.slot):
        return Seen(False)
    target = ctx.state.need(keys.node_key(member.node), Node).slot
    owners: list[bytes] = []
    for number in report.witnesses:
        slot = ctx.slot(number)
        check(slot is not None, "drawn_slot_exists", slot=number)
        if slot is None:
            continue
        witness = ctx.state.get(keys.report_key(slot.node, epoch, depth), ReportRecord)
        if witness is None or witness.epoch != epoch or not _lists(witness.duty_targets, target):
            continue
        if (target, member.slot) not in witness.duty_failed:
            owners.append(slot.owner)
    return Seen(len(owners) >= report.threshold, tuple(owners), len(report.witnesses))


def has_bit(bits: bytes, number: int) -> bool:
    """Whether a bit is set, least significant first."""
    return bool(bits[number >> 3] >> (number & 7) & 1)


def _lists(targets: list[int], target: int) -> bool:
    at = bisect_left(targets, target)
    return at < len(targets) and targets[at] == target


def process_claim(ctx: Context, tx: Tx, body: Claim) -> Code:
    """Settle epochs first..last of a lease, and end the lease when its last epoch is among them."""
    del tx  # anyone may
    lease = ctx.state.get(keys.lease_key(body.lease), Lease)
    if lease is None:
        return Code.UNKNOWN_LEASE
    if not lease.started_ms:
        return Code.LEASE_NOT_ACTIVE
    if body.last_epoch - body.first_epoch >= MAX_CLAIM_EPOCHS:
        return Code.TOO_MANY
    start = max(lease.settled_epoch, schedule.oldest_claimable(ctx.preset, ctx.epoch))
    if not lease.settled_epoch <= body.first_epoch <= start or body.last_epoch < body.first_epoch:
        return Code.WRONG_EPOCH
    if ctx.time_ms < schedule.window_end_ms(ctx.preset, ctx.genesis_ms, body.last_epoch):
        return Code.OUTSIDE_WINDOW
    tally = _Tally(body.lease)
    lease = replace(lease, settled_epoch=start)
    is_last = False
    for epoch in range(start, body.last_epoch + 1):
        lease, is_last = _settle_epoch(ctx, tally, lease, epoch)
        if is_last:
            break
    if is_last and lease.challenge:
        code, lease = resolve_expired(ctx, lease)
        if code:
            return code
    _pay_out(ctx, tally)
    if is_last:
        end_lease(ctx, body.lease, lease, "ended", lease.close_reason)
    else:
        ctx.state.put(keys.lease_key(body.lease), lease)
    return Code.OK


def _pay_out(ctx: Context, tally: _Tally) -> None:
    for account, amount in tally.credits.items():
        credit(ctx, account, amount)
    fee = min(ctx.preset.min_fee, tally.treasury)
    ctx.add_totals(treasury=tally.treasury - fee, fees=fee)


def _settle_epoch(ctx: Context, tally: _Tally, lease: Lease, epoch: int) -> tuple[Lease, bool]:
    """Settle one epoch whose window has closed. Returns the lease, and whether it has ended with this epoch."""
    lease = replace(lease, settled_epoch=epoch + 1)
    epoch_end = schedule.epoch_end_ms(ctx.preset, ctx.genesis_ms, epoch)
    record = ctx.served_epoch(epoch)
    if record is None:
        return lease, bool(lease.closed_ms) and lease.closed_ms <= epoch_end
    void_ms = record.void_ms_before
    lease_end = leases.end_ms(lease, void_ms)
    start = max(epoch_end - ctx.preset.epoch_ms, lease.started_ms)
    end = min(epoch_end, lease_end)
    if end > start:
        lease = _pay_epoch(ctx, tally, lease, record, start, end)
    return lease, lease_end <= epoch_end


def _pay_epoch(ctx: Context, tally: _Tally, lease: Lease, record: EpochRecord, start: int, end: int) -> Lease:
    """Pay a lease's part of one epoch, cut where terms change; what is not payable goes back."""
    epoch, void_ms = record.epoch, record.void_ms_before
    served_to = leases.served_ms(lease, end, void_ms)
    standbys = len(lease.members) - 1
    # From `settled_ms` rather than from `start`: epochs that expired unclaimed refund themselves here.
    cost = lease_cost(lease.price_per_hour, lease.reserve_per_hour, standbys, lease.settled_ms, served_to)
    seen = [witnesses_seen(ctx, member, epoch) for member in lease.members]
    paid = 0
    cuts = sorted({start, end, *(term.from_ms for term in lease.terms if start < term.from_ms < end)})
    for first, last in pairwise(cuts):
        holder = leases.holder_at(lease, first)
        if holder is not None and seen[holder].served:
            amount = _span_cost(lease, lease.price_per_hour, first, last, void_ms)
            paid += _pay(ctx, tally, lease.members[holder], epoch, amount, seen[holder], "holder")
    for index in range(1, len(lease.members)):
        span = leases.standby_span(lease, index)
        if span is None or not seen[index].served:
            continue
        first, last = max(start, span[0]), end if span[1] is None else min(end, span[1])
        if first < last:
            amount = _span_cost(lease, lease.reserve_per_hour, first, last, void_ms)
            paid += _pay(ctx, tally, lease.members[index], epoch, amount, seen[index], "standby")
    refund = cost - paid
    if refund:
        tally.credits[lease.tenant] += refund
        ctx.events.append(Payment(tally.lease, epoch, lease.tenant, refund, "refund"))
    term = leases.term_at(lease, end - 1)
    member = lease.terms[term - 1].member
    entry = Settlement(epoch, member, term, len(seen[member].owners), seen[member].drawn, paid, refund)
    return replace(
        lease,
        settled_ms=served_to,
        escrow=lease.escrow - cost,
        paid=lease.paid + paid,
        refunded=lease.refunded + refund,
        settlements=[*lease.settlements, entry][-MAX_CLAIM_EPOCHS:],
    )


def _span_cost(lease: Lease, price: int, first: int, last: int, void_ms: int) -> int:
    return cost_between(price, leases.served_ms(lease, first, void_ms), leases.served_ms(lease, last, void_ms))


def _pay(ctx: Context, tally: _Tally, member: Member, epoch: int, amount: int, seen: Seen, role: str) -> int:
    """Book one payment with its shares. Returns the whole amount."""
    if not amount:
        return 0
    shares = split_payment(ctx.preset, amount, len(seen.owners))
    farm = ctx.state.need(keys.node_key(member.node), Node).farm
    tally.credits[farm] += shares.farm
    tally.treasury += shares.treasury
    ctx.events.append(Payment(tally.lease, epoch, farm, shares.farm, role, member.node))
    if shares.each_witness:
        for owner in seen.owners:
            tally.credits[owner] += shares.each_witness
            ctx.events.append(Payment(tally.lease, epoch, owner, shares.each_witness, "witness"))
    if shares.treasury:
        ctx.events.append(Payment(tally.lease, epoch, b"", shares.treasury, "treasury"))
    return amount
