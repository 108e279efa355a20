"""Endpoint, connection and stream over iroh: with `iroh_patch`, the only code that knows the binding.

What the binding does by itself and what is done about it stands in docs/spec/transport.md ("Sharp edges"): no relays,
no lookups, no wildcard socket, reads that survive cancellation, resets that do not wait behind a pending read.
Runs on plain asyncio; the binding's own runtime has its threads in Rust and wakes the loop thread-safely.
"""

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any, Self

import iroh

from freehold.base.errors import InvalidInputError, LocalProtocolError, check
from freehold.transport import iroh_patch
from freehold.transport.addresses import any_port, family, parse_address
from freehold.transport.errors import ConnectionLostError, TimedOutError, WrongKeyError, timed_out
from freehold.transport.iroh_bind import close_endpoint, holding_ports, is_bound, open_endpoint
from freehold.transport.iroh_faults import FAULTS, connection_error, dial_error, is_dead_endpoint
from freehold.transport.iroh_stream import Stream, look_at
from freehold.transport.ports import MAX_STREAMS, NODE_ID_BYTES

MAX_DIAL_ADDRESSES = 8
MAX_HANDSHAKES = 64  # incoming handshakes at a time; more are dropped without a reply
RETRY_ABOVE_HANDSHAKES = 16  # above this the sender must first show that its address is its own
MAX_WAITING = 64  # connections waiting for `accept`; more are closed
HANDSHAKE_TIMEOUT_MS = 5_000
MAX_SPARES_AT_ONCE = 4
RENEWAL_PAUSE_S = 0.05  # before a dead endpoint is opened again; doubled at each failure
MAX_RENEWAL_PAUSE_S = 2.0
DEAD_CLOSE_TIMEOUT_MS = 10_000
LOOK_S = 2.0  # between two looks at whether the sockets are still there
_BUSY_CODE = 2
_BYE_CODE = 0
_log = logging.getLogger(__name__)


class Connection:
    """A connection to one peer; see `ports.ConnectionPort`."""

    def __init__(self, inner: iroh.Connection) -> None:
        self._inner = inner
        self._remote_id = bytes(inner.remote_id().to_bytes())
        self._alpn = bytes(inner.alpn()).decode("ascii", "replace")
        self._accepting: asyncio.Task[Any] | None = None
        inner.set_max_concurrent_uni_streams(0)
        inner.set_max_concurrent_bi_streams(MAX_STREAMS)

    @property
    def remote_id(self) -> bytes:
        """The peer's node id, proven by the handshake."""
        return self._remote_id

    @property
    def alpn(self) -> str:
        """The protocol that both sides agreed on."""
        return self._alpn

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        return self._inner.close_reason() is not None

    async def open(self) -> Stream:
        """Open a stream; the peer sees it with the first byte written."""
        try:
            return Stream(await self._inner.open_bi())
        except FAULTS as error:
            raise connection_error(error) from None

    async def accept_stream(self) -> Stream:
        """Return the next stream that the peer opened; a cancelled call loses none."""
        if self._accepting is None:
            self._accepting = asyncio.ensure_future(self._inner.accept_bi())
            self._accepting.add_done_callback(look_at)
        task = self._accepting
        await asyncio.wait((task,))
        if self._accepting is task:
            self._accepting = None
        if task.cancelled():
            raise ConnectionLostError("the connection was closed", code="connection_lost")
        try:
            return Stream(task.result())
        except FAULTS as error:
            raise connection_error(error) from None

    def close(self, code: int, reason: str) -> None:
        """Close at once; streams on both sides fail with `ConnectionLostError`."""
        self._inner.close(code, reason.encode()[:128])

    async def closed(self) -> str:
        """Wait for the end of the connection; returns the reason."""
        return str(await self._inner.closed())


