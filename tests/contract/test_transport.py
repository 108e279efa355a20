"""What every transport keeps: the rules of `freehold.transport.ports`, run against each implementation.

A second transport joins by one more line in `TRANSPORTS`.
"""

import asyncio
import gc
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from freehold.base.errors import InvalidInputError, LocalProtocolError, RemoteProtocolError, UnreachableError
from freehold.transport.errors import ConnectionLostError, StreamResetError, TimedOutError, WrongKeyError
from freehold.transport.iroh_endpoint import Endpoint as IrohEndpoint
from freehold.transport.ports import ConnectionPort, EndpointPort, StreamPort

ALPN = "freehold/test/1"
TIMEOUT_MS = 5_000
NOT_A_KEY = b"\x02" + bytes(31)  # no point of the curve has this encoding

Create = Callable[[bytes, list[str], list[str]], Awaitable[EndpointPort]]
TRANSPORTS: dict[str, Create] = {"iroh": IrohEndpoint.create}


@pytest.fixture(params=sorted(TRANSPORTS))
def create(request: pytest.FixtureRequest) -> Create:
    return TRANSPORTS[request.param]


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


def test_both_ends_know_the_others_key_and_the_protocol(create: Create) -> None:
    async def scenario() -> None:
        async with endpoints(create) as (client, server):
            accepting = asyncio.ensure_future(server.accept())
            connection = await client.dial(server.node_id, server.addresses, ALPN, TIMEOUT_MS)
            accepted = await accepting
            assert (connection.remote_id, accepted.remote_id) == (server.node_id, client.node_id)
            assert connection.alpn == accepted.alpn == ALPN

    asyncio.run(scenario())


def test_the_same_seed_gives_the_same_node_id(create: Create) -> None:
    async def scenario() -> None:
        first, second = [await create(b"\x07" * 32, ["127.0.0.1:0"], [ALPN]) for _ in range(2)]
        assert first.node_id == second.node_id
        assert first.addresses != second.addresses
        await first.close()
        await second.close()

    asyncio.run(scenario())


def test_the_node_id_is_the_ed25519_public_key_of_the_seed(create: Create) -> None:
    # RFC 8032, section 7.1, test 1.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")

    async def scenario() -> None:
        endpoint = await create(seed, ["127.0.0.1:0"], [])
        assert endpoint.node_id == public
        await endpoint.close()

    asyncio.run(scenario())


def test_another_key_at_the_address_is_told_as_wrong_key(create: Create) -> None:
    async def scenario() -> None:
        async with endpoints(create, 3) as (client, server, impostor):
            accepting = asyncio.ensure_future(impostor.accept())
            with pytest.raises(WrongKeyError) as caught:
                await client.dial(server.node_id, impostor.addresses, ALPN, TIMEOUT_MS)
            assert (caught.value.code, caught.value.exit_code) == ("wrong_key", 5)
            assert not accepting.done()
            accepting.cancel()

    asyncio.run(scenario())


def test_a_stale_address_does_not_hide_the_node_behind_its_new_one(create: Create) -> None:
    async def scenario() -> None:
        async with endpoints(create, 3) as (client, server, impostor):
            waiting = [asyncio.ensure_future(endpoint.accept()) for endpoint in (server, impostor)]
            with pytest.raises(WrongKeyError):
                await client.dial(server.node_id, impostor.addresses, ALPN, TIMEOUT_MS)
            connection = await client.dial(server.node_id, server.addresses, ALPN, TIMEOUT_MS)
            assert connection.remote_id == server.node_id
            await waiting[0]
            connection.close(0, "")
            again = asyncio.ensure_future(server.accept())
            both = await client.dial(server.node_id, impostor.addresses + server.addresses, ALPN, TIMEOUT_MS)
            assert both.remote_id == server.node_id
            await again
            waiting[1].cancel()

    asyncio.run(scenario())


def test_nobody_there_ends_with_the_timeout(create: Create) -> None:
    async def scenario() -> None:
        async with endpoints(create, 2) as (client, gone):
            addresses, node_id = gone.addresses, gone.node_id
            await gone.close()
            before = time.monotonic()
            with pytest.raises(TimedOutError) as caught:
                await client.dial(node_id, addresses, ALPN, 300)
            assert time.monotonic() - before < 2
            assert (caught.value.code, caught.value.exit_code) == ("timed_out", 4)

    asyncio.run(scenario())


