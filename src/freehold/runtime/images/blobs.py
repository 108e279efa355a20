"""Blobs by digest in one folder: verified while written, resumable, atomic, collected by roots.

Layout: `sha256/HEX` holds a whole blob, `partial/HEX` the bytes so far of one that is arriving. A blob appears under
its name only after its digest was checked and it is on disk, so a kill at any moment leaves a whole blob or a partial.
"""

import asyncio
import errno
import fcntl
import hashlib
import io
import os
import time
from collections.abc import AsyncIterable, Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from freehold.base.errors import FreeholdError, LocalProtocolError, NotVerifiedError
from freehold.base.limits import MAX_IMAGE_BYTES, MIB
from freehold.runtime.images.manifest import MAX_DOCUMENT_BYTES, ImageError, parse_manifest, require_digest

READ_BYTES = 1 * MIB
RESERVE_BYTES = 64 * MIB  # kept free on the disk, so that the node's own records can still be written
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class BlobError(FreeholdError):
    """A blob is missing, busy, or the disk is full."""


class BlobWriter:
    """Writes one blob; use as a context. Leaving it before `finish` keeps the verified-so-far bytes for a resume.

    Attributes:
        offset: bytes already there; the sender starts with this byte.
    """

    def __init__(self, store: "BlobStore", digest: str, size: int) -> None:
        self._store = store
        self._digest = require_digest(digest)
        self._size = size
        self._hash = hashlib.sha256()
        self._path = store.partial_path(digest)
        self.offset = 0
        descriptor = _lock_partial(self._path, digest)
        # Unbuffered: what was written counts as there, and a full disk shows itself in the write.
        self._file = io.FileIO(descriptor, "r+")
        try:
            self._resume()
            store.require_space(size - self.offset)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            NotVerifiedError: more bytes than the blob has; nothing is kept.
            BlobError: the disk is full; nothing is kept.
        """
        if self.offset + len(data) > self._size:
            self._discard()
            raise NotVerifiedError(f"{self._digest} is longer than {self._size} bytes", code="digest_mismatch")
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self._failed(error)
        self._hash.update(data)
        self.offset += len(data)

    def finish(self) -> None:
        """Check size and digest, flush to disk, and give the blob its name.

        Raises:
            NotVerifiedError: the bytes have another digest; nothing is kept.
            BlobError: bytes are missing (they may be sent later), or the disk is full.
        """
        if self.offset < self._size:
            raise BlobError(
                f"{self._digest} ended after {self.offset} of {self._size} bytes",
                code="incomplete",
                hint="send the rest",
            )
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != self._digest:
            self._discard()
            raise NotVerifiedError(f"bytes of {self._digest} have digest {actual}", code="digest_mismatch")
        try:
            os.fsync(self._file.fileno())
            os.fchmod(self._file.fileno(), 0o400)
            final = self._store.path(self._digest)
            self._path.rename(final)
            sync_folder(final.parent)
        except OSError as error:
            self._failed(error)

    def _resume(self) -> None:
        while data := self._file.read(READ_BYTES):
            self._hash.update(data)
            self.offset += len(data)
        if self.offset > self._size:
            self._file.seek(0)
            self._file.truncate(0)
            self._hash = hashlib.sha256()
            self.offset = 0

    def _discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()

    def _failed(self, error: OSError) -> None:
        if error.errno not in _DISK_FULL:
            raise error
        self._discard()
        raise disk_full(self._store.folder) from None


class BlobStore:
    """The blobs of one node or one client; nothing in it is shared with another."""

    def __init__(self, folder: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Open the store, making its folders.

        Args:
            folder: where it lies.
            reserve_bytes: refuse to write when less than this would stay free on the disk.
        """
        self.folder = folder
        self._reserve_bytes = reserve_bytes
        for name in ("sha256", "partial"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a whole blob lies, or would."""
        return self.folder / "sha256" / require_digest(digest)[7:]

    def partial_path(self, digest: str) -> Path:
        """Where the bytes of an arriving blob lie, or would."""
        return self.folder / "partial" / require_digest(digest)[7:]

    def has(self, digest: str) -> bool:
        """Whether the whole blob is there."""
        return self.path(digest).is_file()

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of digests that are not there, in order, each once."""
        return [digest for digest in dict.fromkeys(digests) if not self.has(digest)]

    def size(self, digest: str) -> int:
        """Size in bytes of a whole blob.

        Raises:
            BlobError: it is not there.
        """
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _no_blob(digest) from None

    def offset(self, digest: str) -> int:
        """How many bytes of an unfinished blob are kept, for a resume."""
        try:
            return self.partial_path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def open(self, digest: str) -> BinaryIO:
        """Open a whole blob for reading.

        Raises:
            BlobError: it is not there.
        """
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError:
            raise _no_blob(digest) from None

    def read(self, digest: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
        """Read a small blob and check its digest again.

        Raises:
            BlobError: it is not there, or larger.
            NotVerifiedError: the disk returned other bytes.
        """
        with self.open(digest) as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise BlobError(f"{digest} is larger than {max_bytes} bytes", code="oversized")
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise NotVerifiedError(f"the disk returned other bytes for {digest}", code="digest_mismatch")
        return data

    def writer(self, digest: str, size: int) -> BlobWriter:
        """Start or resume writing a blob of a known size; other writers of it are refused meanwhile.

        Args:
            digest: of the whole blob.
            size: of the whole blob in bytes, 0 to 4 GiB.

        Raises:
            BlobError: another writes it, or the disk has no room.
            LocalProtocolError: size is out of bounds.
        """
        if not 0 <= size <= MAX_IMAGE_BYTES:
            raise LocalProtocolError(f"a blob of {size} bytes", code="oversized")
        return BlobWriter(self, digest, size)

    def put(self, digest: str, size: int, chunks: Iterable[bytes]) -> None:
        """Store a blob from chunks that start at `offset(digest)`; does nothing when it is there.

        Raises:
            NotVerifiedError: size or digest differ.
            BlobError: busy, incomplete (what came is kept), or the disk is full.
        """
        if self.has(digest):
            return
        with self.writer(digest, size) as writer:
            for chunk in chunks:
                writer.write(chunk)
            writer.finish()

    async def put_async(self, digest: str, size: int, chunks: AsyncIterable[bytes]) -> None:
        """Like `put`; hashing and disk work happen in a thread, about a MiB at a time."""
        if self.has(digest):
            return
        with await asyncio.to_thread(self.writer, digest, size) as writer:
            waiting = bytearray()
            async for chunk in chunks:
                waiting += chunk
                if len(waiting) >= READ_BYTES:
                    data, waiting = bytes(waiting), bytearray()
                    await asyncio.to_thread(writer.write, data)
            await asyncio.to_thread(writer.write, bytes(waiting))
            await asyncio.to_thread(writer.finish)

    def put_bytes(self, data: bytes) -> str:
        """Store a small blob and return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.has(digest):
            self._delete_partial(digest)
            self.put(digest, len(data), [data])
        return digest

    def delete(self, digest: str) -> None:
        """Remove a blob and what has arrived of it, unless it is being written; no error when there is none."""
        self.path(digest).unlink(missing_ok=True)
        self._delete_partial(digest)

    def digests(self) -> list[str]:
        """All whole blobs, in order of their digests."""
        return sorted(f"sha256:{path.name}" for path in (self.folder / "sha256").iterdir())

    def used_bytes(self) -> int:
        """Bytes that whole and partial blobs take."""
        total = 0
        for name in ("sha256", "partial"):
            for path in (self.folder / name).iterdir():
                total += path.stat().st_size
        return total

    def collect(self, roots: Iterable[str], min_age_s: float = 0) -> list[str]:
        """Remove every blob and partial that no root needs.

        Args:
            roots: digests of manifests to keep, with all that they name; unknown ones are kept by digest alone.
            min_age_s: what changed later than this many seconds ago stays.

        Returns:
            The digests removed.
        """
        keep: set[str] = set()
        for root in roots:
            keep.add(root)
            if self.has(root):
                keep |= self._named_by(root)
        removed = {
            f"sha256:{path.name}"
            for name in ("sha256", "partial")
            for path in (self.folder / name).iterdir()
            if f"sha256:{path.name}" not in keep and has_age(path, min_age_s)
        }
        for digest in removed:
            self.delete(digest)
        return sorted(removed)

    def require_space(self, more_bytes: int) -> None:
        """Check that the disk has room.

        Raises:
            BlobError: fewer than more_bytes and the reserve are free.
        """
        room = os.statvfs(self.folder)
        if room.f_bavail * room.f_frsize < more_bytes + self._reserve_bytes:
            raise disk_full(self.folder)

    def _delete_partial(self, digest: str) -> None:
        path = self.partial_path(digest)
        if not path.exists():
            return
        try:
            descriptor = _lock_partial(path, digest)
        except BlobError:
            return  # its writer owns it
        path.unlink()
        os.close(descriptor)

    def _named_by(self, root: str) -> set[str]:
        try:
            return {item.digest for item in parse_manifest(self.read(root)).blobs}
        except ImageError:
            return set()  # a root that is no manifest is kept as a single blob


def _lock_partial(path: Path, digest: str) -> int:
    """Open a partial for its only writer; the lock ends with the descriptor, also by a kill."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BlobError(f"{digest} is being written by another", code="blob_busy", hint="try again later") from None
        # Between open and lock another writer may have given this very file its final name, or removed it.
        if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)


def disk_full(folder: Path) -> BlobError:
    """The error for a disk without room."""
    return BlobError(f"the disk under {folder} is full", code="disk_full", hint="free some space, then try again")


def has_age(path: Path, min_age_s: float) -> bool:
    """Whether a file was last changed so many seconds ago; False when it has just gone."""
    try:
        return min_age_s <= 0 or time.time() - path.stat().st_mtime >= min_age_s
    except FileNotFoundError:
        return False


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_blob(digest: str) -> BlobError:
    return BlobError(f"{digest} is not here", code="no_such_blob", hint="import the image, or fetch it from a member")
