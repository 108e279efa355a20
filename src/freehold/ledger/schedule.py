"""When things happen: epochs, ticks, windows and reporting slots as pure functions of block time.

Source: PROTOCOLS sections 4 and 10; docs/spec/epochs.md. All times are milliseconds of block time since the Unix epoch.
"""

from freehold.base.presets import Preset
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.ledger.records import EpochRecord


def epoch_at(preset: Preset, genesis_ms: int, time_ms: int) -> int:
    """Give the epoch that holds an instant; negative before genesis."""
    return (time_ms - genesis_ms) // preset.epoch_ms


def epoch_start_ms(preset: Preset, genesis_ms: int, epoch: int) -> int:
    """Give the first instant of an epoch."""
    return genesis_ms + epoch * preset.epoch_ms


def epoch_end_ms(preset: Preset, genesis_ms: int, epoch: int) -> int:
    """Give the first instant after an epoch, at which its report window opens."""
    return genesis_ms + (epoch + 1) * preset.epoch_ms


def window_end_ms(preset: Preset, genesis_ms: int, epoch: int) -> int:
    """Give the first instant after an epoch's report window: from then on it can be claimed."""
    return epoch_end_ms(preset, genesis_ms, epoch) + preset.report_window_ms


def report_due_ms(preset: Preset, genesis_ms: int, node: bytes, epoch: int) -> int:
    """Give the instant at which a node sends its report: its own slot in the first part of the window."""
    digest = tagged_hash(Purpose.NODE_SLOT, node, epoch.to_bytes(8, "big"))
    offset = int.from_bytes(digest[:8], "big") % preset.report_slot_ms
    return epoch_end_ms(preset, genesis_ms, epoch) + offset


def ticks_per_epoch(preset: Preset) -> int:
    """Give the number of ticks of an epoch; a tick is the longest gap between blocks."""
    return -(-preset.epoch_ms // preset.tick_ms)


def most_blocks(preset: Preset, span_ms: int) -> int:
    """Give the most blocks that a span of block time holds: the engine waits half a tick at least after each."""
    return -(-2 * span_ms // preset.tick_ms)


def tick_at(preset: Preset, genesis_ms: int, time_ms: int) -> int:
    """Give the tick, within its epoch, of an instant."""
    return (time_ms - genesis_ms) % preset.epoch_ms // preset.tick_ms


def is_covered(preset: Preset, record: EpochRecord) -> bool:
    """Whether enough ticks of a finished epoch held a block; if not, it is void."""
    return record.ticks_covered * 100 >= preset.void_percent * ticks_per_epoch(preset)


def oldest_claimable(preset: Preset, epoch: int) -> int:
    """Give the oldest epoch whose reports still live in the present one; earlier ones refund themselves."""
    return max(0, epoch - preset.report_epochs + 1)
