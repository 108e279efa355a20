"""What the application's own side tells of each block: followers need neither the engine's index nor its events.

Both calls come from the threads that answer the engine, in the order of blocks; whoever follows from an event loop
hands them over to it.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from freehold.consensus.application import TxResult
from freehold.consensus.mempool import Dropped


class FinalBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A block that the application has executed and made durable.

    Attributes:
        height: of the block.
        time_ms: its time as the application was told it.
        hash: of its header.
        txs: its transactions, in order.
        results: theirs.
        app_hash: after it; stands in the next header.
        faults: pieces of evidence of misbehaviour that it holds; 0 where it was read back.
    """

    height: int
    time_ms: int
    hash: bytes
    txs: tuple[bytes, ...]
    results: tuple[TxResult, ...]
    app_hash: bytes
    faults: int = 0


class Follower(Protocol):
    """The calls; see the module."""

    def committed(self, block: FinalBlock) -> None:
        """Take in a block, after `Commit` made it durable and before the engine hears so."""

    def left(self, tx: bytes, dropped: Dropped) -> None:
        """Take in that a waiting transaction was checked again and may not wait any longer.

        Args:
            tx: its bytes.
            dropped: why; its `id` is the queue's own, no ledger's name of the transaction.
        """


class Clock(Protocol):
    """What compares this machine's clock with the votes'; see `freehold.consensus.comet.clock`."""

    def voting(self, height: int) -> None:
        """Take in that this node judges a proposal for a height, and will vote."""

    def decided(self, height: int, time_ms: int, signers: Sequence[bytes]) -> None:
        """Take in a decided block: its header's time, and the addresses whose votes for the one before it holds."""


class NoFollower:
    """Follows nothing."""

    def committed(self, block: FinalBlock) -> None:
        """Let it pass."""

    def left(self, tx: bytes, dropped: Dropped) -> None:
        """Let it pass."""
