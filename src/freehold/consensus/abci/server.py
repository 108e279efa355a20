"""The unix socket on which the engine finds its application.

Each connection's responses leave in the order of its requests, whatever finishes first. Consensus runs on one thread
of its own, one request at a time; transactions are checked in batches on other threads; queries on one more, so that
neither keeps a block waiting. A connection reads no further while too much of it is unanswered.

A defect, a broken invariant or a full disk is answered with an exception, after which nothing is answered: the server
has halted and `wait_halted` tells why. Malformed frames, which only a foreign program sends, end their connection and
halt too: the engine must not be left waiting.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.consensus.abci.framing import FrameBuffer, decode_request, encode_response
from freehold.consensus.abci.messages import (
    Request,
    RequestCheckTx,
    RequestEcho,
    RequestFlush,
    RequestListSnapshots,
    RequestLoadSnapshotChunk,
    RequestQuery,
    Response,
    ResponseException,
)
from freehold.consensus.abci.service import AbciService
from freehold.consensus.errors import EngineStoppedError

MAX_CONNECTIONS: Final = 16  # four of the engine, and those of one that is being replaced
READ_BYTES: Final = 64 * 1024
MAX_UNANSWERED_READS: Final = 16  # each of at most READ_BYTES, so of some 16,000 requests
CHECK_THREADS: Final = 2
BATCH_TXS: Final = 128
MAX_SOCKET_PATH_BYTES: Final = 100
ACCEPT_TURNS: Final = 3  # of the loop, which has a connection for so long before `_connected` hears of it
_ON_LOOP: Final = (RequestEcho, RequestFlush)
_QUERIES: Final = (RequestQuery, RequestListSnapshots, RequestLoadSnapshotChunk)  # peers ask: blocks do not wait

Answer = bytes | asyncio.Future[bytes]  # a response as it goes to the engine
Answers = asyncio.Queue[list[Answer] | None]  # what one read asked for, in order

log = logging.getLogger(__name__)


class AbciServer:
    """Serves an application to one engine; used from one event loop."""

    def __init__(self, service: AbciService, path: Path, *, told: Callable[[Request], None] = lambda _: None) -> None:
        """Bind the parts; `start` must follow.

        Args:
            service: what answers.
            path: of the socket; at most 100 bytes long, a limit of the system.
            told: called with each request before it is answered.

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
        self._told = told
        self._consensus = ThreadPoolExecutor(1, "abci-consensus")
        self._queries = ThreadPoolExecutor(1, "abci-query")
        self._check_threads = ThreadPoolExecutor(CHECK_THREADS, "abci-check")
        self._checks: deque[tuple[RequestCheckTx, asyncio.Future[bytes]]] = deque()
        self._checking: set[asyncio.Task[None]] = set()
        self._draining = 0  # of those, how many will look at `_checks` again; a task leaves the set later than that
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._is_stopping = False
        self._halted: asyncio.Future[FreeholdError] | None = None

    async def start(self) -> None:
        """Begin to listen; a socket that an earlier run left behind is replaced."""
        self._halted = asyncio.get_running_loop().create_future()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self._server = await asyncio.start_unix_server(self._connected, self._path)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Close the socket and let requests that are being answered end; the application is not closed."""
        self._is_stopping = True
        if self._server is not None:
            for listening in self._server.sockets:  # before it closes: what is accepted already fails on a closed one
                asyncio.get_running_loop().remove_reader(listening.fileno())
            for _ in range(ACCEPT_TURNS):
                await asyncio.sleep(0)
            self._server.close()
        for task in (*self._connections, *self._checking):
            task.cancel()
        await asyncio.gather(*self._connections, *self._checking, return_exceptions=True)
        for pool in (self._consensus, self._queries, self._check_threads):
            await asyncio.to_thread(pool.shutdown)
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    @property
    def halted(self) -> FreeholdError | None:
        """Why nothing is answered any more; None while all is well."""
        return self._halted.result() if self._halted is not None and self._halted.done() else None

    async def wait_halted(self) -> FreeholdError:
        """Wait until the application cannot go on, and give the reason."""
        if self._halted is None:
            raise EngineStoppedError("the server is not started", code="engine_stopped")
        return await asyncio.shield(self._halted)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection in within the very turn that accepted it, so that `stop` knows of it."""
        if self._is_stopping or len(self._connections) >= MAX_CONNECTIONS or self.halted is not None:
            writer.close()
            return
        task = asyncio.create_task(self._converse(reader, writer))
        self._connections.add(task)
        task.add_done_callback(lambda _: writer.close())  # also when it was cancelled before it began
        task.add_done_callback(self._connections.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers: Answers = asyncio.Queue(MAX_UNANSWERED_READS)
        reading = asyncio.create_task(self._read(reader, answers))
        writing = asyncio.create_task(self._write(answers, writer))
        try:
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                await answers.put(None)
                await writing
        except asyncio.CancelledError:
            log.debug("a connection is closed while the server stops")
        finally:
            reading.cancel()
            writing.cancel()
            for outcome in await asyncio.gather(reading, writing, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.debug("a connection of the engine ended: %s", outcome)
            while not answers.empty():  # nobody waits for these any more; what failed is in the log if it halted us
                for answer in answers.get_nowait() or ():
                    if isinstance(answer, asyncio.Future):
                        answer.add_done_callback(_forget)
            await _close(writer)

    async def _read(self, reader: asyncio.StreamReader, answers: Answers) -> None:
        buffer = FrameBuffer()
        while data := await reader.read(READ_BYTES):
            asked: list[Answer] = []
            try:
                for frame in buffer.feed(data):
                    asked.append(self._answer(decode_request(frame)))
            except FreeholdError as error:
                failed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
                failed.set_exception(error)
                await answers.put([*asked, failed])
                return
            if asked:
                await answers.put(asked)

    async def _write(self, answers: Answers, writer: asyncio.StreamWriter) -> None:
        while (asked := await answers.get()) is not None:
            ready = bytearray()
            for answer in asked:
                if isinstance(answer, asyncio.Future) and not answer.done() and ready:
                    writer.write(bytes(ready))
                    ready.clear()
                ready += await self._outcome(answer)
                if self.halted is not None:
                    break
            writer.write(bytes(ready))
            await writer.drain()
            if self.halted is not None:
                return

    async def _outcome(self, answer: Answer) -> bytes:
        """Wait for an answer; whatever failed, the engine is told, and nothing goes on."""
        if not isinstance(answer, asyncio.Future):
            return answer
        try:
            return await answer
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return encode_response(ResponseException(self._halt(error).message[:1_000]))

    def _answer(self, request: Request) -> Answer:
        loop = asyncio.get_running_loop()
        self._told(request)
        if (reason := self.halted) is not None:
            raise reason
        if isinstance(request, RequestCheckTx):
            waiting: asyncio.Future[bytes] = loop.create_future()
            self._checks.append((request, waiting))
            if self._draining < CHECK_THREADS:
                self._draining += 1
                task = asyncio.create_task(self._drain_checks())
                self._checking.add(task)
                task.add_done_callback(self._checking.discard)
            return waiting
        if isinstance(request, _ON_LOOP):
            return self._handle(request)
        pool = self._queries if isinstance(request, _QUERIES) else self._consensus
        return loop.run_in_executor(pool, self._handle, request)

    def _handle(self, request: Request) -> bytes:
        return encode_response(self._service.handle(request))

    async def _drain_checks(self) -> None:
        try:
            while self._checks:
                await self._check_batch([self._checks.popleft() for _ in range(min(BATCH_TXS, len(self._checks)))])
        finally:
            self._draining -= 1

    async def _check_batch(self, batch: list[tuple[RequestCheckTx, asyncio.Future[bytes]]]) -> None:
        requests = [request for request, _ in batch]
        try:
            responses = await asyncio.get_running_loop().run_in_executor(
                self._check_threads, _check_all, self._service.check, requests
            )
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # told to the engine in its turn, by `_write`
            for _, waiting in batch:
                if not waiting.done():
                    waiting.set_exception(error)
            return
        for (_, waiting), response in zip(batch, responses, strict=True):
            if not waiting.done():
                waiting.set_result(response)

    def _halt(self, error: BaseException) -> FreeholdError:
        if (reason := self.halted) is not None:
            return reason
        reason = (
            error
            if isinstance(error, FreeholdError)
            else EngineStoppedError(
                f"the application halted: {type(error).__name__}: {error}",
                code="engine_halted",
                hint="keep the data folder and the log, they show what is broken",
            )
        )
        log.error("halted at height %d: %s", self._service.height, reason.message, exc_info=error)
        if self._halted is not None:
            self._halted.set_result(reason)
        return reason


def _check_all(check: Callable[[RequestCheckTx], Response], requests: list[RequestCheckTx]) -> list[bytes]:
    return [encode_response(check(request)) for request in requests]


def _forget(answer: asyncio.Future[bytes]) -> None:
    if not answer.cancelled():
        answer.exception()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection and wait until it is; an engine that is gone already is fine."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
