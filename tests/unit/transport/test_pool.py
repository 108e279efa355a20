"""Links: shared, reused, evicted; and what a caller sees when its peer's process is killed."""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transport_rig import LOOPBACK, Number, method, rig, until

from freehold.base.errors import LocalProtocolError, UnreachableError
from freehold.transport.errors import ConnectionLostError, TimedOutError
from freehold.transport.heartbeat import Heartbeat
from freehold.transport.iroh_endpoint import Endpoint
from freehold.transport.methods import CallContext, Kind
from freehold.transport.peer import Peer
from freehold.transport.pool import Pool, PoolLimits
from freehold.transport.ports import ConnectionPort, StreamPort
from freehold.transport.wire import ALPN


class Process:
    """A peer that can be killed and started again with the same key and port."""

    def __init__(self) -> None:
        self.seed = os.urandom(32).hex()
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        script = Path(__file__).with_name("peer_process.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), self.seed, self.address], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.address, node_id = self.process.stdout.readline().split()
        self.node_id = bytes.fromhex(node_id)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    process.kill()


class Dials:
    """An endpoint that counts its dials."""

    def __init__(self, inner: Endpoint) -> None:
        self.inner = inner
        self.count = 0
        self.node_id = inner.node_id
        self.addresses = inner.addresses

    async def dial(self, node_id: bytes, addresses: list[str], alpn: str, timeout_ms: int) -> ConnectionPort:
        self.count += 1
        return await self.inner.dial(node_id, addresses, alpn, timeout_ms)

    async def accept(self) -> ConnectionPort:
        return await self.inner.accept()

    async def close(self) -> None:
        await self.inner.close()


def test_calls_share_one_connection_and_one_dial() -> None:
    async def scenario() -> None:
        async with rig() as it:
            dials = Dials(it.client_endpoint)
            pool = Pool(dials)
            peer = Peer(pool, it.server_endpoint.node_id, it.server_endpoint.addresses)
            await asyncio.gather(*(peer.call("double", Number(n), Number, 5_000) for n in range(10)))
            await peer.call("double", Number(1), Number, 5_000)
            assert dials.count == 1
            pool.drop(it.server_endpoint.node_id, "test")
            await peer.call("double", Number(1), Number, 5_000)
            assert dials.count == 2
            await pool.close()
            with pytest.raises(LocalProtocolError):
                await peer.call("double", Number(1), Number, 5_000)

    asyncio.run(scenario())


def test_a_caller_that_gives_up_does_not_take_the_dial_from_the_others() -> None:
    async def scenario() -> None:
        async with rig() as it:
            node_id, addresses = it.server_endpoint.node_id, it.server_endpoint.addresses
            first = asyncio.ensure_future(it.pool.link(node_id, addresses, 5_000))
            second = asyncio.ensure_future(it.pool.link(node_id, addresses, 5_000))
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).connection.remote_id == node_id

    asyncio.run(scenario())


def test_a_caller_who_comes_as_a_dial_times_out_does_not_stop_the_loop() -> None:
    class Silent(Dials):
        async def dial(self, node_id: bytes, addresses: list[str], alpn: str, timeout_ms: int) -> ConnectionPort:
            self.count += 1
            if self.count > 1:
                await asyncio.sleep(0.01)
            raise TimedOutError("nobody", code="timed_out")

    async def scenario() -> None:
        async with rig() as it:
            dials = Silent(it.client_endpoint)
            pool = Pool(dials)
            node_id, addresses = it.server_endpoint.node_id, it.server_endpoint.addresses
            first = asyncio.ensure_future(pool.link(node_id, addresses, 100))
            await asyncio.sleep(0)  # its dial is about to run, and to fail at once
            second = asyncio.ensure_future(pool.link(node_id, addresses, 100))
            for result in await asyncio.gather(first, second, return_exceptions=True):
                assert isinstance(result, TimedOutError)
            assert dials.count > 1
            await pool.close()

    asyncio.run(scenario())


