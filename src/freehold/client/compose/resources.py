"""What a service may use: deploy.resources.limits and the short keys that mean the same; replicas."""

from collections.abc import Callable, Mapping

from freehold.client.compose.cursor import Cursor
from freehold.client.compose.environment import read_labels
from freehold.client.compose.keys import DEPLOY, LIMITS, RESOURCES
from freehold.client.compose.model import DEFAULT_CPU_MILLI, DEFAULT_MEMORY_MIB, DEFAULT_PIDS, Limits
from freehold.client.compose.mounts import read_mib
from freehold.client.compose.problems import quote
from freehold.client.compose.quantities import parse_milli_cpus

MIN_CPU_MILLI, MAX_CPU_MILLI = 10, 256_000
MIN_MEMORY_MIB, MAX_MEMORY_MIB = 16, 1024 * 1024
MIN_PIDS, MAX_PIDS = 1, 32_768
MAX_REPLICAS = 1  # a name reaches one replica for now; model and planner take more


def read_resources(fields: Mapping[str, Cursor]) -> tuple[Limits, int]:
    """Limits and replicas of a service.

    Args:
        fields: the service's supported keys.
    """
    deploy: dict[str, Cursor] = {}
    if "deploy" in fields and fields["deploy"].value is not None:
        deploy = fields["deploy"].fields(DEPLOY)
    if "labels" in deploy:
        read_labels(deploy["labels"])
    replicas = _replicas(deploy["replicas"]) if "replicas" in deploy else 1
    resources = deploy["resources"].fields(RESOURCES) if "resources" in deploy else {}
    limits = resources["limits"].fields(LIMITS) if "limits" in resources else {}
    return (
        Limits(
            cpu_milli=_either(limits.get("cpus"), fields.get("cpus"), _cpus, DEFAULT_CPU_MILLI),
            memory_mib=_either(limits.get("memory"), fields.get("mem_limit"), _memory, DEFAULT_MEMORY_MIB),
            pids=_either(limits.get("pids"), fields.get("pids_limit"), _pids, DEFAULT_PIDS),
        ),
        replicas,
    )


def _either(long: Cursor | None, short: Cursor | None, read: Callable[[Cursor], int | None], default: int) -> int:
    values = [read(place) for place in (long, short) if place is not None]
    if len(values) == 2 and None not in values and values[0] != values[1] and short is not None:
        short.report(
            "conflict", f"{short.name} and deploy.resources.limits say different things", f"remove {short.name}"
        )
    return next((value for value in values if value is not None), default)


def _replicas(place: Cursor) -> int:
    count = place.integer(0, 1_000)
    if count is None:
        return 1
    if not 1 <= count <= MAX_REPLICAS:
        place.report(
            "unsupported_value",
            f"{count} replicas are not supported: a service has one replica and up to four standbys",
            "remove it, and set `x-freehold: {standbys: N}` for failover",
        )
        return 1
    return count


def _cpus(place: Cursor) -> int | None:
    value = place.value
    milli = parse_milli_cpus(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    if milli is None:
        place.report("bad_value", f"{quote(value)} is not a number of CPUs", "such as 0.5 or 2")
        return None
    if not MIN_CPU_MILLI <= milli <= MAX_CPU_MILLI:
        place.report("out_of_range", f"{quote(value)} CPUs is out of range", "from 0.01 to 256")
        return None
    return milli


def _memory(place: Cursor) -> int | None:
    return read_mib(place, MIN_MEMORY_MIB, MAX_MEMORY_MIB)


def _pids(place: Cursor) -> int | None:
    return place.integer(MIN_PIDS, MAX_PIDS)
