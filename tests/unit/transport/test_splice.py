"""Tunnels: a TCP connection on each side of a spliced stream."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from transport_rig import Number, method, rig, until

from freehold.transport.errors import StreamResetError
from freehold.transport.methods import CallContext, Kind
from freehold.transport.ports import StreamPort
from freehold.transport.splice import SpliceCount, splice

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Tunnel:
    stream: StreamPort
    counts: list[SpliceCount] = field(default_factory=list)


@asynccontextmanager
async def tunnel(serve: Serve, idle_timeout_ms: int | None = None) -> AsyncIterator[Tunnel]:
    """A stream whose far end is spliced to a TCP server that runs `serve`."""
    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    counts: list[SpliceCount] = []

    async def open_tunnel(context: CallContext, request: Number) -> Number:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def run(stream: StreamPort) -> None:
            counts.append(await splice(stream, reader, writer, idle_timeout_ms=idle_timeout_ms))

        context.splice(run)
        return request

    async with rig([method("tunnel", open_tunnel, Kind.SPLICE)]) as it:
        _, stream = await it.peer.splice("tunnel", Number(0), Number, 5_000)
        yield Tunnel(stream, counts)
    listener.close()
    await listener.wait_closed()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write(b"end")
    writer.close()


def test_half_close_passes_through_both_ways_and_bytes_are_counted() -> None:
    async def scenario() -> None:
        async with tunnel(_echo) as it:
            await it.stream.write(b"hello")
            assert await it.stream.read_exactly(5) == b"hello"
            await it.stream.finish()
            assert await it.stream.read_exactly(3) == b"end"
            assert await it.stream.read(1) == b""
            await until(lambda: bool(it.counts))
            count = it.counts[0]
            assert (count.to_tcp_bytes, count.from_tcp_bytes, count.ended) == (5, 8, "finished")

    asyncio.run(scenario())


def test_the_servers_half_close_comes_first() -> None:
    received = bytearray()

    async def speaks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"banner")
        writer.write_eof()
        received.extend(await reader.read())
        writer.close()

    async def scenario() -> None:
        async with tunnel(speaks_first) as it:
            assert await it.stream.read_exactly(6) == b"banner"
            assert await it.stream.read(1) == b""
            await it.stream.write(b"after your end")
            await it.stream.finish()
            await until(lambda: bool(it.counts))
            assert received == b"after your end"

    asyncio.run(scenario())


def test_many_bytes_both_ways_at_once() -> None:
    size = 8 << 20

    async def scenario() -> None:
        async with tunnel(_echo) as it:
            block = os.urandom(1 << 16)

            async def send() -> None:
                for _ in range(size // len(block)):
                    await it.stream.write(block)
                await it.stream.finish()

            sending = asyncio.ensure_future(send())
            digest = hashlib.sha256()
            left = size
            while left:
                data = await it.stream.read(min(left, 1 << 16))
                digest.update(data)
                left -= len(data)
            await sending
            assert await it.stream.read_exactly(3) == b"end"
            assert digest.digest() == hashlib.sha256(block * (size // len(block))).digest()

    asyncio.run(scenario())


def test_a_reader_that_does_not_read_holds_the_sender_back() -> None:
    gate = asyncio.Event()

    async def lazy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await _echo(reader, writer)

    async def scenario() -> None:
        async with tunnel(lazy) as it:
            sent = 0

            async def send() -> None:
                nonlocal sent
                while True:
                    await it.stream.write(bytes(1 << 16))
                    sent += 1 << 16

            sending = asyncio.ensure_future(send())
            before = -1
            while before != sent:  # until nothing moves any more
                before = sent
                await asyncio.wait((sending,), timeout=0.2)
            assert sent < 32 << 20
            sending.cancel()
            await asyncio.wait((sending,))
            await it.stream.reset(0)
            gate.set()
            await until(lambda: bool(it.counts))
            assert it.counts[0].ended == "reset"

    asyncio.run(scenario())


def test_a_tcp_reset_resets_the_stream() -> None:
    async def abort(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: close sends a reset
        writer.transport.abort()

    async def scenario() -> None:
        async with tunnel(abort) as it:
            await it.stream.write(b"x")
            with pytest.raises(StreamResetError):
                await it.stream.read(1)
            await until(lambda: bool(it.counts))
            assert it.counts[0].ended == "reset"

    asyncio.run(scenario())


def test_an_idle_tunnel_ends_when_it_is_told_to() -> None:
    async def scenario() -> None:
        async with tunnel(_echo, idle_timeout_ms=100) as it:
            await it.stream.write(b"x")
            assert await it.stream.read_exactly(1) == b"x"
            with pytest.raises(StreamResetError):
                await it.stream.read(1)
            await until(lambda: bool(it.counts))
            assert it.counts[0].ended == "idle"

    asyncio.run(scenario())