def test_a_full_pool_lets_the_longest_unused_idle_link_go() -> None:
    async def wait(context: CallContext, request: Number) -> Number:
        async def run(stream: StreamPort) -> None:
            await stream.read(1)

        context.splice(run)
        return request

    async def scenario() -> None:
        servers = [rig([method("hold", wait, Kind.SPLICE)]) for _ in range(3)]
        async with servers[0] as a, servers[1] as b, servers[2] as c:
            pool = Pool(a.client_endpoint, PoolLimits(links=2))
            peers = [Peer(pool, it.server_endpoint.node_id, it.server_endpoint.addresses) for it in (a, b, c)]
            _, held = await peers[0].splice("hold", Number(0), Number, 5_000)
            await peers[1].call("double", Number(1), Number, 5_000)
            await peers[2].call("double", Number(1), Number, 5_000)
            assert pool.existing(peers[0].node_id) is not None, "in use"
            assert pool.existing(peers[1].node_id) is None
            _, also = await peers[2].splice("hold", Number(0), Number, 5_000)
            with pytest.raises(LocalProtocolError):
                await peers[1].call("double", Number(1), Number, 5_000)
            await held.reset(0)
            await peers[1].call("double", Number(1), Number, 5_000)
            await also.reset(0)
            await pool.close()

    asyncio.run(scenario())


def test_a_call_fails_by_its_own_time() -> None:
    async def scenario() -> None:
        client, gone = [await Endpoint.create(os.urandom(32), LOOPBACK, []) for _ in range(2)]
        await gone.close()
        pool = Pool(client)
        before = time.monotonic()
        with pytest.raises(TimedOutError):
            await Peer(pool, gone.node_id, gone.addresses).call("double", Number(1), Number, 200)
        assert time.monotonic() - before < 1
        await pool.close()
        await client.close()

    asyncio.run(scenario())


def test_a_killed_peer_fails_its_callers_in_suspect_time_and_is_redialled_when_it_is_back(process: Process) -> None:
    limits = PoolLimits(probe_ms=100, suspect_ms=300)

    async def scenario() -> None:
        client = await Endpoint.create(os.urandom(32), LOOPBACK, [])
        pool = Pool(client, limits)
        peer = Peer(pool, process.node_id, [process.address])
        waiting = asyncio.ensure_future(peer.call("never", Number(1), Number, 60_000))
        assert await peer.call("double", Number(2), Number, 5_000) == Number(4)
        process.kill()
        before = time.monotonic()
        with pytest.raises(ConnectionLostError):
            await waiting
        assert time.monotonic() - before < 2
        await asyncio.to_thread(process.start)
        assert await peer.call("double", Number(3), Number, 5_000) == Number(6)
        await pool.close()
        await client.close()

    asyncio.run(scenario())


def test_a_silent_tunnel_to_a_killed_peer_fails_in_suspect_time(process: Process) -> None:
    async def scenario() -> None:
        client = await Endpoint.create(os.urandom(32), LOOPBACK, [])
        pool = Pool(client, PoolLimits(probe_ms=100, suspect_ms=300))
        _, stream = await Peer(pool, process.node_id, [process.address]).splice("hold", Number(0), Number, 5_000)
        reading = asyncio.ensure_future(stream.read(1))
        done, _ = await asyncio.wait((reading,), timeout=1)
        assert not done, "a peer that lives is left alone, however silent"
        process.kill()
        before = time.monotonic()
        with pytest.raises(ConnectionLostError):
            await reading
        assert time.monotonic() - before < 2
        await pool.close()
        await client.close()

    asyncio.run(scenario())


def test_a_peer_that_restarts_unnoticed_answers_within_two_seconds(process: Process) -> None:
    async def scenario() -> None:
        client = await Endpoint.create(os.urandom(32), LOOPBACK, [])
        pool = Pool(client, PoolLimits(probe_ms=100, suspect_ms=300))
        peer = Peer(pool, process.node_id, [process.address])
        await peer.call("double", Number(2), Number, 5_000)
        process.kill()
        await asyncio.to_thread(process.start)
        before = time.monotonic()
        with pytest.raises(UnreachableError):  # over the dead connection
            await peer.call("double", Number(2), Number, 5_000)
        assert await peer.call("double", Number(2), Number, 5_000) == Number(4)
        assert time.monotonic() - before < 2
        await pool.close()
        await client.close()

    asyncio.run(scenario())