class Endpoint:
    """A local endpoint with a key of its own; see `ports.EndpointPort`. Made by `create`."""

    def __init__(self, inner: iroh.Endpoint, seed: bytes, bind: list[str], alpns: list[str]) -> None:
        self._inner = inner
        self._renewed = asyncio.Event()
        self._renewing = asyncio.Lock()
        self._seed = seed
        self._bind = bind
        self._alpns = alpns
        self._node_id = bytes(inner.id().to_bytes())
        families = {family(text) for text in bind}
        self._addresses = [str(text) for text in inner.bound_sockets() if family(text) in families]
        self._spare_slots = asyncio.Semaphore(MAX_SPARES_AT_ONCE)
        self._spares: set[asyncio.Task[None]] = set()
        self._waiting: deque[Connection] = deque()
        self._arrived = asyncio.Event()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._closed = False
        self._acceptor = asyncio.ensure_future(self._accept_loop())
        self._acceptor.add_done_callback(lambda task: self._arrived.set())
        self._watcher = asyncio.ensure_future(self._watch_sockets())

    @classmethod
    async def create(cls, secret_seed: bytes, bind: list[str], alpns: list[str]) -> Self:
        """Open an endpoint.

        Args:
            secret_seed: 32 bytes, the node's ed25519 seed; its public key is the node id.
            bind: one or two `ip:port` (`[ip6]:port`), at most one per family; port 0 lets the system choose. A family
                that is not named is bound to loopback, as the binding would otherwise open a wildcard socket.
            alpns: the protocols that are accepted; empty for an endpoint that only dials.

        Raises:
            InvalidInputError: an argument is malformed.
            LocalProtocolError: the binding is not the pinned one, or an address cannot be bound (`bind_failed`).
        """
        check(len(secret_seed) == NODE_ID_BYTES, "secret_seed_is_32_bytes")
        iroh_patch.apply()
        iroh_patch.self_check()
        inner = await open_endpoint(secret_seed, bind, alpns)
        return cls(inner, secret_seed, bind, alpns)

    @property
    def node_id(self) -> bytes:
        """Our node id, 32 bytes."""
        return self._node_id

    @property
    def addresses(self) -> list[str]:
        """The addresses that we were asked to listen on, with the real ports."""
        return list(self._addresses)

    @property
    def sockets(self) -> list[str]:
        """Every UDP address that the binding listens on, also those it was not asked for."""
        return [str(text) for text in self._inner.bound_sockets()]

    async def dial(self, node_id: bytes, addresses: list[str], alpn: str, timeout_ms: int) -> Connection:
        """Connect to a peer by its key; see `ports.EndpointPort.dial`.

        All addresses are tried at once; when somebody else's key answers at one of several, each is tried alone,
        so that one stale address does not hide the peer.
        """
        target = _target(node_id, addresses)
        if node_id == self._node_id:
            raise LocalProtocolError("an endpoint does not dial itself", code="dialled_self")
        if self._closed:
            raise _endpoint_closed()
        started = asyncio.get_running_loop().time()
        try:
            return await self._connect(target, addresses, alpn, timeout_ms)
        except WrongKeyError:
            spent_ms = int((asyncio.get_running_loop().time() - started) * 1000)
            share_ms = max(timeout_ms - spent_ms, 0) // len(addresses)
            for address in addresses:
                with contextlib.suppress(WrongKeyError, TimedOutError):
                    return await self._connect_afresh(target, address, alpn, share_ms)
            raise

    async def _connect(self, target: iroh.EndpointId, addresses: list[str], alpn: str, timeout_ms: int) -> Connection:
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    inner = self._inner
                    try:
                        return await _dial(inner, target, addresses, alpn)
                    except FAULTS as error:
                        if self._inner is inner and not self._renewing.locked() and not is_dead_endpoint(error):
                            raise dial_error(error, str(target)) from None
                    await self._renewal(inner)
        except TimeoutError:
            raise timed_out(f"connecting to {str(target)[:16]}", timeout_ms) from None

    async def _connect_afresh(self, target: iroh.EndpointId, address: str, alpn: str, timeout_ms: int) -> Connection:
        """Connect from a new endpoint that has never heard of `target`.

        The binding keeps every address it was ever given for a key for about a minute, tries them all, and fails when
        any answers with another key: one stale address would hide the node behind its new one.
        """
        async with self._spare_slots:
            spare = await open_endpoint(self._seed, any_port(self._bind), [])
            connection: Connection | None = None
            try:
                async with asyncio.timeout(timeout_ms / 1000):
                    connection = await _dial(spare, target, [address], alpn)
            except TimeoutError:
                raise timed_out(f"connecting to {address}", timeout_ms) from None
            except FAULTS as error:
                raise dial_error(error, str(target)) from None
            finally:
                if connection is None:
                    await close_endpoint(spare)
        task = asyncio.ensure_future(_close_after(connection, spare))
        self._spares.add(task)
        task.add_done_callback(self._spares.discard)
        return connection

    async def accept(self) -> Connection:
        """Return the next connection whose handshake is complete; a cancelled call loses none."""
        while not self._waiting:
            if self._closed:
                raise _endpoint_closed()
            if self._acceptor.done():
                self._acceptor.result()
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    async def close(self) -> None:
        """Close all connections and sockets within half a second; may be called twice."""
        if self._closed:
            return
        self._closed = True
        tasks = [self._acceptor, self._watcher, *self._handshakes, *self._spares]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        while self._waiting:
            self._waiting.popleft().close(_BYE_CODE, "closing")
        self._arrived.set()
        self._renewed.set()
        await close_endpoint(self._inner)

    async def _accept_loop(self) -> None:
        while True:
            inner = self._inner
            incoming = await _next_incoming(inner)
            if incoming is None:
                await self._renew(inner)
                continue
            task = asyncio.ensure_future(self._handshake(incoming, len(self._handshakes)))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _watch_sockets(self) -> None:
        """Find a listening endpoint that has lost its sockets: an idle one does not notice, and nothing reaches it."""
        while self._alpns:
            await asyncio.sleep(LOOK_S)
            inner = self._inner
            if await self._has_lost_sockets():
                await self._renew(inner)

    async def _has_lost_sockets(self) -> bool:
        for _ in range(2):  # the second look passes by sockets that are just being bound anew
            # One of two families may be away for long; the other one serves meanwhile.
            if any(is_bound(address) for address in self._addresses):
                return False
            await asyncio.sleep(RENEWAL_PAUSE_S)
        return True

    async def _renew(self, dead: iroh.Endpoint) -> None:
        """Open the binding's endpoint again: it serves no more, and says so only by accepting nothing.

        It dies with its socket. At every change of the machine's links the binding closes its sockets and binds them
        anew, once; a process forked in that moment still holds the port, and with that the endpoint is lost
        (docs/spec/transport.md, "Sharp edges").
        """
        async with self._renewing:
            if self._inner is not dead:
                return
            _log.warning("the endpoint died; opening it again at %s", ", ".join(self._addresses))
            async with holding_ports(self._addresses if self._alpns else []):
                await close_endpoint(dead, DEAD_CLOSE_TIMEOUT_MS)
            self._inner = await self._open_again()
            _log.warning("the endpoint is open again")
            self._renewed.set()
            self._renewed = asyncio.Event()

    async def _open_again(self) -> iroh.Endpoint:
        wanted = self._addresses if self._alpns else any_port(self._bind)
        pause_s, told = RENEWAL_PAUSE_S, ""
        while True:
            await asyncio.sleep(pause_s)
            try:
                return await open_endpoint(self._seed, wanted, self._alpns)
            except LocalProtocolError as error:
                pause_s = min(2 * pause_s, MAX_RENEWAL_PAUSE_S)
                if error.message != told:
                    _log.warning("the endpoint cannot be opened again yet, and is tried on: %s", error.message)
                    told = error.message

    async def _renewal(self, dead: iroh.Endpoint) -> None:
        """Wait until another endpoint has taken the place of `dead`."""
        while self._inner is dead:
            if self._closed:
                raise _endpoint_closed()
            await self._renewed.wait()

    async def _handshake(self, incoming: iroh.Incoming, others: int) -> None:
        """Complete one handshake; whatever a stranger sends here ends only itself."""
        with contextlib.suppress(TimeoutError, *FAULTS):
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_MS / 1000):
                if others >= MAX_HANDSHAKES or not self._alpns:
                    await incoming.ignore()
                    return
                if others >= RETRY_ABOVE_HANDSHAKES and not await incoming.remote_addr_validated():
                    await incoming.retry()
                    return
                connection = Connection(await (await incoming.accept()).connect())
            if len(self._waiting) >= MAX_WAITING:
                connection.close(_BUSY_CODE, "busy")
                return
            self._waiting.append(connection)
            self._arrived.set()


