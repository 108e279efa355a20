"""The newest blocks in memory: their events for pages, their transactions for those who wait."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from freehold.consensus.application import OK, TxResult
from freehold.consensus.chain import CommittedBlock

MAX_BLOCKS: Final = 1_000
MAX_BYTES: Final = 128 << 20  # of their transactions, each with room for its events, so that full blocks do not fill it
TX_BYTES: Final = 512


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
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, block: CommittedBlock) -> tuple[bytes, ...]:
        """Take in the newest block.

        Returns:
            The names of its transactions, in order.
        """
        ids = tuple(self._identify(tx) for tx in block.txs)
        self._blocks.append((block, ids))
        self._bytes += _size(block)
        for index, tx_id in enumerate(ids):
            # The same bytes may stand twice; once they have succeeded, later copies can only fail.
            known = self._places.get(tx_id)
            if known is None or known[0].results[known[1]].code != OK:
                self._places[tx_id] = (block, index)
        while len(self._blocks) > MAX_BLOCKS or (self._bytes > MAX_BYTES and len(self._blocks) > 1):
            old, old_ids = self._blocks.popleft()
            self._bytes -= _size(old)
            for tx_id in old_ids:
                place = self._places.get(tx_id)
                if place is not None and place[0] is old:
                    del self._places[tx_id]
        return ids

    def fill(self, load: Callable[[int], CommittedBlock | None], newest: int) -> None:
        """Load the newest blocks after a start.

        Args:
            load: gives the block of a height, None when it is not kept.
            newest: height of the newest.
        """
        blocks: list[CommittedBlock] = []
        size = 0
        for height in range(newest, max(0, newest - MAX_BLOCKS), -1):
            block = load(height)
            if block is None or size > MAX_BYTES:
                break
            blocks.append(block)
            size += _size(block)
        for block in reversed(blocks):
            self.add(block)

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


def _size(block: CommittedBlock) -> int:
    return sum(len(tx) + TX_BYTES for tx in block.txs)
