"""Images from files into a `BlobStore`: an OCI layout folder, an OCI archive, or a docker-archive (`docker save`).

Archives are never unpacked: their members are found by name with the strict tar reader, and only those that a
manifest names are copied, each under its checked digest. Names inside an archive are never used as paths.
"""

import hashlib
import io
import json
import os
import platform
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from freehold.base.errors import InvalidInputError, NotVerifiedError
from freehold.base.limits import GIB, MAX_IMAGE_BYTES, MIB
from freehold.runtime.images.blobs import BlobStore
from freehold.runtime.images.manifest import (
    INDEX_TYPES,
    MAX_DOCUMENT_BYTES,
    MEDIA_CONFIG,
    MEDIA_MANIFEST,
    MEDIA_TAR,
    MEDIA_TAR_GZIP,
    ArchiveImage,
    Descriptor,
    ImageConfig,
    ImageError,
    Manifest,
    parse_archive_manifest,
    parse_config,
    parse_index,
    parse_manifest,
    refuse,
    select_manifest,
)
from freehold.runtime.images.tarstream import Kind, TarReader

READ_BYTES = 1 * MIB
MAX_ARCHIVE_MEMBERS = 4_096
MAX_ARCHIVE_BYTES = 16 * GIB  # an archive may hold several images
MAX_INDEX_DEPTH = 3
_GZIP = b"\x1f\x8b"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "ppc64le": "ppc64le"}


class ImportedImage(NamedTuple):
    """An image whose every blob is in the store."""

    manifest_digest: str
    manifest: Manifest
    config: ImageConfig
    size_bytes: int


def host_architecture() -> str:
    """This machine's architecture in the words of the OCI specification, such as `amd64`."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def import_image(
    path: Path, store: BlobStore, *, reference: str | None = None, architecture: str | None = None
) -> ImportedImage:
    """Import one image into the store.

    Args:
        path: an OCI layout folder, an OCI archive, or a docker-archive; archives are plain tar files.
        store: where its blobs go.
        reference: which image, when there are several: a reference name of the layout or a tag of the archive.
        architecture: for which machine; this host's when None.

    Returns:
        The image; its manifest digest is its name on the ledger.

    Raises:
        InvalidInputError: no such file, or not an image.
        ImageError: damaged, hostile or unsupported.
        NotVerifiedError: bytes do not have their digest.
        BlobError: the disk is full.
    """
    architecture = architecture or host_architecture()
    try:
        if path.is_dir():
            return _import_layout(_folder_member(path), store, reference, architecture)
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInputError(f"{path} is neither a folder nor a file", code="bad_image")
            return _import_archive(path, file, store, reference, architecture)
    except FileNotFoundError:
        raise InvalidInputError(f"{path} does not exist", code="no_such_file", hint="check the path") from None
    except PermissionError:
        raise InvalidInputError(f"{path} cannot be read", code="no_such_file", hint="check its permissions") from None


def load_image(store: BlobStore, manifest_digest: str) -> ImportedImage:
    """Read manifest and config of an image from the store, without its layers.

    Raises:
        BlobError: they are not there.
        ImageError: they are not accepted.
    """
    data = store.read(manifest_digest)
    manifest = parse_manifest(data)
    config = parse_config(store.read(manifest.config.digest), len(manifest.layers))
    return ImportedImage(manifest_digest, manifest, config, len(data) + sum(item.size for item in manifest.blobs))


Member = Callable[[str], BinaryIO]


def _folder_member(folder: Path) -> Member:
    def open_member(name: str) -> BinaryIO:
        # `name` is one of our own: a fixed name, or blobs/sha256/HEX of a checked digest.
        path = folder / name
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            refuse(f"{path} cannot be opened: {error.strerror}", "bad_image", "is it an OCI layout?")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            refuse(f"{path} is not a file", "bad_image")
        return os.fdopen(descriptor, "rb")

    return open_member


def _import_layout(member: Member, store: BlobStore, reference: str | None, architecture: str) -> ImportedImage:
    with member("oci-layout") as file:
        if b"imageLayoutVersion" not in file.read(1_024):
            refuse("oci-layout names no version", "bad_image")
    with member("index.json") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    chosen = select_manifest(parse_index(data), reference, architecture)
    for _ in range(MAX_INDEX_DEPTH):
        data = _read_document(member, chosen)
        if chosen.media_type not in INDEX_TYPES:
            break
        chosen = select_manifest(parse_index(data), None, architecture)
    else:
        refuse("indexes are nested too deep")
    manifest = parse_manifest(data)
    config_data = _read_document(member, manifest.config)
    _check_architecture(parse_config(config_data, len(manifest.layers)), architecture)
    for layer in manifest.layers:
        if not store.has(layer.digest):
            with member(_blob_name(layer)) as file:
                _copy(file, store, layer.digest, layer.size)
    store.put_bytes(config_data)
    return load_image(store, store.put_bytes(data))


def _read_document(member: Member, item: Descriptor) -> bytes:
    with member(_blob_name(item)) as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if len(data) != item.size or actual != item.digest:
        raise NotVerifiedError(f"bytes of {item.digest} have digest {actual}", code="digest_mismatch")
    return data


def _blob_name(item: Descriptor) -> str:
    return f"blobs/sha256/{item.digest[7:]}"


def _copy(file: BinaryIO, store: BlobStore, digest: str, size: int) -> None:
    with store.writer(digest, size) as writer:
        file.seek(writer.offset)
        for chunk in iter(lambda: file.read(READ_BYTES), b""):
            writer.write(chunk)
        writer.finish()


def _check_architecture(config: ImageConfig, architecture: str) -> None:
    if config.architecture != architecture:
        refuse(
            f"the image is for {config.architecture[:40]!r}, this is {architecture}",
            "wrong_platform",
            f"build it for linux/{architecture}",
        )


class _Slice(io.RawIOBase):
    """A member of an archive as a file of its own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), max(0, self._size - self._position))
        self._file.seek(self._start + self._position)
        data = self._file.read(size)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)


