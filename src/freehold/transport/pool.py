"""Connections that we dialled, one per peer, reused, redialled when dead, and watched while somebody waits on them.

QUIC itself notices a killed peer after 35 s. A link therefore remembers when its peer last showed life, and while a
call waits for an answer for longer than `probe_ms`, or a tunnel is open, it is pinged; a peer that does not answer the
ping in `suspect_ms` is dead: the connection is closed and all who wait fail at once with `ConnectionLostError`.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import msgspec

from freehold.base.codec import decode, encode
from freehold.base.errors import CodecError, FreeholdError, LocalProtocolError, RemoteProtocolError
from freehold.transport.errors import ConnectionLostError, RemoteAnswer, TimedOutError, timed_out
from freehold.transport.ports import ConnectionPort, EndpointPort, StreamPort
from freehold.transport.server import CLOSE_BYE, PING, Ping, Pong
from freehold.transport.wire import ALPN, read_response, request_bytes

CLOSE_DEAD = 4
_PATIENCE_S = 0.1


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one pool; `suspect_ms` is the preset's.

    A dial that is not answered is given up after `dial_ms` and made anew: the retries of QUIC itself come ever later,
    and a peer that has just come back would wait for the next one.
    """

    links: int = 256
    dial_ms: int = 2_000
    probe_ms: int = 500
    suspect_ms: int = 3_000


