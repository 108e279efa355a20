"""Taking a snapshot: a process of its own reads one version of the state beside the ledger that goes on writing.

LMDB gives the reader one unchanging version for as long as it reads; undo records in that same version lead back to the
height that was asked for, so that all validators take theirs of the same height. What is held in memory is one chunk,
the leaves that changed since that height, and one path of the tree. The folder gets its name only when whole.
`python -m freehold.consensus.snapshot_writer STATE SNAPSHOTS CHAIN HEIGHT KEEP CHUNK_BYTES` is what the ledger
starts; its last line on standard error says why a snapshot was not taken.
"""

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from freehold.base.codec import decode
from freehold.base.errors import ExitCode, FreeholdError, InvalidInputError
from freehold.base.limits import MIB
from freehold.consensus.errors import (
    HeightUnavailableError,
    StorageDamagedError,
    StorageError,
    StorageFullError,
)
from freehold.consensus.records import Undo, record_key, record_value
from freehold.consensus.snapshot_format import (
    CHUNK_BYTES,
    MAX_CHUNKS,
    NODES,
    NodeFold,
    SnapshotMetadata,
    chunk_hash,
    describe,
    encode_metadata,
    encode_record,
    root_of,
)
from freehold.consensus.snapshot_store import METADATA, SnapshotFolder, chunk_name
from freehold.consensus.state_store import HEAD_KEY, MAX_META_BYTES, Head
from freehold.consensus.storage import MAX_MAP_BYTES, write_file
from freehold.consensus.tree import EMPTY_NODE, HASH_BYTES

NICE: Final = 10
LEFT_FREE_BYTES: Final = 64 * MIB  # for the ledger, which stops when its disk is full
LATEST: Final = -1


def take_snapshot(
    state: Path,
    folder: SnapshotFolder,
    chain_id: str,
    *,
    height: int = LATEST,
    keep: int,
    chunk_bytes: int = CHUNK_BYTES,
) -> SnapshotMetadata:
    """Write a snapshot of a version that the state keeps, and let older ones go.

    Args:
        state: the folder of the state, whoever else uses it.
        folder: takes the snapshot.
        chain_id: of the ledger.
        height: of the version; the newest by default.
        keep: snapshots to keep, the new one included.
        chunk_bytes: of each chunk at most, but for a record that is longer.

    Returns:
        Its metadata; that of an earlier call when it stands already.

    Raises:
        HeightUnavailableError: that version is not kept any more, or not made yet.
        InvalidInputError: no state is there, or another process takes a snapshot.
        StorageFullError: no room, or too little would be left for the ledger; nothing is left of it.
        StorageError: it cannot be read or written.
    """
    if not (state / "data.mdb").exists():
        raise InvalidInputError(
            f"{state} holds no state", code="no_state", hint="start the ledger first: `freehold ledger run --home ..`"
        )
    try:
        with _only_one(folder.path), _reading(state) as (txn, databases):
            version = _Version(txn, databases, height)
            done = folder.find(version.height)
            if done is None:
                folder.clean()
                done = _write(version, folder, chain_id, chunk_bytes)
            folder.prune(keep)
    except StorageFullError:
        folder.clean()
        raise
    except (OSError, lmdb.Error) as error:
        folder.clean()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(folder.path, error) from error
        raise StorageError(f"the snapshot failed: {error}", code="storage_failed", hint="check the disk") from error
    return done