def test_a_protocol_that_the_peer_does_not_speak(create: Create) -> None:
    async def scenario() -> None:
        async with endpoints(create) as (client, server):
            accepting = asyncio.ensure_future(server.accept())
            with pytest.raises(RemoteProtocolError) as caught:
                await client.dial(server.node_id, server.addresses, "freehold/other/9", TIMEOUT_MS)
            assert caught.value.code == "wrong_protocol"
            # And the server goes on.
            await client.dial(server.node_id, server.addresses, ALPN, TIMEOUT_MS)
            await accepting

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "address",
    ["", "localhost:80", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "::1:80", "[127.0.0.1]:80", "1.2.3.4:-1"],
)
def test_malformed_addresses_are_refused(create: Create, address: str) -> None:
    async def scenario() -> None:
        async with endpoints(create, 1) as (client,):
            with pytest.raises(InvalidInputError):
                await client.dial(b"\x01" * 32, [address], ALPN, TIMEOUT_MS)

    asyncio.run(scenario())


def test_bad_targets_are_refused(create: Create) -> None:
    async def scenario() -> None:
        async with endpoints(create, 2) as (client, server):
            with pytest.raises(InvalidInputError):
                await client.dial(server.node_id, [], ALPN, TIMEOUT_MS)
            with pytest.raises(InvalidInputError):
                await client.dial(server.node_id, server.addresses * 9, ALPN, TIMEOUT_MS)
            with pytest.raises(InvalidInputError):
                await client.dial(b"short", server.addresses, ALPN, TIMEOUT_MS)
            with pytest.raises(InvalidInputError):
                await client.dial(NOT_A_KEY, server.addresses, ALPN, TIMEOUT_MS)
            with pytest.raises(LocalProtocolError):
                await client.dial(client.node_id, server.addresses, ALPN, TIMEOUT_MS)

    asyncio.run(scenario())


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


def test_closing_a_connection_wakes_everybody(create: Create) -> None:
    async def scenario() -> None:
        async with connected(create) as (client, server):
            stream = await client.open()
            await stream.write(b"x")
            far = await server.accept_stream()
            await far.read_exactly(1)
            waiting = [
                asyncio.ensure_future(action)
                for action in (stream.read(1), far.read(1), server.accept_stream(), client.accept_stream())
            ]
            ends = [asyncio.ensure_future(side.closed()) for side in (client, server)]
            await asyncio.sleep(0)
            client.close(5, "enough")
            for task in waiting:
                with pytest.raises(ConnectionLostError):
                    await task
            reasons = await asyncio.gather(*ends)
            assert "enough" in reasons[1]
            assert client.is_closed
            assert server.is_closed
            with pytest.raises(UnreachableError):
                await server.open()
            with pytest.raises(UnreachableError):
                await stream.write(b"x")

    asyncio.run(scenario())


def test_closing_an_endpoint_is_quick_and_wakes_its_acceptor(create: Create) -> None:
    async def scenario() -> None:
        async with endpoints(create, 1) as (endpoint,):
            accepting = asyncio.ensure_future(endpoint.accept())
            await asyncio.sleep(0)
            before = time.monotonic()
            await endpoint.close()
            await endpoint.close()
            assert time.monotonic() - before < 2
            with pytest.raises(ConnectionLostError):
                await accepting
            with pytest.raises(ConnectionLostError):
                await endpoint.accept()
            with pytest.raises(UnreachableError):
                await endpoint.dial(b"\x01" * 32, ["127.0.0.1:9"], ALPN, 100)

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


_SERVER = """
import asyncio, sys
from freehold.transport.iroh_endpoint import Endpoint
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is not the question here
    endpoint = await Endpoint.create(bytes.fromhex(sys.argv[1]), ["127.0.0.1:0"], [sys.argv[2]])
    print(endpoint.addresses[0], endpoint.node_id.hex(), flush=True)
    connection = await endpoint.accept()
    stream = await connection.accept_stream()
    await stream.write(await stream.read(100))
    await asyncio.Event().wait()
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_ends_in_the_middle(how: signal.Signals) -> None:
    """Ctrl-C ends a serving process at once and without a word of warning; a killed one leaves a silent peer."""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", _SERVER, os.urandom(32).hex(), ALPN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None

    async def scenario() -> None:
        address, node_id = (await asyncio.to_thread(process.stdout.readline)).split()
        client = await IrohEndpoint.create(os.urandom(32), ["127.0.0.1:0"], [])
        connection = await client.dial(bytes.fromhex(node_id), [address], ALPN, TIMEOUT_MS)
        stream = await connection.open()
        await stream.write(b"hello")
        assert await stream.read_exactly(5) == b"hello"
        process.send_signal(how)
        out, err = await asyncio.to_thread(process.communicate, timeout=5)
        assert err == ""
        assert out == ("interrupted\n" if how == signal.SIGINT else "")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.read(1), 0.1)
        await client.close()

    try:
        asyncio.run(scenario())
    finally:
        process.kill()
        process.communicate()
