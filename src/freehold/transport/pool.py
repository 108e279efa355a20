"""Connections that we dialled, one per peer, reused, redialled when dead, and watched while somebody waits on them.

QUIC itself notices a killed peer after 35 s. A link therefore remembers when its peer last showed life, and while a
call waits for an answer for longer than `probe_ms` it is pinged; a peer that does not answer the ping in
`suspect_ms` is dead: the connection is closed and all who wait fail at once with `ConnectionLostError`.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

import msgspec

from freehold.base.codec import decode, encode
from freehold.base.errors import CodecError, FreeholdError, LocalProtocolError, RemoteProtocolError
from freehold.transport.errors import ConnectionLostError, RemoteAnswer
from freehold.transport.ports import ConnectionPort, EndpointPort, StreamPort
from freehold.transport.server import CLOSE_BYE, PING, Ping, Pong
from freehold.transport.wire import ALPN, read_response, request_bytes

CLOSE_DEAD = 4


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one pool; `suspect_ms` is the preset's."""

    links: int = 256
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
        """Open a stream and keep count of it."""
        self._streams = [stream for stream in self._streams if not stream.done]
        stream = await self.connection.open()
        self._streams.append(stream)
        return stream

    def seen(self) -> None:
        """Take note that the peer answered."""
        self.last_seen_s = asyncio.get_running_loop().time()

    @contextlib.asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """While somebody waits for this peer, watch that it lives."""
        self._waiting += 1
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_life())
        try:
            yield
        finally:
            self._waiting -= 1
            if self._waiting == 0 and self._watch is not None:
                self._watch.cancel()

    async def ping(self, timeout_ms: int) -> float:
        """Ask for a sign of life.

        Returns:
            The round trip in milliseconds.

        Raises:
            ConnectionLostError: no answer in time, and the link is closed.
        """
        loop = asyncio.get_running_loop()
        before = loop.time()
        self._pings = (self._pings + 1) % (1 << 32)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._ask(self._pings)
        except TimeoutError:
            self.close(CLOSE_DEAD, "no sign of life")
            raise ConnectionLostError(
                f"{self.connection.remote_id.hex()[:16]}.. gave no sign of life for {timeout_ms} ms",
                code="connection_lost",
                hint="the peer is down, frozen or cut off",
            ) from None
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
        if self._watch is not None and self._watch is not _current_task():
            self._watch.cancel()
        self.connection.close(code, reason)

    async def _watch_life(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(FreeholdError):
            while True:
                await asyncio.sleep(self._limits.probe_ms / 1000)
                if loop.time() - self.last_seen_s >= self._limits.probe_ms / 1000:
                    await self.ping(self._limits.suspect_ms)


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
            WrongKeyError, TimedOutError, UnreachableError: see `EndpointPort.dial`.
        """
        if self._closed:
            raise LocalProtocolError("the pool is closed", code="pool_closed")
        link = self.existing(node_id)
        if link is not None:
            self._links.move_to_end(node_id)
            return link
        dial = self._dials.get(node_id)
        if dial is None:
            dial = asyncio.create_task(self._dial(node_id, list(addresses), timeout_ms))
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
            self._links.popitem()[1].close(CLOSE_BYE, "closing")

    async def _dial(self, node_id: bytes, addresses: list[str], timeout_ms: int) -> Link:
        connection = await self._endpoint.dial(node_id, addresses, ALPN, timeout_ms)
        link = Link(connection, self.limits)
        self._make_room()
        self._links[node_id] = link
        return link

    def _dialled(self, node_id: bytes, task: "asyncio.Task[Link]") -> None:
        self._dials.pop(node_id, None)
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


def _current_task() -> "asyncio.Task[object] | None":
    return asyncio.current_task()
