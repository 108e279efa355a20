"""Restoring a snapshot, chunk by chunk, into a folder beside the state, which it replaces in one step when whole.

A chunk is refused by its hash, and whoever sent it with it. A chunk of the right hash whose keys do not lead to the
nodes that the app hash commits to shows that the whole snapshot is forged. Until the last chunk is checked the state
stands as it was; a crash leaves it so, and the partial folder is removed at the next start.
Spec: docs/spec/snapshots.md.
"""

import shutil
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from freehold.base.codec import encode
from freehold.base.errors import RemoteProtocolError
from freehold.consensus.records import encode_leaf
from freehold.consensus.snapshot_format import NodeFold, SnapshotMetadata, bad_snapshot, chunk_hash, decode_chunk
from freehold.consensus.state_store import DEFAULT_SPLIT, FORMAT, HEAD_KEY, Head
from freehold.consensus.storage import Storage
from freehold.consensus.tree import EMPTY_NODE, HASH_BYTES, Node
from freehold.crypto.smt import hash_path

RESTORING: Final = ".restoring"
RESTORED: Final = b"restored"  # the head's own bytes, until the first block is executed on the snapshot's state


class Verdict(IntEnum):
    """What is to be done after a chunk."""

    NEXT = 0
    DONE = 1  # it was the last one: the state can be taken
    BAD_CHUNK = 2  # fetch it again, from another peer
    NOT_NEXT = 3  # another one is needed first
    BAD_SNAPSHOT = 4  # give it up


class Step(NamedTuple):
    """Of a restore: what comes next, and which chunk that is about."""

    verdict: Verdict
    chunk: int
    why: str = ""


class Restore:
    """One snapshot on its way into a folder.

    Attributes:
        folder: that is written.
        metadata: of the snapshot.
    """

    def __init__(self, state: Path, metadata: SnapshotMetadata) -> None:
        """Begin.

        Args:
            state: the folder of the state that is to be replaced.
            metadata: of the snapshot; its app hash is one that the caller trusts.

        Raises:
            RemoteProtocolError: `bad_snapshot`: its nodes do not lead to its app hash.
            StorageError: the folder cannot be made.
        """
        self.metadata = metadata
        self.folder = state.with_name(state.name + RESTORING)
        self._nodes = metadata.nodes()
        discard(state)
        self._storage: Storage | None = Storage(self.folder, ("leaves", "undo", "head"))
        self._fold = NodeFold()
        self._next_node = 0
        self._next = 0

    def apply(self, index: int, chunk: bytes) -> Step:
        """Take a chunk.

        Raises:
            StorageError: it cannot be written; `abandon` leaves nothing.
        """
        if index < self._next:
            return Step(Verdict.NEXT, self._next)  # one that came twice
        if index != self._next:
            return Step(Verdict.NOT_NEXT, self._next)
        if chunk_hash(chunk) != self.metadata.chunks[index]:
            return Step(Verdict.BAD_CHUNK, index)
        try:
            self._take(chunk)
            self._next += 1
            if self._next < len(self.metadata.chunks):
                return Step(Verdict.NEXT, self._next)
            self._finish()
        except RemoteProtocolError as error:
            self.abandon()
            return Step(Verdict.BAD_SNAPSHOT, index, error.message)
        return Step(Verdict.DONE, self._next)

    def abandon(self) -> None:
        """Give it up: nothing is left."""
        if self._storage is not None:
            self._storage.close()
            self._storage = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _take(self, chunk: bytes) -> None:
        items = []
        for key, value in decode_chunk(chunk):
            path = hash_path(key)
            record = encode_leaf(path, key, value)
            self._check(self._fold.add(path, record[:HASH_BYTES]))
            items.append((path, record))
        if self._fold.leaves > self.metadata.leaves:
            raise bad_snapshot("it has more keys than it says")
        storage = self._open()

        def fill(txn: Any) -> None:
            with txn.cursor(db=storage.databases["leaves"]) as cursor:
                cursor.putmulti(items, append=True)

        storage.write(fill)

    def _check(self, done: tuple[int, Node] | None) -> None:
        """Compare a subtree that is whole now with what the app hash commits to; those that were passed are empty."""
        if done is None:
            return
        index, node = done
        passed = self._nodes[self._next_node : index]
        if self._nodes[index] != node or any(one != EMPTY_NODE for one in passed):
            raise bad_snapshot("its keys do not hash to the app hash")
        self._next_node = index + 1

    def _finish(self) -> None:
        self._check(self._fold.finish())
        if any(one != EMPTY_NODE for one in self._nodes[self._next_node :]):
            raise bad_snapshot("keys are missing")
        if self._fold.leaves != self.metadata.leaves:
            raise bad_snapshot("it has fewer keys than it says")
        storage = self._open()
        head = Head(FORMAT, DEFAULT_SPLIT, self.metadata.height, self.metadata.app_hash, RESTORED)
        storage.write(lambda txn: txn.put(HEAD_KEY, encode(head), db=storage.databases["head"]))
        storage.close()
        self._storage = None

    def _open(self) -> Storage:
        if self._storage is None:
            raise bad_snapshot("it was given up")
        return self._storage


def discard(state: Path) -> None:
    """Remove what an earlier restore into a state's place left."""
    shutil.rmtree(state.with_name(state.name + RESTORING), ignore_errors=True)
