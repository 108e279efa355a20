"""The unix socket on which the engine finds its application.

Each connection has a thread of its own, which reads, answers in the order of the requests, and writes; the engine's
four keep consensus, checks, queries and snapshots apart, so that none of them keeps a block waiting. Requests of
consensus are answered one at a time, also while an engine is being replaced.

Answers are written, and whatever has arrived meanwhile is read, after every few requests. v0.38.25's client lets a
timer of 20 ns run for as long as it waits to write (`flushThrottleMS` in abci/client/socket_client.go), so an
application that leaves its socket full costs its engine a core. A connection reads no further while too much of it is
unanswered.

A defect, a broken invariant or a full disk is answered with an exception, after which nothing is answered: the server
has halted and `wait_halted` tells why. Malformed frames, which only a foreign program sends, end their connection and
halt too: the engine must not be left waiting.
"""

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock, Thread
from typing import Final

from freehold.base.errors import CodecError, FreeholdError, InvalidInputError
from freehold.consensus.abci.framing import FrameBuffer, decode_request, encode_response
from freehold.consensus.abci.messages import (
    RequestCheckTx,
    RequestEcho,
    RequestFlush,
    RequestListSnapshots,
    RequestLoadSnapshotChunk,
    RequestQuery,
    ResponseException,
)
from freehold.consensus.abci.service import AbciService
from freehold.consensus.errors import EngineStoppedError

MAX_CONNECTIONS: Final = 16  # four of the engine, and those of one that is being replaced
READ_BYTES: Final = 256 * 1024  # more than a unix socket holds
MAX_UNANSWERED_BYTES: Final = 1024 * 1024  # beyond which no further request is read
SLICE: Final = 32  # requests that are answered before their answers are written
MAX_SOCKET_PATH_BYTES: Final = 100
# From any thread; the rest is consensus.
_ANY_TIME: Final = (
    RequestCheckTx,
    RequestFlush,
    RequestEcho,
    RequestQuery,
    RequestListSnapshots,
    RequestLoadSnapshotChunk,
)

log = logging.getLogger(__name__)


