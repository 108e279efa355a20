"""Volumes, tmpfs and secrets of a service."""

import re

from freehold.base.limits import MIB
from freehold.client.compose.cursor import Cursor
from freehold.client.compose.keys import SERVICE_SECRET, SERVICE_VOLUME, TMPFS
from freehold.client.compose.model import DEFAULT_TMPFS_MIB, SecretMount, Tmpfs, VolumeMount
from freehold.client.compose.paths import read_container_path
from freehold.client.compose.problems import quote
from freehold.client.compose.quantities import parse_size_bytes, round_up_mib

MAX_MOUNTS = 32
MAX_TMPFS_MIB = 64 * 1024
NAMED_VOLUME_HINT = "use a named volume: `NAME:/path` here and `volumes: {NAME: {x-freehold: {size: 1GiB}}}` at the top"

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}\Z", re.ASCII)
_OCTAL = re.compile(r"0?o?[0-7]{1,4}\Z", re.ASCII)


def is_resource_name(text: str) -> bool:
    """Whether text may name a volume, network or secret."""
    return _NAME.match(text) is not None


def read_volumes(place: Cursor) -> tuple[tuple[VolumeMount, ...], tuple[Tmpfs, ...]]:
    """The `volumes` of a service: named volumes, and tmpfs in long form."""
    mounts: list[VolumeMount] = []
    memory: list[Tmpfs] = []
    for item in place.items(limit=MAX_MOUNTS):
        found = _long_volume(item) if isinstance(item.value, dict) else _short_volume(item)
        if isinstance(found, Tmpfs):
            memory.append(found)
        elif found is not None:
            mounts.append(found)
    return tuple(mounts), tuple(memory)


def read_tmpfs(place: Cursor) -> tuple[Tmpfs, ...]:
    """The `tmpfs` key: one path or a list, each with `:size=64m,mode=1777` or without."""
    places = [place] if isinstance(place.value, str) else place.items("a path or a list of paths", limit=MAX_MOUNTS)
    found = []
    for item in places:
        text = item.text("a path")
        if text is None:
            continue
        path, _, options = text.partition(":")
        target = read_container_path(item, path, mount=True)
        settings = _tmpfs_options(item, options)
        if target is not None and settings is not None:
            found.append(Tmpfs(target, *settings))
    return tuple(found)


def read_service_secrets(place: Cursor) -> tuple[SecretMount, ...]:
    """The `secrets` of a service."""
    found: list[SecretMount] = []
    for item in place.items(limit=MAX_MOUNTS):
        mount = _secret(item)
        if mount is None:
            continue
        if any(other.target == mount.target for other in found):
            item.report("duplicate_mount", f"two secrets appear as {quote(mount.target)}", "give one another `target`")
        else:
            found.append(mount)
    return tuple(found)


def _secret(item: Cursor) -> SecretMount | None:
    if not isinstance(item.value, dict):
        source = item.text("a secret's name")
        return None if source is None else SecretMount(source, source)
    fields = item.fields(SERVICE_SECRET)
    if "source" not in fields:
        item.report("missing_key", "a secret needs `source`")
        return None
    named = fields["source"].text("a secret's name")
    if named is None or "target" not in fields:
        return None if named is None else SecretMount(named, named)
    target = fields["target"].text("a file name")
    if target is None:
        return None
    if not is_resource_name(target):
        fields["target"].report("bad_path", f"{quote(target)} is not a file name", "it appears as /run/secrets/TARGET")
        return None
    return SecretMount(named, target)


def _short_volume(item: Cursor) -> VolumeMount | None:
    text = item.text("a volume")
    if text is None:
        return None
    source, colon, rest = text.partition(":")
    if not colon:
        item.report("anonymous_volume", f"{quote(text)} is a volume without a name", NAMED_VOLUME_HINT)
        return None
    if not _check_source(item, source, text):
        return None
    path, _, options = rest.partition(":")
    target = read_container_path(item, path, mount=True)
    if options not in ("", "ro", "rw"):
        item.report("unsupported_value", f"the mount option {quote(options)} is not supported", "use ro or rw")
        return None
    return None if target is None else VolumeMount(source, target, options == "ro")


