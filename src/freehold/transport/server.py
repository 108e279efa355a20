"""The serving side: accepts connections and streams, gives each call its slot and its own task."""

import asyncio
import contextlib
from collections.abc import Iterable

from freehold.base.codec import Record
from freehold.base.errors import LocalProtocolError, check
from freehold.transport.admission import FLOOD_REFUSALS, Admission, Guest, PeerAccount
from freehold.transport.answering import Answering, busy, refuse
from freehold.transport.errors import ConnectionLostError
from freehold.transport.methods import AnyMethod, CallContext, Method, ServerLimits, Who, everybody
from freehold.transport.ports import ConnectionPort, EndpointPort, StreamPort

PING = "ping"
PING_TIMEOUT_MS = 1_000

CLOSE_NOT_ADMITTED = 1
CLOSE_BUSY = 2
CLOSE_FLOOD = 3
CLOSE_BYE = 0


class Ping(Record):
    """Asks whether the peer's process answers."""

    nonce: int


class Pong(Record):
    """Answers a ping with its nonce."""

    nonce: int


class Server:
    """Serves a table of methods on an endpoint.

    Args:
        endpoint: where connections arrive.
        methods: the table; `ping` is added.
        limits: bounds per peer and in all.
        admit: whether a node id may connect at all.
    """

    def __init__(
        self,
        endpoint: EndpointPort,
        methods: Iterable[AnyMethod],
        limits: ServerLimits | None = None,
        *,
        admit: Who = everybody,
    ) -> None:
        self._endpoint = endpoint
        self._limits = limits or ServerLimits()
        self._admit = admit
        self._methods: dict[str, AnyMethod] = {}
        ping = Method(PING, Ping, Pong, _pong, everybody, PING_TIMEOUT_MS, max_request_bytes=16, max_response_bytes=16)
        for method in (ping, *methods):
            if method.name in self._methods:
                raise LocalProtocolError(f"method {method.name} is there twice", code="duplicate_method")
            self._methods[method.name] = method
        self._admission = Admission(self._limits)
        self._connections: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] | None = None
        self._serving: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def load(self) -> tuple[int, int, int]:
        """Connections, calls and splices at this moment."""
        return self._admission.connections, self._admission.calls, self._admission.splices

    async def serve(self) -> None:
        """Serve until `close` or until the endpoint is closed.

        Raises:
            InvariantError: a handler found an invariant broken.
        """
        check(self._serving is None, "a_server_serves_once")
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        self._broken = loop.create_future()
        self._serving = loop.create_task(self._accept())
        try:
            await asyncio.wait((self._serving, self._broken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._end()
        if self._broken.done() and not self._broken.cancelled():
            self._broken.result()

    async def close(self) -> None:
        """Stop serving: running calls are cancelled, connections closed; the endpoint stays open."""
        self._closed = True
        if self._serving is not None:
            await self._end()

    async def _end(self) -> None:
        tasks = [task for task in (self._serving, *self._connections) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _accept(self) -> None:
        with contextlib.suppress(ConnectionLostError):
            while True:
                connection = await self._endpoint.accept()
                self._welcome(connection)

    def _welcome(self, connection: ConnectionPort) -> None:
        now_s = asyncio.get_running_loop().time()
        remote_id = connection.remote_id
        if not self._admit(remote_id):
            connection.close(CLOSE_NOT_ADMITTED, "not admitted")
            return
        if self._admission.is_flooding(self._admission.account(remote_id, now_s), now_s):
            connection.close(CLOSE_FLOOD, "too many calls")
            return
        guest, leaving = self._admission.enter(remote_id, connection, now_s)
        for old in leaving:
            self._admission.leave(old.connection.remote_id, old, now_s)
            old.connection.close(CLOSE_BUSY, "too many connections")
        if guest is None:
            connection.close(CLOSE_BUSY, "too many connections")
            return
        self._keep(asyncio.create_task(self._run_connection(guest, self._admission.account(remote_id, now_s))))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._connections.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._broken is not None and not self._broken.done():
            self._broken.set_exception(error)

    async def _run_connection(self, guest: Guest, account: PeerAccount) -> None:
        connection = guest.connection
        calls: set[asyncio.Task[None]] = set()
        try:
            with contextlib.suppress(ConnectionLostError):
                while account.refusals < FLOOD_REFUSALS:
                    stream = await connection.accept_stream()
                    task = asyncio.create_task(self._run_call(stream, guest, account))
                    calls.add(task)
                    task.add_done_callback(calls.discard)
                    task.add_done_callback(self._finished)
        finally:
            loop = asyncio.get_running_loop()
            flooding = account.refusals >= FLOOD_REFUSALS
            connection.close(CLOSE_FLOOD if flooding else CLOSE_BYE, "too many calls" if flooding else "closing")
            self._admission.leave(connection.remote_id, guest, loop.time())
            for task in calls:
                task.cancel()
            if calls:
                await asyncio.wait(calls)

    async def _run_call(self, stream: StreamPort, guest: Guest, account: PeerAccount) -> None:
        if not self._admission.begin_call(account, guest, asyncio.get_running_loop().time()):
            await refuse(stream, busy("calls"))
            return
        spliced = False

        def take_splice() -> bool:
            nonlocal spliced
            spliced = self._admission.begin_splice(account, guest)
            return spliced

        answering = Answering(
            self._methods, guest.connection.remote_id, stream, self._limits.head_timeout_ms, take_splice
        )
        try:
            try:
                go_on = await answering.answer()
            finally:
                self._admission.end_call(account, guest)
            if go_on:
                await answering.run_splice()
        finally:
            if spliced:
                self._admission.end_splice(account, guest)


async def _pong(context: CallContext, request: Ping) -> Pong:
    return Pong(request.nonce)
