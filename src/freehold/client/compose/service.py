"""One service of a compose file, from its cursor to the typed model."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from freehold.base.limits import MAX_STANDBYS
from freehold.client.compose.cursor import EXTENSION, Cursor
from freehold.client.compose.environment import ReadFile, read_environment, read_labels
from freehold.client.compose.keys import DEPENDENCY, FREEHOLD_SERVICE, SERVICE, SERVICE_NETWORK
from freehold.client.compose.model import (
    DEFAULT_STOP_GRACE_MS,
    Dependency,
    Limits,
    Port,
    Probe,
    Restart,
    Service,
    Tmpfs,
    VolumeMount,
)
from freehold.client.compose.mounts import read_service_secrets, read_tmpfs, read_volumes
from freehold.client.compose.ports import read_expose, read_ports, read_probe
from freehold.client.compose.problems import quote
from freehold.client.compose.process import (
    read_command,
    read_healthcheck,
    read_hostname,
    read_restart,
    read_stop_grace_ms,
    read_stop_signal,
    read_user,
    read_working_dir,
)
from freehold.client.compose.references import ImageReference, parse_image_reference
from freehold.client.compose.resources import read_resources

MAX_SERVICE_BYTES = 56 * 1024  # of the 64 KiB that a sealed spec may have
MAX_DEPENDENCIES = 64

T = TypeVar("T")
# A service's name is a host name to the others and part of `deployment/service`.
_SERVICE_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z", re.ASCII)


def is_service_name(text: str) -> bool:
    """Whether text may name a service: a host name's label, `_` allowed inside."""
    return _SERVICE_NAME.match(text) is not None


def read_service(place: Cursor, variables: Mapping[str, str], read_file: ReadFile) -> Service | None:
    """Read one service; what has problems is reported and left at its default.

    Args:
        place: the service.
        variables: for environment entries without a value and variables in env files.
        read_file: reads an env_file beside the compose file.

    Returns:
        None when it is no mapping at all.
    """
    fields = place.fields(SERVICE)
    if not isinstance(place.value, dict):
        return None

    def get(key: str, read: Callable[[Cursor], T], default: T) -> T:
        return read(fields[key]) if key in fields else default

    image = _image(place, fields)
    no_mounts: tuple[tuple[VolumeMount, ...], tuple[Tmpfs, ...]] = ((), ())
    no_ports: tuple[Port, ...] = ()
    volumes, memory = get("volumes", read_volumes, no_mounts)
    tmpfs = memory + get("tmpfs", read_tmpfs, no_mounts[1])
    limits, replicas = read_resources(fields)
    _check_mounts(place, volumes, tmpfs, limits)
    ports = get("ports", read_ports, no_ports)
    standbys, probe, failover_empty = _settings(fields.get(EXTENSION), ports, has_volumes=bool(volumes))
    grace_ms = get("stop_grace_period", read_stop_grace_ms, None)
    return Service(
        name=place.name,
        image=image or ImageReference(""),
        entrypoint=get("entrypoint", read_command, None),
        command=get("command", read_command, None),
        environment=read_environment(fields, variables, read_file),
        ports=ports,
        expose=get("expose", read_expose, ()),
        volumes=volumes,
        tmpfs=tmpfs,
        secrets=get("secrets", read_service_secrets, ()),
        healthcheck=get("healthcheck", read_healthcheck, None),
        restart=get("restart", read_restart, Restart()),
        depends_on=get("depends_on", _dependencies, ()),
        replicas=replicas,
        limits=limits,
        hostname=get("hostname", read_hostname, ""),
        working_dir=get("working_dir", read_working_dir, ""),
        user=get("user", read_user, ""),
        stop_signal=get("stop_signal", read_stop_signal, ""),
        stop_grace_ms=DEFAULT_STOP_GRACE_MS if grace_ms is None else grace_ms,
        read_only=get("read_only", Cursor.boolean, None) is True,
        labels=get("labels", read_labels, {}),
        networks=get("networks", _networks, ("default",)),
        standbys=standbys,
        probe=probe,
        failover_empty=failover_empty,
    )


