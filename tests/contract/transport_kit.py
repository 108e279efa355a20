"""What the suites of transports share: every implementation, and ends that are joined by each.

A second transport joins by one more line in `TRANSPORTS`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from freehold.transport.iroh_endpoint import Endpoint as IrohEndpoint
from freehold.transport.ports import ConnectionPort, EndpointPort, StreamPort

ALPN = "freehold/test/1"


TIMEOUT_MS = 5_000


Create = Callable[[bytes, list[str], list[str]], Awaitable[EndpointPort]]


TRANSPORTS: dict[str, Create] = {"iroh": IrohEndpoint.create}


@asynccontextmanager
async def endpoints(create: Create, count: int = 2) -> AsyncIterator[list[EndpointPort]]:
    made = [await create(os.urandom(32), ["127.0.0.1:0"], [ALPN]) for _ in range(count)]
    try:
        yield made
    finally:
        await asyncio.gather(*(endpoint.close() for endpoint in made))


@asynccontextmanager
async def connected(create: Create) -> AsyncIterator[tuple[ConnectionPort, ConnectionPort]]:
    async with endpoints(create) as (client, server):
        accepting = asyncio.ensure_future(server.accept())
        yield await client.dial(server.node_id, server.addresses, ALPN, TIMEOUT_MS), await accepting


@asynccontextmanager
async def streams(create: Create) -> AsyncIterator[tuple[StreamPort, StreamPort]]:
    async with connected(create) as (client, server):
        stream = await client.open()
        await stream.write(b"!")
        accepted = await server.accept_stream()
        assert await accepted.read_exactly(1) == b"!"
        yield stream, accepted
