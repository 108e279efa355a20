"""A node's surroundings for tests: namespaces with a LAN, an Internet and a metadata service, and leftover checks.

The node's namespace holds up0 (to the "Internet", default route) and lan0 (192.168.77.0/24 and a public 11.22.33.0/24
that the farmer routes in his LAN). All addresses of the world answer on the ports of `PORTS` with their own name.
"""

import asyncio
import contextlib
import itertools
import os
import select
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

from freehold.runtime import cgroups, kernel, mounts
from freehold.runtime.containers import ContainerRuntime
from freehold.runtime.netlink import Netlink
from freehold.runtime.places import RUN_ROOT, Places
from freehold.runtime.records import Container, Exit
from freehold.runtime.spec import ContainerSpec

T = TypeVar("T")
MIB = 1 << 20
_numbers = itertools.count()

INTERNET = "93.184.216.34"
LAN = "192.168.77.1"
LAN_PUBLIC = "11.22.33.1"
METADATA = "169.254.169.254"
NODE_UPLINK = "203.0.113.2"
NODE_LAN = "192.168.77.2"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - inside the lab's namespaces
PORTS = (80, 25, 587)
HOST_PORT = 2222


class Lab:
    """Namespaces and listeners; `close` takes all down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world, self.node = folder / "world.ns", folder / "node.ns"
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        kernel.new_network_namespace(self.world)
        kernel.new_network_namespace(self.node)
        self._wire()
        self._serve(self.world, [(EVERYWHERE, port) for port in PORTS])
        self._serve(self.node, [(EVERYWHERE, HOST_PORT)])

    def _wire(self) -> None:
        world_fd = os.open(self.world, os.O_RDONLY)
        node_side = {"up0": (NODE_UPLINK,), "lan0": (NODE_LAN, "11.22.33.2")}
        world_side = {"up0": ("203.0.113.1",), "lan0": (LAN, LAN_PUBLIC)}

        def wire_node() -> None:
            with Netlink() as netlink:
                netlink.set_up(socket.if_nametoindex("lo"))
                for name, addresses in node_side.items():
                    netlink.set_up(netlink.add_veth(name, name, world_fd, 1500))
                    for address in addresses:
                        netlink.add_address(socket.if_nametoindex(name), IPv4Address(address), 24)
                netlink.add_default_route(IPv4Address("203.0.113.1"))

        def wire_world() -> None:
            with Netlink() as netlink:
                lo = socket.if_nametoindex("lo")
                netlink.set_up(lo)
                for address in (INTERNET, METADATA):
                    netlink.add_address(lo, IPv4Address(address), 32)
                for name, addresses in world_side.items():
                    netlink.set_up(socket.if_nametoindex(name))
                    for address in addresses:
                        netlink.add_address(socket.if_nametoindex(name), IPv4Address(address), 24)

        try:
            kernel.in_network_namespace(self.node, wire_node)
        finally:
            os.close(world_fd)
        kernel.in_network_namespace(self.world, wire_world)

    def _serve(self, netns: Path, addresses: list[tuple[str, int]]) -> None:
        listeners = kernel.in_network_namespace(netns, lambda: [socket.create_server(item) for item in addresses])

        def body() -> None:
            while not self._stop.is_set():
                for listener in select.select(listeners, [], [], 0.1)[0]:
                    with contextlib.suppress(OSError):
                        connection, peer = listener.accept()
                        with connection:
                            connection.sendall(peer[0].encode())
            for listener in listeners:
                listener.close()

        thread = threading.Thread(target=body)
        thread.start()
        self._threads.append(thread)

    def serve_in_node(self, address: str, port: int) -> None:
        """Listen on an address of the node, as the agent's tunnel does."""
        self._serve(self.node, [(address, port)])

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine in a loop whose threads all live in the node's namespace."""

        async def main() -> T:
            return await work()

        return kernel.in_network_namespace(self.node, lambda: asyncio.run(main()))

    def close(self) -> None:
        """Stop listeners and remove namespaces."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for path in (self.node, self.world):
            mounts.unmount_tree(path)
            path.unlink(missing_ok=True)


class Node:
    """One runtime in a lab, with shortcuts for tests."""

    def __init__(self, lab: Lab, image: Path, name: str = "node", home: Path | None = None) -> None:
        self.lab, self.image, self.name = lab, image, name
        self.home = home or lab.folder / f"{name}-{next(_numbers)}"
        self.places = Places(self.home, name)
        self.runtime = lab.run(self._open)

    async def _open(self) -> ContainerRuntime:
        runtime = ContainerRuntime(self.home, self.name)
        await runtime.adopt()
        return runtime

    def spec(self, container: str, argv: tuple[str, ...], **settings: Any) -> ContainerSpec:
        """A specification with small limits."""
        base: dict[str, Any] = {
            "id": container,
            "tenant": "aa",
            "deployment": "deployment-a",
            "image_path": str(self.image),
            "memory_bytes": 128 * MIB,
            "cpu_milli": 2_000,
            "scratch_bytes": 16 * MIB,
        }
        return ContainerSpec(argv=argv, **(base | settings))

    def python(self, code: str, container: str = "c", **settings: Any) -> tuple[Exit, str]:
        """Run Python code in a new container as root, and remove it. Returns how it ended and what it wrote."""
        return self.lab.run(lambda: self.python_in(code, container, **settings))

    async def python_in(self, code: str, container: str = "c", **settings: Any) -> tuple[Exit, str]:
        """The same, for a test that runs a loop of its own."""
        spec = self.spec(container, ("/bin/python3", "-IS", "-c", code), **settings)
        await self.runtime.create(spec)
        try:
            await self.runtime.start(container)
            ended = await asyncio.wait_for(self.runtime.wait(container), 60)
            return ended, await self.output(container)
        finally:
            await self.runtime.remove(container)

    async def output(self, container: str) -> str:
        """All that a container wrote."""
        return "\n".join(line.text.decode(errors="replace") for line in await self.runtime.logs(container))

    async def begin(self, container: str, code: str, **settings: Any) -> Container:
        """Create and start a container that runs Python code."""
        await self.runtime.create(self.spec(container, ("/bin/python3", "-IS", "-c", code), **settings))
        return await self.runtime.start(container)

    def close(self) -> None:
        """Remove the node and show that nothing of it is left."""
        self.lab.run(self.runtime.destroy)
        left = leftovers(self.places, self.lab.node)
        assert left == [], left


def leftovers(places: Places, netns: Path) -> list[str]:
    """Everything on the host that still bears a node's prefix."""
    found = [f"mount {path}" for path in mounts.mounted_under(places.run)]
    found += [f"mount {path}" for path in mounts.mounted_under(places.home)]
    found += [f"folder {path}" for path in (places.run,) if path.exists()]
    found += [f"cgroup {path}" for path in cgroups.ROOT.glob(f"*/freehold-{places.prefix}")]
    found += [f"cgroup {path}" for path in cgroups.ROOT.glob(f"freehold-{places.prefix}")]
    found += [f"claim {path}" for path in (RUN_ROOT / "ids").glob("*") if path.read_text() == str(places.home)]
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if str(places.home) in path.read_text():
                found.append(f"loop {path}")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if places.prefix.encode() in path.read_bytes():
                found.append(f"process {path.parent.name}")
    links = kernel.in_network_namespace(netns, lambda: [name for _, name in socket.if_nameindex()])
    found += [f"link {name}" for name in links if places.prefix in name]
    rules = kernel.in_network_namespace(
        netns, lambda: subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    )
    found += [f"table {line}" for line in rules.splitlines() if places.prefix in line]
    return found