def _check_source(item: Cursor, source: str, text: str) -> bool:
    if "docker.sock" in text or "podman.sock" in text or "containerd.sock" in text:
        item.report(
            "host_mount", "no container runtime's socket is ever given to a container", "remove it; use the grid's API"
        )
    elif source.startswith((".", "/", "~", "\\")) or "/" in source or (len(source) == 1 and "\\" in text):
        item.report("host_mount", f"{quote(source)} is a path of the host: none is ever mounted", NAMED_VOLUME_HINT)
    elif not is_resource_name(source):
        item.report("bad_name", f"{quote(source)} cannot name a volume", "use letters, digits, `_`, `.`, `-`")
    else:
        return True
    return False


def _long_volume(item: Cursor) -> VolumeMount | Tmpfs | None:
    kind = item.value.get("type")
    if kind not in ("volume", "tmpfs"):
        _refuse_type(item, kind)
        return None
    fields = item.fields(SERVICE_VOLUME)
    path = fields["target"].text("a path") if "target" in fields else None
    if path is None:
        if "target" not in fields:
            item.report("missing_key", "a mount needs `target`")
        return None
    target = read_container_path(fields["target"], path, mount=True)
    if kind == "tmpfs":
        return _long_tmpfs(fields, target)
    if "tmpfs" in fields:
        fields["tmpfs"].report("no_effect", "a volume has no tmpfs settings", "remove it")
    if "source" not in fields:
        item.report("anonymous_volume", "the volume has no name", NAMED_VOLUME_HINT)
        return None
    source = fields["source"].text("a volume's name")
    read_only = fields["read_only"].boolean() if "read_only" in fields else False
    if target is None or source is None or not _check_source(fields["source"], source, source):
        return None
    return VolumeMount(source, target, bool(read_only))


def _refuse_type(item: Cursor, kind: object) -> None:
    source = str(item.value.get("source", ""))
    is_host = kind in ("bind", "npipe")
    if is_host and not _check_source(item, source, source):
        return
    place = item.child("type") if "type" in item.value else item
    code = "host_mount" if is_host else "unsupported_value"
    place.report(code, f"the mount type {quote(kind)} is not supported", NAMED_VOLUME_HINT)


def _long_tmpfs(fields: dict[str, Cursor], target: str | None) -> Tmpfs | None:
    for key in ("source", "read_only"):
        if key in fields:
            fields[key].report("no_effect", f"a tmpfs has no {key}", "remove it")
    size: int | None = DEFAULT_TMPFS_MIB
    mode: int | None = 0o1777
    inner = fields["tmpfs"].fields(TMPFS) if "tmpfs" in fields else {}
    if "size" in inner:
        size = read_mib(inner["size"], 1, MAX_TMPFS_MIB)
    if "mode" in inner:
        mode = inner["mode"].integer(0, 0o7777)
    return None if target is None or size is None or mode is None else Tmpfs(target, size, mode)


def _tmpfs_options(item: Cursor, options: str) -> tuple[int, int] | None:
    size, mode = DEFAULT_TMPFS_MIB, 0o1777
    for option in options.split(",") if options else []:
        name, _, value = option.partition("=")
        size_bytes = parse_size_bytes(value) if name == "size" else None
        if size_bytes is not None and 1 <= round_up_mib(size_bytes) <= MAX_TMPFS_MIB:
            size = round_up_mib(size_bytes)
        elif name == "mode" and _OCTAL.match(value):
            mode = int(value.lstrip("o"), 8)
        else:
            item.report("unsupported_value", f"the tmpfs option {quote(option)} is not supported", "use size=, mode=")
            return None
    return size, mode


def read_mib(place: Cursor, low_mib: int, high_mib: int) -> int | None:
    """A size in whole MiB, rounded up, within bounds; reports and gives None otherwise."""
    value = place.value
    size_bytes = None
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        size_bytes = parse_size_bytes(value)
    if size_bytes is None:
        place.report("bad_size", f"{quote(value)} is not a size", "write a number and b, k, m or g, such as 512m")
        return None
    size = round_up_mib(size_bytes)
    if size_bytes < low_mib * MIB or size > high_mib:
        place.report("out_of_range", f"{quote(value)} is out of range", f"from {low_mib} MiB to {high_mib} MiB")
        return None
    return size
