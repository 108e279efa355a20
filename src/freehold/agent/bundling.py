"""From what the tenant asked (spec, lease, image) to what the runtime makes (container specification); pure."""

import signal

from freehold.base.errors import InvalidInputError
from freehold.base.limits import MIB
from freehold.ledger.records import Lease
from freehold.protocol.spec import ServiceSpec
from freehold.runtime.images.store import BuiltImage
from freehold.runtime.spec import ContainerSpec, VolumeMount

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def container_id(lease_id: bytes) -> str:
    """A lease's container on its node."""
    return lease_id.hex()


def volume_name(lease: Lease, spec: ServiceSpec, volume: str) -> str:
    """A volume of one replica on its node: it belongs to the deployment, not to the container."""
    return f"{lease.deployment.hex()[:24]}-{spec.replica}-{volume}"


def container_spec(
    lease_id: bytes, lease: Lease, term: int, spec: ServiceSpec, image: BuiltImage, hosts: list[tuple[str, str]]
) -> ContainerSpec:
    """What the runtime is to make.

    Args:
        lease_id: names the container.
        lease: limits and image as the ledger has them.
        term: the term that it runs under.
        spec: opened and checked.
        image: built.
        hosts: (service, address) lines.

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
        secrets=tuple((secret.target, secret.content) for secret in spec.secrets),
        read_only_root=spec.read_only,
        stop_signal=stop_signal(spec.stop_signal or config.stop_signal),
        term=term,
    )


def stop_signal(name: str) -> int:
    """The number of a signal such as `SIGTERM`, `TERM` or `15`.

    Raises:
        InvalidInputError: no such signal.
    """
    text = name.upper()
    try:
        return int(text) if text.isdigit() else signal.Signals[text if text.startswith("SIG") else f"SIG{text}"].value
    except KeyError:
        raise InvalidInputError(f"{name[:40]!r} is not a signal", code="bad_signal") from None


def _environment(image: tuple[str, ...], given: list[tuple[str, str]]) -> tuple[str, ...]:
    merged = dict(line.partition("=")[::2] for line in (DEFAULT_PATH, *image))
    merged.update(given)
    return tuple(f"{name}={value}" for name, value in merged.items())
