"""State sync for an application over the state store: what it offers, what it takes, when it takes snapshots.

The engine verifies headers and asks; a snapshot is believed only when its tree leads to the app hash that the engine
verified. Snapshots are taken by a child process, so that neither blocks nor checks wait for them.

Threads: `listed` and `load` may be called from any thread; the rest by one at a time. Spec: docs/spec/snapshots.md.
"""

import logging
import subprocess
import sys
from pathlib import Path
from threading import Lock, Thread
from typing import Final, NamedTuple

import msgspec

from freehold.base.errors import CodecError, RemoteProtocolError
from freehold.consensus import application as abci
from freehold.consensus.application import ChunkResult, OfferResult
from freehold.consensus.errors import StorageError
from freehold.consensus.snapshot_format import CHUNK_BYTES, SNAPSHOT_FORMAT, decode_metadata, snapshot_hash
from freehold.consensus.snapshot_restore import RESTORED, Restore, Verdict, discard
from freehold.consensus.snapshot_store import SnapshotFolder
from freehold.consensus.state_store import StateStore, newest_head
from freehold.consensus.storage import settle

SNAPSHOTS: Final = "snapshots"

log = logging.getLogger(__name__)


class SnapshotPlan(msgspec.Struct, frozen=True):
    """When snapshots are taken, and how many are kept.

    Attributes:
        interval: a snapshot of each height that it divides; 0 for none.
        keep: at least 1.
        chunk_bytes: of each chunk at most.
    """

    interval: int = 0
    keep: int = 2
    chunk_bytes: int = CHUNK_BYTES


class SnapshotStanding(NamedTuple):
    """What became of snapshots: height of the newest, 0 for none, and how many were not taken since the start."""

    height: int
    failed: int


NO_STANDING: Final = SnapshotStanding(0, 0)


NO_SNAPSHOTS: Final = SnapshotPlan()


