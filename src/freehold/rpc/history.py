"""What the newest blocks did, in memory: lists for the status page, outcomes by transaction id.

Bounded twice: by blocks, and by transactions and events together, so that full blocks do not fill the memory. It begins
empty when the daemon starts; an indexer will keep more. Nothing here is proven. Spec: docs/spec/rpc.md.
"""

from collections import deque
from itertools import islice
from typing import Final

from freehold.consensus.application import OK
from freehold.rpc.answers import BlockRow, EventRow, PaymentRow
from freehold.rpc.desk import BlockEvent, BlockRecord, BlockTx, TxOutcome

MAX_BLOCKS: Final = 1_000
MAX_ROWS: Final = 100_000
PAYMENT: Final = "payment"


class History:
    """A ring of blocks, oldest first."""

    def __init__(self, max_blocks: int = MAX_BLOCKS, max_rows: int = MAX_ROWS) -> None:
        self._max_blocks = max_blocks
        self._max_rows = max_rows
        self._blocks: deque[BlockRecord] = deque()
        self._outcomes: dict[bytes, TxOutcome] = {}
        self._payments: deque[PaymentRow] = deque()
        self._rows = 0

    def add(self, block: BlockRecord) -> None:
        """Take in the next block; the oldest leave when there is no room."""
        self._blocks.append(block)
        self._rows += _rows_of(block)
        for tx in block.txs:
            # The same bytes may stand twice; once they have succeeded, later copies can only fail.
            known = self._outcomes.get(tx.id)
            if known is None or known.code != OK:
                self._outcomes[tx.id] = TxOutcome(tx.code, block.height, tx.data)
            self._payments += [_payment_row(block, event.attributes) for event in tx.events if event.kind == PAYMENT]
        while len(self._blocks) > 1 and (len(self._blocks) > self._max_blocks or self._rows > self._max_rows):
            gone = self._blocks.popleft()
            self._rows -= _rows_of(gone)
            for tx in gone.txs:
                outcome = self._outcomes.get(tx.id)
                if outcome is not None and outcome.height == gone.height:
                    del self._outcomes[tx.id]
            while self._payments and self._payments[0].height <= gone.height:
                self._payments.popleft()

    @property
    def oldest_height(self) -> int:
        """Of the oldest block that is remembered; 0 when there is none."""
        return self._blocks[0].height if self._blocks else 0

    def outcome(self, tx_id: bytes) -> TxOutcome | None:
        """What a transaction of a remembered block did."""
        return self._outcomes.get(tx_id)

    def blocks(self, limit: int) -> list[BlockRow]:
        """The newest blocks, newest first."""
        rows: list[BlockRow] = []
        for block in reversed(self._blocks):
            if len(rows) == limit:
                break
            failed = sum(1 for tx in block.txs if tx.code)
            rows.append(BlockRow(block.height, block.time_ms, block.hash.hex(), len(block.txs), failed))
        return rows

    def events(self, after_height: int, limit: int) -> tuple[list[EventRow], int]:
        """Events of blocks above a height, oldest first, whole blocks at a time.

        Args:
            after_height: only higher blocks.
            limit: after this many rows no further block is begun, so one block may exceed it.

        Returns:
            The rows, and the height to go on after.
        """
        rows: list[EventRow] = []
        reached = after_height
        for block in self._blocks:
            if block.height <= after_height:
                continue
            if len(rows) >= limit:
                break
            rows += [_event_row(block, tx, event) for tx in block.txs for event in tx.events]
            reached = block.height
        return rows, reached

    def payments(self, limit: int) -> list[PaymentRow]:
        """The newest payments, newest first."""
        return list(islice(reversed(self._payments), limit))


def _rows_of(block: BlockRecord) -> int:
    return sum(1 + len(tx.events) for tx in block.txs)


def _event_row(block: BlockRecord, tx: BlockTx, event: BlockEvent) -> EventRow:
    return EventRow(block.height, block.time_ms, tx.id.hex(), event.kind, event.attributes)


def _payment_row(block: BlockRecord, attributes: dict[str, str]) -> PaymentRow:
    return PaymentRow(
        block.height,
        block.time_ms,
        attributes["lease"],
        int(attributes["epoch"]),
        attributes["to"],
        int(attributes["amount"]),
        attributes["role"],
        attributes.get("node", ""),
    )
