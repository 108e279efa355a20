"""Sealed specs on disk: all members' boxes of a lease, so that a member that lost its disk can ask the others."""

import os
from pathlib import Path

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import CodecError, RemoteProtocolError
from freehold.base.limits import MAX_SPEC_BYTES, MAX_STANDBYS

MAX_BOX_BYTES = MAX_SPEC_BYTES + 2_048
_MAX_FILE_BYTES = (MAX_STANDBYS + 2) * (MAX_BOX_BYTES + 64)


class _Boxes(Record):
    version: int
    boxes: list[tuple[bytes, bytes]]


class BoxStore:
    """One file per lease below a folder; written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, lease: bytes, boxes: list[tuple[bytes, bytes]]) -> None:
        """Keep the boxes of a lease; known members' boxes are replaced, others kept.

        Raises:
            RemoteProtocolError: too many, or one is too large.
        """
        merged = dict(self._read(lease)) | dict(boxes)
        if len(merged) > MAX_STANDBYS + 1 or any(len(box) > MAX_BOX_BYTES for box in merged.values()):
            raise RemoteProtocolError("too many boxes, or one is too large", code="oversized")
        path = self._path(lease)
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as file:
            file.write(encode(_Boxes(1, sorted(merged.items()))))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)

    def get(self, lease: bytes, member: bytes) -> bytes | None:
        """A member's box, if it is here."""
        return dict(self._read(lease)).get(member)

    def remove(self, lease: bytes) -> None:
        """Forget a lease."""
        self._path(lease).unlink(missing_ok=True)

    def leases(self) -> list[bytes]:
        """The leases that have boxes here."""
        return [bytes.fromhex(path.stem) for path in sorted(self._folder.glob("*.box"))]

    def _path(self, lease: bytes) -> Path:
        return self._folder / f"{lease.hex()}.box"

    def _read(self, lease: bytes) -> list[tuple[bytes, bytes]]:
        try:
            return decode(self._path(lease).read_bytes(), _Boxes, max_bytes=_MAX_FILE_BYTES).boxes
        except FileNotFoundError:
            return []
        except CodecError:
            return []  # a damaged file is as good as none: the boxes are asked for again