class StateSync:
    """See the module.

    Attributes:
        folder: of the snapshots.
    """

    def __init__(self, state: StateStore, path: Path, chain_id: str, plan: SnapshotPlan = NO_SNAPSHOTS) -> None:
        """Bind a store.

        Args:
            state: open.
            path: its folder; snapshots lie beside it.
            chain_id: of the ledger.
            plan: when to take them.
        """
        self.folder = SnapshotFolder(path.parent / SNAPSHOTS)
        self._state = state
        self._path = path
        self._chain_id = chain_id
        self._plan = plan
        self._restore: Restore | None = None
        self._lock = Lock()  # over what follows: two threads look at it
        self._taker: Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._closing = False
        self._taking = 0
        self._wanted = 0
        self._failed = 0

    def standing(self) -> SnapshotStanding:
        """What became of snapshots; from any thread."""
        return SnapshotStanding(max(self.folder.heights(), default=0), self._failed)

    def listed(self) -> tuple[abci.Snapshot, ...]:
        """Give the snapshots that stand, newest first."""
        return tuple(
            abci.Snapshot(
                height=metadata.height,
                format=metadata.format,
                chunks=len(metadata.chunks),
                hash=snapshot_hash(data),
                metadata=data,
            )
            for data, metadata in self.folder.listed()
        )

    def load(self, height: int, format_: int, index: int) -> bytes:
        """Give a chunk; empty when it is not there."""
        return self.folder.load(height, format_, index) or b""

    def offer(self, snapshot: abci.Snapshot, app_hash: bytes) -> OfferResult:
        """Say whether a snapshot that a peer has is restored, and begin with it.

        Args:
            snapshot: on the peer's word.
            app_hash: of its height, as the engine verified it.

        Raises:
            StorageError: the folder cannot be made.
        """
        self._give_up()
        if snapshot.format != SNAPSHOT_FORMAT:
            return self._refused(OfferResult.REJECT_FORMAT, f"format {snapshot.format} is not known here")
        try:
            metadata = decode_metadata(snapshot.metadata)
        except CodecError as error:
            return self._refused(OfferResult.REJECT_SENDER, error.message)
        said = (metadata.height, len(metadata.chunks), snapshot_hash(snapshot.metadata))
        if said != (snapshot.height, snapshot.chunks, snapshot.hash):
            return self._refused(OfferResult.REJECT_SENDER, "the offer contradicts its own metadata")
        if metadata.chain_id != self._chain_id:
            return self._refused(OfferResult.REJECT_SENDER, f"it is of chain {metadata.chain_id[:50]}")
        if metadata.app_hash != app_hash:
            return self._refused(OfferResult.REJECT_SENDER, "its app hash is not the one of the verified header")
        if metadata.height < self._state.height:
            return self._refused(OfferResult.REJECT, f"this state is at height {self._state.height} already")
        try:
            self._restore = Restore(self._path, metadata)
        except RemoteProtocolError as error:
            return self._refused(OfferResult.REJECT_SENDER, error.message)
        log.info("restoring the state of height %d, %d chunks", metadata.height, len(metadata.chunks))
        return OfferResult.ACCEPT

    def apply(self, index: int, chunk: bytes, sender: str) -> abci.ApplyChunkResponse:
        """Take a chunk of the snapshot that was accepted; after the last one the state is the snapshot's.

        Raises:
            StorageFullError: no room; nothing is left of it, and the state stands as it was.
            StorageError: it cannot be written; likewise.
        """
        restore = self._restore
        if restore is None:
            return abci.ApplyChunkResponse(ChunkResult.ABORT)
        try:
            step = restore.apply(index, chunk)
            if step.verdict is Verdict.DONE:
                self._state.replace(restore.folder)
                self._restore = None
                log.info("the state is that of height %d now", self._state.height)
        except StorageError:
            self._give_up()
            raise
        match step.verdict:
            case Verdict.BAD_CHUNK:
                log.warning("chunk %d of peer %s has another hash", index, sender[:64])
                return abci.ApplyChunkResponse(ChunkResult.RETRY, (step.chunk,), (sender,))
            case Verdict.NOT_NEXT:
                return abci.ApplyChunkResponse(ChunkResult.RETRY, (step.chunk,))
            case Verdict.BAD_SNAPSHOT:
                log.warning("%s", step.why)
                self._restore = None
                return abci.ApplyChunkResponse(ChunkResult.REJECT_SNAPSHOT, (), (sender,))
            case _:
                total = len(restore.metadata.chunks)
                if (index + 1) * 10 // total > index * 10 // total:
                    log.info("restoring: %d of %d chunks", index + 1, total)
                return abci.ApplyChunkResponse(ChunkResult.ACCEPT)

    def committed(self) -> None:
        """Have a snapshot taken when the newest height asks for one; while one is being taken, the next one waits."""
        height, interval = self._state.height, self._plan.interval
        if not interval or height % interval:
            return
        with self._lock:
            self._wanted = height
            if self._taker is None:
                self._taker = Thread(target=self._take, name="snapshots", daemon=True)
                self._taker.start()

    def lowest_needed(self, retain: int) -> int:
        """Lower a retain height so far that a peer can go on from every snapshot here: it needs the blocks since."""
        with self._lock:
            pending = [height for height in (self._taking, self._wanted) if height]
        return min([retain, *pending, *self.folder.heights()])

    def close(self) -> None:
        """End what is under way."""
        self._give_up()
        with self._lock:
            taker, self._closing = self._taker, True
            if self._child is not None:
                self._child.terminate()
        if taker is not None:
            taker.join()

    def _take(self) -> None:
        """Take snapshots, each by a child, until none is wanted."""
        while True:
            with self._lock:
                self._taking, self._wanted = self._wanted, 0
                if not self._taking or self._closing:
                    self._taker = self._child = None
                    return
                try:
                    child = self._child = self._start(self._taking)
                except OSError as error:  # no process to be had; the next one may be
                    self._miss(error)
                    continue
            _, words = child.communicate()
            if child.returncode and not self._closing:
                self._miss(words.decode(errors="replace").strip().rpartition("\n")[2][:300] or child.returncode)
            if not self._closing:
                self._state.release_readers()

    def _miss(self, why: object) -> None:
        self._failed += 1
        log.warning("the snapshot of height %d was not taken: %s", self._taking, why)

    def _start(self, height: int) -> "subprocess.Popen[bytes]":
        plan = self._plan
        numbers = (height, plan.keep, plan.chunk_bytes)
        arguments = (str(self._path), str(self.folder.path), self._chain_id, *map(str, numbers))
        return subprocess.Popen(
            [sys.executable, "-m", "freehold.consensus.snapshot_writer", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _give_up(self) -> None:
        if self._restore is not None:
            self._restore.abandon()
            self._restore = None

    def _refused(self, result: OfferResult, why: str) -> OfferResult:
        log.warning("an offered snapshot is refused: %s", why)
        return result


def recover(path: Path) -> None:
    """Before a state is opened: end or undo what a crash interrupted.

    Args:
        path: of the state's folder.

    Raises:
        StorageError: it failed.
    """
    settle(path)
    discard(path)


def is_only_restored(path: Path) -> bool:
    """Whether a state is a snapshot's on which no block was executed yet; after `recover`, before it is opened.

    The engine takes over the height of a restored state in several steps, and has no way back from a crash between
    them: it would have a height, and no votes for it. Its first block ends that; until then a start begins anew.

    Args:
        path: of the state's folder.

    Raises:
        StorageError: it cannot be read.
    """
    return (path / "data.mdb").exists() and newest_head(path).meta == RESTORED
