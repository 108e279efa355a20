"""The newest blocks in memory: their events for pages, their transactions for those who wait."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from freehold.consensus.application import TxResult
from freehold.consensus.chain import CommittedBlock

MAX_BLOCKS: Final = 1_000
MAX_TXS: Final = 200_000  # in all of them, so that full blocks do not fill the memory


class CommittedTx(msgspec.Struct, frozen=True):
    """A transaction in a final block.

    Attributes:
        id: its name.
        height: of the block.
        index: its place there.
        result: what it did.
    """

    id: bytes
    height: int
    index: int
    result: TxResult


class RecentBlocks:
    """A window over the newest blocks."""

    def __init__(self, identify: Callable[[bytes], bytes]) -> None:
        """Make an empty window.

        Args:
            identify: gives the name of a transaction.
        """
        self._identify = identify
        self._blocks: deque[tuple[CommittedBlock, tuple[bytes, ...]]] = deque()
        self._places: dict[bytes, tuple[CommittedBlock, int]] = {}
        self._txs = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, block: CommittedBlock) -> tuple[bytes, ...]:
        """Take in the newest block.

        Returns:
            The names of its transactions, in order.
        """
        ids = tuple(self._identify(tx) for tx in block.txs)
        self._blocks.append((block, ids))
        self._txs += len(ids)
        for index, tx_id in enumerate(ids):
            # A transaction that stands twice did something the first time only.
            self._places.setdefault(tx_id, (block, index))
        while len(self._blocks) > MAX_BLOCKS or (self._txs > MAX_TXS and len(self._blocks) > 1):
            old, old_ids = self._blocks.popleft()
            self._txs -= len(old_ids)
            for tx_id in old_ids:
                place = self._places.get(tx_id)
                if place is not None and place[0] is old:
                    del self._places[tx_id]
        return ids

    def find(self, tx_id: bytes) -> CommittedTx | None:
        """Where a transaction stands, if in one of these blocks."""
        place = self._places.get(tx_id)
        if place is None:
            return None
        block, index = place
        return CommittedTx(tx_id, block.height, index, block.results[index])

    def newest(self, count: int) -> Sequence[CommittedBlock]:
        """At most `count` blocks, the newest first."""
        wanted = min(count, len(self._blocks))
        return [self._blocks[-1 - at][0] for at in range(wanted)]
