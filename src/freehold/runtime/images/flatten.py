"""Layers to one tree on disk: decompress within bounds, check diff ids, merge, write as root into a private folder.

Files are first kept under plain numbers in a spool folder, so no name from a layer is used while their bytes arrive;
then each gets its names by folder descriptor, in a tree that did not exist before. Nothing is ever written through a
path of the image (docs/spec/images.md).
"""

import contextlib
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from freehold.base.limits import MAX_IMAGE_BYTES, MIB
from freehold.runtime.images.manifest import ImageError, refuse
from freehold.runtime.images.tarstream import Kind, Source, TarEntry, TarReader
from freehold.runtime.images.tree import MAX_NODES, Node, Tree

READ_BYTES = 1 * MIB
BOMB_FLOOR_BYTES = 256 * MIB  # smaller layers may compress as well as they like
BOMB_RATIO = 200
SPOOL_FOLDER_FILES = 1_024  # ext4 takes ten times as long for 20,000 new files in one folder
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SETID = 0o6000


@dataclass(frozen=True)
class Layer:
    """One layer to merge: its open blob, its size as stored, whether it is gzip, and the digest of its plain tar."""

    blob: BinaryIO
    size: int
    is_gzip: bool
    diff_id: str


@dataclass
class Notes:
    """What was left out of the tree or is remarkable, by count; shown with the built image."""

    devices_dropped: int = 0
    xattrs_dropped: int = 0
    setid_files: int = 0
    files: int = 0
    unpacked_bytes: int = 0


class _PlainTar:
    """A layer's plain tar, hashed and bounded while it is read."""

    def __init__(self, layer: Layer, budget: int) -> None:
        self._source: Source = gzip.GzipFile(fileobj=layer.blob, mode="rb") if layer.is_gzip else layer.blob
        self._limit = min(budget, max(BOMB_FLOOR_BYTES, layer.size * BOMB_RATIO)) if layer.is_gzip else budget
        self._budget = budget
        self._digest = hashlib.sha256()
        self.count = 0

    def read(self, size: int, /) -> bytes:
        try:
            data = self._source.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise ImageError(f"a layer cannot be decompressed: {error}", code="bad_layer") from None
        self.count += len(data)
        if self.count > self._budget:
            refuse(f"the image unpacks to more than {MAX_IMAGE_BYTES} bytes", "image_too_big")
        if self.count > self._limit:
            refuse(f"a layer unpacks to more than {BOMB_RATIO} times its size", "compression_bomb")
        self._digest.update(data)
        return data

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


def merge_layers(layers: Iterable[Layer], spool: Path, notes: Notes) -> Tree:
    """Merge layers, lowest first, keeping the data of each file in the spool under its serial.

    Args:
        layers: at most 127; each is read once.
        spool: an empty private folder.
        notes: counts are added here.

    Raises:
        ImageError: a layer is damaged, hostile, out of bounds, or its diff id is another.
    """
    tree = Tree()
    entries = MAX_NODES
    spool_fd = os.open(spool, _DIRECTORY)
    try:
        for layer in layers:
            plain = _PlainTar(layer, MAX_IMAGE_BYTES - notes.unpacked_bytes)
            reader = TarReader(plain, max_entries=entries)
            tree.begin_layer()
            for entry in reader:
                entries -= 1
                notes.xattrs_dropped += entry.has_xattrs
                _take(tree, reader, entry, spool_fd)
            notes.unpacked_bytes += plain.count
            if plain.diff_id != layer.diff_id:
                refuse(
                    f"a layer's plain tar has digest {plain.diff_id}, the config says {layer.diff_id}", "bad_diff_id"
                )
    finally:
        os.close(spool_fd)
    return tree


