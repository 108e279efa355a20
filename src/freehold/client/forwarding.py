"""A stable local port for a service: connections go to whoever holds the term in force, also after a failover.

A connection that arrives while nobody serves waits for the new holder, for twice the time of a failover; one whose
holder dies is reset, and the next one finds the new holder (docs/spec/p2p.md, "Tunnels").
"""

import asyncio

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError, InvalidInputError, RefusedError, UnreachableError
from freehold.base.presets import Preset
from freehold.client.compose.model import ComposeFile
from freehold.client.home import Home
from freehold.client.nodes import NodeClient
from freehold.client.session import Session
from freehold.ledger.keys import lease_key
from freehold.ledger.leases import term_at
from freehold.ledger.records import Lease
from freehold.protocol.messages import OpenTunnel, TunnelOpen
from freehold.transport.ports import StreamPort
from freehold.transport.splice import splice

LOCALHOST = "127.0.0.1"
OPEN_MS = 3_000
RETRY_S = 0.5


class PublishedPorts:
    """The local ports that compose files ask for, by service and container port; kept in the home when deploying."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._path = home.forwards_folder / "published.json"

    def keep(self, model: ComposeFile) -> None:
        """Remember a file's ports in place of what an earlier one of its name said."""
        kept = {name: ports for name, ports in self._load().items() if not name.startswith(f"{model.name}/")}
        for service in model.services.values():
            ports = {port.target: port.published for port in service.ports if port.published}
            if ports:
                kept[f"{model.name}/{service.name}"] = ports
        self._home.write(self._path, msgspec.json.encode(kept))

    def local_port(self, service: str, port: int) -> int:
        """Where a container port is to be listened for on this machine: its own number unless the file says another."""
        return self._load().get(service, {}).get(port, port)

    def _load(self) -> dict[str, dict[int, int]]:
        try:
            return decode_json(self._path.read_bytes(), dict[str, dict[int, int]])
        except FileNotFoundError:
            return {}
        except (msgspec.DecodeError, ValueError) as error:
            raise InvalidInputError(
                f"{self._path} is damaged: {error}", code="bad_ports", hint="remove it; --local PORT does without"
            ) from None


def patience_s(preset: Preset) -> float:
    """How long a connection waits: twice what a failover takes by the rules, from the last heartbeat to the start."""
    ticks = 4 * preset.tick_ms
    failover_ms = preset.suspect_ms + preset.probe_timeout_ms * 3 + preset.fence_ms + preset.clock_allowance_ms + ticks
    return 2 * failover_ms / 1000


class Forward:
    """Forwards one local port to one port of one lease."""

    def __init__(self, session: Session, nodes: NodeClient, lease_id: bytes, port: int) -> None:
        self._session = session
        self._nodes = nodes
        self._lease_id = lease_id
        self._port = port
        self._server: asyncio.Server | None = None

    async def listen(self, local_port: int) -> int:
        """Listen on 127.0.0.1 and return the port; 0 lets the system choose.

        Raises:
            InvalidInputError: the port is in use.
        """
        try:
            self._server = await asyncio.start_server(self._carry, LOCALHOST, local_port)
        except OSError as error:
            raise InvalidInputError(
                f"cannot listen on {LOCALHOST}:{local_port}: {error.strerror}",
                code="port_in_use",
                hint="choose another with --local PORT, or leave it to the system with --local 0",
            ) from None
        return int(self._server.sockets[0].getsockname()[1])

    async def serve(self) -> None:
        """Serve until cancelled."""
        if self._server is not None:
            async with self._server:
                await self._server.serve_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await splice(await self._open(), reader, writer)
        except (FreeholdError, OSError):
            writer.transport.abort()

    async def _open(self) -> StreamPort:
        deadline = asyncio.get_running_loop().time() + patience_s(self._session.preset)
        while True:
            try:
                return await self._open_once()
            except RefusedError as error:
                if error.code not in ("stale_term", "unknown_lease") or self._is_over(deadline):
                    raise
            except UnreachableError:
                if self._is_over(deadline):
                    raise
            await asyncio.sleep(RETRY_S)

    def _is_over(self, deadline: float) -> bool:
        return asyncio.get_running_loop().time() > deadline

    async def _open_once(self) -> StreamPort:
        key = lease_key(self._lease_id)
        snapshot = await self._session.ledger.read([key])
        lease = snapshot.get(key, Lease)
        if lease is None or lease.closed_ms:
            raise InvalidInputError("the service has ended", code="service_ended")
        term = term_at(lease, snapshot.at.time_ms)
        if not term or term != len(lease.terms):
            raise UnreachableError("nobody holds the service at the moment", code="no_holder")
        peer = await self._nodes.peer(lease.members[lease.terms[-1].member].node)
        _, stream = await peer.splice("tunnel.open", OpenTunnel(self._lease_id, term, self._port), TunnelOpen, OPEN_MS)
        return stream
