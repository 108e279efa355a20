"""What the HTTP layer asks of an engine: small, so that it runs over any engine, and over a fake in unit tests.

Threads: `prove` and `get` may be called from any thread; the rest from the event loop.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from freehold.indexer.records import BlockEvent, BlockRecord, BlockTx

__all__ = ["BlockEvent", "BlockRecord", "BlockTx", "Desk", "Halted", "Standing", "TxOutcome"]


class Halted(msgspec.Struct, frozen=True):
    """Why an engine makes no blocks, or what is wrong though it does; and what its operator does next."""

    code: str
    message: str
    hint: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine stands now.

    Attributes:
        height: of the newest block that is durable with its commit.
        time_ms: its block time.
        app_hash: the root of the state after it.
        oldest_height: the lowest height of a header whose state can still be proven.
        engine: its kind.
        validators: how many sign blocks now.
        proposing: whether it makes blocks now.
        halted: why it does not; None while it does.
        mempool_txs: transactions that wait.
        mempool_bytes: their size.
        notice: what is wrong with this validator though blocks are made, such as its clock; None while all is well.
        snapshot_height: of the newest snapshot that peers may have; 0 for none.
        snapshots_failed: how many were not taken since the start.
        faults: pieces of evidence of validators' misbehaviour in the blocks since the start.
    """

    height: int
    time_ms: int
    app_hash: bytes
    oldest_height: int
    engine: str
    validators: int
    proposing: bool
    halted: Halted | None
    mempool_txs: int
    mempool_bytes: int
    notice: Halted | None = None
    snapshot_height: int = 0
    snapshots_failed: int = 0
    faults: int = 0


class TxOutcome(msgspec.Struct, frozen=True):
    """What became of a transaction: height 0 while it is in no block."""

    code: int
    height: int = 0
    data: bytes = b""


class Desk(Protocol):
    """The calls; see the module."""

    @property
    def genesis(self) -> bytes:
        """The genesis document's bytes."""

    def standing(self) -> Standing:
        """Where the engine stands."""

    async def light_block(self, height: int) -> bytes:
        """The encoded light block of a height.

        Raises:
            HeightUnavailableError: that block is not kept any more, or not made yet.
        """

    def prove(self, key: bytes, height: int) -> tuple[bytes | None, bytes]:
        """The value at a key in the state whose root stands in the header of a height, with its encoded proof.

        Raises:
            HeightUnavailableError: that version is not kept any more, or not made yet.
        """

    def get(self, key: bytes, height: int) -> bytes | None:
        """The value at a key after the block of a height, without a proof.

        Raises:
            HeightUnavailableError: that version is not kept any more, or not made yet.
        """

    async def submit(self, tx: bytes) -> TxOutcome:
        """Check a transaction and let it wait in the mempool.

        Raises:
            RefusedError: there is no room now.
            EngineStoppedError: the engine has halted.
        """

    async def wait_committed(self, tx_id: bytes) -> TxOutcome:
        """Wait for the durable block that holds a transaction that `submit` took.

        Raises:
            RefusedError: it left the mempool without getting into a block.
            EngineStoppedError: the engine halted meanwhile.
        """

    async def wait_height(self, height: int) -> None:
        """Wait until the block of a height is durable.

        Raises:
            EngineStoppedError: the engine halted meanwhile.
        """

    async def relay(self, request: bytes) -> bytes:
        """Hand a JSON-RPC request to the engine, and give its answer.

        Raises:
            RefusedError: this engine has no such interface.
            UnreachableError: it does not answer.
        """

    def subscribe(self, receive: Callable[[BlockRecord], None]) -> None:
        """Call `receive` in the event loop after each durable block, in order."""

    async def block_range(self) -> tuple[int, int]:
        """The lowest and the newest height that `block_record` gives; (0, 0) before the first block."""

    async def block_record(self, height: int) -> BlockRecord:
        """The durable block of a height, from the block store.

        Raises:
            FreeholdError: it is not kept any more, not made yet, or the engine does not answer.
        """
