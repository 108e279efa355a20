"""Endpoint, connection and stream over iroh: with `iroh_patch`, the only code that knows the binding.

What the binding does by itself and what is done about it stands in docs/spec/transport.md ("Sharp edges"): no relays,
no lookups, no wildcard socket, reads that survive cancellation, resets that do not wait behind a pending read.
Runs on plain asyncio; the binding's own runtime has its threads in Rust and wakes the loop thread-safely.
"""

import asyncio
import contextlib
import socket
from collections import deque
from pathlib import Path
from typing import Any, Self

import iroh

from freehold.base.errors import InvalidInputError, LocalProtocolError, check
from freehold.transport import iroh_patch
from freehold.transport.addresses import any_port, bind_addresses, family, parse_address
from freehold.transport.errors import ConnectionLostError, TimedOutError, WrongKeyError, timed_out
from freehold.transport.iroh_faults import connection_error, dial_error
from freehold.transport.iroh_stream import Stream, look_at
from freehold.transport.ports import MAX_STREAMS, NODE_ID_BYTES

MAX_DIAL_ADDRESSES = 8
MAX_HANDSHAKES = 64  # incoming handshakes at a time; more are dropped without a reply
RETRY_ABOVE_HANDSHAKES = 16  # above this the sender must first show that its address is its own
MAX_WAITING = 64  # connections waiting for `accept`; more are closed
HANDSHAKE_TIMEOUT_MS = 5_000
CLOSE_TIMEOUT_MS = 500
MAX_SPARES_AT_ONCE = 4
_BUSY_CODE = 2
_BYE_CODE = 0


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
        except iroh.IrohError as error:
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
        except iroh.IrohError as error:
            raise connection_error(error) from None

    def close(self, code: int, reason: str) -> None:
        """Close at once; streams on both sides fail with `ConnectionLostError`."""
        self._inner.close(code, reason.encode()[:128])

    async def closed(self) -> str:
        """Wait for the end of the connection; returns the reason."""
        return str(await self._inner.closed())


class Endpoint:
    """A local endpoint with a key of its own; see `ports.EndpointPort`. Made by `create`."""

    def __init__(self, inner: iroh.Endpoint, seed: bytes, bind: list[str]) -> None:
        self._inner = inner
        self._seed = seed
        self._bind = bind
        self._node_id = bytes(inner.id().to_bytes())
        families = {family(text) for text in bind}
        self._addresses = [str(text) for text in inner.bound_sockets() if family(text) in families]
        self._spare_slots = asyncio.Semaphore(MAX_SPARES_AT_ONCE)
        self._spares: set[asyncio.Task[None]] = set()
        self._waiting: deque[Connection] = deque()
        self._arrived = asyncio.Event()
        self._acceptor: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._closed = False

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
        inner = await _bind(secret_seed, bind, alpns)
        return cls(inner, secret_seed, bind)

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
        address = iroh.EndpointAddr(target, None, addresses)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return Connection(await self._inner.connect(address, alpn.encode("ascii")))
        except TimeoutError:
            raise timed_out(f"connecting to {str(target)[:16]}", timeout_ms) from None
        except iroh.IrohError as error:
            raise dial_error(error, str(target)) from None

    async def _connect_afresh(self, target: iroh.EndpointId, address: str, alpn: str, timeout_ms: int) -> Connection:
        """Connect from a new endpoint that has never heard of `target`.

        The binding keeps every address it was ever given for a key for about a minute, tries them all, and fails when
        any answers with another key: one stale address would hide the node behind its new one.
        """
        async with self._spare_slots:
            spare = await _bind(self._seed, any_port(self._bind), [])
            connection: Connection | None = None
            try:
                connection = await Endpoint(spare, self._seed, self._bind)._connect(target, [address], alpn, timeout_ms)
            finally:
                if connection is None:
                    await _close_inner(spare)
        task = asyncio.ensure_future(_close_after(connection, spare))
        self._spares.add(task)
        task.add_done_callback(self._spares.discard)
        return connection

    async def accept(self) -> Connection:
        """Return the next connection whose handshake is complete; a cancelled call loses none."""
        if self._acceptor is None and not self._closed:
            self._acceptor = asyncio.ensure_future(self._accept_loop())
        while not self._waiting:
            if self._closed:
                raise _endpoint_closed()
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    async def close(self) -> None:
        """Close all connections and sockets within half a second; may be called twice."""
        if self._closed:
            return
        self._closed = True
        tasks = [task for task in (self._acceptor, *self._handshakes, *self._spares) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        while self._waiting:
            self._waiting.popleft().close(_BYE_CODE, "closing")
        self._arrived.set()
        await _close_inner(self._inner)

    async def _accept_loop(self) -> None:
        while True:
            incoming = await self._inner.accept_next()
            if incoming is None:
                return
            task = asyncio.ensure_future(self._handshake(incoming, len(self._handshakes)))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _handshake(self, incoming: iroh.Incoming, others: int) -> None:
        """Complete one handshake; whatever a stranger sends here ends only itself."""
        with contextlib.suppress(TimeoutError, iroh.IrohError):
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_MS / 1000):
                if others >= MAX_HANDSHAKES:
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


