"""From what the tenant asked (spec, lease, image) to what the runtime makes (container specification); pure."""

import hashlib
import re
import signal

from freehold.base.errors import InvalidInputError
from freehold.base.limits import MIB
from freehold.ledger.records import Lease
from freehold.protocol.spec import ServiceSpec
from freehold.runtime.images.store import BuiltImage
from freehold.runtime.spec import ContainerSpec, TmpfsMount, VolumeMount

_REAL_TIME = re.compile(r"SIGRT(MIN|MAX)(?:([+-])([0-9]{1,2}))?\Z", re.ASCII)

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def container_id(lease_id: bytes) -> str:
    """A lease's container on its node."""
    return lease_id.hex()


def volume_name(lease: Lease, spec: ServiceSpec, volume: str) -> str:
    """A volume of one replica on its node: it belongs to the deployment, not to the container.

    The name in the file may be longer than a name on the node, and may hold capitals: its hash stands for it.
    """
    digest = hashlib.sha256(f"freehold:volume:v1:{volume}".encode()).hexdigest()
    return f"{lease.deployment.hex()[:24]}-{spec.replica}-{digest[:16]}"


def container_spec(
    lease_id: bytes,
    lease: Lease,
    term: int,
    spec: ServiceSpec,
    image: BuiltImage,
    hosts: list[tuple[str, str]],
    dns: tuple[str, ...] = (),
) -> ContainerSpec:
    """What the runtime is to make.

    Args:
        lease_id: names the container.
        lease: limits and image as the ledger has them.
        term: the term that it runs under.
        spec: opened and checked.
        image: built.
        hosts: (service, address) lines.
        dns: resolvers, at most three.

    Raises:
        InvalidInputError: neither spec nor image names a command, or the stop signal is unknown.
    """
    config = image.config
    entrypoint = tuple(config.entrypoint if spec.entrypoint is None else spec.entrypoint)
    # As Docker does: a new entrypoint drops the image's command.
    default_command = config.cmd if spec.entrypoint is None else ()
    command = tuple(default_command if spec.command is None else spec.command)
    if not entrypoint + command:
        raise InvalidInputError(f"{spec.service}: neither file nor image names a command", code="no_command")
    scratch = max(16, spec.scratch_mib)
    return ContainerSpec(
        id=container_id(lease_id),
        tenant=lease.tenant.hex(),
        deployment=lease.deployment.hex(),
        image_path=str(image.path.absolute()),
        argv=entrypoint + command,
        env=_environment(config.env, spec.environment),
        cwd=spec.working_dir or config.working_dir or "/",
        user=spec.user or config.user,
        hostname=spec.hostname or spec.service,
        hosts=tuple(hosts),
        dns=dns[:3],
        memory_bytes=lease.resources.memory_mib * MIB,
        cpu_milli=lease.resources.vcpu_milli,
        pids=spec.pids,
        scratch_bytes=scratch * MIB,
        volumes=tuple(
            VolumeMount(
                name=volume_name(lease, spec, volume.name),
                path=volume.path,
                size_bytes=volume.size_mib * MIB,
                read_only=volume.read_only,
            )
            for volume in spec.volumes
        ),
        tmpfs=tuple(
            TmpfsMount(path=tmpfs.path, size_bytes=tmpfs.size_mib * MIB, mode=tmpfs.mode) for tmpfs in spec.tmpfs
        ),
        secrets=tuple((secret.target, secret.content) for secret in spec.secrets),
        read_only_root=spec.read_only,
        stop_signal=stop_signal(spec.stop_signal or config.stop_signal),
        term=term,
    )


def stop_signal(name: str) -> int:
    """The number of a signal such as `SIGTERM`, `TERM`, `SIGRTMIN+3` or `15`.

    Raises:
        InvalidInputError: no such signal.
    """
    text = name.upper() if name[:3].upper() == "SIG" or name.isdigit() else f"SIG{name.upper()}"
    number = 0
    real_time = _REAL_TIME.match(text)
    if real_time:
        base = signal.SIGRTMIN if real_time[1] == "MIN" else signal.SIGRTMAX
        number = base + int(f"{real_time[2] or '+'}{real_time[3] or 0}")
        number = number if signal.SIGRTMIN <= number <= signal.SIGRTMAX else 0
    elif text.isascii() and text.isdigit() and len(text) <= 2:
        number = int(text)
    elif text in signal.Signals.__members__:
        number = signal.Signals[text].value
    if not 1 <= number <= signal.SIGRTMAX:
        raise InvalidInputError(f"{name[:40]!r} is not a signal", code="bad_signal")
    return number


def _environment(image: tuple[str, ...], given: list[tuple[str, str]]) -> tuple[str, ...]:
    merged = dict(line.partition("=")[::2] for line in (DEFAULT_PATH, *image))
    merged.update(given)
    return tuple(f"{name}={value}" for name, value in merged.items())
