"""What must hold between the parts of a file: references, cycles, ports, shared volumes, networks, sizes."""

from collections.abc import Mapping

import msgspec

from freehold.base.limits import MAX_LEASES_PER_DEPLOYMENT
from freehold.client.compose.cursor import Cursor, suggest
from freehold.client.compose.model import Service
from freehold.client.compose.problems import quote
from freehold.client.compose.service import MAX_SERVICE_BYTES


class Declared(msgspec.Struct, frozen=True):
    """Names that the file declares, also those whose entry has problems of its own."""

    services: frozenset[str]
    volumes: frozenset[str]
    networks: frozenset[str]
    secrets: frozenset[str]


def check_relations(
    root: Cursor, services: Mapping[str, Service], declared: Declared, secret_bytes: Mapping[str, int]
) -> None:
    """Report every relation between the parts that does not hold.

    Args:
        root: the file.
        services: those that could be read.
        declared: all names in the file.
        secret_bytes: length of each secret that could be read.
    """
    places = {name: root.child("services").child(name) for name in services}
    for name, service in services.items():
        _check_references(places[name], service, declared)
        _check_size(places[name], service, secret_bytes)
    _check_cycle(places, services)
    _check_health(places, services)
    _check_published(places, services)
    _check_volumes(places, services)
    _check_networks(places, services)
    _check_reachable(places, services)
    _check_unused(root, services, declared)
    total = sum(service.replicas for service in services.values())
    if total > MAX_LEASES_PER_DEPLOYMENT:
        root.report("too_many", f"{total} replicas in all, at most {MAX_LEASES_PER_DEPLOYMENT} in a deployment")


def _check_references(place: Cursor, service: Service, declared: Declared) -> None:
    for dependency in service.depends_on:
        if dependency.service not in declared.services:
            _missing(place, "depends_on", "service", dependency.service, declared.services)
    for mount in service.volumes:
        if mount.volume not in declared.volumes:
            _missing(place, "volumes", "volume", mount.volume, declared.volumes)
    for secret in service.secrets:
        if secret.source not in declared.secrets:
            _missing(place, "secrets", "secret", secret.source, declared.secrets)
    for network in service.networks:
        if network not in declared.networks | {"default"}:
            _missing(place, "networks", "network", network, declared.networks)


def _missing(place: Cursor, key: str, noun: str, name: str, known: frozenset[str]) -> None:
    hint = suggest(name, known) or f"add it to the top-level `{noun}s`"
    _entry(place.child(key), name).report(f"missing_{noun}", f"no {noun} {quote(name)} in this file", hint)


def _entry(place: Cursor, name: str) -> Cursor:
    """The place in a list or mapping that names something, as nearly as can be told."""
    if isinstance(place.value, dict) and name in place.value:
        return place.child(name)
    if isinstance(place.value, list):
        for index, item in enumerate(place.value):
            text = item.get("source") if isinstance(item, dict) else item
            if isinstance(text, str) and (text == name or text.startswith(f"{name}:")):
                return place.child(index)
    return place


def _check_cycle(places: Mapping[str, Cursor], services: Mapping[str, Service]) -> None:
    """Walk dependencies depth first and name each cycle in order, beginning with the service written first."""
    done: set[str] = set()
    for start in services:
        trail: list[str] = []
        stack = [(start, iter(services[start].depends_on))] if start not in done else []
        trail += [name for name, _ in stack]
        while stack:
            name, dependencies = stack[-1]
            following = next((item.service for item in dependencies if item.service in services), None)
            if following is None:
                done.add(name)
                stack.pop()
                trail.pop()
            elif following in trail:
                cycle = trail[trail.index(following) :]
                first = min(range(len(cycle)), key=lambda at: list(services).index(cycle[at]))
                ordered = [*cycle[first:], *cycle[:first]]
                _entry(places[ordered[0]].child("depends_on"), ordered[1 % len(ordered)]).report(
                    "dependency_cycle",
                    f"services wait for each other: {' -> '.join([*ordered, ordered[0]])}",
                    "remove one of these dependencies",
                )
            elif following not in done:
                trail.append(following)
                stack.append((following, iter(services[following].depends_on)))


