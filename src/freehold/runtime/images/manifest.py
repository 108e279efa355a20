"""Strict, bounded reading of OCI indexes, manifests, configs and docker-archive manifests; pure.

Every document is at most 1 MiB of UTF-8 JSON without repeated keys. What is refused here never reaches a tool:
algorithms other than sha256, layers with URLs, more than 127 layers, a number of diff ids that differs from the
number of layers, documents that are both index and manifest (docs/spec/images.md).
"""

import json
import re
from typing import Any, NoReturn, TypeVar

import msgspec

from freehold.base.decoders import convert
from freehold.base.errors import InvalidInputError
from freehold.base.limits import MAX_IMAGE_BYTES, MAX_IMAGE_LAYERS, MIB

MAX_DOCUMENT_BYTES = 1 * MIB
MAX_INDEX_ENTRIES = 256
MAX_LIST = 1_024  # arguments, variables, ports, volumes of a config
MAX_TEXT_BYTES = 32 * 1024

MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_TAR = "application/vnd.oci.image.layer.v1.tar"
MEDIA_TAR_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MEDIA_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MEDIA_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MEDIA_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
MEDIA_DOCKER_TAR = "application/vnd.docker.image.rootfs.diff.tar"
MEDIA_DOCKER_TAR_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"

INDEX_TYPES = frozenset({MEDIA_INDEX, MEDIA_DOCKER_LIST})
MANIFEST_TYPES = frozenset({MEDIA_MANIFEST, MEDIA_DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({MEDIA_CONFIG, MEDIA_DOCKER_CONFIG})
PLAIN_TYPES = frozenset({MEDIA_TAR, MEDIA_DOCKER_TAR})
GZIP_TYPES = frozenset({MEDIA_TAR_GZIP, MEDIA_DOCKER_TAR_GZIP})

REF_NAME = "org.opencontainers.image.ref.name"
DOCKER_NAME = "io.containerd.image.name"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z", re.ASCII)
_PORT = re.compile(r"([1-9][0-9]{0,4})(?:/(tcp|udp|sctp))?\Z", re.ASCII)
_SIGNAL = re.compile(r"(?:SIG[A-Z0-9]{2,8}(?:[+-][0-9]{1,2})?|[1-9][0-9]?)\Z", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?\Z", re.ASCII)
_ARCHIVE_PATH = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*\Z", re.ASCII)

T = TypeVar("T")


class ImageError(InvalidInputError):
    """An image is damaged, hostile, or uses what is not supported."""


class Platform(msgspec.Struct, frozen=True):
    """The machine that a manifest in an index is for."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename={"media_type": "mediaType"}):
    """Names a blob: media type, digest, size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    urls: list[str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names that an index gives this descriptor: its reference name, and the one that Docker adds."""
        known = self.annotations or {}
        texts = (known.get(REF_NAME, ""), known.get(DOCKER_NAME, "").removeprefix("docker.io/library/"))
        return tuple(text for text in texts if text)


class Index(msgspec.Struct, frozen=True):
    """A list of manifests, or of further indexes."""

    manifests: tuple[Descriptor, ...]


class Manifest(msgspec.Struct, frozen=True):
    """One image: its config and its layers, lowest first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob that the manifest names, each once: config first, then layers."""
        return tuple({item.digest: item for item in (self.config, *self.layers)}.values())


class ImageConfig(msgspec.Struct, frozen=True):
    """What an image says about running it; texts are bounded and hold no NUL."""

    architecture: str = ""
    os: str = "linux"
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    exposed_ports: tuple[str, ...] = ()  # such as `8080/tcp`
    stop_signal: str = "SIGTERM"
    volumes: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()


class ArchiveImage(msgspec.Struct, frozen=True):
    """One image of a docker-archive's manifest.json: paths inside the archive."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...] = ()


def refuse(message: str, code: str = "bad_manifest", hint: str = "") -> NoReturn:
    """Raise the error for an image that is not accepted.

    Raises:
        ImageError: always.
    """
    raise ImageError(message, code=code, hint=hint)


def is_digest(text: str) -> bool:
    """Whether text is `sha256:` and 64 lower-case hex digits."""
    return _DIGEST.match(text) is not None


def require_digest(text: str) -> str:
    """Return text when it is a digest.

    Raises:
        ImageError: it is not; only sha256 is accepted.
    """
    if not is_digest(text):
        refuse(f"{text[:80]!r} is not a sha256 digest", "bad_digest", "use an image whose digests are sha256")
    return text


def parse_index(data: bytes) -> Index:
    """Read an OCI index or a Docker manifest list of at most 256 entries.

    Raises:
        ImageError: not such a document, or out of bounds.
    """
    document = _document(data, "index")
    if "layers" in document or "config" in document:
        refuse("the document is an index and a manifest at once", "ambiguous_manifest")
    _check_version(document, INDEX_TYPES, "index")
    index = _convert(document, Index, "index")
    if len(index.manifests) > MAX_INDEX_ENTRIES:
        refuse(f"the index names {len(index.manifests)} manifests, at most {MAX_INDEX_ENTRIES} allowed")
    for item in index.manifests:
        _check_descriptor(item, MAX_DOCUMENT_BYTES, "manifest")
    return index


def parse_manifest(data: bytes) -> Manifest:
    """Read an OCI or Docker v2 manifest with at most 127 layers of together at most 4 GiB.

    Raises:
        ImageError: not such a document, foreign or unknown layers, or out of bounds.
    """
    document = _document(data, "manifest")
    if "manifests" in document:
        refuse("the document is an index and a manifest at once", "ambiguous_manifest")
    _check_version(document, MANIFEST_TYPES, "manifest")
    layers = document.get("layers")
    if isinstance(layers, list) and len(layers) > MAX_IMAGE_LAYERS:
        refuse(f"the image has {len(layers)} layers, at most {MAX_IMAGE_LAYERS} allowed", "image_too_big")
    manifest = _convert(document, Manifest, "manifest")
    if not manifest.layers:
        refuse("the image has no layers")
    _check_descriptor(manifest.config, MAX_DOCUMENT_BYTES, "config")
    if manifest.config.media_type not in CONFIG_TYPES:
        refuse(
            f"config has media type {manifest.config.media_type[:80]!r}",
            "unsupported_media_type",
            "only container images can be run",
        )
    for layer in manifest.layers:
        _check_layer(layer)
    sizes: dict[str, int] = {}
    for item in (manifest.config, *manifest.layers):
        if sizes.setdefault(item.digest, item.size) != item.size:
            refuse(f"{item.digest} is named with two sizes")
    if sum(sizes.values()) > MAX_IMAGE_BYTES:
        refuse(f"the image is larger than {MAX_IMAGE_BYTES} bytes", "image_too_big")
    return manifest


def parse_config(data: bytes, layers: int) -> ImageConfig:
    """Read an image's config.

    Args:
        data: at most 1 MiB of JSON.
        layers: how many layers the manifest has; there must be as many diff ids.

    Raises:
        ImageError: not such a document, out of bounds, or not for Linux.
    """
    document = _document(data, "config")
    raw = _convert(document, _RawConfig, "config")
    if raw.os != "linux":
        refuse(f"the image is for {raw.os[:40]!r}, not for linux", "wrong_platform")
    if raw.rootfs.type != "layers" or len(raw.rootfs.diff_ids) != layers:
        refuse(f"the config has {len(raw.rootfs.diff_ids)} diff ids for {layers} layers", "bad_config")
    for digest in raw.rootfs.diff_ids:
        require_digest(digest)
    inner = raw.config or _RawInner()
    config = ImageConfig(
        architecture=raw.architecture,
        os=raw.os,
        entrypoint=tuple(inner.entrypoint or ()),
        cmd=tuple(inner.cmd or ()),
        env=tuple(inner.env or ()),
        working_dir=inner.working_dir or "/",
        user=inner.user or "",
        exposed_ports=tuple(sorted(inner.exposed_ports or ())),
        stop_signal=inner.stop_signal or "SIGTERM",
        volumes=tuple(sorted(inner.volumes or ())),
        diff_ids=tuple(raw.rootfs.diff_ids),
    )
    _check_config(config)
    return config


def parse_archive_manifest(data: bytes) -> tuple[ArchiveImage, ...]:
    """Read manifest.json of a docker-archive (`docker save`).

    Raises:
        ImageError: not such a document, paths that leave the archive, or too many layers.
    """
    value = _load(data, "manifest.json")
    images = _convert(value, list[_RawArchiveImage], "manifest.json")
    if not 1 <= len(images) <= MAX_INDEX_ENTRIES:
        refuse(f"manifest.json names {len(images)} images")
    for image in images:
        if not 1 <= len(image.layers) <= MAX_IMAGE_LAYERS:
            refuse(f"an image has {len(image.layers)} layers, 1 to {MAX_IMAGE_LAYERS} allowed", "image_too_big")
        for path in (image.config, *image.layers):
            if len(path) > 512 or not _ARCHIVE_PATH.match(path) or not {".", ".."}.isdisjoint(path.split("/")):
                refuse(f"manifest.json names the path {path[:80]!r}", "bad_path")
    return tuple(ArchiveImage(image.config, tuple(image.layers), tuple(image.repo_tags or ())) for image in images)


def select_manifest(index: Index, reference: str | None, architecture: str) -> Descriptor:
    """Choose one entry of an index.

    Args:
        index: the index.
        reference: the wanted `org.opencontainers.image.ref.name`, or None for the only fitting one.
        architecture: of this host, in Go's words, such as `amd64`.

    Raises:
        ImageError: none fits, or several do.
    """
    fitting = [item for item in index.manifests if item.media_type in INDEX_TYPES | MANIFEST_TYPES]
    if reference is not None:
        fitting = [item for item in fitting if reference in item.names]
    fitting = [
        item
        for item in fitting
        if item.platform is None or (item.platform.os == "linux" and item.platform.architecture == architecture)
    ]
    digests = {item.digest for item in fitting}
    if len(digests) == 1:
        return fitting[0]
    known = ", ".join(sorted({name for item in index.manifests for name in item.names})[:10]) or "none"
    if not fitting:
        refuse(f"no image for linux/{architecture} fits; names: {known}", "no_such_image", "name one of them")
    refuse(f"several images fit; names: {known}", "ambiguous_image", "name one of them")


class _RawRootfs(msgspec.Struct):
    type: str
    diff_ids: list[str]


class _RawInner(
    msgspec.Struct,
    rename={
        "entrypoint": "Entrypoint",
        "cmd": "Cmd",
        "env": "Env",
        "working_dir": "WorkingDir",
        "user": "User",
        "exposed_ports": "ExposedPorts",
        "stop_signal": "StopSignal",
        "volumes": "Volumes",
    },
):
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    stop_signal: str | None = None
    volumes: dict[str, Any] | None = None


class _RawConfig(msgspec.Struct):
    architecture: str
    os: str
    rootfs: _RawRootfs
    config: _RawInner | None = None


class _RawArchiveImage(msgspec.Struct, rename={"config": "Config", "layers": "Layers", "repo_tags": "RepoTags"}):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


def _load(data: bytes, name: str) -> Any:
    if len(data) > MAX_DOCUMENT_BYTES:
        refuse(f"the {name} has {len(data)} bytes, at most {MAX_DOCUMENT_BYTES} allowed", "image_too_big")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        refuse(f"the {name} is not JSON: {str(error)[:120]}")


def _document(data: bytes, name: str) -> dict[str, Any]:
    value = _load(data, name)
    if not isinstance(value, dict):
        refuse(f"the {name} is not a JSON object")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers of a document with a repeated key may see two different images under one digest.
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _convert(value: Any, kind: type[T], name: str) -> T:
    try:
        return convert(value, kind)
    except msgspec.ValidationError as error:
        refuse(f"the {name} is not valid: {str(error)[:200]}")


def _check_version(document: dict[str, Any], types: frozenset[str], name: str) -> None:
    version = document.get("schemaVersion")
    if version != 2 or isinstance(version, bool):
        refuse(f"the {name} has schemaVersion {str(version)[:20]}, not 2", "unsupported_media_type")
    media_type = document.get("mediaType")
    if media_type is not None and (not isinstance(media_type, str) or media_type not in types):
        refuse(f"the {name} has media type {str(media_type)[:80]!r}", "unsupported_media_type")


def _check_descriptor(item: Descriptor, max_bytes: int, name: str) -> None:
    require_digest(item.digest)
    if not 0 < item.size <= max_bytes:
        refuse(f"a {name} of {item.size} bytes, 1 to {max_bytes} allowed", "image_too_big")
    if item.urls:
        refuse(f"{name} {item.digest} is to be fetched from a URL", "foreign_layer", "only bytes by digest are used")


def _check_layer(layer: Descriptor) -> None:
    _check_descriptor(layer, MAX_IMAGE_BYTES, "layer")
    kind = layer.media_type
    if "nondistributable" in kind or "foreign" in kind:
        refuse(f"layer {layer.digest} is foreign", "foreign_layer", "only bytes by digest are used")
    if kind.endswith(("zstd", "zst")):
        refuse(
            f"layer {layer.digest} is compressed with zstd",
            "unsupported_compression",
            "build the image with gzip layers",
        )
    if kind not in PLAIN_TYPES | GZIP_TYPES:
        refuse(f"layer {layer.digest} has media type {kind[:80]!r}", "unsupported_media_type")


def _check_config(config: ImageConfig) -> None:
    lists = (config.entrypoint, config.cmd, config.env, config.exposed_ports, config.volumes)
    texts = [text for group in lists for text in group]
    if any(len(group) > MAX_LIST for group in lists) or sum(map(len, texts)) > 8 * MAX_TEXT_BYTES:
        refuse("the config's lists are too long", "bad_config")
    for text in (*texts, config.working_dir, config.user, config.architecture):
        if "\0" in text or len(text) > MAX_TEXT_BYTES:
            refuse(f"the config holds a text that cannot be used: {text[:40]!r}", "bad_config")
    for text in config.env:
        if text.find("=") < 1:
            refuse(f"the config's variable {text[:40]!r} has no name or value", "bad_config")
    for path in (config.working_dir, *config.volumes):
        if not path.startswith("/") or ".." in path.split("/") or len(path) > 4_096:
            refuse(f"the config names the path {path[:80]!r}", "bad_config")
    for port in config.exposed_ports:
        match = _PORT.match(port)
        if match is None or int(match[1]) > 65_535:
            refuse(f"the config exposes {port[:40]!r}, which is not a port", "bad_config")
    if config.user and not _USER.match(config.user):
        refuse(f"the config's user is {config.user[:40]!r}", "bad_config")
    if not _SIGNAL.match(config.stop_signal):
        refuse(f"the config's stop signal is {config.stop_signal[:40]!r}", "bad_config")