class Link:
    """One dialled connection with its signs of life.

    Attributes:
        connection: the connection.
        last_seen_s: loop time at which the peer last answered anything.
    """

    def __init__(self, connection: ConnectionPort, limits: PoolLimits) -> None:
        self.connection = connection
        self.last_seen_s = asyncio.get_running_loop().time()
        self._limits = limits
        self._waiting = 0
        self._streams: list[StreamPort] = []
        self._watch: asyncio.Task[None] | None = None
        self._pings = 0

    @property
    def is_busy(self) -> bool:
        """Whether calls or splices run on this link."""
        self._streams = [stream for stream in self._streams if not stream.done]
        return self._waiting > 0 or bool(self._streams)

    async def open(self) -> StreamPort:
        """Open a stream; the link counts as busy, and is watched, until it is done or released."""
        stream = await self.connection.open()
        self._streams.append(stream)
        self._keep_watch()
        return stream

    def release(self, stream: StreamPort) -> None:
        """Forget a stream that its call has ended with."""
        self._streams.remove(stream)

    def seen(self) -> None:
        """Take note that the peer answered."""
        self.last_seen_s = asyncio.get_running_loop().time()

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """While somebody waits for this peer, watch that it lives."""
        self._waiting += 1
        self._keep_watch()
        try:
            yield
        finally:
            self._waiting -= 1

    async def ping(self, timeout_ms: int) -> float:
        """Ask for a sign of life.

        Returns:
            The round trip in milliseconds.

        Raises:
            ConnectionLostError: no answer in time, and the link is closed.
        """
        before = asyncio.get_running_loop().time()
        self._pings = (self._pings + 1) % (1 << 32)
        if not await _answers_within(self._ask(self._pings), timeout_ms):
            self.close(CLOSE_DEAD, "no sign of life")
            raise ConnectionLostError(
                f"{self.connection.remote_id.hex()[:16]}.. gave no sign of life for {timeout_ms} ms",
                code="connection_lost",
                hint="the peer is down, frozen or cut off",
            )
        self.seen()
        return (self.last_seen_s - before) * 1000

    async def _ask(self, nonce: int) -> None:
        stream = await self.connection.open()
        try:
            await stream.write(request_bytes(PING, encode(Ping(nonce))))
            await stream.finish()
            with contextlib.suppress(RemoteAnswer):  # "busy" is a sign of life too
                pong = decode(await read_response(stream, 16), Pong)
                if pong.nonce != nonce:
                    raise RemoteProtocolError("the pong has another nonce", code="bad_pong")
        except CodecError as error:
            raise RemoteProtocolError(error.message, code=error.code) from None
        finally:
            await stream.reset(0)

    def close(self, code: int, reason: str) -> None:
        """Close the connection; whoever waits on it fails at once."""
        self.connection.close(code, reason)

    async def end(self) -> None:
        """Close the connection and wait until nothing of the link runs any more."""
        self.close(CLOSE_BYE, "closing")
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))

    def _keep_watch(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_life())

    async def _watch_life(self) -> None:
        """Ping a silent peer: soon while somebody waits for its answer, calmly while only tunnels are open."""
        loop = asyncio.get_running_loop()
        calm_ms = max(self._limits.probe_ms, self._limits.suspect_ms // 3)
        with contextlib.suppress(FreeholdError):
            while self.is_busy and not self.connection.is_closed:
                await asyncio.sleep(self._limits.probe_ms / 1000)
                silence_ms = self._limits.probe_ms if self._waiting else calm_ms
                if self.is_busy and loop.time() - self.last_seen_s >= silence_ms / 1000:
                    await self.ping(self._limits.suspect_ms)


async def _answers_within(question: Coroutine[Any, Any, None], timeout_ms: int) -> bool:
    """Wait for an answer; time in which our own loop stood still is not held against the peer."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(question)
    left_s = timeout_ms / 1000
    try:
        while not task.done() and left_s > 0:
            before = loop.time()
            slice_s = min(left_s, _PATIENCE_S)
            await asyncio.wait((task,), timeout=slice_s)
            left_s -= min(loop.time() - before, slice_s)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
    if task.cancelled():
        return False
    task.result()
    return True


class Pool:
    """Links by node id.

    Args:
        endpoint: what dials.
        limits: see `PoolLimits`.
    """

    def __init__(self, endpoint: EndpointPort, limits: PoolLimits | None = None) -> None:
        self.limits = limits or PoolLimits()
        self._endpoint = endpoint
        self._links: OrderedDict[bytes, Link] = OrderedDict()
        self._dials: dict[bytes, asyncio.Task[Link]] = {}
        self._closed = False

    def existing(self, node_id: bytes) -> Link | None:
        """The open link to a peer, if there is one."""
        link = self._links.get(node_id)
        if link is not None and link.connection.is_closed:
            self._links.pop(node_id, None)
            return None
        return link

    async def link(self, node_id: bytes, addresses: Sequence[str], timeout_ms: int) -> Link:
        """Return the open link to a peer, dialling when there is none; callers at the same time share one dial.

        Raises:
            TimedOutError: nobody answered within the caller's `timeout_ms`.
            WrongKeyError, UnreachableError: see `EndpointPort.dial`.
        """
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    with contextlib.suppress(TimedOutError):
                        return await self._shared_link(node_id, addresses)
        except TimeoutError:
            raise timed_out(f"connecting to {node_id.hex()[:16]}..", timeout_ms) from None

    async def _shared_link(self, node_id: bytes, addresses: Sequence[str]) -> Link:
        if self._closed:
            raise LocalProtocolError("the pool is closed", code="pool_closed")
        link = self.existing(node_id)
        if link is not None:
            self._links.move_to_end(node_id)
            return link
        dial = self._dials.get(node_id)
        # One that has ended may still be listed: its callback runs later in this turn of the loop, and waiting for it
        # would not yield, so that a caller who tries again would never let that callback run.
        if dial is None or dial.done():
            dial = asyncio.create_task(self._dial(node_id, list(addresses)))
            self._dials[node_id] = dial
            dial.add_done_callback(lambda task: self._dialled(node_id, task))
        return await asyncio.shield(dial)

    def drop(self, node_id: bytes, reason: str) -> None:
        """Close the link to a peer, so that the next call dials again."""
        link = self._links.pop(node_id, None)
        if link is not None:
            link.close(CLOSE_DEAD, reason)

    async def close(self) -> None:
        """Close all links; the endpoint stays open."""
        self._closed = True
        dials = list(self._dials.values())
        for dial in dials:
            dial.cancel()
        if dials:
            await asyncio.wait(dials)
        while self._links:
            await self._links.popitem()[1].end()

    async def _dial(self, node_id: bytes, addresses: list[str]) -> Link:
        connection = await self._endpoint.dial(node_id, addresses, ALPN, self.limits.dial_ms)
        link = Link(connection, self.limits)
        self._make_room()
        self._links[node_id] = link
        return link

    def _dialled(self, node_id: bytes, task: "asyncio.Task[Link]") -> None:
        if self._dials.get(node_id) is task:
            del self._dials[node_id]
        if not task.cancelled():
            task.exception()  # seen, also when every caller has gone

    def _make_room(self) -> None:
        for node_id in [key for key, link in self._links.items() if link.connection.is_closed]:
            del self._links[node_id]
        while len(self._links) >= self.limits.links:
            idle = next((key for key, link in self._links.items() if not link.is_busy), None)
            if idle is None:
                raise LocalProtocolError(
                    f"{len(self._links)} connections, all in use", code="too_many_links", hint="raise PoolLimits.links"
                )
            self._links.pop(idle).close(CLOSE_BYE, "idle")
