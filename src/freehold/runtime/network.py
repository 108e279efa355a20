"""Private networks of a node: one bridge per deployment, one namespace and address per container.

Layout of a deployment's /24 out of 198.18.0.0/15 (RFC 2544's benchmark range, which no LAN uses): .1 the bridge and
gateway; .2 to .99 service addresses, on which the agent's tunnel listens; .100 to .254 containers. Everything happens
in the network namespace that the agent lives in. IPv6 is off inside (PROTOCOLS section 6; docs/spec/runtime.md).

The OCI runtime makes a container's namespace together with its user namespace; it lives and dies with the container's
processes. Nothing inside can change links or routes: CAP_NET_ADMIN and CAP_NET_RAW are out of its bounding set, and
the seccomp filter lets it make no namespace in which it would have them.
"""

import contextlib
import fcntl
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

import msgspec

from freehold.base.errors import FreeholdError, RefusedError, check
from freehold.runtime import kernel
from freehold.runtime.atomic import load_json, save_json
from freehold.runtime.netfilter import BRIDGE_PREFIX, Grant, Nftables, Reach, build_rules, remove_rules
from freehold.runtime.netlink import Netlink

POOL: Final = IPv4Network("198.18.0.0/15")
PREFIX: Final = 24
_FIRST_SERVICE, _FIRST_CONTAINER, _LAST = 2, 100, 254
_LINK_PREFIX: Final = "fv"
_INSIDE: Final = "eth0"
_DEFAULT_MTU: Final = 1500
_SYSCTL: Final = Path("/proc/sys/net")


class DeploymentNetwork(msgspec.Struct, kw_only=True):
    """What is kept of a deployment's network: its /24 in the pool, and who has which address."""

    index: int
    services: dict[str, int] = {}
    containers: dict[str, int] = {}
    grants: list[Grant] = []
    allow_smtp: bool = False


class NetworkState(msgspec.Struct, kw_only=True):
    """All networks of a node, by deployment."""

    version: int = 1
    deployments: dict[str, DeploymentNetwork] = {}