def write_tree(tree: Tree, spool: Path, target: Path, notes: Notes) -> None:
    """Write the merged tree below target, which must be an empty private folder.

    Owners, modes and times are those of the image; devices are left out, since a container gets its own /dev.

    Args:
        tree: the merged layers.
        spool: where the files' data lies; the caller removes it before the tree is read, since what has several
            names keeps one more there.
        target: the folder that becomes the root of the image.
        notes: counts are added here.
    """
    spool_fd = os.open(spool, _DIRECTORY)
    target_fd = os.open(target, _DIRECTORY)
    try:
        _write_folder(tree.root, target_fd, spool_fd, notes, set())
    finally:
        os.close(target_fd)
        os.close(spool_fd)


def _spooled(node: Node) -> str:
    return f"{node.serial // SPOOL_FOLDER_FILES}/{node.serial}"


def _make_spool_folder(node: Node, spool_fd: int) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(str(node.serial // SPOOL_FOLDER_FILES), 0o700, dir_fd=spool_fd)


def _take(tree: Tree, reader: TarReader, entry: TarEntry, spool_fd: int) -> None:
    node = tree.apply(entry)
    if node is None or node.kind is not Kind.FILE:
        return
    try:
        file_fd = os.open(_spooled(node), _CREATE, 0o600, dir_fd=spool_fd)
    except FileNotFoundError:
        _make_spool_folder(node, spool_fd)
        file_fd = os.open(_spooled(node), _CREATE, 0o600, dir_fd=spool_fd)
    try:
        while data := reader.read(READ_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(file_fd, view) :]
    finally:
        os.close(file_fd)


def _write_folder(folder: Node, folder_fd: int, spool_fd: int, notes: Notes, made: set[int]) -> None:
    # Depth is bounded by tree.MAX_DEPTH, so recursion and open descriptors are too.
    for name, child in sorted(folder.children.items()):
        node = child.node
        if node.kind is Kind.DEVICE:
            notes.devices_dropped += 1
        elif node.kind is Kind.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=folder_fd)
            inner_fd = os.open(name, _DIRECTORY, dir_fd=folder_fd)
            try:
                _write_folder(node, inner_fd, spool_fd, notes, made)
            finally:
                os.close(inner_fd)
        elif node.names == 1:
            if node.kind is Kind.FILE:
                os.rename(_spooled(node), name, src_dir_fd=spool_fd, dst_dir_fd=folder_fd)
            _finish_inode(node, name, folder_fd, notes)
        else:
            if node.serial not in made:
                _make_spool_folder(node, spool_fd)
                _finish_inode(node, os.fsencode(_spooled(node)), spool_fd, notes)
                made.add(node.serial)
            os.link(_spooled(node), name, src_dir_fd=spool_fd, dst_dir_fd=folder_fd, follow_symlinks=False)
    os.fchown(folder_fd, folder.uid, folder.gid)
    os.fchmod(folder_fd, folder.mode)
    os.utime(folder_fd, (folder.mtime, folder.mtime))


def _finish_inode(node: Node, name: bytes, at_fd: int, notes: Notes) -> None:
    """Make what is not a file with data, and give it owner, mode and time."""
    if node.kind is Kind.SYMLINK:
        os.symlink(node.link, name, dir_fd=at_fd)
    elif node.kind is Kind.FIFO:
        os.mkfifo(name, 0o600, dir_fd=at_fd)
    os.chown(name, node.uid, node.gid, dir_fd=at_fd, follow_symlinks=False)
    if node.kind is not Kind.SYMLINK:
        os.chmod(name, node.mode, dir_fd=at_fd)  # after chown, which clears setuid
    os.utime(name, (node.mtime, node.mtime), dir_fd=at_fd, follow_symlinks=False)
    notes.files += 1
    notes.setid_files += node.kind is Kind.FILE and bool(node.mode & _SETID)


def read_small(tree: Tree, spool: Path, path: bytes, max_bytes: int) -> bytes:
    """Read a small file of the merged tree, before it is written; empty when there is none or it is larger.

    Links are followed inside the tree only.
    """
    node = tree.lookup(path)
    if node is None or node.kind is not Kind.FILE or node.size > max_bytes:
        return b""
    with contextlib.suppress(FileNotFoundError), (spool / _spooled(node)).open("rb") as file:
        return file.read(max_bytes)
    return b""
