"""The typed model of a compose file: what a deployment is planned and started from, every default filled in.

Sizes are in MiB or bytes, times in milliseconds, CPU in thousandths, as each name says.
"""

from typing import Literal

import msgspec

from freehold.client.compose.references import ImageReference

DEFAULT_CPU_MILLI = 250
DEFAULT_MEMORY_MIB = 256
DEFAULT_PIDS = 256
DEFAULT_SCRATCH_MIB = 256
DEFAULT_VOLUME_MIB = 1024
DEFAULT_TMPFS_MIB = 64
DEFAULT_STOP_GRACE_MS = 10_000
LOCAL_ADDRESS = "127.0.0.1"
SECRETS_FOLDER = "/run/secrets"


class Port(msgspec.Struct, frozen=True):
    """A TCP port of a service; `published` is what `connect` listens on at 127.0.0.1, 0 when any will do."""

    target: int
    published: int = 0


class VolumeMount(msgspec.Struct, frozen=True):
    """A named volume at a path in a container."""

    volume: str
    target: str
    read_only: bool = False


class Tmpfs(msgspec.Struct, frozen=True):
    """Memory as a file system; its size counts towards the service's memory."""

    target: str
    size_mib: int = DEFAULT_TMPFS_MIB
    mode: int = 0o1777


class SecretMount(msgspec.Struct, frozen=True):
    """A secret as the file `/run/secrets/TARGET`."""

    source: str
    target: str


class Healthcheck(msgspec.Struct, frozen=True):
    """A command that the node runs inside the container; what it says is the node's claim.

    Attributes:
        test: the command as arguments, a shell form already wrapped in `/bin/sh -c`; empty when disabled.
    """

    test: tuple[str, ...]
    interval_ms: int = 30_000
    timeout_ms: int = 30_000
    retries: int = 3
    start_period_ms: int = 0

    @property
    def is_disabled(self) -> bool:
        """Whether the image's own check is switched off."""
        return not self.test


class Restart(msgspec.Struct, frozen=True):
    """What happens when the container exits; `max_retries` is 0 for no limit."""

    policy: Literal["no", "always", "on-failure", "unless-stopped"] = "no"
    max_retries: int = 0


class Dependency(msgspec.Struct, frozen=True):
    """Another service that must have started, or be healthy, first."""

    service: str
    condition: Literal["service_started", "service_healthy"] = "service_started"


class Limits(msgspec.Struct, frozen=True):
    """What a replica may use, and what its lease reserves in full."""

    cpu_milli: int = DEFAULT_CPU_MILLI
    memory_mib: int = DEFAULT_MEMORY_MIB
    pids: int = DEFAULT_PIDS
    scratch_mib: int = DEFAULT_SCRATCH_MIB


class Probe(msgspec.Struct, frozen=True):
    """What a witness speaks to from outside; public on the ledger."""

    kind: Literal["tcp", "http"]
    port: int
    path: str = ""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service.

    Attributes:
        entrypoint: None leaves the image's own, an empty tuple clears it.
        command: None leaves the image's own, an empty tuple clears it.
        environment: merged, resolved: `environment` over `env_file`.
        expose: ports that other services reach besides the published ones.
        failover_empty: whether a standby may start with fresh, empty volumes.
        labels: metadata without effect.
    """

    name: str
    image: ImageReference
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: dict[str, str] = {}
    ports: tuple[Port, ...] = ()
    expose: tuple[int, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    secrets: tuple[SecretMount, ...] = ()
    healthcheck: Healthcheck | None = None
    restart: Restart = Restart()
    depends_on: tuple[Dependency, ...] = ()
    replicas: int = 1
    limits: Limits = Limits()
    hostname: str = ""
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    stop_grace_ms: int = DEFAULT_STOP_GRACE_MS
    read_only: bool = False
    labels: dict[str, str] = {}
    networks: tuple[str, ...] = ("default",)
    standbys: int = 0
    probe: Probe | None = None
    failover_empty: bool = False


class Volume(msgspec.Struct, frozen=True):
    """A named volume; `local` lives on one node and dies with it."""

    name: str
    size_mib: int = DEFAULT_VOLUME_MIB
    kind: Literal["local"] = "local"
    labels: dict[str, str] = {}


class Network(msgspec.Struct, frozen=True):
    """A plain named network; all services of a deployment reach each other."""

    name: str
    labels: dict[str, str] = {}


class Secret(msgspec.Struct, frozen=True):
    """A secret's bytes, from a file beside the compose file or from a variable."""

    name: str
    data: bytes

    def __repr__(self) -> str:
        return f"Secret(name={self.name!r}, {len(self.data)} bytes)"


class ComposeFile(msgspec.Struct, frozen=True, kw_only=True):
    """A checked compose file.

    Attributes:
        configs: always empty: configs are refused for now.
        max_price_per_hour: in 10^-7 token; None without a limit.
        prefer: wishes for nodes, such as `country=BE`.
    """

    name: str
    services: dict[str, Service]
    volumes: dict[str, Volume] = {}
    networks: dict[str, Network] = {}
    secrets: dict[str, Secret] = {}
    configs: dict[str, str] = {}
    max_price_per_hour: int | None = None
    prefer: tuple[tuple[str, str], ...] = ()

    def volume_mib(self, service: Service) -> int:
        """MiB of volumes that one replica of a service holds."""
        return sum({mount.volume: self.volumes[mount.volume].size_mib for mount in service.volumes}.values())
