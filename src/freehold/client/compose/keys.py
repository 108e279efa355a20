"""Every key of the compose specification: supported, or refused with what to do instead.

A test compares these tables with the official schema, so a key that the specification gains is noticed. A key counts
as supported only when a test shows its effect in or on a running container.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

_REMOVE = "remove it"


class Refused(msgspec.Struct, frozen=True):
    """Why a key is refused.

    Attributes:
        hint: what to do instead.
        harmless: values that say exactly what Freehold does anyway, and are therefore accepted.
    """

    hint: str
    harmless: tuple[object, ...] = ()


class KeyTable(msgspec.Struct, frozen=True):
    """The keys of one kind of mapping.

    Attributes:
        noun: what the mapping is, for messages.
        extensible: whether the specification allows `x-` keys here.
        settings: whether `x-freehold` means something here.
    """

    noun: str
    supported: frozenset[str]
    refused: Mapping[str, Refused] = MappingProxyType({})
    extensible: bool = True
    settings: bool = False

    @property
    def known(self) -> frozenset[str]:
        """Every key that the specification has here."""
        return self.supported | self.refused.keys()


def _table(
    noun: str,
    supported: str,
    refused: Mapping[str, str | Refused],
    *,
    extensible: bool = True,
    settings: bool = False,
) -> KeyTable:
    entries = {
        key: reason if isinstance(reason, Refused) else Refused(reason)
        for names, reason in refused.items()
        for key in names.split()
    }
    return KeyTable(noun, frozenset(supported.split()), MappingProxyType(entries), extensible, settings)


_OFF = (False, "false", "False", "FALSE")
_DEVICES = "a container gets no devices of the farmer's machine: remove it"
_NO_HOST = "a container never shares the farmer's host, nor another container's namespace: remove it"
_USE_LIMITS = "say it with deploy.resources.limits (cpus, memory, pids); a lease reserves its limits in full"
_NETWORK_PLAIN = "services reach each other by name on one private network: leave the network without options"
_RESTART = "say it with `restart: always|on-failure[:N]|unless-stopped`"
_SCHEDULING = "choose nodes with `freehold deploy --prefer country=..,farm=..`"
_METADATA = "use `labels` for metadata"

FILE = _table(
    "compose file",
    "version name services volumes networks secrets",
    {
        "include": "one file describes a deployment: copy the services into it (`docker compose config` prints them)",
        "configs": "give the file to the container as a secret (it appears under /run/secrets), or put it in the image",
        "models": "run the model server as a service with its own image",
        "jobs": "only services run; start the job from inside a service",
    },
    settings=True,
)

SERVICE = _table(
    "service",
    "image command entrypoint environment env_file ports volumes tmpfs healthcheck restart depends_on deploy"
    " mem_limit cpus pids_limit secrets hostname working_dir user stop_signal stop_grace_period read_only labels"
    " networks expose",
    {
        "build": "build the image yourself, then `freehold image import FILE`, and name it with `image:`",
        "privileged": Refused("a container never gets the host's rights: remove it", _OFF),
        "cap_add": "containers run with the fewest capabilities; remove it, or change the program to need none",
        "cap_drop": "containers already run with the fewest capabilities: remove it",
        "devices device_cgroup_rules gpus": _DEVICES,
        "network_mode": "every service has its own network and reaches the others by name: remove it",
        "pid ipc uts cgroup cgroup_parent userns_mode": _NO_HOST,
        "security_opt": "seccomp and no-new-privileges are always on and cannot be loosened: remove it",
        "sysctls": "kernel settings belong to the farmer: remove it",
        "runtime isolation": "the node chooses the runtime: remove it",
        "use_api_socket": Refused("no container runtime's socket is ever given to a container: remove it", _OFF),
        "volumes_from": "name the volume in both places; a volume belongs to one service",
        "configs": "give the file as a secret (it appears under /run/secrets), or put it in the image",
        "extends": "write the service out; YAML anchors and `<<` work within the file",
        "profiles": "every service of the file is deployed: move optional ones to a file of their own",
        "provider models": "only containers run; use `image`",
        "develop": "made for local development only: remove it",
        "scale": "say it with deploy.replicas",
        "container_name": "containers are named after deployment and service: remove it",
        "links external_links": "services reach each other by service name without links: remove it",
        "extra_hosts": "names other than services come from public DNS: remove it, or set an environment variable",
        "dns dns_opt dns_search domainname": "the node resolves names: remove it",
        "mac_address": "the node chooses addresses: remove it",
        "logging": "the node keeps and rotates logs; read them with `freehold logs`",
        "platform": "import the image for the node's platform; remove it",
        "pull_policy pull_refresh_after": "images come from `freehold image import`, by digest: remove it",
        "init": Refused("run an init such as tini in the image's entrypoint", _OFF),
        "stdin_open tty": Refused("a service has no terminal: remove it", _OFF),
        "attach": "read the output with `freehold logs`",
        "annotations label_file": _METADATA,
        "cpu_count cpu_percent cpu_shares cpu_quota cpu_period cpu_rt_period cpu_rt_runtime cpuset": _USE_LIMITS,
        "mem_reservation mem_swappiness memswap_limit": _USE_LIMITS,
        "oom_kill_disable": Refused("a container over its memory limit is killed: remove it", _OFF),
        "oom_score_adj blkio_config": "belongs to the farmer's machine: remove it",
        "shm_size": "the node gives /dev/shm its size: remove it, or share memory through files in a tmpfs",
        "storage_opt": "scratch space has a fixed size; put data in a named volume with x-freehold.size",
        "ulimits umask group_add credential_spec": "not offered; set it in the image's entrypoint",
        "pre_start post_start pre_stop": "not offered; do it in the image's entrypoint",
    },
    settings=True,
)

DEPLOY = _table(
    "deploy section",
    "replicas resources labels",
    {
        "mode": Refused("only `replicated` is offered", ("replicated",)),
        "endpoint_mode": "services reach each other by name: remove it",
        "rollback_config update_config": "updates are made by deploying again: remove it",
        "restart_policy": _RESTART,
        "placement": _SCHEDULING,
    },
)
RESOURCES = _table(
    "resources section", "limits", {"reservations": "a lease reserves its limits in full: set deploy.resources.limits"}
)
LIMITS = _table("limits section", "cpus memory pids", {})
HEALTHCHECK = _table(
    "healthcheck",
    "test interval timeout retries start_period disable",
    {"start_interval": "not offered; use interval and start_period"},
)
PORT = _table(
    "port",
    "target published protocol host_ip",
    {
        "mode": Refused("a published port is reached through `freehold connect`: remove it", ("ingress",)),
        "name app_protocol": _REMOVE,
    },
)
SERVICE_VOLUME = _table(
    "volume mount",
    "type source target read_only tmpfs",
    {
        "bind": "no path of the farmer's machine is ever mounted; use a named volume",
        "volume": "mount options are not offered: remove it",
        "image": "files of another image cannot be mounted; build them into the service's image",
        "consistency": _REMOVE,
    },
)
TMPFS = _table("tmpfs section", "size mode", {})
ENV_FILE = _table("env_file entry", "path required format", {}, extensible=False)
DEPENDENCY = _table(
    "dependency",
    "condition",
    {
        "restart": Refused("a service is not restarted with the one it depends on: remove it", _OFF),
        "required": Refused("every dependency is required: remove it", (True,)),
    },
)
SERVICE_SECRET = _table(
    "secret of a service",
    "source target",
    {"uid gid mode": "the file is readable by the container's user: remove it"},
)
SERVICE_NETWORK = _table(
    "network of a service",
    "",
    {
        "aliases": "services reach each other by service name: use that name",
        "interface_name ipv4_address ipv6_address link_local_ips mac_address driver_opts priority gw_priority"
        " use_service_name_alias": _NETWORK_PLAIN,
    },
)
VOLUME = _table(
    "volume",
    "labels",
    {
        "external": Refused("a volume belongs to its deployment: remove it, and say x-freehold.size", _OFF),
        "driver": Refused("the node makes the volume: remove it", ("local",)),
        "driver_opts": "no path, device or network share of the farmer's machine is mounted: remove it",
        "name": "a volume has the name it is listed under: remove it",
    },
    settings=True,
)
NETWORK = _table(
    "network",
    "labels",
    {
        "external": Refused("a network belongs to its deployment: remove it", _OFF),
        "internal": Refused("services may reach the Internet; this cannot be switched off yet", _OFF),
        "attachable": Refused("nothing else can join the network: remove it", _OFF),
        "name driver driver_opts ipam enable_ipv4 enable_ipv6": _NETWORK_PLAIN,
    },
)
SECRET = _table(
    "secret",
    "file environment labels",
    {
        "external": Refused("give the secret by `file` or `environment`", _OFF),
        "name": "a secret has the name it is listed under: remove it",
        "driver driver_opts template_driver": "give the secret by `file` or `environment`",
    },
)

FREEHOLD_FILE = _table("x-freehold section", "max_price_per_hour prefer", {}, extensible=False)
FREEHOLD_SERVICE = _table(
    "x-freehold section of a service",
    "standbys probe failover",
    {"smtp": "mail ports are closed for every workload; use a mail provider's HTTPS interface"},
    extensible=False,
)
FREEHOLD_PROBE = _table("probe", "tcp http", {}, extensible=False)
FREEHOLD_HTTP = _table("http probe", "path port", {}, extensible=False)
FREEHOLD_VOLUME = _table("x-freehold section of a volume", "size kind", {}, extensible=False)