def _image(place: Cursor, fields: Mapping[str, Cursor]) -> ImageReference | None:
    if "image" not in fields:
        if "build" not in place.value:  # whose refusal already says what to do
            place.report("missing_key", f"the service {quote(place.name)} has no image", "add `image: NAME`")
        return None
    text = fields["image"].text("an image's name", 512)
    if text is None:
        return None
    image = parse_image_reference(text)
    if image is None:
        fields["image"].report(
            "bad_image",
            f"{quote(text)} is not an image's name",
            "such as postgres:16 or NAME@sha256:DIGEST, lower case",
        )
    return image


def _check_mounts(place: Cursor, volumes: tuple[VolumeMount, ...], tmpfs: tuple[Tmpfs, ...], limits: Limits) -> None:
    targets = [mount.target for mount in volumes] + [mount.target for mount in tmpfs]
    for target in dict.fromkeys(target for target in targets if targets.count(target) > 1):
        place.report("duplicate_mount", f"two things are mounted at {quote(target)}", "give one another path")
    total_mib = sum(mount.size_mib for mount in tmpfs)
    if total_mib > limits.memory_mib:
        place.report(
            "conflict",
            f"tmpfs of {total_mib} MiB in {limits.memory_mib} MiB of memory",
            "tmpfs is memory: raise deploy.resources.limits.memory, or give each tmpfs a smaller size",
        )


def _settings(place: Cursor | None, ports: tuple[Port, ...], *, has_volumes: bool) -> tuple[int, Probe | None, bool]:
    """Standbys, probe and failover, from x-freehold or by default."""
    fields = {} if place is None else place.fields(FREEHOLD_SERVICE)
    failover_empty = False
    if "failover" in fields:
        failover_empty = fields["failover"].value == "empty"
        if not failover_empty:
            fields["failover"].report(
                "bad_value", "failover can only be `empty`", "a standby starts with empty volumes"
            )
        elif not has_volumes:
            fields["failover"].report("no_effect", "the service has no volumes", "remove it: it fails over anyway")
    may_fail_over = failover_empty or not has_volumes
    standbys = 1 if may_fail_over else 0
    if "standbys" in fields:
        asked = fields["standbys"].integer(0, MAX_STANDBYS)
        standbys = standbys if asked is None else asked
        if standbys and not may_fail_over:
            fields["standbys"].report(
                "conflict",
                "the service's volumes die with their node, so no standby can take over with the data",
                "set `failover: empty` if it may start with empty volumes, or `standbys: 0`",
            )
    probe = Probe("tcp", ports[0].target) if ports else None
    if "probe" in fields:
        probe = read_probe(fields["probe"])
    return standbys, probe, failover_empty


def _dependencies(place: Cursor) -> tuple[Dependency, ...]:
    if isinstance(place.value, list):
        names = [text for _, text in place.strings()]
        return tuple(Dependency(name) for name in dict.fromkeys(names))
    found = []
    for entry in place.entries("a list of services or a mapping")[:MAX_DEPENDENCIES]:
        fields = entry.fields(DEPENDENCY)
        if "condition" not in fields:
            entry.report("missing_key", "a dependency needs `condition`", "service_started or service_healthy")
            continue
        condition = fields["condition"].value
        if condition == "service_started" or condition == "service_healthy":
            found.append(Dependency(entry.name, condition))
        elif condition == "service_completed_successfully":
            fields["condition"].report(
                "unsupported_value",
                "services are not run to completion",
                "do the work in the entrypoint of the service",
            )
        else:
            fields["condition"].report(
                "bad_value", f"{quote(condition)} is no condition", "service_started or service_healthy"
            )
    return tuple(found)


def _networks(place: Cursor) -> tuple[str, ...]:
    if isinstance(place.value, list):
        return tuple(dict.fromkeys(text for _, text in place.strings()))
    names = []
    for entry in place.entries("a list of networks or a mapping")[:MAX_DEPENDENCIES]:
        if entry.value is not None:
            entry.fields(SERVICE_NETWORK)
        names.append(entry.name)
    return tuple(names)