def test_heartbeats_notice_a_killed_peer_in_suspect_time_and_its_return(process: Process) -> None:
    async def scenario() -> None:
        client = await Endpoint.create(os.urandom(32), LOOPBACK, [])
        pool = Pool(client)
        changes: asyncio.Queue[tuple[bytes, bool, float]] = asyncio.Queue()
        heart = Heartbeat(pool, 100, 400, lambda node, alive: changes.put_nowait((node, alive, time.monotonic())))
        heart.watch(process.node_id, [process.address])
        health = heart.health(process.node_id)
        assert health is not None
        await until(lambda: health.round_trip_ms > 0)
        silent_ms = heart.silent_ms(process.node_id)
        assert silent_ms is not None
        assert silent_ms < 400
        process.kill()
        killed = time.monotonic()
        node, alive, when = await asyncio.wait_for(changes.get(), 5)
        assert (node, alive) == (process.node_id, False)
        assert 0.2 < when - killed < 1.5
        assert health.is_suspect
        assert health.reason in ("connection_lost", "timed_out")
        await asyncio.to_thread(process.start)
        node, alive, _ = await asyncio.wait_for(changes.get(), 5)
        assert alive
        assert not health.is_suspect
        await heart.close()
        assert heart.silent_ms(process.node_id) is None
        await pool.close()
        await client.close()

    asyncio.run(scenario())


def test_a_standstill_of_our_own_is_not_held_against_the_peer() -> None:
    async def scenario() -> None:
        async with rig() as it:
            changes: list[bool] = []
            heart = Heartbeat(it.pool, 50, 200, lambda node, alive: changes.append(alive))
            heart.watch(it.server_endpoint.node_id, it.server_endpoint.addresses)
            health = heart.health(it.server_endpoint.node_id)
            assert health is not None
            await until(lambda: health.round_trip_ms > 0)
            for _ in range(3):
                time.sleep(0.4)  # noqa: ASYNC251 - the standstill
                seen = health.last_seen_s
                await until(lambda seen=seen: health.last_seen_s > seen)
            assert changes == []
            await heart.close()

    asyncio.run(scenario())


def test_watching_twice_learns_the_new_addresses() -> None:
    async def scenario() -> None:
        async with rig() as it:
            heart = Heartbeat(it.pool, 50, 200)
            heart.watch(it.server_endpoint.node_id, ["127.0.0.1:9"])
            heart.watch(it.server_endpoint.node_id, it.server_endpoint.addresses)
            health = heart.health(it.server_endpoint.node_id)
            assert health is not None
            await until(lambda: health.round_trip_ms > 0)
            await heart.unwatch(it.server_endpoint.node_id)
            await heart.unwatch(it.server_endpoint.node_id)

    asyncio.run(scenario())


def test_the_protocol_name_is_a_face() -> None:
    assert ALPN == "freehold/rpc/1"


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.long)])
def test_a_body_cut_off_by_a_kill_is_never_taken_for_a_whole_one(process: Process, kills: int) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    print(f"seed {seed}")

    async def scenario() -> None:
        client = await Endpoint.create(os.urandom(32), LOOPBACK, [])
        pool = Pool(client, PoolLimits(probe_ms=100, suspect_ms=300))
        peer = Peer(pool, process.node_id, [process.address])
        for _ in range(kills):
            point = chance.randrange(1, 32 << 20)
            received = 0
            with pytest.raises(UnreachableError):
                async with await peer.download("zeros", Number(64 << 20), Number, 5_000) as download:
                    async for chunk in download:
                        received += len(chunk)
                        if received >= point and process.process.poll() is None:
                            process.kill()
            assert point <= received < 64 << 20, "it was in flight"
            await asyncio.to_thread(process.start)
            assert await peer.call("double", Number(1), Number, 5_000) == Number(2)
        await pool.close()
        await client.close()

    asyncio.run(scenario())