def _check_health(places: Mapping[str, Cursor], services: Mapping[str, Service]) -> None:
    for name, service in services.items():
        for dependency in service.depends_on:
            other = services.get(dependency.service)
            if dependency.condition != "service_healthy" or other is None:
                continue
            if other.healthcheck is None or other.healthcheck.is_disabled:
                _entry(places[name].child("depends_on"), dependency.service).report(
                    "no_healthcheck",
                    f"{dependency.service} has no healthcheck, so it never becomes healthy",
                    f"give {dependency.service} a healthcheck, or wait for service_started",
                )


def _check_reachable(places: Mapping[str, Cursor], services: Mapping[str, Service]) -> None:
    for name, service in services.items():
        for dependency in service.depends_on:
            other = services.get(dependency.service)
            if other is not None and not other.ports and not other.expose:
                places[other.name].report(
                    "warning_no_port",
                    f"{name} depends on {other.name}, but no port of {other.name} can be reached",
                    'name the ports that other services use: `expose: ["5432"]`',
                )


def _check_published(places: Mapping[str, Cursor], services: Mapping[str, Service]) -> None:
    holders: dict[int, str] = {}
    for name, service in services.items():
        for port in service.ports:
            if not port.published:
                continue
            holder = holders.setdefault(port.published, name)
            if holder != name or sum(other.published == port.published for other in service.ports) > 1:
                places[name].child("ports").report(
                    "duplicate_port",
                    f"port {port.published} is published by {holder} already",
                    "publish another port",
                )


def _check_volumes(places: Mapping[str, Cursor], services: Mapping[str, Service]) -> None:
    holders: dict[str, str] = {}
    for name, service in services.items():
        if service.volumes and service.replicas > 1:
            places[name].report("conflict", "replicas cannot share volumes", "use one replica")
        for mount in service.volumes:
            holder = holders.setdefault(mount.volume, name)
            if holder != name:
                _entry(places[name].child("volumes"), mount.volume).report(
                    "shared_volume",
                    f"the volume {quote(mount.volume)} is also mounted by {holder}, which runs on another node",
                    "give each service a volume of its own",
                )


def _check_networks(places: Mapping[str, Cursor], services: Mapping[str, Service]) -> None:
    """All services of a deployment reach each other; a file that says otherwise would be obeyed only in part."""
    names = list(services)
    for index, name in enumerate(names):
        for other in names[:index]:
            if set(services[name].networks).isdisjoint(services[other].networks):
                place = places[name].child("networks") if "networks" in places[name].value else places[name]
                place.report(
                    "separate_networks",
                    f"{other} and {name} share no network, but services of a deployment are not separated yet",
                    "put both on one network, or deploy them as two files",
                )
                break


def _check_unused(root: Cursor, services: Mapping[str, Service], declared: Declared) -> None:
    if services.keys() != declared.services:
        return  # what is broken may be what uses them
    used = {
        "volumes": {mount.volume for service in services.values() for mount in service.volumes},
        "secrets": {mount.source for service in services.values() for mount in service.secrets},
        "networks": {name for service in services.values() for name in service.networks} | {"default"},
    }
    for key, names in (("volumes", declared.volumes), ("secrets", declared.secrets), ("networks", declared.networks)):
        for name in sorted(names - used[key]):
            root.child(key).child(name).report("warning_unused", f"no service uses {quote(name)}", "remove it")


def _check_size(place: Cursor, service: Service, secret_bytes: Mapping[str, int]) -> None:
    """What travels in the sealed spec: environment, arguments, mounts and secrets."""
    texts = [*service.environment, *service.environment.values(), *(service.command or ()), *(service.entrypoint or ())]
    texts += service.healthcheck.test if service.healthcheck else ()
    texts += [text for mount in service.volumes for text in (mount.volume, mount.target)]
    texts += [mount.target for mount in service.tmpfs] + [mount.target for mount in service.secrets]
    total = sum(len(text.encode(errors="surrogatepass")) + 4 for text in texts)
    total += sum(secret_bytes.get(mount.source, 0) for mount in service.secrets)
    if total > MAX_SERVICE_BYTES:
        place.report(
            "oversized",
            f"environment, commands and secrets have {total} bytes, at most {MAX_SERVICE_BYTES}",
            "put data into the image or a volume",
        )