async def _bind(seed: bytes, bind: list[str], alpns: list[str]) -> iroh.Endpoint:
    wanted = bind_addresses(bind)
    builder: Any = iroh.EndpointBuilder()  # type: ignore[no-untyped-call]
    builder.apply_minimal()
    builder.relay_mode(iroh.RelayMode.disabled())
    builder.secret_key(bytes(seed))
    builder.alpns([alpn.encode("ascii") for alpn in alpns])
    try:
        for address in [*wanted.values(), *_loopback_for_missing(wanted)]:
            builder.bind_addr(address)
        inner: iroh.Endpoint = await builder.bind()
        return inner
    except iroh.IrohError as error:
        raise LocalProtocolError(
            f"cannot bind {', '.join(bind)}: {error.message().splitlines()[0]}",
            code="bind_failed",
            hint="is another process on that port, or is the address not on this machine?",
        ) from None


async def _close_inner(inner: iroh.Endpoint) -> None:
    # The binding waits up to 3 s for peers that are gone; they learn of it by their own heartbeat.
    with contextlib.suppress(TimeoutError, iroh.IrohError):
        async with asyncio.timeout(CLOSE_TIMEOUT_MS / 1000):
            await inner.close()


async def _close_after(connection: Connection, spare: iroh.Endpoint) -> None:
    try:
        await connection.closed()
    finally:
        await _close_inner(spare)


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
    except iroh.IrohError:
        raise InvalidInputError(f"{node_id.hex()[:16]}.. is not a public key", code="bad_id") from None


def _loopback_for_missing(wanted: dict[int, str]) -> list[str]:
    """Loopback addresses for the families that were not named; without them the binding opens a wildcard socket."""
    families = {4: (socket.AF_INET, "127.0.0.1", "0.0.0.0"), 6: (socket.AF_INET6, "::1", "::")}  # noqa: S104
    result = []
    for version, (kind, loopback, wildcard) in families.items():
        if version in wanted:
            continue
        if _can_bind(kind, loopback):
            result.append(f"[{loopback}]:0" if version == 6 else f"{loopback}:0")
        elif _can_bind(kind, wildcard) and not (version == 6 and _is_ipv6_off()):
            raise LocalProtocolError(
                f"{loopback} is not there, and without it a wildcard socket would be opened",
                code="no_loopback",
                hint="bring the loopback interface up: ip link set lo up",
            )
    return result


def _can_bind(kind: socket.AddressFamily, host: str) -> bool:
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def _is_ipv6_off() -> bool:
    """Whether the machine has IPv6 switched off: a wildcard socket can be opened, but nobody reaches it."""
    switch = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "1"
