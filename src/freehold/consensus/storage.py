"""One LMDB environment: durable transactions, a consistent reader beside them, a map that grows.

Invariants: a transaction that `write` returned from is on disk (data synced, then the meta page); readers see the
state after the newest such transaction and change over in one step with `after`; one thread writes at a time, any
thread reads. Only this module and those built on it in this package touch `lmdb`.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Final, Self

import lmdb

from freehold.base.limits import GIB, MIB
from freehold.consensus.errors import StorageError, storage_full

INITIAL_MAP_BYTES: Final = 256 * MIB
MAX_MAP_BYTES: Final = 512 * GIB  # address space, not disk
FULL_BELOW_BYTES: Final = MIB

Txn = Any  # lmdb ships no types


class Storage:
    """An open environment with named databases.

    Attributes:
        path: its folder.
        databases: handles by name, for use with a transaction.
        lock: held while the reader is used or changes over; hold it to read several things of one version.
    """

    def __init__(self, path: Path, names: tuple[str, ...], *, max_map_bytes: int = MAX_MAP_BYTES) -> None:
        """Open or create.

        Args:
            path: the folder, created when missing.
            names: the databases.
            max_map_bytes: the map doubles up to this size, then the store is full.

        Raises:
            StorageError: the folder cannot be opened; `StorageFullError` when the disk is full.
        """
        self.path = path
        self.lock = RLock()
        self._max_map_bytes = max_map_bytes
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._env = lmdb.open(
                str(path),
                map_size=min(INITIAL_MAP_BYTES, max_map_bytes),
                max_dbs=len(names),
                readahead=False,
                max_spare_txns=4,
            )
            self.databases = {name: self._env.open_db(name.encode()) for name in names}
            _sync(path)
            _sync(path.parent)
        except (lmdb.Error, OSError) as error:
            raise _typed(error, path) from error
        self._reader: Txn = self._env.begin(buffers=True)

    def close(self) -> None:
        """Close; the object is of no use afterwards."""
        with self.lock:
            self._reader.abort()
            self._env.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def map_bytes(self) -> int:
        """Size of the map now."""
        return int(self._env.info()["map_size"])

    def get(self, name: str, key: bytes) -> memoryview | None:
        """Read one value; call with `lock` held, copy before releasing it."""
        value: memoryview | None = self._reader.get(key, db=self.databases[name])
        return value

    def scan(self, name: str, low: bytes, high: bytes | None = None) -> Iterator[tuple[memoryview, memoryview]]:
        """Read items with low <= key <= high in order; call with `lock` held throughout, copy what is kept."""
        with self._reader.cursor(db=self.databases[name]) as cursor:
            if not cursor.set_range(low):
                return
            for key, value in cursor:
                if high is not None and bytes(key) > high:
                    return
                yield key, value

    @contextmanager
    def snapshot(self, name: str) -> Iterator[Any]:
        """Open a cursor of its own reader on the newest version; for the writing thread, which it must not outlive.

        It gives copies: for short items they cost less than views of the map.
        """
        with self._env.begin() as txn, txn.cursor(db=self.databases[name]) as cursor:
            yield cursor

    def count(self, name: str) -> int:
        """How many items a database holds."""
        with self.lock:
            return int(self._reader.stat(self.databases[name])["entries"])

    def write(self, fill: Callable[[Txn], None], after: Callable[[], None] | None = None) -> None:
        """Write one durable transaction.

        Args:
            fill: puts and deletes; called again from the start when the map had to grow.
            after: called once it is durable, in one step with the readers' change to it.

        Raises:
            StorageFullError: the disk or the largest map is full; nothing was written.
            StorageError: the disk failed; nothing of it may be relied on.
        """
        while True:
            try:
                with self._env.begin(write=True) as txn:
                    fill(txn)
                break
            except lmdb.MapFullError as error:
                if not self._grow():
                    raise storage_full(self.path, error) from error
            except (lmdb.Error, OSError) as error:
                raise _typed(error, self.path) from error
        with self.lock:
            self._reader.abort()
            self._reader = self._env.begin(buffers=True)
            if after is not None:
                after()

    def release_readers(self) -> None:
        """Free the places of readers whose processes have died: their versions would keep pages from being reused."""
        self._env.reader_check()

    def _grow(self) -> bool:
        size = self.map_bytes
        if size >= self._max_map_bytes:
            return False
        with self.lock:
            # LMDB changes its map only while no transaction of this process is open.
            self._reader.abort()
            try:
                self._env.set_mapsize(min(2 * size, self._max_map_bytes))
            except lmdb.Error as error:
                raise _typed(error, self.path) from error
            finally:
                self._reader = self._env.begin(buffers=True)
        return True


def exchange(folder: Path, place: Path) -> None:
    """Put a folder in the place of another, which is removed; `settle` ends what a crash left half done.

    Raises:
        StorageError: it failed.
    """
    old = _old(place)
    try:
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        folder.rename(place)
        _sync(place.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise _typed(error, place) from error


def settle(place: Path) -> None:
    """Bring the folder of an `exchange` back to one of its two sides: what was there, or what took its place.

    Raises:
        StorageError: it failed.
    """
    old = _old(place)
    try:
        if old.exists():
            if not place.exists():
                old.rename(place)
                _sync(place.parent)
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise _typed(error, place) from error


def _old(place: Path) -> Path:
    return place.with_name(place.name + ".old")


def write_file(path: Path, data: bytes) -> None:
    """Replace a file durably: all of the new bytes or all of the old ones are there after any crash.

    Raises:
        StorageError: nothing was replaced, or it may not be relied on.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _typed(error, path) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _typed(error: Exception, path: Path) -> StorageError:
    full = isinstance(error, lmdb.DiskError | lmdb.MapFullError)
    if full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or _is_full(path):
        return storage_full(path, error)
    return StorageError(
        f"the storage at {path} failed: {error}",
        code="storage_failed",
        hint="check the disk and the folder's owner; the node stops rather than guess",
    )


def _is_full(path: Path) -> bool:
    """Whether a failure under path is one of room: LMDB tells a write cut short by a full disk as an I/O error."""
    try:
        disk = os.statvfs(path)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < FULL_BELOW_BYTES
