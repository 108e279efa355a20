"""The service spec: what a member runs, sealed for each member, bound to the ledger by a salted hash.

docs/spec/specs.md. A member accepts a spec only when the box opens with its box key, the tenant's signature and the
chain id, lease and member inside match, and the hash of (salt, spec) is the lease's `spec_hash`.
"""

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import RemoteProtocolError
from freehold.base.ids import is_name
from freehold.base.limits import ID_BYTES, MAX_LEASES_PER_DEPLOYMENT, MAX_SPEC_BYTES
from freehold.crypto.box import BoxKey, seal
from freehold.crypto.ed25519 import PrivateKey, verify_strict
from freehold.crypto.hashing import Purpose, signing_bytes, tagged_hash

SPEC_VERSION = 1
SALT_BYTES = 32
MAX_STOP_GRACE_MS = 300_000
MAX_PEERS = 64
MAX_PEER_PORTS = 256  # of all services together
CONDITIONS = ("", "started", "healthy")
RESTART_POLICIES = ("no", "always", "on-failure", "unless-stopped")


class VolumeSpec(Record):
    """A named volume: mount path in the container, size in MiB."""

    name: str
    path: str
    size_mib: int
    read_only: bool


class TmpfsSpec(Record):
    """A temporary file system: mount path, size in MiB (it counts as memory), mode bits."""

    path: str
    size_mib: int
    mode: int


class SecretSpec(Record):
    """A file under /run/secrets with the given content."""

    target: str
    content: bytes


class HealthSpec(Record):
    """A command run inside the container: argv (first word CMD or CMD-SHELL already resolved), times in ms."""

    argv: list[str]
    interval_ms: int
    timeout_ms: int
    retries: int
    start_period_ms: int


class RestartSpec(Record):
    """Restart policy: `no`, `always`, `on-failure` (at most `attempts`, 0 = no limit) or `unless-stopped`."""

    policy: str
    attempts: int


class PeerSpec(Record):
    """A service of the same deployment, reachable by name: its leases (one per replica) and container ports.

    `condition`: "" no dependency, "started" or "healthy": what must hold before this service starts.
    """

    service: str
    leases: list[bytes]
    ports: list[int]
    condition: str


class ServiceSpec(Record):
    """Everything that one container of a service needs, besides what stands in clear on the lease."""

    version: int
    deployment: str
    service: str
    replica: int
    image: str  # as the tenant wrote it; the lease names the digest
    entrypoint: list[str] | None  # None: the image's own
    command: list[str] | None
    environment: list[tuple[str, str]]
    working_dir: str
    user: str
    hostname: str
    pids: int
    scratch_mib: int
    read_only: bool
    volumes: list[VolumeSpec]
    tmpfs: list[TmpfsSpec]
    secrets: list[SecretSpec]
    health: HealthSpec | None
    restart: RestartSpec
    stop_signal: str
    stop_grace_ms: int
    peers: list[PeerSpec]
    image_proof: bytes  # see `image_proof`


class SealedContent(Record):
    """What is inside a member's box."""

    version: int
    chain_id: str
    lease: bytes
    member: bytes
    salt: bytes
    spec: bytes
    tenant: bytes
    signer: bytes
    signature: bytes  # of the tenant, tag SPEC_BOX_SIGN, over the fields before it


def spec_hash(salt: bytes, spec: bytes) -> bytes:
    """The hash that stands on the lease."""
    return tagged_hash(Purpose.SPEC, salt, spec)


def image_proof(tenant: bytes, manifest: bytes) -> bytes:
    """Show that a tenant has an image: the ledger tells its digest to everyone, and a node may hold it for another.

    Args:
        tenant: account id, so that another tenant's proof is worth nothing.
        manifest: the bytes of the image's manifest, which names everything in it.
    """
    return tagged_hash(Purpose.IMAGE_PROOF, tenant, manifest)


def seal_spec(
    chain_id: str, lease: bytes, member: bytes, box_key: bytes, salt: bytes, spec: ServiceSpec, tenant: PrivateKey
) -> bytes:
    """Seal a spec for one member.

    Args:
        chain_id: of the ledger.
        lease: id of the lease.
        member: node id of the member.
        box_key: the member's X25519 public key, from its node record.
        salt: 32 random bytes, the same for all members of the lease.
        spec: at most 64 KiB encoded.
        tenant: the tenant's account key.
    """
    data = encode(spec)
    message = _box_message(chain_id, lease, member, salt, data, tenant.public)
    content = SealedContent(
        SPEC_VERSION, chain_id, lease, member, salt, data, tenant.public, tenant.public, tenant.sign(message)
    )
    return seal(box_key, encode(content))