async def _dial(inner: iroh.Endpoint, target: iroh.EndpointId, addresses: list[str], alpn: str) -> Connection:
    return Connection(await inner.connect(iroh.EndpointAddr(target, None, addresses), alpn.encode("ascii")))


async def _next_incoming(inner: iroh.Endpoint) -> iroh.Incoming | None:
    """The next handshake that begins, or None when the endpoint is dead."""
    try:
        return await inner.accept_next()
    except FAULTS:
        return None


async def _close_after(connection: Connection, spare: iroh.Endpoint) -> None:
    try:
        await connection.closed()
    finally:
        await close_endpoint(spare)


def _endpoint_closed() -> ConnectionLostError:
    return ConnectionLostError("the endpoint is closed", code="endpoint_closed")


def _target(node_id: bytes, addresses: list[str]) -> iroh.EndpointId:
    if len(node_id) != NODE_ID_BYTES:
        raise InvalidInputError(f"a node id has {NODE_ID_BYTES} bytes, not {len(node_id)}", code="bad_id")
    if not 1 <= len(addresses) <= MAX_DIAL_ADDRESSES:
        raise InvalidInputError(
            f"{len(addresses)} addresses; a node is dialled at 1 to {MAX_DIAL_ADDRESSES}",
            code="no_address" if not addresses else "bad_address",
            hint="the node's record must hold at least one ip:port",
        )
    for address in addresses:
        parse_address(address)
    try:
        return iroh.EndpointId.from_bytes(bytes(node_id))
    except FAULTS:
        raise InvalidInputError(f"{node_id.hex()[:16]}.. is not a public key", code="bad_id") from None
