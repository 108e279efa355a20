"""Challenge, verdict, failover: the ledger itself hands a lease to its next standby when t witnesses say "down".

Invariants: one open challenge a lease; witnesses come from the beacon of the block after the challenge and from owners
with no part in the lease; a new term is in force only a fence time and a clock allowance after the block that decided
it; every timely verdict earns the same, whichever way it goes. Spec: docs/spec/leases.md.
"""

from collections.abc import Callable

from msgspec.structs import replace

from freehold.base.presets import Preset
from freehold.ledger import keys, leases
from freehold.ledger.accounts import credit, debit
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.deployments import free_member
from freehold.ledger.draw import draw, threshold_for
from freehold.ledger.events import ChallengeOpened, ChallengeResolved, TermDecided, VerdictGiven
from freehold.ledger.records import BeaconRecord, ChallengeRecord, Lease, Node, NodeSlot, Term
from freehold.ledger.transactions import Challenge, Resolve, Tx, Verdict, challenge_id

CHALLENGE_VERSION = 1


def process_challenge(ctx: Context, tx: Tx, body: Challenge) -> Code:
    """Say that the holder of the term in force is down; the bond is locked until it is resolved."""
    lease = ctx.state.get(keys.lease_key(body.lease), Lease)
    if lease is None:
        return Code.UNKNOWN_LEASE
    code = _may_challenge(ctx, lease, body.term, tx.sender)
    if code:
        return code
    if lease.challenge:
        code, lease = resolve_expired(ctx, lease)
        if code:
            return code
    code = debit(ctx, tx.sender, ctx.preset.challenge_bond)
    if code:
        return code
    new_id = challenge_id(body.lease, body.term, tx.sender, ctx.height)
    record = ChallengeRecord(
        version=CHALLENGE_VERSION,
        lease=body.lease,
        term=body.term,
        challenger=tx.sender,
        posted_height=ctx.height,
        posted_ms=ctx.time_ms,
        bond=ctx.preset.challenge_bond,
        bounty=lease.bounty,
        witnesses=[],
        threshold=0,
        verdicts=[],
        decided_ms=0,
        epoch=ctx.epoch,
    )
    ctx.state.put(keys.challenge_key(new_id), record)
    ctx.state.put(keys.lease_key(body.lease), replace(lease, challenge=new_id, bounty=0))
    ctx.data = new_id
    ctx.events.append(ChallengeOpened(new_id, body.lease, body.term, tx.sender))
    return Code.OK


def _may_challenge(ctx: Context, lease: Lease, term: int, challenger: bytes) -> Code:
    if lease.closed_ms:
        return Code.LEASE_CLOSED
    if not leases.is_running(lease, ctx.time_ms, ctx.totals.void_ms):
        return Code.LEASE_NOT_ACTIVE
    if term != len(lease.terms):
        return Code.STALE_TERM
    if lease.terms[-1].from_ms > ctx.time_ms:
        return Code.LEASE_NOT_ACTIVE  # the term is decided, but its holder may not run yet
    if challenger != lease.tenant:
        holder = lease.terms[-1].member
        if not any(
            member.node == challenger and member.accepted_ms and not member.lost
            for index, member in enumerate(lease.members)
            if index != holder
        ):
            return Code.NOT_MEMBER
    return Code.OK if leases.can_fail_over(lease) else Code.NO_STANDBY


def challenge_draw(
    preset: Preset,
    record: ChallengeRecord,
    *,
    challenge: bytes,
    beacon: bytes,
    slots: int,
    lookup: Callable[[int], NodeSlot | None],
    lease: Lease,
    owner_of: Callable[[bytes], bytes],
) -> list[int]:
    """Draw a challenge's witnesses.

    Args:
        preset: the ledger's values.
        record: the challenge.
        challenge: its id, the target of the draw.
        beacon: of the block after the one that holds the challenge.
        slots: M of the epoch in which it was posted.
        lookup: gives a slot's row.
        lease: the challenged lease.
        owner_of: gives the farm of a node.
    """
    excluded = {owner_of(member.node) for member in lease.members} | {lease.tenant, record.challenger}
    return draw(
        preset,
        beacon=beacon,
        target=challenge,
        epoch=record.epoch,
        slots=slots,
        lookup=lookup,
        excluded=excluded,
    )


def _with_witnesses(ctx: Context, challenge: bytes, record: ChallengeRecord, lease: Lease) -> ChallengeRecord | None:
    """Give the record with its witnesses drawn, or None when the beacon is not there (yet, or no more)."""
    if record.threshold:
        return record
    height = record.posted_height + 1
    beacon = ctx.state.get(keys.beacon_key(height), BeaconRecord)
    epoch = ctx.epoch_record(record.epoch)
    if beacon is None or beacon.height != height or epoch is None:
        return None
    witnesses = challenge_draw(
        ctx.preset,
        record,
        challenge=challenge,
        beacon=beacon.value,
        slots=epoch.node_slots,
        lookup=ctx.slot,
        lease=lease,
        owner_of=lambda node: ctx.state.need(keys.node_key(node), Node).farm,
    )
    return replace(record, witnesses=witnesses, threshold=threshold_for(len(witnesses), ctx.preset))