class Networks:
    """The container networks of one node.

    Args:
        home: the runtime's folder; holds `network.json`.
        prefix: the node's eight hex digits; in the name of every link and table.
        lock_file: one lock for all nodes of the host, held while a subnet is chosen.
    """

    def __init__(self, home: Path, prefix: str, lock_file: Path) -> None:
        self._file = home / "network.json"
        self._prefix = prefix
        self._lock_file = lock_file
        self._table = f"freehold_{prefix}"
        self._nft = Nftables()
        self._lock = threading.RLock()
        self._state = load_json(self._file, NetworkState) or NetworkState()

    def restore(self) -> None:
        """Make links and rules equal to the kept state, as after a reboot; what is there already stays."""
        with self._lock:
            known = set()
            for deployment, network in self._state.deployments.items():
                self._make_bridge(deployment)
                known |= {self.bridge(deployment)} | {self._link(network, item) for item in network.containers}
            with Netlink() as netlink:
                for name in set(self._own_links()) - known:  # left by a crash
                    netlink.delete_link(name)
            self.apply()

    def add(self, deployment: str) -> str:
        """Make a deployment's bridge. Returns its gateway address.

        Raises:
            FreeholdError: the pool is used up (`no_subnet`).
        """
        with self._lock:
            if deployment not in self._state.deployments:
                with self._host_lock():
                    index = self._free_index(deployment)
                    self._state.deployments[deployment] = DeploymentNetwork(index=index)
                    self._save()
                    self._make_bridge(deployment)
                self.apply()
            return str(self._subnet(deployment)[1])

    def service_address(self, deployment: str, service: str) -> str:
        """The address on the node's bridge that stands for a service; made when it is new."""
        with self._lock:
            self.add(deployment)
            network = self._state.deployments[deployment]
            if service not in network.services:
                network.services[service] = _free(network.services, _FIRST_SERVICE, _FIRST_CONTAINER, deployment)
                self._save()
            address = self._subnet(deployment)[network.services[service]]
            with Netlink() as netlink:
                netlink.add_address(socket.if_nametoindex(self.bridge(deployment)), address, PREFIX)
            return str(address)

    def set_grants(self, deployment: str, grants: list[Grant], *, allow_smtp: bool = False) -> None:
        """Say which ports of the bridge's addresses containers may reach, and whether mail ports are open."""
        with self._lock:
            self.add(deployment)
            network = self._state.deployments[deployment]
            subnet = self._subnet(deployment)
            for grant in grants:
                inside = IPv4Address(grant.address) in subnet and grant.protocol in ("tcp", "udp")
                check(inside and 0 < grant.port < 65_536, "grant_in_subnet", grant=grant, subnet=subnet)
            wanted = sorted(set(grants))
            if (wanted, allow_smtp) != (network.grants, network.allow_smtp):
                network.grants, network.allow_smtp = wanted, allow_smtp
                self._save()
                self.apply()

    def address_of(self, container: str) -> str | None:
        """The address of a container; None when it has none."""
        with self._lock:
            for deployment, network in self._state.deployments.items():
                if container in network.containers:
                    return str(self._subnet(deployment)[network.containers[container]])
            return None

    def reserve(self, container: str, deployment: str) -> str:
        """Give a container an address, which it keeps over restarts. Returns it."""
        with self._lock:
            self.add(deployment)
            network = self._state.deployments[deployment]
            if container not in network.containers:
                network.containers[container] = _free(network.containers, _FIRST_CONTAINER, _LAST + 1, deployment)
                self._save()
            return str(self._subnet(deployment)[network.containers[container]])

    def attach(self, container: str, deployment: str, pid: int) -> None:
        """Link the namespace of a process that waits for its start with its deployment's bridge."""
        netns = Path(f"/proc/{pid}/ns/net")
        with self._lock:
            network, subnet = self._state.deployments[deployment], self._subnet(deployment)
            address = subnet[network.containers[container]]
            name = self._link(network, container)
            netns_fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with Netlink() as netlink:
                    netlink.delete_link(name)  # left by a crash
                    index = netlink.add_veth(name, _INSIDE, netns_fd, self._mtu())
                    _sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
                    netlink.set_up(index, master=socket.if_nametoindex(self.bridge(deployment)))
            finally:
                os.close(netns_fd)
        kernel.in_network_namespace(netns, lambda: _set_up_inside(address, subnet[1]))

    def detach(self, container: str) -> None:
        """Remove a container's link and free its address; what is gone already is fine."""
        with self._lock:
            for network in self._state.deployments.values():
                if container in network.containers:
                    with Netlink() as netlink:
                        netlink.delete_link(self._link(network, container))
                    del network.containers[container]
                    self._save()

    def remove(self, deployment: str) -> None:
        """Remove a deployment's bridge and all that was granted.

        Raises:
            RefusedError: a container is still in it (`network_in_use`).
        """
        with self._lock:
            network = self._state.deployments.get(deployment)
            if network is None:
                return
            if network.containers:
                raise RefusedError(f"the network of {deployment} still holds containers", code="network_in_use")
            with Netlink() as netlink:
                netlink.delete_link(self.bridge(deployment))
            del self._state.deployments[deployment]
            self._save()
            self.apply()

    def empty(self) -> list[str]:
        """Deployments whose network holds no container and no service."""
        with self._lock:
            return [name for name, net in self._state.deployments.items() if not net.containers and not net.services]

    def containers(self) -> set[str]:
        """Containers that have an address here."""
        with self._lock:
            return {name for network in self._state.deployments.values() for name in network.containers}

    def deployments(self) -> list[str]:
        """Deployments that have a network here."""
        with self._lock:
            return list(self._state.deployments)

    def apply(self) -> None:
        """Replace the node's rules; call it now and then, as the farmer's LAN may change its routes."""
        with self._lock:
            if not self._state.deployments:
                self._nft.run(remove_rules(self._table))
                return
            lan, uplinks = self._surroundings()
            guarded = []
            if (_SYSCTL / "ipv4/ip_forward").read_text().strip() == "0":
                # Forward for our bridges alone, instead of making a router of the farmer's machine.
                guarded = uplinks
                for link in uplinks:
                    _sysctl(f"ipv4/conf/{link}/forwarding", "1")
            reaches = [
                Reach(
                    bridge=self.bridge(name),
                    subnet=str(self._subnet(name)),
                    allow_smtp=network.allow_smtp,
                    grants=tuple(network.grants),
                )
                for name, network in self._state.deployments.items()
            ]
            self._nft.run(build_rules(self._table, reaches, lan, guarded))

    def clear(self) -> None:
        """Remove every link and rule of this node."""
        with self._lock, Netlink() as netlink:
            for name in self._own_links():
                netlink.delete_link(name)
            self._state = NetworkState()
            self._save()
            self._nft.run(remove_rules(self._table))

    def bridge(self, deployment: str) -> str:
        """Name of a deployment's bridge: `fhb`, the node's prefix, the index of its subnet."""
        return f"{BRIDGE_PREFIX}{self._prefix}{self._state.deployments[deployment].index:03x}"

    def _link(self, network: DeploymentNetwork, container: str) -> str:
        """Name of the host's end of a container's link: `fv`, the prefix, index and host number; fifteen bytes."""
        return f"{_LINK_PREFIX}{self._prefix}{network.index:03x}{network.containers[container]:02x}"

    def _own_links(self) -> list[str]:
        """Links of the namespace that bear this node's prefix."""
        own = (BRIDGE_PREFIX + self._prefix, _LINK_PREFIX + self._prefix)
        return [name for _, name in socket.if_nameindex() if name.startswith(own)]

    def _subnet(self, deployment: str) -> IPv4Network:
        index = self._state.deployments[deployment].index
        start = int(POOL.network_address) + (index << (32 - PREFIX))
        return IPv4Network((start, PREFIX))

    def _free_index(self, deployment: str) -> int:
        """An index that no deployment has and no link of this namespace uses; starts at a hash, to spread nodes."""
        count = 1 << (PREFIX - POOL.prefixlen)
        used = {network.index for network in self._state.deployments.values()}
        with Netlink() as netlink:
            taken = [network for _, network in netlink.addresses() if network.overlaps(POOL)]
        name = f"freehold:subnet:v1:{self._prefix}:{deployment}"
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
        for step in range(count):
            index = (start + step) % count
            subnet = IPv4Network((int(POOL.network_address) + (index << (32 - PREFIX)), PREFIX))
            if index not in used and not any(subnet.overlaps(other) for other in taken):
                return index
        raise FreeholdError("no free subnet for another deployment", code="no_subnet")

    def _make_bridge(self, deployment: str) -> None:
        name, network = self.bridge(deployment), self._state.deployments[deployment]
        subnet = self._subnet(deployment)
        with Netlink() as netlink:
            index = netlink.add_bridge(name)
            _sysctl(f"ipv6/conf/{name}/disable_ipv6", "1")
            _sysctl(f"ipv4/conf/{name}/forwarding", "1")
            netlink.add_address(index, subnet[1], PREFIX)
            for host in network.services.values():
                netlink.add_address(index, subnet[host], PREFIX)
            netlink.set_up(index)

    def _surroundings(self) -> tuple[list[str], list[str]]:
        """Networks reached without the default route, and the links of default routes."""
        names = dict(socket.if_nameindex())
        with Netlink() as netlink:
            routes = netlink.routes()
        uplinks = sorted({names[link] for network, link in routes if network.prefixlen == 0 and link in names})
        own = {link for link, name in names.items() if name.startswith(BRIDGE_PREFIX)}
        lan = sorted({str(network) for network, link in routes if network.prefixlen > 0 and link not in own})
        return lan, uplinks

    def _mtu(self) -> int:
        _, uplinks = self._surroundings()
        sizes = [int(Path(f"/proc/sys/net/ipv6/conf/{link}/mtu").read_text()) for link in uplinks if _has_mtu(link)]
        return min([size for size in sizes if size >= 1_280], default=_DEFAULT_MTU)

    def _save(self) -> None:
        save_json(self._file, self._state)

    @contextlib.contextmanager
    def _host_lock(self) -> Iterator[None]:
        fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _has_mtu(link: str) -> bool:
    return Path(f"/proc/sys/net/ipv6/conf/{link}/mtu").exists()


def _free(taken: dict[str, int], first: int, end: int, deployment: str) -> int:
    used = set(taken.values())
    for host in range(first, end):
        if host not in used:
            return host
    raise FreeholdError(f"no free address in the network of {deployment}", code="no_address")


def _sysctl(name: str, value: str) -> None:
    """Write a network setting of the calling thread's namespace; one that the kernel does not have is fine."""
    with contextlib.suppress(FileNotFoundError):
        (_SYSCTL / name).write_text(value)


def _set_up_inside(address: IPv4Address, gateway: IPv4Address) -> None:
    for scope in ("all", "default", "lo"):
        _sysctl(f"ipv6/conf/{scope}/disable_ipv6", "1")
    # As docker does: port 80 needs no capability, so a service may run as any user.
    _sysctl("ipv4/ip_unprivileged_port_start", "0")
    with Netlink() as netlink:
        netlink.set_up(socket.if_nametoindex("lo"))
        index = socket.if_nametoindex(_INSIDE)
        netlink.add_address(index, address, PREFIX)
        netlink.set_up(index)
        netlink.add_default_route(gateway)