class _Archive:
    """The members of a plain tar: where each file lies, and what each link says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._members: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        size = os.fstat(file.fileno()).st_size
        if size > MAX_ARCHIVE_BYTES:
            refuse(f"the archive is larger than {MAX_ARCHIVE_BYTES} bytes", "image_too_big")
        for entry in TarReader(file, max_entries=MAX_ARCHIVE_MEMBERS, seekable=file):
            name = entry.name.decode("utf-8", "replace").removeprefix("./").rstrip("/")
            if name in self._members or name in self._links:
                refuse(f"the archive holds {name[:80]!r} twice", "bad_image")
            if entry.kind is Kind.FILE:
                if entry.offset + entry.size > size:
                    refuse("the archive ends in the middle of a file", "bad_image")
                self._members[name] = (entry.offset, entry.size)
            elif entry.kind is Kind.SYMLINK:
                self._links[name] = entry.link.decode("utf-8", "replace")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def open(self, name: str) -> BinaryIO:
        """Open a member; one link is followed, which old `docker save` uses for a layer that two images share."""
        if name in self._links:
            name = os.path.normpath(f"{os.path.dirname(name)}/{self._links[name]}")  # noqa: PTH120 - not a path on disk
        if name not in self._members:
            refuse(f"the archive does not hold {name[:80]!r}", "bad_image")
        return io.BufferedReader(_Slice(self._file, *self._members[name]), READ_BYTES)


def _import_archive(
    path: Path, file: BinaryIO, store: BlobStore, reference: str | None, architecture: str
) -> ImportedImage:
    if file.read(2) == _GZIP:
        refuse(f"{path} is compressed", "compressed_archive", f"first: gunzip -k {path}")
    file.seek(0)
    try:
        archive = _Archive(file)
    except ImageError as error:
        raise ImageError(f"{path} is not an image archive: {error.message}", code=error.code, hint=error.hint) from None
    if "oci-layout" in archive and "index.json" in archive:
        return _import_layout(archive.open, store, reference, architecture)
    if "manifest.json" in archive:
        return _import_docker(archive, store, reference, architecture)
    refuse(f"{path} holds neither an OCI layout nor a docker-archive", "bad_image", "make one with `docker save`")


def _import_docker(archive: _Archive, store: BlobStore, reference: str | None, architecture: str) -> ImportedImage:
    """Convert to an OCI manifest; the same archive gives the same manifest everywhere."""
    with archive.open("manifest.json") as file:
        image = _select_archive_image(parse_archive_manifest(file.read(MAX_DOCUMENT_BYTES + 1)), reference)
    with archive.open(image.config) as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    config = parse_config(data, len(image.layers))
    _check_architecture(config, architecture)
    layers = [
        _import_layer(archive, name, diff_id, store)
        for name, diff_id in zip(image.layers, config.diff_ids, strict=True)
    ]
    document = {
        "config": {"digest": store.put_bytes(data), "mediaType": MEDIA_CONFIG, "size": len(data)},
        "layers": layers,
        "mediaType": MEDIA_MANIFEST,
        "schemaVersion": 2,
    }
    encoded = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    parse_manifest(encoded)
    return load_image(store, store.put_bytes(encoded))


def _select_archive_image(images: tuple[ArchiveImage, ...], reference: str | None) -> ArchiveImage:
    fitting = [image for image in images if reference is None or reference in image.tags]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(sorted(tag for image in images for tag in image.tags)[:10]) or "none"
    code = "ambiguous_image" if fitting else "no_such_image"
    refuse(f"{len(fitting)} images of the archive fit; tags: {known}", code, "name one of them")


def _import_layer(archive: _Archive, name: str, diff_id: str, store: BlobStore) -> dict[str, object]:
    with archive.open(name) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        is_gzip = file.read(2) == _GZIP
        file.seek(0)
        if size > MAX_IMAGE_BYTES:
            refuse(f"the layer {name[:80]!r} has {size} bytes", "image_too_big")
        digest = diff_id
        if is_gzip:
            sha256 = hashlib.sha256()
            for chunk in iter(lambda: file.read(READ_BYTES), b""):
                sha256.update(chunk)
            digest = f"sha256:{sha256.hexdigest()}"
            file.seek(0)
        if not store.has(digest):
            _copy(file, store, digest, size)
    return {"digest": digest, "mediaType": MEDIA_TAR_GZIP if is_gzip else MEDIA_TAR, "size": size}
