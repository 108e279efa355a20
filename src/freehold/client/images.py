"""The tenant's local image store: imported images by name, their blobs by digest, ready to be sent to nodes."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import InvalidInputError
from freehold.client.compose.references import ImageReference, parse_image_reference
from freehold.client.home import Home
from freehold.crypto.hashing import Sha256
from freehold.runtime.images.blobs import BlobStore
from freehold.runtime.images.importing import ImportedImage, import_image, load_image


class NamedImage(msgspec.Struct, forbid_unknown_fields=True):
    """A name and the image that it stands for."""

    name: str
    digest: str
    size_bytes: int
    imported: str


class LocalImages:
    """See the module."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._names = home.images_folder / "names.json"
        home.images_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.blobs = BlobStore(home.images_folder / "blobs")

    def add(self, path: Path, name: str | None, reference: str | None = None) -> NamedImage:
        """Import an image and name it.

        Args:
            path: OCI layout folder, OCI archive, or `docker save` archive.
            name: such as `guestbook-web:1`; the folder's or file's name with tag `latest` when None.
            reference: which image, when the archive holds several.

        Raises:
            InvalidInputError: the name is not an image reference.
            ImageError: damaged, hostile or unsupported.
        """
        chosen = full_name(name or path.name.split(".")[0].lower())
        imported = import_image(path, self.blobs, reference=reference)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = NamedImage(chosen, imported.manifest_digest, imported.size_bytes, now)
        with self._locked():
            names = [known for known in self.list() if known.name != chosen]
            self._home.write(self._names, msgspec.json.encode([*names, entry]))
        return entry

    def list(self) -> "list[NamedImage]":
        """All named images, in the order of their import.

        Raises:
            InvalidInputError: the file of names is damaged.
        """
        try:
            return decode_json(self._names.read_bytes(), list[NamedImage])
        except FileNotFoundError:
            return []
        except (msgspec.DecodeError, ValueError) as error:
            raise InvalidInputError(f"{self._names} is damaged: {error}", code="bad_names") from None

    def find(self, reference: ImageReference) -> ImportedImage:
        """The image that a compose file names.

        Raises:
            InvalidInputError: it was not imported.
            ImageError: its blobs are damaged.
        """
        wanted = full_name(str(reference)) if not reference.digest else ""
        for entry in self.list():
            if entry.name == wanted or entry.digest == reference.digest:
                return load_image(self.blobs, entry.digest)
        known = ", ".join(entry.name for entry in self.list()) or "none yet"
        raise InvalidInputError(
            f"image {reference} is not in the local store (imported: {known})",
            code="unknown_image",
            hint=f"freehold image import PATH --name {reference}  (an OCI layout, or the file of `docker save`)",
        )

    def require_whole(self, image: ImportedImage) -> None:
        """Read every blob of an image again, before anything is paid for it.

        Raises:
            InvalidInputError: the local store was damaged.
        """
        for blob in image.manifest.blobs:
            digest = Sha256()
            with self.blobs.open(blob.digest) as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            if f"sha256:{digest.digest().hex()}" != blob.digest:
                raise InvalidInputError(
                    f"blob {blob.digest[:19]} of the local image store is damaged",
                    code="damaged_image",
                    hint=f"remove {self.blobs.path(blob.digest)} and import the image again",
                )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._home.images_folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def full_name(text: str) -> str:
    """A name with its tag.

    Raises:
        InvalidInputError: not an image reference, or one with a digest.
    """
    reference = parse_image_reference(text)
    if reference is None or reference.digest:
        raise InvalidInputError(
            f"{text[:80]!r} is not an image name", code="bad_image_name", hint="write name:tag, such as guestbook-web:1"
        )
    return f"{reference.repository}:{reference.tag or 'latest'}"