class _Version:
    """One version of the state within one transaction.

    Attributes:
        height: of it.
        root: its app hash.
    """

    def __init__(self, txn: Any, databases: dict[str, Any], height: int) -> None:
        raw = txn.get(HEAD_KEY, db=databases["head"])
        if raw is None:
            raise InvalidInputError("the state is empty", code="no_state", hint="let the ledger make a block first")
        head = decode(bytes(raw), Head, max_bytes=2 * MAX_META_BYTES)
        self.height = head.height if height == LATEST else height
        self.root = head.root
        self._txn, self._leaves = txn, databases["leaves"]
        self._changed: dict[bytes, bytes] = {}
        if self.height > head.height:
            raise HeightUnavailableError(
                f"height {height} is not committed yet, the newest is {head.height}", code="height_unknown"
            )
        for later in range(head.height, self.height, -1):
            undo = txn.get(later.to_bytes(8, "big"), db=databases["undo"])
            if undo is None:
                raise HeightUnavailableError(f"height {height} is not kept any more", code="height_pruned")
            before = Undo(undo)
            self._changed.update(before.leaves(b"", b"\xff" * HASH_BYTES))
            top = before.node(1)
            if top is not None:
                self.root = top[1]

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Give path and record of each leaf, in the order of paths."""
        changed = sorted(self._changed.items(), reverse=True)
        with self._txn.cursor(db=self._leaves) as cursor:
            for key, record in cursor:
                path = bytes(key)
                while changed and changed[-1][0] < path:
                    before = changed.pop()
                    if before[1]:
                        yield before
                if changed and changed[-1][0] == path:
                    before = changed.pop()
                    if before[1]:
                        yield before
                    continue
                yield path, bytes(record)
        yield from ((path, record) for path, record in reversed(changed) if record)


def _write(version: _Version, folder: SnapshotFolder, chain_id: str, chunk_bytes: int) -> SnapshotMetadata:
    place = folder.begin(version.height)
    fold, nodes = NodeFold(), [EMPTY_NODE] * NODES
    buffer, chunks = bytearray(), list[bytes]()

    def flush() -> None:
        chunk = bytes(buffer)
        _leave_room(place, len(chunk))
        (place / chunk_name(len(chunks))).write_bytes(chunk)
        chunks.append(chunk_hash(chunk))
        buffer.clear()

    for path, record in version.records():
        done = fold.add(path, record[:HASH_BYTES])
        if done is not None:
            nodes[done[0]] = done[1]
        piece = encode_record(record_key(record), record_value(record))
        if buffer and len(buffer) + len(piece) > chunk_bytes:
            flush()
        buffer += piece
    if buffer:
        flush()
    last = fold.finish()
    if last is not None:
        nodes[last[0]] = last[1]
    if root_of(nodes) != version.root:
        raise StorageDamagedError(
            "the state on disk does not hash to its root", code="state_damaged", hint="restore it by state sync"
        )
    if len(chunks) > MAX_CHUNKS:
        raise InvalidInputError(
            f"the state fills {len(chunks)} chunks of {chunk_bytes} bytes, a snapshot has {MAX_CHUNKS} at most",
            code="chunks_too_small",
            hint="raise snapshot_chunk_bytes in validator.toml",
        )
    metadata = describe(chain_id, version.height, version.root, fold.leaves, nodes, chunks)
    write_file(place / METADATA, encode_metadata(metadata))
    folder.finish(version.height)
    return metadata


def _leave_room(place: Path, size: int) -> None:
    """Refuse to take the room that the ledger needs for its next blocks: a snapshot can be taken later."""
    disk = os.statvfs(place)
    if disk.f_bavail * disk.f_frsize < size + LEFT_FREE_BYTES:
        raise _no_room(place)


def _no_room(place: Path, cause: object = "") -> StorageFullError:
    words = f" ({cause})" if cause else ""
    return StorageFullError(
        f"no room for a snapshot under {place}: it was dropped, the ledger goes on{words}",
        code="disk_full",
        hint=f"free more than {LEFT_FREE_BYTES // MIB} MiB beside it, or set snapshot_interval = 0 in validator.toml",
    )


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInputError(
                f"another process takes a snapshot in {folder}", code="snapshot_busy", hint="wait until it is done"
            ) from None
        yield
    finally:
        os.close(handle)


@contextmanager
def _reading(state: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    with lmdb.open(
        str(state), readonly=True, create=False, max_dbs=3, map_size=MAX_MAP_BYTES, readahead=False
    ) as environment:
        databases = {name: environment.open_db(name.encode(), create=False) for name in ("leaves", "undo", "head")}
        with environment.begin(buffers=True) as txn:
            yield txn, databases


def main(arguments: list[str]) -> int:
    """Take one snapshot, as the ledger's child."""
    state, snapshots, chain_id = arguments[:3]
    height, keep, chunk_bytes = map(int, arguments[3:])
    folder = SnapshotFolder(Path(snapshots))
    os.nice(NICE)
    try:
        take_snapshot(Path(state), folder, chain_id, height=height, keep=keep, chunk_bytes=chunk_bytes)
    except FreeholdError as error:
        sys.stderr.write(f"{error.code}: {error.message}\n")
        return error.exit_code
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
