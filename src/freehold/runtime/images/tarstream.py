"""A strict, bounded reader of tar streams: ustar, pax and GNU long names; no seeking, no file system.

Python's tarfile reads a pax header of any size into memory, follows sparse maps, and differs from other readers on
sizes of links; what two readers could see differently is refused here (docs/spec/images.md).
"""

import enum
import os
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from freehold.base.limits import KIB
from freehold.runtime.images.manifest import refuse

BLOCK = 512
MAX_PATH_BYTES = 4_095
MAX_NAME_BYTES = 255
MAX_PAX_BYTES = 256 * KIB
MAX_META_HEADERS = 4  # pax and long-name records before one entry
MAX_ID = 65_535
MAX_MTIME = (1 << 32) - 1
_ZERO = bytes(BLOCK)
_XATTRS = (b"SCHILY.xattr.", b"LIBARCHIVE.xattr.", b"SCHILY.acl.", b"RHT.security.selinux")
_GLOBAL_FORBIDDEN = frozenset({b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"})


class Kind(enum.Enum):
    """What a tar entry, or a node of the merged tree, is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    FIFO = "fifo"
    DEVICE = "device"


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.DEVICE,
    b"4": Kind.DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


class Source(Protocol):
    """Where a tar's bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Read up to size bytes; empty at the end."""


class TarEntry:
    """One entry: names as raw bytes, ids 0 to 65,535, time in whole seconds, where its data starts in the stream."""

    __slots__ = ("gid", "has_xattrs", "kind", "link", "mode", "mtime", "name", "offset", "size", "uid")

    def __init__(self, name: bytes, kind: Kind, link: bytes = b"") -> None:
        self.name = name
        self.kind = kind
        self.link = link
        self.mode = 0o755 if kind is Kind.DIRECTORY else 0o644
        self.uid = self.gid = self.size = self.mtime = self.offset = 0
        self.has_xattrs = False


class TarReader:
    """Iterates over the entries of one tar; the data of an entry is read before the next one is asked for."""

    def __init__(self, source: Source, *, max_entries: int, seekable: BinaryIO | None = None) -> None:
        """Start at the source's present position.

        Args:
            source: the tar's bytes.
            max_entries: refuse more.
            seekable: the source again when it is a plain file, to pass over data without reading it; whoever gives
                it checks that each entry's data lies within the file.
        """
        self._source = source
        self._seekable = seekable
        self._max_entries = max_entries
        self._left = 0  # of the present entry's data
        self._padding = 0
        self.offset = 0

    def __iter__(self) -> Iterator[TarEntry]:
        """Yield entries until the end marker or the end of the stream at a block's edge.

        Raises:
            ImageError: damaged, out of bounds, or of a kind that is not accepted.
        """
        for _ in range(self._max_entries):
            entry = self._next()
            if entry is None:
                return
            yield entry
        refuse(f"more than {self._max_entries} entries in a layer", "image_too_big")

    def read(self, size: int) -> bytes:
        """Read up to size bytes of the present entry's data; empty at its end.

        Raises:
            ImageError: the stream ends early.
        """
        size = min(size, self._left)
        if size == 0:
            return b""
        data = self._source.read(size)
        if not data:
            refuse("a layer ends in the middle of a file", "bad_layer")
        self._left -= len(data)
        self.offset += len(data)
        return data

    def _next(self) -> TarEntry | None:
        meta: dict[bytes, bytes] = {}
        for _ in range(MAX_META_HEADERS + 1):
            block = self._header()
            if block is None:
                if meta:
                    refuse("a layer ends after an extended header", "bad_layer")
                return None
            flag = block[156:157]
            if flag not in (b"x", b"g", b"L", b"K"):
                return self._entry(block, flag, meta)
            size = _number(block[124:136])
            self._begin(size, MAX_PAX_BYTES)
            data = self._all()
            if flag == b"x":
                meta.update(_pax(data))
            elif flag == b"g":
                if not _GLOBAL_FORBIDDEN.isdisjoint(_pax(data)):
                    refuse("a global header changes names or sizes", "bad_layer")
            else:
                meta[b"path" if flag == b"L" else b"linkpath"] = data.partition(b"\0")[0]
        refuse("too many extended headers before one entry", "bad_layer")

    def _entry(self, block: bytes, flag: bytes, meta: dict[bytes, bytes]) -> TarEntry:
        kind = _KINDS.get(flag)
        if kind is None or any(key.startswith(b"GNU.sparse.") for key in meta):
            refuse(f"a layer holds an entry of type {flag!r} or a sparse file", "bad_layer")
        name = meta.get(b"path") or _short_name(block)
        if flag == b"\0" and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # the form of tars before ustar
        link = (meta.get(b"linkpath") or _text(block[157:257])) if kind in (Kind.HARDLINK, Kind.SYMLINK) else b""
        for text in (name, link):
            if b"\0" in text or len(text) > MAX_PATH_BYTES:
                refuse(f"a layer holds the unusable name {text[:60]!r}", "bad_path")
        if not name or (kind in (Kind.HARDLINK, Kind.SYMLINK) and not link):
            refuse("a layer holds an entry without a name or target", "bad_path")
        if kind is not Kind.DIRECTORY and name.endswith(b"/"):
            refuse(f"{name[:60]!r} is named as a folder and is none", "bad_path")
        entry = TarEntry(name, kind, link)
        entry.mode = _number(block[100:108]) & 0o7777
        entry.uid = _bounded_id(meta.get(b"uid"), block[108:116])
        entry.gid = _bounded_id(meta.get(b"gid"), block[116:124])
        entry.mtime = _mtime(meta.get(b"mtime"), block[136:148])
        entry.size = _decimal(meta[b"size"]) if meta.get(b"size") else _number(block[124:136])
        if entry.size and kind is not Kind.FILE:
            refuse(f"{name[:60]!r} is a {kind.value} and has data", "bad_layer")
        entry.has_xattrs = any(key.startswith(_XATTRS) for key in meta)
        self._begin(entry.size, 1 << 62)
        entry.offset = self.offset
        return entry

    def _begin(self, size: int, limit: int) -> None:
        if size > limit:
            refuse(f"a layer holds a header or file of {size} bytes", "image_too_big")
        self._left = size
        self._padding = -size % BLOCK

    def _all(self) -> bytes:
        parts = []
        while data := self.read(self._left):
            parts.append(data)
        return b"".join(parts)

    def _header(self) -> bytes | None:
        if self._seekable is not None and self._left:
            self._seekable.seek(self._left, os.SEEK_CUR)
            self.offset += self._left
            self._left = 0
        while self.read(1 << 18):
            pass
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0
        block = self._exactly(BLOCK, may_end=True)
        if not block or block == _ZERO:
            self._drain()
            return None
        stored = _number(block[148:156])
        total = sum(block) - sum(block[148:156]) + 8 * 0x20
        if stored != total:
            refuse("a layer's header has a wrong checksum", "bad_layer")
        return block

    def _exactly(self, size: int, *, may_end: bool = False) -> bytes:
        data = self._source.read(size)
        while 0 < len(data) < size and (more := self._source.read(size - len(data))):
            data += more
        if len(data) != size and (data or not may_end):
            refuse("a layer ends in the middle of a header", "bad_layer")
        self.offset += len(data)
        return data

    def _drain(self) -> None:
        # Bytes after the end marker are no entries, but they are under the diff id and count against the bound.
        while self._seekable is None and (data := self._source.read(1 << 18)):
            self.offset += len(data)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _short_name(block: bytes) -> bytes:
    name = _text(block[0:100])
    if block[257:263] == b"ustar\0" and block[345] != 0:
        return _text(block[345:500]) + b"/" + name
    return name


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        if field[0] & 0x40:
            refuse("a layer's header holds a negative number", "bad_layer")
        return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        refuse("a layer's header holds a number that is none", "bad_layer")
    return int(digits, 8)


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        refuse("a layer's header holds a number that is none", "bad_layer")
    return int(value)


def _bounded_id(extended: bytes | None, field: bytes) -> int:
    value = _decimal(extended) if extended else _number(field)
    if value > MAX_ID:
        refuse(f"a file is owned by id {value}, at most {MAX_ID} allowed", "bad_layer")
    return value


def _mtime(extended: bytes | None, field: bytes) -> int:
    if extended:
        whole, _, part = extended.partition(b".")
        if part.strip(b"0123456789"):
            refuse("a layer's header holds a time that is none", "bad_layer")
        if whole.startswith(b"-"):
            return 0
        return min(_decimal(whole), MAX_MTIME)
    if field[0] == 0xFF:  # GNU's form of a time before 1970
        return 0
    return min(_number(field), MAX_MTIME)


def _pax(data: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    while data:
        digits, space, _ = data[:12].partition(b" ")
        length = _decimal(digits) if space else 0
        record = data[len(digits) + 1 : length]
        key, equals, value = record.partition(b"=")
        if length > len(data) or not record.endswith(b"\n") or not equals or not key:
            refuse("a layer holds a damaged extended header", "bad_layer")
        records[key] = value[:-1]
        data = data[length:]
    return records
