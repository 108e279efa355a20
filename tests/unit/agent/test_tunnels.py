"""One tenant's containers do not use up the agent's connections."""

import asyncio
from typing import Any

import pytest

from freehold.agent import tunnels
from freehold.agent.tunnels import MAX_CONNECTIONS, Tunnels
from freehold.base.errors import RefusedError
from freehold.protocol.spec import PeerSpec


async def _drive() -> tuple[int, int, int]:
    nothing: Any = None
    carrier = Tunnels(nothing, nothing, nothing)
    release, held = asyncio.Event(), 0

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, leases: list[bytes]) -> None:
        nonlocal held
        held += 1
        await release.wait()
        writer.close()

    carrier._carry = carry  # type: ignore[method-assign]
    server = await carrier._listen("deployment", "127.0.0.1", 0, [])
    port = server.sockets[0].getsockname()[1]
    links = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS + 5)]
    refused = 0
    for reader, writer in links[MAX_CONNECTIONS:]:
        try:
            refused += await reader.read(1) == b""
        except ConnectionResetError:
            refused += 1
        writer.close()
    at_most = held
    release.set()
    for reader, writer in links[:MAX_CONNECTIONS]:
        await reader.read(1)
        writer.close()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)
    return at_most, refused, len(carrier._open_connections)


def test_a_deployment_has_only_so_many_connections_at_a_time() -> None:
    assert tunnels.MAX_CONNECTIONS == 128
    assert asyncio.run(_drive()) == (MAX_CONNECTIONS, 5, 0)


def test_a_spec_with_thousands_of_ports_is_refused() -> None:
    nothing: Any = None
    peers = [PeerSpec("db", [bytes(32)], list(range(1, 20_000)), "")]
    with pytest.raises(RefusedError, match="too many"):
        asyncio.run(Tunnels(nothing, nothing, nothing).open(bytes(32), "deployment", peers))
