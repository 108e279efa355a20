"""Service tunnels: a service reaches another by its compose name, wherever that runs, following the term.

In a container a service's name is a line in /etc/hosts to an address on this node's bridge. There the agent listens on
the service's ports and carries each connection to the holder of the term in force (docs/spec/p2p.md, "Tunnels"). The
agent's restart may reset connections, never containers.
"""

import asyncio
import itertools
from collections.abc import Iterable

import structlog

from freehold.agent.access import holder_of
from freehold.agent.chain import ChainView
from freehold.agent.peers import Peers
from freehold.base.errors import FreeholdError, InvalidInputError, RefusedError, UnreachableError
from freehold.protocol.messages import OpenTunnel, TunnelOpen
from freehold.protocol.spec import PeerSpec
from freehold.runtime.containers import ContainerRuntime
from freehold.runtime.netfilter import Grant
from freehold.transport.ports import StreamPort
from freehold.transport.splice import splice

log = structlog.get_logger()

OPEN_TIMEOUT_MS = 3_000
TRIES = 3
MAX_CONNECTIONS = 128  # a deployment's containers may have at a time: the agent's descriptors are everybody's


class Tunnels:
    """The listeners of all deployments on this node."""

    def __init__(self, chain: ChainView, peers: Peers, runtime: ContainerRuntime) -> None:
        self._chain = chain
        self._peers = peers
        self._runtime = runtime
        self._wanted: dict[bytes, tuple[str, list[PeerSpec]]] = {}
        self._servers: dict[tuple[str, str, int], asyncio.Server] = {}
        self._turn = itertools.count()
        self._open_connections: dict[str, int] = {}  # by deployment
        self._lock = asyncio.Lock()

    async def open(self, lease_id: bytes, deployment: str, peers: list[PeerSpec]) -> list[tuple[str, str]]:
        """Listen for the services that a lease's container names; returns its lines of /etc/hosts.

        Args:
            lease_id: of the container.
            deployment: its id in hex; services of another one are not reached, whatever the peers say.
            peers: of a checked spec, which bounds their number and ports.
        """
        async with self._lock:
            self._wanted[lease_id] = (deployment, peers)
            await self._converge(deployment)
            return [(peer.service, await asyncio.to_thread(self._address, deployment, peer.service)) for peer in peers]

    async def close(self, lease_id: bytes) -> None:
        """Stop what only this lease needed."""
        async with self._lock:
            deployment, _ = self._wanted.pop(lease_id, ("", []))
            if deployment:
                await self._converge(deployment)

    async def close_all(self) -> None:
        """Stop listening; containers stay."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _address(self, deployment: str, service: str) -> str:
        return self._runtime.networks.service_address(deployment, service)

    async def _converge(self, deployment: str) -> None:
        services: dict[str, tuple[list[bytes], set[int]]] = {}
        for owner, peers in self._wanted.values():
            for peer in peers if owner == deployment else ():
                entry = services.setdefault(peer.service, (peer.leases, set()))
                entry[1].update(peer.ports)
        keys = {(deployment, name, port) for name, (_, ports) in services.items() for port in ports}
        for key in [known for known in self._servers if known[0] == deployment and known not in keys]:
            self._servers.pop(key).close()
        addresses = {name: await asyncio.to_thread(self._address, deployment, name) for name in services}
        grants = [Grant(addresses[name], "tcp", port) for _, name, port in sorted(keys)]
        if deployment in self._runtime.networks.deployments():
            await asyncio.to_thread(self._runtime.networks.set_grants, deployment, grants)
        for key in sorted(keys - self._servers.keys()):
            _, name, port = key
            self._servers[key] = await self._listen(deployment, addresses[name], port, services[name][0])

    async def _listen(self, deployment: str, address: str, port: int, leases: list[bytes]) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._open_connections.get(deployment, 0) >= MAX_CONNECTIONS:
                writer.transport.abort()
                return
            self._open_connections[deployment] = self._open_connections.get(deployment, 0) + 1
            try:
                await self._carry(reader, writer, deployment, port, leases)
            finally:
                self._open_connections[deployment] -= 1
                if not self._open_connections[deployment]:
                    del self._open_connections[deployment]

        return await asyncio.start_server(connected, address, port)

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        deployment: str,
        port: int,
        leases: list[bytes],
    ) -> None:
        try:
            await self._connect(reader, writer, deployment, port, leases)
        except (FreeholdError, OSError) as error:
            log.info("tunnel_failed", port=port, error=str(error))
            writer.transport.abort()

    async def _connect(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        deployment: str,
        port: int,
        leases: list[bytes],
    ) -> None:
        lease_id = leases[next(self._turn) % len(leases)]
        for attempt in range(TRIES):
            try:
                local = await self._local(deployment, lease_id, port)
                if local is not None:
                    await join(reader, writer, *local)
                    return
                await splice(await self._open_remote(deployment, lease_id, port), reader, writer)
                return
            except (FreeholdError, OSError) as error:
                if attempt == TRIES - 1 or getattr(error, "code", "") == "not_allowed":
                    raise
                await asyncio.sleep(self._chain.preset.poll_ms / 1000)

    async def _holder(self, deployment: str, lease_id: bytes) -> tuple[bytes, int]:
        lease = await self._chain.any_lease(lease_id)
        if lease is not None and lease.deployment.hex() != deployment:
            # A tenant's spec may name any lease; its containers reach those of its own deployment alone.
            raise RefusedError("the service is of another deployment", code="not_allowed")
        held = holder_of(lease, self._chain.header_ms) if lease else None
        if held is None:
            raise UnreachableError("nobody holds the service's lease at the moment", code="no_holder")
        return held

    async def _local(
        self, deployment: str, lease_id: bytes, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to a container on this node, when it is the holder."""
        node, _ = await self._holder(deployment, lease_id)
        if node != self._chain.node_id:
            return None
        return await connect_container(self._runtime, lease_id, port)

    async def _open_remote(self, deployment: str, lease_id: bytes, port: int) -> StreamPort:
        node, term = await self._holder(deployment, lease_id)
        _, stream = await self._peers.splice(
            node, "tunnel.open", OpenTunnel(lease_id, term, port), TunnelOpen, timeout_ms=OPEN_TIMEOUT_MS
        )
        return stream


async def connect_container(
    runtime: ContainerRuntime, lease_id: bytes, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a port of a container of this node.

    Raises:
        UnreachableError: it has no address, or nothing listens there.
    """
    try:
        address = (await runtime.state(lease_id.hex())).address
    except InvalidInputError:
        address = ""
    if not address:
        raise UnreachableError("the service does not run here", code="not_running")
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_MS / 1000):
            return await asyncio.open_connection(address, port)
    except (OSError, TimeoutError) as error:
        raise UnreachableError(f"nothing answers on port {port}: {error}", code="port_closed") from None


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    """Carry bytes between two TCP connections until both directions have ended."""
    pumps = [asyncio.ensure_future(_pump(reader, other_writer)), asyncio.ensure_future(_pump(other_reader, writer))]
    try:
        await asyncio.gather(*pumps)
    except OSError:
        return
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.wait(pumps)
        close_writers((writer, other_writer))


def close_writers(writers: Iterable[asyncio.StreamWriter]) -> None:
    """Close connections without waiting for the other side."""
    for writer in writers:
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
