"""What every transport keeps of a stream: ends, resets, cancelled reads, many bytes and many streams."""

import asyncio
import gc
import hashlib
import os
from pathlib import Path

import pytest
from transport_kit import ALPN, TIMEOUT_MS, TRANSPORTS, Create, connected, endpoints, streams

from freehold.base.errors import LocalProtocolError, RemoteProtocolError
from freehold.transport.errors import StreamResetError


@pytest.fixture(params=sorted(TRANSPORTS))
def create(request: pytest.FixtureRequest) -> Create:
    return TRANSPORTS[request.param]


def test_each_direction_ends_by_itself(create: Create) -> None:
    async def scenario() -> None:
        async with streams(create) as (near, far):
            await near.write(b"question")
            await near.finish()
            assert await far.read_exactly(8) == b"question"
            assert await far.read(10) == b""
            assert await far.read(10) == b""
            assert not far.done
            await far.write(b"answer")
            await far.finish()
            assert await near.read_exactly(6) == b"answer"
            assert await near.read(1) == b""
            assert near.done
            assert far.done
            with pytest.raises(LocalProtocolError):
                await near.write(b"more")

    asyncio.run(scenario())


def test_a_stream_that_ends_early_is_truncated(create: Create) -> None:
    async def scenario() -> None:
        async with streams(create) as (near, far):
            await near.write(b"abc")
            await near.finish()
            with pytest.raises(RemoteProtocolError) as caught:
                await far.read_exactly(4)
            assert caught.value.code == "truncated"

    asyncio.run(scenario())


def test_reset_wakes_both_sides_and_gives_its_code(create: Create) -> None:
    async def scenario() -> None:
        async with streams(create) as (near, far):
            here, there = asyncio.ensure_future(near.read(1)), asyncio.ensure_future(far.read(1))
            await asyncio.sleep(0)
            await near.reset(77)
            for waiting in (here, there):
                with pytest.raises(StreamResetError) as caught:
                    await waiting
                assert caught.value.reset_code == 77
            with pytest.raises(StreamResetError):
                await near.write(b"x")
            with pytest.raises(StreamResetError):
                await near.read(1)

    asyncio.run(scenario())


def test_reset_wakes_a_writer_that_waits_for_the_window(create: Create) -> None:
    async def scenario() -> None:
        async with streams(create) as (near, _):
            writing = asyncio.ensure_future(near.write(bytes(64 << 20)))
            await asyncio.wait((writing,), timeout=0.1)
            assert not writing.done(), "a reader that does not read holds the writer back"
            await near.reset(3)
            with pytest.raises(StreamResetError):
                await writing

    asyncio.run(scenario())


def test_stop_ends_the_peers_writing_and_not_our_own(create: Create) -> None:
    async def scenario() -> None:
        async with streams(create) as (near, far):
            await far.stop(9)
            with pytest.raises(StreamResetError) as caught:
                for _ in range(1_000):
                    await near.write(bytes(65_536))
            assert caught.value.reset_code == 9
            await far.write(b"still here")
            assert await near.read_exactly(10) == b"still here"

    asyncio.run(scenario())


