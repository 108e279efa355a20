"""What a rule may look at while a block is executed: the state, the parameters, the block's height and time."""

from collections.abc import Callable
from functools import lru_cache

import msgspec

from freehold.base.errors import check
from freehold.base.presets import Preset
from freehold.ledger import keys, schedule
from freehold.ledger.events import Event
from freehold.ledger.records import EpochRecord, NodeSlot, Params, Totals
from freehold.ledger.state import Overlay, View, decode_record

Verify = Callable[[bytes, bytes, bytes], bool]  # public key, message, signature

PARAMS_VERSION = TOTALS_VERSION = 1
VALUE_NAMES = tuple(field.name for field in msgspec.structs.fields(Preset) if field.name != "name")


def preset_values(preset: Preset) -> list[int]:
    """Give a preset's values as `Params` holds them: in the order of its fields, without the name."""
    return [getattr(preset, name) for name in VALUE_NAMES]


def preset_of(params: Params) -> Preset:
    """Give the preset that a ledger runs on.

    Raises:
        InvariantError: the ledger was made with other values than these rules know.
    """
    check(len(params.values) == len(VALUE_NAMES), "params_values_match_preset", count=len(params.values))
    return Preset(name=params.preset, **dict(zip(VALUE_NAMES, params.values, strict=True)))


@lru_cache(maxsize=8)
def read_params(data: bytes) -> tuple[Params, Preset]:
    """Decode the parameters; only an upgrade changes them, so about once per ledger."""
    params = decode_record(data, Params)
    return params, preset_of(params)


def load_params(view: View) -> tuple[Params, Preset]:
    """Read a ledger's parameters and preset.

    Raises:
        InvariantError: the view holds no ledger.
    """
    data = view.get(keys.PARAMS)
    check(data is not None, "state_has_params")
    return read_params(data or b"")


class Context:
    """One block in execution. `events` and `data` belong to the transaction at hand."""

    __slots__ = (
        "chain_id",
        "data",
        "epoch",
        "events",
        "genesis_ms",
        "height",
        "params",
        "preset",
        "state",
        "time_ms",
        "validator_updates",
        "verify",
    )

    def __init__(self, view: View, *, height: int, time_ms: int, verify: Verify) -> None:
        params, preset = load_params(view)
        self.state = Overlay(view)
        self.params = params
        self.preset = preset
        self.chain_id = params.chain_id
        self.genesis_ms = params.genesis_ms
        self.height = height
        self.time_ms = time_ms
        self.epoch = schedule.epoch_at(preset, params.genesis_ms, time_ms)
        self.verify = verify
        self.events: list[Event] = []
        self.data = b""
        self.validator_updates: list[tuple[bytes, int]] = []  # of the block: key and power, 0 for who leaves

    @property
    def totals(self) -> Totals:
        """The ledger's counters as of now."""
        return self.state.need(keys.TOTALS, Totals)

    def add_totals(self, *, treasury: int = 0, fees: int = 0, node_slots: int = 0) -> None:
        """Add to the ledger's counters."""
        totals = self.totals
        self.state.put(
            keys.TOTALS,
            msgspec.structs.replace(
                totals,
                treasury=totals.treasury + treasury,
                fees=totals.fees + fees,
                node_slots=totals.node_slots + node_slots,
            ),
        )

    def slot(self, number: int) -> NodeSlot | None:
        """Give a row of the table from which witnesses are drawn."""
        return self.state.get(keys.node_slot_key(number), NodeSlot)

    def epoch_record(self, epoch: int) -> EpochRecord | None:
        """Give the record of an epoch that still stands in the ring, or None when it had no block."""
        record = self.state.get(keys.epoch_key(epoch, self.preset.report_epochs), EpochRecord)
        return record if record is not None and record.epoch == epoch else None

    def served_epoch(self, epoch: int) -> EpochRecord | None:
        """Give the record of a finished epoch that is not void, or None."""
        if epoch >= self.epoch:
            return None
        record = self.epoch_record(epoch)
        return record if record is not None and schedule.is_covered(self.preset, record) else None
