"""The folder of the snapshots that a node serves: one folder per height, whole or not there.

A snapshot's folder is begun under a name of its own and renamed when whole. Bytes that the disk has changed since are
not served: each chunk is hashed again before it leaves. One that a peer is fetching outlives newer ones for a while;
a file in its folder says when it was last read, for the one who prunes is a process of its own.
"""

import contextlib
import shutil
import time
from pathlib import Path
from typing import Final

from freehold.base.errors import CodecError
from freehold.consensus.snapshot_format import (
    CHUNK_BYTES,
    MAX_METADATA_BYTES,
    SNAPSHOT_FORMAT,
    SnapshotMetadata,
    chunk_hash,
    decode_metadata,
)

METADATA: Final = "metadata"
MAX_LISTED: Final = 10  # the engine offers no more to a peer
LOADED_S: Final = 120.0  # a fetching engine waits so long for its next chunk (statesync/syncer.go: chunkTimeout)
_BEGUN: Final = ".new-"
_LOADED: Final = "loaded"


def chunk_name(index: int) -> str:
    """The file of a chunk."""
    return f"chunk-{index:06}"


class SnapshotFolder:
    """See the module. Used from any thread.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[int, tuple[bytes, SnapshotMetadata]] = {}

    def heights(self) -> list[int]:
        """Heights of the snapshots that stand, newest first."""
        try:
            names = [entry.name for entry in self.path.iterdir()]
        except FileNotFoundError:
            return []
        return sorted((int(name) for name in names if name.isascii() and name.isdigit()), reverse=True)

    def find(self, height: int) -> SnapshotMetadata | None:
        """Give the metadata of the snapshot of a height, if it stands and is of our format."""
        found = self._read(height)
        return found[1] if found is not None else None

    def listed(self) -> list[tuple[bytes, SnapshotMetadata]]:
        """Give the newest snapshots: the metadata's bytes, and what they say."""
        heights = self.heights()
        # another thread may read one meanwhile: what is looked through is a copy
        self._known = {height: known for height, known in self._known.copy().items() if height in heights}
        found = [self._read(height) for height in heights[:MAX_LISTED]]
        return [one for one in found if one is not None]

    def load(self, height: int, format_: int, index: int) -> bytes | None:
        """Read a chunk; None when it is not there, or is not what it was."""
        metadata = self.find(height)
        if metadata is None or format_ != SNAPSHOT_FORMAT or not 0 <= index < len(metadata.chunks):
            return None
        try:
            with (self.path / str(height) / chunk_name(index)).open("rb") as file:
                chunk = file.read(CHUNK_BYTES + 1)
        except OSError:
            return None
        with contextlib.suppress(OSError):  # a full disk serves on
            (self.path / str(height) / _LOADED).touch(mode=0o600)
        return chunk if chunk_hash(chunk) == metadata.chunks[index] else None

    def size(self, height: int) -> int:
        """How many bytes of disk a snapshot takes."""
        return sum(entry.stat().st_size for entry in (self.path / str(height)).iterdir())

    def begin(self, height: int) -> Path:
        """Make the folder in which a snapshot is written."""
        place = self.path / f"{_BEGUN}{height}"
        place.mkdir(parents=True, mode=0o700)
        return place

    def finish(self, height: int) -> None:
        """Give a snapshot that was written its name."""
        (self.path / f"{_BEGUN}{height}").rename(self.path / str(height))

    def clean(self) -> None:
        """Remove what was begun and never finished; for the one process that writes."""
        for entry in self.path.glob(f"{_BEGUN}*"):
            shutil.rmtree(entry, ignore_errors=True)

    def prune(self, keep: int) -> None:
        """Remove all but the newest, and those of as many older ones that a peer is fetching.

        The bound is what a peer can make a server hold: who fetches without end does not hold one for ever.

        Args:
            keep: how many of the newest.
        """
        heights = self.heights()
        held = {height for height in heights[keep : 2 * keep] if self._is_fetched(height)}
        for height in heights[keep:]:
            if height in held:
                continue
            self._known.pop(height, None)
            shutil.rmtree(self.path / str(height), ignore_errors=True)

    def _is_fetched(self, height: int) -> bool:
        try:
            loaded_at = (self.path / str(height) / _LOADED).stat().st_mtime
        except OSError:
            return False
        return time.time() - loaded_at < LOADED_S

    def _read(self, height: int) -> tuple[bytes, SnapshotMetadata] | None:
        path = self.path / str(height) / METADATA
        known = self._known.get(height)
        if known is not None and path.exists():
            return known
        try:
            with path.open("rb") as file:
                data = file.read(MAX_METADATA_BYTES + 1)
            found = data, decode_metadata(data)
        except (OSError, CodecError):  # pruned meanwhile, damaged, or of another version: not served
            return None
        self._known[height] = found
        return found
