"""From the checked compose file to the sealed specs of its leases; pure but for the salt that is handed in."""

from freehold.client.compose.model import ComposeFile, Service
from freehold.client.pricing import reachable_ports
from freehold.ledger.transactions import lease_id
from freehold.protocol.spec import (
    SPEC_VERSION,
    HealthSpec,
    PeerSpec,
    RestartSpec,
    SecretSpec,
    ServiceSpec,
    TmpfsSpec,
    VolumeSpec,
)

_CONDITIONS = {"service_started": "started", "service_healthy": "healthy"}


def service_spec(
    model: ComposeFile, service: Service, replica: int, deployment: bytes, image_proof: bytes
) -> ServiceSpec:
    """The spec of one replica.

    Args:
        model: the whole file, for volumes, secrets and the other services.
        service: of the file.
        replica: from 0.
        deployment: id, from which the other services' lease ids follow.
        image_proof: that the tenant has the image, see `protocol.spec.image_proof`.
    """
    check = service.healthcheck
    return ServiceSpec(
        version=SPEC_VERSION,
        deployment=model.name,
        service=service.name,
        replica=replica,
        image=str(service.image),
        entrypoint=None if service.entrypoint is None else list(service.entrypoint),
        command=None if service.command is None else list(service.command),
        environment=sorted(service.environment.items()),
        working_dir=service.working_dir,
        user=service.user,
        hostname=service.hostname,
        pids=service.limits.pids,
        scratch_mib=service.limits.scratch_mib,
        read_only=service.read_only,
        volumes=[
            VolumeSpec(mount.volume, mount.target, model.volumes[mount.volume].size_mib, mount.read_only)
            for mount in service.volumes
        ],
        tmpfs=[TmpfsSpec(tmpfs.target, tmpfs.size_mib, tmpfs.mode) for tmpfs in service.tmpfs],
        secrets=[SecretSpec(mount.target, model.secrets[mount.source].data) for mount in service.secrets],
        health=None
        if check is None or check.is_disabled
        else HealthSpec(list(check.test), check.interval_ms, check.timeout_ms, check.retries, check.start_period_ms),
        restart=RestartSpec(service.restart.policy, service.restart.max_retries),
        stop_signal=service.stop_signal,
        stop_grace_ms=service.stop_grace_ms,
        peers=_peers(model, service, deployment),
        image_proof=image_proof,
    )


def _peers(model: ComposeFile, service: Service, deployment: bytes) -> list[PeerSpec]:
    conditions = {dependency.service: _CONDITIONS[dependency.condition] for dependency in service.depends_on}
    return [
        PeerSpec(
            service=other.name,
            leases=[lease_id(deployment, other.name, replica) for replica in range(other.replicas)],
            ports=reachable_ports(other),
            condition=conditions.get(other.name, ""),
        )
        for other in model.services.values()
        if other.name != service.name
    ]
