"""Whom containers reach through the agent, and how much of it one tenant takes."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from freehold.agent import tunnels
from freehold.agent.tunnels import MAX_CONNECTIONS, Tunnels
from freehold.base.errors import RefusedError
from freehold.base.presets import MINIMAL
from freehold.ledger.records import Term


async def _drive() -> tuple[int, int, int]:
    nothing: Any = None
    carrier = Tunnels(nothing, nothing, nothing)
    release, held = asyncio.Event(), 0

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *_: object) -> None:
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


ME, OTHER_NODE = bytes([1]) * 32, bytes([2]) * 32
MINE, THEIRS = bytes([3]) * 32, bytes([4]) * 32


@pytest.mark.parametrize("holder", [ME, OTHER_NODE])
def test_a_spec_that_names_another_tenants_lease_reaches_nothing(
    holder: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node holds both tenants' leases: to the other's nodes it is a sibling, and its own containers are at hand."""
    reached: list[object] = []

    async def any_lease(_: bytes) -> object:
        member = SimpleNamespace(node=holder)
        return SimpleNamespace(deployment=THEIRS, members=[member], terms=[Term(0, 0, 0)])

    async def open_anything(*call: object, **_: object) -> object:
        reached.append(call)
        raise RefusedError("it would have been reached", code="reached")

    chain: Any = SimpleNamespace(any_lease=any_lease, header_ms=1, node_id=ME, preset=MINIMAL)
    peers: Any = SimpleNamespace(splice=open_anything)
    runtime: Any = None
    monkeypatch.setattr(tunnels, "connect_container", open_anything)
    pipes: Any = None
    with pytest.raises(RefusedError) as caught:
        asyncio.run(Tunnels(chain, peers, runtime)._connect(pipes, pipes, MINE.hex(), 5432, [bytes(32)]))
    assert (caught.value.code, reached) == ("not_allowed", [])