def open_spec(
    sealed: bytes, key: BoxKey, chain_id: str, lease: bytes, member: bytes, tenant: bytes, expected_hash: bytes
) -> ServiceSpec:
    """Open a box and check everything that the ledger says about it.

    Args:
        sealed: the box, as handed over by anyone.
        key: the member's box key.
        chain_id: of the ledger.
        lease: id of the lease that the box is said to be for.
        member: our node id.
        tenant: account id of the lease's tenant.
        expected_hash: the lease's spec hash.

    Raises:
        RemoteProtocolError: the box does not open, or is for another lease, member, tenant or spec.
        CodecError: its content is malformed.
    """
    if len(sealed) > MAX_SPEC_BYTES + 1024:
        raise RemoteProtocolError("the sealed spec is too large", code="oversized")
    content = decode(key.open(sealed), SealedContent, max_bytes=MAX_SPEC_BYTES + 1024)
    message = _box_message(chain_id, lease, member, content.salt, content.spec, tenant)
    if (
        content.version != SPEC_VERSION
        or len(content.salt) != SALT_BYTES
        or content.tenant != tenant
        or (content.chain_id, content.lease, content.member) != (chain_id, lease, member)
    ):
        raise RemoteProtocolError("the sealed spec is for another lease or member", code="wrong_spec")
    if content.signer != tenant or not verify_strict(tenant, message, content.signature):
        raise RemoteProtocolError("the sealed spec is not signed by the tenant", code="bad_signature")
    if spec_hash(content.salt, content.spec) != expected_hash:
        raise RemoteProtocolError("the sealed spec is not the one on the ledger", code="wrong_spec")
    spec = decode(content.spec, ServiceSpec, max_bytes=MAX_SPEC_BYTES)
    if spec.version != SPEC_VERSION:
        raise RemoteProtocolError(f"spec version {spec.version} is not known", code="unknown_version")
    check_spec(spec)
    return spec


def check_spec(spec: ServiceSpec) -> None:
    """Check the parts of a spec on which the agent itself acts; what goes to the container, its runtime checks.

    Raises:
        RemoteProtocolError: one is out of its bounds.
    """
    ports = [port for peer in spec.peers for port in peer.ports]
    problems = {
        "services": len(spec.peers) > MAX_PEERS or len({peer.service for peer in spec.peers}) != len(spec.peers),
        "a service's name": not all(is_name(peer.service) for peer in spec.peers),
        "a service's leases": not all(
            0 < len(peer.leases) <= MAX_LEASES_PER_DEPLOYMENT and all(len(lease) == ID_BYTES for lease in peer.leases)
            for peer in spec.peers
        ),
        "a service's ports": len(ports) > MAX_PEER_PORTS or not all(0 < port < 65_536 for port in ports),
        "a condition": not all(peer.condition in CONDITIONS for peer in spec.peers),
        "the restart policy": spec.restart.policy not in RESTART_POLICIES or spec.restart.attempts < 0,
    }
    bad = [what for what, is_bad in problems.items() if is_bad]
    if bad:
        raise RemoteProtocolError(f"the spec has {' and '.join(bad)} out of bounds", code="bad_spec")


def require_fit(spec: ServiceSpec, disk_mib: int) -> None:
    """Check that a spec asks for no more disk than its lease pays for, and ends soon after it; the lease limits more.

    Raises:
        RemoteProtocolError: it asks for more.
    """
    wanted = spec.scratch_mib + sum(volume.size_mib for volume in spec.volumes)
    if wanted > disk_mib or spec.scratch_mib < 0 or any(volume.size_mib < 0 for volume in spec.volumes):
        raise RemoteProtocolError(
            f"the spec asks for {wanted} MiB of disk, its lease has {disk_mib}", code="spec_exceeds_lease"
        )
    if not 0 <= spec.stop_grace_ms <= MAX_STOP_GRACE_MS:  # unpaid: the lease is over by then
        raise RemoteProtocolError(
            f"the spec asks for {spec.stop_grace_ms} ms to end, at most {MAX_STOP_GRACE_MS} are given",
            code="spec_exceeds_lease",
        )


def _box_message(chain_id: str, lease: bytes, member: bytes, salt: bytes, spec: bytes, tenant: bytes) -> bytes:
    version = SPEC_VERSION.to_bytes(2, "big")
    return signing_bytes(Purpose.SPEC_BOX_SIGN, chain_id, version, lease[:ID_BYTES], member, salt, spec, tenant)