def process_verdict(ctx: Context, tx: Tx, body: Verdict) -> Code:
    """Record what a drawn witness saw; at the t-th "down" the lease moves at once."""
    record = ctx.state.get(keys.challenge_key(body.challenge), ChallengeRecord)
    if record is None:
        return Code.UNKNOWN_CHALLENGE
    if ctx.time_ms > record.posted_ms + ctx.preset.verdict_window_ms:
        return Code.OUTSIDE_WINDOW
    node = ctx.state.need(keys.node_key(tx.sender), Node)  # free bodies are let in from nodes alone
    lease = ctx.state.need(keys.lease_key(record.lease), Lease)
    drawn = _with_witnesses(ctx, body.challenge, record, lease)
    if drawn is None or node.slot not in drawn.witnesses:
        return Code.NOT_DRAWN
    if any(slot == node.slot for slot, _ in drawn.verdicts):
        return Code.DUPLICATE_VERDICT
    drawn = replace(drawn, verdicts=[*drawn.verdicts, (node.slot, body.down)])
    ctx.events.append(VerdictGiven(body.challenge, record.lease, tx.sender, body.down))
    if not drawn.decided_ms and sum(down for _, down in drawn.verdicts) >= drawn.threshold:
        drawn = replace(drawn, decided_ms=ctx.time_ms)
        _fail_over(ctx, drawn, lease)
    ctx.state.put(keys.challenge_key(body.challenge), drawn)
    return Code.OK


def _fail_over(ctx: Context, record: ChallengeRecord, lease: Lease) -> None:
    """Hand the lease to its next standby, unless it ended meanwhile."""
    successor = leases.next_standby(lease)
    if successor is None or not leases.is_running(lease, ctx.time_ms, ctx.totals.void_ms):
        return
    from_ms = ctx.time_ms + ctx.preset.fence_ms + ctx.preset.clock_allowance_ms
    members = list(lease.members)
    loser = lease.terms[-1].member
    members[loser] = replace(members[loser], lost=True)
    free_member(ctx, lease, members[loser])
    term = Term(successor, ctx.time_ms, from_ms)
    ctx.state.put(keys.lease_key(record.lease), replace(lease, members=members, terms=[*lease.terms, term]))
    ctx.events.append(TermDecided(record.lease, len(lease.terms) + 1, members[successor].node, from_ms))


def process_resolve(ctx: Context, tx: Tx, body: Resolve) -> Code:
    """Settle a challenge whose verdict window has closed."""
    del tx  # anyone may
    record = ctx.state.get(keys.challenge_key(body.challenge), ChallengeRecord)
    if record is None:
        return Code.UNKNOWN_CHALLENGE
    lease = ctx.state.need(keys.lease_key(record.lease), Lease)
    code, lease = resolve_expired(ctx, lease)
    if not code:
        ctx.state.put(keys.lease_key(record.lease), lease)
    return code


def resolve_expired(ctx: Context, lease: Lease) -> tuple[Code, Lease]:
    """Settle a lease's challenge if its window has closed: fees to the witnesses, then bond and bounty.

    The record of the challenge goes; the lease comes back for the caller to write.
    """
    challenge = lease.challenge
    record = ctx.state.need(keys.challenge_key(challenge), ChallengeRecord)
    if ctx.time_ms <= record.posted_ms + ctx.preset.verdict_window_ms:
        return Code.CHALLENGE_OPEN, lease
    was_down = record.decided_ms > 0
    fees = len(record.verdicts) * ctx.preset.verdict_fee
    for number, _ in record.verdicts:
        slot = ctx.slot(number)
        if slot is not None:
            credit(ctx, slot.owner, ctx.preset.verdict_fee)
    if was_down:
        # The bounty pays the fees; a lease whose bounty was earned before leaves them to the bond.
        credit(ctx, record.challenger, record.bond + record.bounty - fees)
        lease = replace(lease, challenge=b"", bounty_epoch=ctx.epoch if record.bounty else lease.bounty_epoch)
    else:
        ctx.add_totals(treasury=record.bond - fees)
        lease = replace(lease, challenge=b"", bounty=lease.bounty + record.bounty)
    ctx.state.delete(keys.challenge_key(challenge))
    ctx.events.append(ChallengeResolved(challenge, record.lease, was_down, record.bounty if was_down else 0))
    return Code.OK, lease
