"""Built images of a node: manifest digest in, one EROFS file out, built once, in a process of its own.

Layout: `blobs/` (see `blobs`), `built/VERSION-HEX/` with `image.erofs` and `record`, `work/HEX/` while a build runs,
`locks/HEX`. A build holds the lock of its manifest, works below `work/HEX`, and shows its result with one rename: a
kill at any moment leaves a finished image or rubbish that the next build of that manifest removes.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from freehold.base.codec import Record, decode
from freehold.base.decoders import decode_json
from freehold.base.errors import CodecError, NotVerifiedError
from freehold.base.limits import MIB
from freehold.runtime.images.blobs import BlobError, BlobStore, has_age
from freehold.runtime.images.erofs import BuildError, file_digest
from freehold.runtime.images.manifest import ImageConfig, ImageError, require_digest
from freehold.runtime.images.users import User, resolve_user

RECORD_VERSION = 1
BUILDER_VERSION = "1"  # raised when the same manifest would give other bytes
BUILD_SECONDS = 600
MAX_RECORD_BYTES = 2 * MIB
MAX_ANSWER_BYTES = 64 * 1024
_KINDS = {"BlobError": BlobError, "ImageError": ImageError, "NotVerifiedError": NotVerifiedError}


class BuiltRecord(Record):
    """What is stored beside an image file."""

    version: int
    manifest_digest: str
    erofs_digest: str
    size_bytes: int
    unpacked_bytes: int
    files: int
    setid_files: int
    devices_dropped: int
    xattrs_dropped: int
    tool: str
    config: bytes  # ImageConfig as JSON
    passwd: bytes
    group: bytes


class BuiltImage(msgspec.Struct, frozen=True):
    """An image file, ready to be mounted.

    Attributes:
        path: the EROFS file.
        erofs_digest: its sha256 digest; evidence, since another version of the tool may give other bytes.
        config: command, environment, user and so on.
        size_bytes: of the file.
        record: all that was stored about it.
    """

    path: Path
    erofs_digest: str
    config: ImageConfig
    size_bytes: int
    record: BuiltRecord

    def user(self, text: str | None = None) -> User:
        """Who the container runs as: `text`, or what the image says.

        Raises:
            ImageError: no such user in the image.
        """
        return resolve_user(self.config.user if text is None else text, self.record.passwd, self.record.group)


class ImageStore:
    """Blobs and built images below one folder of one node."""

    def __init__(self, folder: Path) -> None:
        """Open the store, making its folders (0700)."""
        self.folder = folder
        for name in ("built", "work", "locks"):
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.blobs = BlobStore(folder / "blobs")

    def built_folder(self, manifest_digest: str) -> Path:
        """Where the built image of a manifest lies, or would."""
        return self.folder / "built" / f"{BUILDER_VERSION}-{require_digest(manifest_digest)[7:]}"

    def built(self, manifest_digest: str) -> BuiltImage | None:
        """The built image when there is one; its bytes are trusted since the build checked them, see `verify`."""
        folder = self.built_folder(manifest_digest)
        try:
            data = (folder / "record").read_bytes()
        except FileNotFoundError:
            return None
        try:
            record = decode(data, BuiltRecord, max_bytes=MAX_RECORD_BYTES)
            config = decode_json(record.config, ImageConfig)
        except (CodecError, msgspec.DecodeError):
            return None  # written by another version, or damaged: built again
        path = folder / "image.erofs"
        fits = record.version == RECORD_VERSION and record.manifest_digest == manifest_digest
        if not fits or not path.is_file() or path.stat().st_size != record.size_bytes:
            return None
        return BuiltImage(path, record.erofs_digest, config, record.size_bytes, record)

    def verify(self, image: BuiltImage) -> None:
        """Read the whole image file again.

        Raises:
            NotVerifiedError: its digest is not the one recorded.
        """
        actual = file_digest(image.path)
        if actual != image.erofs_digest:
            raise NotVerifiedError(f"{image.path} has digest {actual}", code="digest_mismatch", hint="remove it")

    async def build(self, manifest_digest: str) -> BuiltImage:
        """Return the built image, building it first when needed; cancelling kills the build.

        Two builds of one manifest at once, also of two processes, do the work once.

        Raises:
            BlobError: blobs are missing.
            ImageError: the image is damaged, hostile or unsupported.
            BuildError: the host could not build it.
        """
        if (image := self.built(manifest_digest)) is not None:
            return image
        process = await asyncio.create_subprocess_exec(
            *self._command(manifest_digest), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            output, noise = await asyncio.wait_for(process.communicate(), BUILD_SECONDS)
        except TimeoutError:
            raise BuildError(f"the build took longer than {BUILD_SECONDS} s", code="build_timeout") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return self._result(manifest_digest, process.returncode, output, noise)

    def build_sync(self, manifest_digest: str) -> BuiltImage:
        """Like `build`, for callers without an event loop."""
        if (image := self.built(manifest_digest)) is not None:
            return image
        try:
            done = subprocess.run(
                self._command(manifest_digest),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BuildError(f"the build took longer than {BUILD_SECONDS} s", code="build_timeout") from None
        return self._result(manifest_digest, done.returncode, done.stdout, done.stderr)

    def images(self) -> list[str]:
        """Manifest digests of all built images, in order."""
        prefix = f"{BUILDER_VERSION}-"
        names = sorted(path.name for path in (self.folder / "built").iterdir())
        return [f"sha256:{name.removeprefix(prefix)}" for name in names if name.startswith(prefix)]

    def delete(self, manifest_digest: str) -> None:
        """Remove a built image; a mounted one stays readable until it is unmounted."""
        folder = self.built_folder(manifest_digest)
        (folder / "record").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def collect(self, roots: list[str], min_age_s: float = 0) -> list[str]:
        """Remove built images and blobs of every image that is not among roots; returns the digests removed.

        Args:
            roots: digests of manifests to keep, with all that they name.
            min_age_s: what changed later than this many seconds ago stays: it may be for a lease just learnt of.
        """
        self.sweep()
        removed = [
            digest for digest in self.images() if digest not in roots and has_age(self.built_folder(digest), min_age_s)
        ]
        for digest in removed:
            self.delete(digest)
        return removed + self.blobs.collect(roots, min_age_s)

    def sweep(self) -> None:
        """Remove what killed builds left behind; running ones are not touched. For a node's start."""
        for path in (self.folder / "work").iterdir():
            lock = lock_build(self.folder, path.name, wait=False)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)

    def _command(self, manifest_digest: str) -> list[str]:
        # -I: neither the working folder nor PYTHONPATH decides what code unpacks foreign bytes.
        return [
            sys.executable,
            "-I",
            "-m",
            "freehold.runtime.images.worker",
            str(self.folder.absolute()),
            manifest_digest,
        ]

    def _result(self, manifest_digest: str, code: int | None, output: bytes, noise: bytes) -> BuiltImage:
        if code == 0 and (image := self.built(manifest_digest)) is not None:
            return image
        try:
            answer = json.loads(output[:MAX_ANSWER_BYTES])
            kind = _KINDS.get(answer["kind"], BuildError)
            raise kind(str(answer["message"]), code=str(answer["code"]), hint=str(answer["hint"]))
        except (ValueError, KeyError, TypeError):
            tail = noise[-400:].decode("utf-8", "replace").strip()
            raise BuildError(f"the build ended with code {code}: {tail}", code="build_failed") from None


def lock_build(folder: Path, name: str, *, wait: bool) -> int | None:
    """Take the lock of a build; it ends with the descriptor, also by a kill.

    Args:
        folder: of the store.
        name: hex digits of the manifest's digest.
        wait: wait for another's build to end; else return None.
    """
    lock = os.open(folder / "locks" / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(lock)
        return None
    return lock