class AbciServer:
    """Serves an application to one engine; used from one event loop."""

    def __init__(self, service: AbciService, path: Path) -> None:
        """Bind the parts; `start` must follow.

        Args:
            service: what answers.
            path: of the socket; at most 100 bytes long, a limit of the system.

        Raises:
            InvalidInputError: the path is too long.
        """
        if len(str(path).encode()) > MAX_SOCKET_PATH_BYTES:
            raise InvalidInputError(
                f"the path {path} is too long for a socket",
                code="path_too_long",
                hint=f"use a home whose path has at most {MAX_SOCKET_PATH_BYTES - 10} bytes",
            )
        self._service = service
        self._path = path
        self._lock = Lock()  # of what follows
        self._connections: dict[socket.socket, Thread] = {}
        self._reason: FreeholdError | None = None
        self._consensus = Lock()
        self._listening: socket.socket | None = None
        self._is_stopping = False
        self._halted: asyncio.Future[FreeholdError] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Begin to listen; a socket that an earlier run left behind is replaced."""
        self._loop = asyncio.get_running_loop()
        self._halted = self._loop.create_future()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        listening = self._listening = socket.socket(socket.AF_UNIX)
        listening.setblocking(False)
        listening.bind(str(self._path))
        self._path.chmod(0o600)  # before anyone can be taken in
        listening.listen(MAX_CONNECTIONS)
        self._loop.add_reader(listening.fileno(), self._accept)

    async def stop(self) -> None:
        """Close the socket and let requests that are being answered end; the application is not closed."""
        self._is_stopping = True
        if self._loop is not None and self._listening is not None:
            self._loop.remove_reader(self._listening.fileno())
            self._listening.close()
            self._listening = None
        with self._lock:
            open_now = list(self._connections.items())
            for peer, _ in open_now:  # the lock keeps its thread from closing it before
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
        for _, thread in open_now:
            await asyncio.to_thread(thread.join)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    @property
    def halted(self) -> FreeholdError | None:
        """Why nothing is answered any more; None while all is well."""
        return self._reason

    async def wait_halted(self) -> FreeholdError:
        """Wait until the application cannot go on, and give the reason."""
        if self._halted is None:
            raise EngineStoppedError("the server is not started", code="engine_stopped")
        return await asyncio.shield(self._halted)

    def _accept(self) -> None:
        if self._listening is None:
            return
        try:
            peer, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        peer.setblocking(True)
        with self._lock:
            if self._is_stopping or len(self._connections) >= MAX_CONNECTIONS or self._reason is not None:
                peer.close()
                return
            thread = Thread(target=self._converse, args=(peer,), name=f"abci-{peer.fileno()}", daemon=True)
            self._connections[peer] = thread
        thread.start()

    def _converse(self, peer: socket.socket) -> None:
        """Answer one connection until it, or the server, ends."""
        try:
            _Conversation(peer, self._answer, self._is_over).run()
        except OSError as error:
            log.debug("a connection of the engine ended: %s", error)
        finally:
            with self._lock:
                del self._connections[peer]
                peer.close()

    def _is_over(self) -> bool:
        return self._is_stopping or self._reason is not None

    def _answer(self, frame: bytes | CodecError) -> bytes:
        """Answer a request; whatever fails, the engine is told, and nothing goes on."""
        try:
            if self._reason is not None:
                raise self._reason
            if isinstance(frame, CodecError):
                raise frame
            request = decode_request(frame)
            if isinstance(request, _ANY_TIME):
                return encode_response(self._service.handle(request))
            with self._consensus:
                return encode_response(self._service.handle(request))
        except BaseException as error:
            return encode_response(ResponseException(self._halt(error).message[:1_000]))

    def _halt(self, error: BaseException) -> FreeholdError:
        reason = (
            error
            if isinstance(error, FreeholdError)
            else EngineStoppedError(
                f"the application halted: {type(error).__name__}: {error}",
                code="engine_halted",
                hint="keep the data folder and the log, they show what is broken",
            )
        )
        with self._lock:
            if self._reason is not None:
                return self._reason
            self._reason = reason
        log.error("halted at height %d: %s", self._service.height, reason.message, exc_info=error)
        if self._loop is not None and self._halted is not None:
            self._loop.call_soon_threadsafe(self._halted.set_result, reason)
        return reason


class _Conversation:
    """Requests of one connection that wait, and their answers; for one thread."""

    def __init__(
        self, peer: socket.socket, answer: Callable[[bytes | CodecError], bytes], is_over: Callable[[], bool]
    ) -> None:
        self._peer = peer
        self._answer = answer
        self._is_over = is_over
        self._frames = FrameBuffer()
        self._room = bytearray(READ_BYTES)
        self._waiting: deque[bytes | CodecError] = deque()
        self._waiting_bytes = 0

    def run(self) -> None:
        """Go on until the peer has closed, or all is over."""
        while self._read(0):
            while self._waiting:
                self._peer.sendall(b"".join(self._answer_some()))
                if self._is_over():
                    return
                if self._waiting_bytes < MAX_UNANSWERED_BYTES:
                    with contextlib.suppress(BlockingIOError):
                        self._read(socket.MSG_DONTWAIT)

    def _read(self, flags: int) -> bool:
        """Take in what has arrived; False when the peer has closed."""
        count = self._peer.recv_into(self._room, READ_BYTES, flags)
        try:
            for frame in self._frames.feed(self._room[:count]):
                self._waiting.append(frame)
                self._waiting_bytes += len(frame)
        except CodecError as error:
            self._waiting.append(error)  # told in its turn
        return count > 0

    def _answer_some(self) -> Iterator[bytes]:
        for _ in range(min(SLICE, len(self._waiting))):
            frame = self._waiting.popleft()
            if not isinstance(frame, CodecError):
                self._waiting_bytes -= len(frame)
            yield self._answer(frame)
            if self._is_over():
                return
