"""What every transport keeps of endpoints and connections: the rules of `freehold.transport.ports`."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest
from transport_kit import ALPN, TIMEOUT_MS, TRANSPORTS, Create, connected, endpoints

from freehold.base.errors import InvalidInputError, LocalProtocolError, RemoteProtocolError, UnreachableError
from freehold.transport.errors import ConnectionLostError, TimedOutError, WrongKeyError
from freehold.transport.iroh_endpoint import Endpoint as IrohEndpoint

NOT_A_KEY = b"\x02" + bytes(31)  # no point of the curve has this encoding


@pytest.fixture(params=sorted(TRANSPORTS))
def create(request: pytest.FixtureRequest) -> Create:
    return TRANSPORTS[request.param]


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


_SERVER = """
import asyncio, signal, sys
from freehold.transport.iroh_endpoint import Endpoint
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background, which ignores it
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
        try:
            after = await asyncio.wait_for(stream.read(1), 0.1)
        except TimeoutError:
            after = None
        # a process that still ends its stream may be seen to: only an end mark says that a body is whole
        assert after is None or (how == signal.SIGINT and after == b"")
        await client.close()

    try:
        asyncio.run(scenario())
    finally:
        process.kill()
        process.communicate()
