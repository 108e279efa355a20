"""A node's one report for an epoch: checked against the draw when it arrives, stored in a ring, never swept.

Invariant: at most one report for each (node, epoch), inside the epoch's window; what names others counts only where the
draw says so. Spec: docs/spec/epochs.md, docs/spec/witnesses.md.
"""

from itertools import pairwise

from msgspec.structs import replace

from freehold.base.codec import encode
from freehold.base.limits import MAX_DUTY_FAILED, MAX_DUTY_TARGETS, MAX_LEASES_PER_NODE, MAX_WITNESSES
from freehold.crypto import mmr
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.ledger import keys, schedule
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.draw import draw, is_active, threshold_for
from freehold.ledger.events import Reported
from freehold.ledger.farms import LEASE_SLOT_BYTES
from freehold.ledger.fields import MAX_U32, is_ascending, is_ids
from freehold.ledger.records import EpochRecord, Node, NodeHistory, NodeSlot, ReportRecord
from freehold.ledger.transactions import Report, Tx

REPORT_VERSION = 1


def report_leaf(record: ReportRecord) -> bytes:
    """Give the leaf by which a report stands in its node's Merkle mountain range."""
    return tagged_hash(Purpose.REPORT_LEAF, encode(record))


def check_report_fields(body: Report) -> Code:
    """Check a report's shape."""
    if not is_ids([body.evidence_root, body.duty_root]) or len(body.lease_bits) != LEASE_SLOT_BYTES:
        return Code.BAD_FIELD
    if len(body.witnesses) > MAX_WITNESSES or len(body.duty_targets) > MAX_DUTY_TARGETS:
        return Code.TOO_MANY
    if not 0 <= body.duty_count <= MAX_U32:
        return Code.BAD_FIELD
    if len(body.duty_failed) > MAX_DUTY_FAILED:
        return Code.TOO_MANY
    if not is_ascending(body.duty_targets) or any(one >= other for one, other in pairwise(body.duty_failed)):
        return Code.NOT_SORTED
    if any(not 0 <= slot <= MAX_U32 or not 0 <= lease < MAX_LEASES_PER_NODE for slot, lease in body.duty_failed):
        return Code.BAD_FIELD
    if body.duty_targets and not (body.duty_targets[0] >= 0 and body.duty_targets[-1] <= MAX_U32):
        return Code.BAD_FIELD
    return Code.OK


def process_report(ctx: Context, tx: Tx, body: Report) -> Code:
    """Store a node's report for a finished epoch whose window is open."""
    code = check_report_fields(body)
    if code:
        return code
    node = ctx.state.need(keys.node_key(tx.sender), Node)  # free bodies are let in from nodes alone
    slot = ctx.state.need(keys.node_slot_key(node.slot), NodeSlot)
    epoch = body.epoch
    if not 0 <= epoch < ctx.epoch or not is_active(slot, epoch):
        return Code.WRONG_EPOCH
    if ctx.time_ms >= schedule.window_end_ms(ctx.preset, ctx.genesis_ms, epoch):
        return Code.OUTSIDE_WINDOW
    key = keys.report_key(tx.sender, epoch, ctx.preset.report_epochs)
    previous = ctx.state.get(key, ReportRecord)
    if previous is not None and previous.epoch >= epoch:
        return Code.DUPLICATE_REPORT
    epoch_record = ctx.served_epoch(epoch)
    if epoch_record is None:
        return Code.VOID_EPOCH
    if body.witnesses != report_draw(ctx, epoch_record, tx.sender, node):
        return Code.WRONG_DRAW
    record = ReportRecord(
        version=REPORT_VERSION,
        epoch=epoch,
        received_ms=ctx.time_ms,
        evidence_root=body.evidence_root,
        lease_bits=body.lease_bits,
        witnesses=body.witnesses,
        threshold=threshold_for(len(body.witnesses), ctx.preset),
        duty_targets=body.duty_targets,
        duty_root=body.duty_root,
        duty_count=body.duty_count,
        duty_failed=body.duty_failed,
    )
    ctx.state.put(key, record)
    _append_history(ctx, tx.sender, node, record)
    ctx.events.append(Reported(tx.sender, epoch))
    return Code.OK


def report_draw(ctx: Context, record: EpochRecord, node_id: bytes, node: Node) -> list[int]:
    """Give the slots drawn to witness a node in an epoch."""
    return draw(
        ctx.preset,
        beacon=record.beacon,
        target=node_id,
        epoch=record.epoch,
        slots=record.node_slots,
        lookup=ctx.slot,
        excluded={node.farm},
    )


def _append_history(ctx: Context, node_id: bytes, node: Node, record: ReportRecord) -> None:
    """Add the report to the range over all reports, whose root the node's record keeps."""
    key = keys.node_history_key(node_id)
    history = ctx.state.need(key, NodeHistory)
    peaks = mmr.append(mmr.Peaks(history.count, tuple(history.peaks)), report_leaf(record))
    ctx.state.put(key, NodeHistory(history.version, peaks.count, list(peaks.peaks)))
    ctx.state.put(
        keys.node_key(node_id),
        replace(
            node,
            last_report_epoch=max(node.last_report_epoch, record.epoch),
            history_count=peaks.count,
            history_root=mmr.root(peaks),
        ),
    )
