"""Draws over verified slots: the pure draw asks for rows, this fetches them with proofs until it is content."""

from collections.abc import Set as AbstractSet
from functools import partial

from freehold.agent.chain import ChainView
from freehold.base.errors import RefusedError
from freehold.ledger.draw import draw
from freehold.ledger.keys import epoch_key, node_slot_key
from freehold.ledger.records import EpochRecord, NodeSlot

MAX_ROUNDS = 64
KEPT_RECORDS = 4


class SlotTable:
    """Verified rows of the slot table, kept for one epoch."""

    def __init__(self, chain: ChainView) -> None:
        self._chain = chain
        self._epoch = -1
        self._rows: dict[int, NodeSlot | None] = {}
        self._records: dict[int, EpochRecord] = {}

    async def epoch_record(self, epoch: int) -> EpochRecord:
        """The verified record of an epoch.

        Raises:
            RefusedError: the ledger has none, or no longer.
        """
        known = self._records.get(epoch)
        if known is None:
            key = epoch_key(epoch, self._chain.preset.report_epochs)
            record = (await self._chain.ledger.read([key])).get(key, EpochRecord)
            if record is None or record.epoch != epoch:
                raise RefusedError(f"the ledger has no record of epoch {epoch}", code="wrong_epoch")
            known = self._records[epoch] = record
            for old in sorted(self._records)[:-KEPT_RECORDS]:
                del self._records[old]
        return known

    async def row(self, slot: int) -> NodeSlot | None:
        """A verified row."""
        await self._fetch({slot})
        return self._rows[slot]

    async def draw(
        self, *, beacon: bytes, target: bytes, epoch: int, slots: int, excluded: AbstractSet[bytes]
    ) -> list[int]:
        """Draw as `ledger.draw.draw` does, over verified rows."""
        self._turn(epoch)
        for _ in range(MAX_ROUNDS):
            wanted: set[int] = set()
            drawn = draw(
                self._chain.preset,
                beacon=beacon,
                target=target,
                epoch=epoch,
                slots=slots,
                lookup=partial(self._lookup, wanted),
                excluded=excluded,
            )
            if not wanted:
                return drawn
            await self._fetch(wanted)
        raise RefusedError("the draw did not come to an end", code="wrong_draw")

    def _lookup(self, wanted: set[int], slot: int) -> NodeSlot | None:
        """A row; one that is not here is noted and, for this round, passed over, so that a batch of them is found."""
        if slot not in self._rows:
            wanted.add(slot)
            return None
        return self._rows[slot]

    async def _fetch(self, slots: set[int]) -> None:
        missing = sorted(slot for slot in slots if slot not in self._rows)
        if missing:
            keys = {slot: node_slot_key(slot) for slot in missing}
            found = await self._chain.ledger.read(list(keys.values()))
            for slot in missing:
                self._rows[slot] = found.get(keys[slot], NodeSlot)

    def _turn(self, epoch: int) -> None:
        if epoch > self._epoch:
            self._epoch = epoch
            self._rows.clear()
