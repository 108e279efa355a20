"""The process that builds one image: `python -I -m freehold.runtime.images.worker FOLDER DIGEST`.

It has limits of its own on time, memory, open files and file size, ends when its parent ends, and answers with one
JSON object on standard output when it fails. The kernel releases its lock however it ends.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import msgspec

from freehold.base.codec import encode
from freehold.base.errors import FreeholdError
from freehold.base.limits import GIB, MAX_IMAGE_BYTES, MIB
from freehold.runtime.images.blobs import BlobStore, disk_full, sync_folder
from freehold.runtime.images.erofs import make_erofs, tool_version
from freehold.runtime.images.flatten import Layer, Notes, merge_layers, read_small, write_tree
from freehold.runtime.images.importing import ImportedImage, load_image
from freehold.runtime.images.manifest import GZIP_TYPES
from freehold.runtime.images.store import BUILD_SECONDS, RECORD_VERSION, BuiltRecord, ImageStore, lock_build
from freehold.runtime.images.users import MAX_FILE_BYTES

_PR_SET_PDEATHSIG = 1
_LIMITS = (
    (resource.RLIMIT_CPU, BUILD_SECONDS),
    (resource.RLIMIT_AS, 2 * GIB),
    (resource.RLIMIT_FSIZE, MAX_IMAGE_BYTES + 256 * MIB),
    (resource.RLIMIT_NOFILE, 512),
    (resource.RLIMIT_CORE, 0),
)


def build_here(store: ImageStore, manifest_digest: str) -> None:
    """Build one image in this process; see `ImageStore.build` for what it leaves.

    Raises:
        FreeholdError: the image or the host does not allow it.
    """
    hexadecimal = manifest_digest[7:]
    lock = lock_build(store.folder, hexadecimal, wait=True)
    try:
        if store.built(manifest_digest) is not None:
            return
        work = store.folder / "work" / hexadecimal
        _remove(work)
        work.mkdir(mode=0o700)
        try:
            _build(store, load_image(store.blobs, manifest_digest), work)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(store.folder) from None
            raise
        finally:
            _remove(work)
    finally:
        if lock is not None:
            os.close(lock)


def _build(store: ImageStore, image: ImportedImage, work: Path) -> None:
    notes = Notes()
    spool, root, out = work / "spool", work / "root", work / "out"
    for folder in (spool, root, out):
        folder.mkdir(mode=0o700)
    with contextlib.ExitStack() as stack:
        tree = merge_layers(_layers(store.blobs, image, stack), spool, notes)
    passwd = read_small(tree, spool, b"etc/passwd", MAX_FILE_BYTES)
    group = read_small(tree, spool, b"etc/group", MAX_FILE_BYTES)
    write_tree(tree, spool, root, notes)
    _remove(spool)
    path = out / "image.erofs"
    erofs_digest = make_erofs(root, path, BUILD_SECONDS)
    path.chmod(0o400)
    record = BuiltRecord(
        version=RECORD_VERSION,
        manifest_digest=image.manifest_digest,
        erofs_digest=erofs_digest,
        size_bytes=path.stat().st_size,
        unpacked_bytes=notes.unpacked_bytes,
        files=notes.files,
        setid_files=notes.setid_files,
        devices_dropped=notes.devices_dropped,
        xattrs_dropped=notes.xattrs_dropped,
        tool=tool_version(),
        config=msgspec.json.encode(image.config),
        passwd=passwd,
        group=group,
    )
    (out / "record").write_bytes(encode(record))
    for name in (path, out / "record"):
        _sync(name)
    sync_folder(out)
    final = store.built_folder(image.manifest_digest)
    _remove(final)  # of another version or damaged, else the build would not have begun
    out.rename(final)
    sync_folder(final.parent)


def _layers(blobs: BlobStore, image: ImportedImage, stack: contextlib.ExitStack) -> list[Layer]:
    return [
        Layer(stack.enter_context(blobs.open(item.digest)), item.size, item.media_type in GZIP_TYPES, diff_id)
        for item, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=True)
    ]


def _remove(path: Path) -> None:
    # Only root works here, so no mode of a folder is in the way; rmtree follows no links.
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> int:
    """Build the image named on the command line; 0 when it is there afterwards."""
    for which, limit in _LIMITS:
        resource.setrlimit(which, (limit, limit))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o077)
    try:
        build_here(ImageStore(Path(sys.argv[1])), sys.argv[2])
    except FreeholdError as error:
        answer = {"kind": type(error).__name__, "message": error.message, "code": error.code, "hint": error.hint}
        print(json.dumps(answer))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
