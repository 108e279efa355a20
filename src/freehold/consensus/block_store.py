"""Blocks on disk: the proposal before it is signed, its commit and results after, old ones pruned.

Invariant: a block without a commit is the pending proposal, there is at most one, it stands right above the newest
final block, and it is never replaced by another. Spec: docs/spec/embedded-engine.md.
"""

from pathlib import Path
from typing import Any, Final, Self

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import check
from freehold.base.limits import MIB
from freehold.consensus.application import TxResult
from freehold.consensus.errors import StorageDamagedError
from freehold.consensus.storage import MAX_MAP_BYTES, Storage
from freehold.light.blocks import Block
from freehold.light.types import Commit

FORMAT: Final = 1
MAX_RESULTS_BYTES: Final = 64 * MIB
PRUNE_BATCH: Final = 64  # heights removed with one block, so that no block pays for many
_GENESIS: Final = b"genesis"
_PENDING: Final = b"pending"


class BlockRecord(Record):
    """What executing a block gave.

    Attributes:
        format: of this record.
        app_hash: after the block; the next header carries it.
        results_hash: the next header's `last_results_hash`.
        mempool_txs: how many of its transactions came from the mempool.
        results: of its transactions, in order, with their events.
    """

    format: int
    app_hash: bytes
    results_hash: bytes
    mempool_txs: int
    results: list[TxResult]


class BlockStore:
    """The blocks under one folder.

    Attributes:
        height: of the newest final block, 0 before the first.
        lowest: of the oldest block kept, 0 before the first.
    """

    def __init__(self, path: Path, *, max_map_bytes: int = MAX_MAP_BYTES) -> None:
        """Open or create.

        Raises:
            StorageError: the folder cannot be opened.
        """
        self._storage = Storage(path, ("blocks", "commits", "results", "meta"), max_map_bytes=max_map_bytes)
        self.height = self._edge("commits", last=True)
        self.lowest = self._edge("blocks", last=False)

    def close(self) -> None:
        """Close the store."""
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bind_genesis(self, digest: bytes) -> None:
        """Remember on first use which genesis these blocks follow, and refuse any other.

        Args:
            digest: SHA-256 of the genesis document.

        Raises:
            StorageDamagedError: `other_genesis`.
        """
        known = self._read("meta", _GENESIS)
        if known is None:
            db = self._storage.databases["meta"]
            self._storage.write(lambda txn: txn.put(_GENESIS, digest, db=db))
        elif known != digest:
            raise StorageDamagedError(
                "the data folder belongs to a chain with another genesis",
                code="other_genesis",
                hint="give the genesis file this folder was made with, or start in a new folder",
            )

    def block(self, height: int) -> Block | None:
        """The final or pending block of a height."""
        raw = self._read("blocks", _key(height))
        return None if raw is None else Block.decode(raw)

    def commit(self, height: int) -> Commit | None:
        """The commit for the final block of a height."""
        raw = self._read("commits", _key(height))
        return None if raw is None else Commit.decode(raw)

    def record(self, height: int) -> BlockRecord | None:
        """What the final block of a height gave."""
        raw = self._read("results", _key(height))
        if raw is None:
            return None
        record = decode(raw, BlockRecord, max_bytes=MAX_RESULTS_BYTES)
        if record.format != FORMAT:
            raise StorageDamagedError(f"the results of block {height} have an unknown format", code="blocks_damaged")
        return record

    def pending(self) -> Block | None:
        """The proposal that is not final yet."""
        return self.block(self.height + 1)

    def pending_mempool_txs(self) -> int:
        """How many of the pending block's transactions came from the mempool."""
        return int.from_bytes(self._read("meta", _PENDING) or b"", "big")

    def save_proposal(self, block: Block, mempool_txs: int) -> None:
        """Store the next block before it is signed.

        Args:
            block: the proposal.
            mempool_txs: how many of its transactions came from the mempool.

        Raises:
            StorageError: it is not stored; it must not be signed.
        """
        height = block.header.height
        check(height == self.height + 1, "proposal_is_next", height=height, newest=self.height)
        check(self._read("blocks", _key(height)) is None, "proposal_not_replaced", height=height)
        databases = self._storage.databases

        def fill(txn: Any) -> None:
            txn.put(_key(height), block.encode(), db=databases["blocks"])
            txn.put(_PENDING, mempool_txs.to_bytes(4, "big"), db=databases["meta"])

        self._storage.write(fill)
        self.lowest = self.lowest or height

    def save_final(self, commit: Commit, record: BlockRecord, *, prune_below: int = 0) -> None:
        """Make the pending block final.

        Args:
            commit: for it.
            record: what executing it gave.
            prune_below: blocks below this height are removed, a bounded number at a time.

        Raises:
            StorageError: it is still pending.
        """
        height = commit.height
        check(height == self.height + 1, "final_is_pending", height=height, newest=self.height)
        databases = self._storage.databases
        stop = min(prune_below, height, self.lowest + PRUNE_BATCH)

        def fill(txn: Any) -> None:
            txn.put(_key(height), commit.encode(), db=databases["commits"])
            txn.put(_key(height), encode(record), db=databases["results"])
            for old in range(self.lowest, stop):
                for name in ("blocks", "commits", "results"):
                    txn.delete(_key(old), db=databases[name])

        self._storage.write(fill)
        self.height = height
        self.lowest = max(self.lowest, stop)

    def _read(self, name: str, key: bytes) -> bytes | None:
        with self._storage.lock:
            raw = self._storage.get(name, key)
            return None if raw is None else bytes(raw)

    def _edge(self, name: str, *, last: bool) -> int:
        with self._storage.snapshot(name) as cursor:
            found = cursor.last() if last else cursor.first()
            return int.from_bytes(cursor.key(), "big") if found else 0


def _key(height: int) -> bytes:
    return height.to_bytes(8, "big")
