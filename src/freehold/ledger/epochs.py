"""The beginning of a block: its beacon, the epoch it falls in, the ticks it covers, the void time before it.

Invariant: whatever the length of a halt, the next block does the same small amount of work.
Spec: docs/spec/epochs.md.
"""

from msgspec.structs import replace

from freehold.base.errors import check
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.ledger import keys, schedule
from freehold.ledger.context import Context
from freehold.ledger.events import EpochBegan
from freehold.ledger.records import BeaconRecord, EpochRecord, Totals

EPOCH_VERSION = BEACON_VERSION = 1


def beacon_value(chain_id: str, height: int, signature: bytes) -> bytes:
    """Give the beacon that a proposer's signature makes."""
    return tagged_hash(Purpose.BEACON, chain_id.encode(), height.to_bytes(8, "big"), signature)


def begin_block(ctx: Context, beacon: bytes) -> None:
    """Write the block's beacon, its epoch's record and the counters.

    Raises:
        InvariantError: height or time do not follow those of the state.
    """
    totals = ctx.totals
    check(ctx.height == totals.height + 1, "height_follows", height=ctx.height, previous=totals.height)
    check(ctx.time_ms > totals.time_ms, "time_increases", time_ms=ctx.time_ms, previous=totals.time_ms)
    ctx.state.put(keys.beacon_key(ctx.height), BeaconRecord(BEACON_VERSION, ctx.height, beacon))
    void_ms = totals.void_ms
    tick = schedule.tick_at(ctx.preset, ctx.genesis_ms, ctx.time_ms)
    key = keys.epoch_key(ctx.epoch, ctx.preset.report_epochs)
    if ctx.epoch == totals.epoch:
        record = ctx.state.need(key, EpochRecord)
        if tick > record.last_tick:
            ctx.state.put(key, replace(record, ticks_covered=record.ticks_covered + 1, last_tick=tick))
    else:
        void_ms += void_since(ctx, totals)
        ctx.state.put(
            key,
            EpochRecord(
                version=EPOCH_VERSION,
                epoch=ctx.epoch,
                first_height=ctx.height,
                first_ms=ctx.time_ms,
                node_slots=totals.node_slots,
                beacon=beacon,
                ticks_covered=1,
                last_tick=tick,
                void_ms_before=void_ms,
            ),
        )
        ctx.events.append(EpochBegan(ctx.epoch, ctx.height, void_ms))
    ctx.state.put(
        keys.TOTALS, replace(totals, epoch=ctx.epoch, void_ms=void_ms, height=ctx.height, time_ms=ctx.time_ms)
    )


def void_since(ctx: Context, totals: Totals) -> int:
    """Give the length of the void epochs from the last one that had a block up to the present one."""
    epochs = ctx.epoch - totals.epoch - 1
    last = ctx.epoch_record(totals.epoch) if totals.epoch >= 0 else None
    if last is not None and not schedule.is_covered(ctx.preset, last):
        epochs += 1
    return epochs * ctx.preset.epoch_ms
