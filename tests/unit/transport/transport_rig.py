"""A server and a caller on loopback, for the tests of the RPC."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from freehold.base.codec import Record
from freehold.transport.errors import RemoteAnswer
from freehold.transport.iroh_endpoint import Endpoint
from freehold.transport.methods import CallContext, Kind, Method, ServerLimits, everybody
from freehold.transport.peer import Peer
from freehold.transport.pool import Pool, PoolLimits
from freehold.transport.ports import ConnectionPort, StreamPort
from freehold.transport.server import Server
from freehold.transport.wire import ALPN, read_response

LOOPBACK = ["127.0.0.1:0"]
TIMEOUT_MS = 5_000


class Number(Record):
    value: int


class Blob(Record):
    data: bytes


@dataclass
class Rig:
    server: Server
    serving: "asyncio.Task[None]"
    server_endpoint: Endpoint
    client_endpoint: Endpoint
    pool: Pool
    peer: Peer

    async def connect(self) -> ConnectionPort:
        """A bare connection, for callers that break the rules."""
        return await self.client_endpoint.dial(
            self.server_endpoint.node_id, self.server_endpoint.addresses, ALPN, 5_000
        )

    async def raw(self, data: bytes) -> StreamPort:
        """A bare stream on which `data` was sent."""
        stream = await (await self.connect()).open()
        await stream.write(data)
        return stream


def method(name: str, handler: Any, kind: Kind = Kind.CALL, **changes: Any) -> Method[Any, Any]:
    settings: dict[str, Any] = {
        "request_type": Number,
        "response_type": Number,
        "who": everybody,
        "timeout_ms": 5_000,
        "max_body_bytes": 1 << 30 if kind is Kind.UPLOAD else 0,
    }
    return Method(name=name, handler=handler, kind=kind, **(settings | changes))


async def double(context: CallContext, request: Number) -> Number:
    return Number(2 * request.value)


@asynccontextmanager
async def rig(
    methods: Iterable[Method[Any, Any]] = (),
    limits: ServerLimits | None = None,
    pool_limits: PoolLimits | None = None,
    **server_settings: Any,
) -> AsyncIterator[Rig]:
    server_endpoint = await Endpoint.create(os.urandom(32), LOOPBACK, [ALPN])
    client_endpoint = await Endpoint.create(os.urandom(32), LOOPBACK, [])
    server = Server(server_endpoint, [method("double", double), *methods], limits, **server_settings)
    serving = asyncio.ensure_future(server.serve())
    pool = Pool(client_endpoint, pool_limits)
    peer = Peer(pool, server_endpoint.node_id, server_endpoint.addresses)
    try:
        yield Rig(server, serving, server_endpoint, client_endpoint, pool, peer)
    finally:
        await pool.close()
        await server.close()
        await asyncio.wait((serving,))
        await client_endpoint.close()
        await server_endpoint.close()


async def until(condition: Any, timeout_s: float = 5.0) -> None:
    """Wait until a condition of the other side holds; it has no event of its own to wait for."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def still_serves(it: Rig) -> None:
    assert await it.peer.call("double", Number(21), Number, TIMEOUT_MS) == Number(42)
    assert not it.serving.done()


async def refusal(stream: StreamPort) -> RemoteAnswer:
    with pytest.raises(RemoteAnswer) as caught:
        await read_response(stream, 1_000)
    return caught.value
