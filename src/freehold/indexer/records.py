"""A durable block as history keeps it: transactions by id, events as text."""

from typing import Protocol

import msgspec


class BlockEvent(msgspec.Struct, frozen=True):
    """Something that happened in a block: its kind and its attributes as text."""

    kind: str
    attributes: dict[str, str]


class BlockTx(msgspec.Struct, frozen=True):
    """A transaction in a block and what it did."""

    id: bytes
    code: int
    data: bytes
    events: list[BlockEvent]


class BlockRecord(msgspec.Struct, frozen=True):
    """A durable block, as history keeps it."""

    height: int
    time_ms: int
    hash: bytes
    txs: list[BlockTx]


class BlockSource(Protocol):
    """Where blocks of the past are read again; called from the event loop."""

    async def block_range(self) -> tuple[int, int]:
        """The lowest and the newest height that can be read; (0, 0) before the first block."""

    async def block_record(self, height: int) -> BlockRecord:
        """The durable block of a height.

        Raises:
            FreeholdError: it is not kept any more, not made yet, or cannot be read now.
        """
