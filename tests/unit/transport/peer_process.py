"""A peer in a process of its own, to be killed: `python peer_process.py SEED_HEX ADDRESS` prints its address and id."""

import asyncio
import sys
from collections.abc import AsyncIterator

from transport_rig import Number, double, method

from freehold.transport.iroh_endpoint import Endpoint
from freehold.transport.methods import CallContext, Kind
from freehold.transport.ports import StreamPort
from freehold.transport.server import Server
from freehold.transport.wire import ALPN


async def _never(context: CallContext, request: Number) -> Number:
    await asyncio.Event().wait()
    return request


async def _zeros(context: CallContext, request: Number) -> Number:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(request.value >> 16):
            yield bytes(1 << 16)

    context.download(chunks())
    return request


async def _hold(context: CallContext, request: Number) -> Number:
    async def run(stream: StreamPort) -> None:
        await stream.read(1)

    context.splice(run)
    return request


async def _main() -> None:
    endpoint = await Endpoint.create(bytes.fromhex(sys.argv[1]), [sys.argv[2]], [ALPN])
    print(endpoint.addresses[0], endpoint.node_id.hex(), flush=True)
    methods = [
        method("double", double),
        method("never", _never, timeout_ms=60_000),
        method("zeros", _zeros, Kind.DOWNLOAD),
        method("hold", _hold, Kind.SPLICE),
    ]
    await Server(endpoint, methods).serve()


if __name__ == "__main__":
    asyncio.run(_main())