def test_cancelled_reads_lose_no_bytes(create: Create) -> None:
    total = 512 * 1024

    async def scenario() -> None:
        async with streams(create) as (near, far):
            sent, received, timeouts = hashlib.sha256(), hashlib.sha256(), 0

            async def send() -> None:
                for _ in range(total // 1024):
                    piece = os.urandom(1024)
                    sent.update(piece)
                    await near.write(piece)
                    await asyncio.sleep(0.0005)
                await near.finish()

            sending = asyncio.ensure_future(send())
            count = 0
            while True:
                try:
                    data = await asyncio.wait_for(far.read(4096), 0.0004)
                except TimeoutError:
                    timeouts += 1
                    continue
                if not data:
                    break
                count += len(data)
                received.update(data)
            await sending
            assert timeouts > 20, "the test must have cancelled reads"
            assert count == total
            assert received.digest() == sent.digest()

    asyncio.run(scenario())


def test_cancelled_read_exactly_keeps_what_came(create: Create) -> None:
    async def scenario() -> None:
        async with streams(create) as (near, far):
            await near.write(b"abc")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(far.read_exactly(6), 0.05)
            await near.write(b"def")
            assert await far.read_exactly(6) == b"abcdef"

    asyncio.run(scenario())


def test_cancelled_accepts_lose_nothing(create: Create) -> None:
    async def scenario() -> None:
        async with endpoints(create) as (client, server):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(server.accept(), 0.01)
            connection = await client.dial(server.node_id, server.addresses, ALPN, TIMEOUT_MS)
            accepted = await server.accept()
            for number in range(20):
                waiting = asyncio.ensure_future(accepted.accept_stream())
                await asyncio.sleep(0)
                stream = await connection.open()
                await stream.write(bytes([number]))
                waiting.cancel()
                await asyncio.wait((waiting,))
                come = await accepted.accept_stream() if waiting.cancelled() else waiting.result()
                assert await come.read_exactly(1) == bytes([number])

    asyncio.run(scenario())


def test_a_cancelled_write_leaves_only_reset(create: Create) -> None:
    async def scenario() -> None:
        async with streams(create) as (near, far):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(near.write(bytes(64 << 20)), 0.05)
            with pytest.raises(LocalProtocolError):
                await near.write(b"x")
            with pytest.raises(LocalProtocolError):
                await near.finish()
            await near.reset(4)
            with pytest.raises(StreamResetError):
                while await far.read(1 << 20):
                    pass

    asyncio.run(scenario())


def test_one_reader_and_one_writer_at_a_time(create: Create) -> None:
    async def scenario() -> None:
        async with streams(create) as (near, far):
            reading = asyncio.ensure_future(far.read(1))
            await asyncio.sleep(0)
            with pytest.raises(LocalProtocolError):
                await far.read(1)
            writing = asyncio.ensure_future(near.write(bytes(64 << 20)))
            await asyncio.sleep(0)
            with pytest.raises(LocalProtocolError):
                await near.write(b"x")
            assert await reading == b"\0"
            await near.reset(0)
            await asyncio.wait((writing,))
            assert isinstance(writing.exception(), StreamResetError)

    asyncio.run(scenario())


def test_many_megabytes_arrive_whole(create: Create) -> None:
    size = 64 << 20

    async def scenario() -> None:
        async with streams(create) as (near, far):
            block = os.urandom(1 << 20)
            sent, received = hashlib.sha256(), hashlib.sha256()

            async def send() -> None:
                for number in range(size >> 20):
                    piece = number.to_bytes(4, "big") + block[4:]
                    sent.update(piece)
                    await near.write(piece)
                await near.finish()

            sending = asyncio.ensure_future(send())
            count = 0
            while data := await far.read(1 << 20):
                count += len(data)
                received.update(data)
            await sending
            assert (count, received.digest()) == (size, sent.digest())

    asyncio.run(scenario())


def test_many_streams_leave_no_memory_behind(create: Create) -> None:
    def resident_mib() -> float:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / (1 << 20)

    async def scenario() -> None:
        async with connected(create) as (client, server):

            async def serve() -> None:
                while True:
                    stream = await server.accept_stream()
                    await stream.write(await stream.read(64))
                    await stream.finish()

            serving = asyncio.ensure_future(serve())

            async def use(count: int) -> None:
                for _ in range(count):
                    stream = await client.open()
                    await stream.write(b"ping")
                    await stream.finish()
                    assert await stream.read_exactly(4) == b"ping"

            await use(200)
            before = resident_mib()
            await asyncio.gather(*(use(100) for _ in range(20)))
            assert resident_mib() - before < 16
            serving.cancel()

    asyncio.run(scenario())
