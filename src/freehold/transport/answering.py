"""The serving side of one call, from the first byte of its stream to the last.

Whatever the caller does here ends this stream at most: it is told why with a typed error where it can still be told,
and the stream is reset where it cannot.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from freehold.base.codec import decode, encode
from freehold.base.errors import (
    FreeholdError,
    InvalidInputError,
    InvariantError,
    RefusedError,
    RemoteProtocolError,
    UnreachableError,
)
from freehold.transport.errors import ConnectionLostError, StreamResetError
from freehold.transport.methods import AnyMethod, CallContext, Kind
from freehold.transport.ports import StreamPort
from freehold.transport.wire import (
    MAX_CHUNK_BYTES,
    chunk_bytes,
    end_bytes,
    error_bytes,
    failed_bytes,
    read_body,
    read_chunk,
    read_request_head,
    response_bytes,
)

T = TypeVar("T")

RESET_CODE = 1
REFUSED_CODE = 2
REFUSE_TIMEOUT_MS = 1_000
_log = logging.getLogger(__name__)


class Answering:
    """Answers one call.

    Args:
        methods: the server's table.
        remote_id: the caller.
        stream: the stream that the caller opened.
        head_timeout_ms: for the head to arrive.
        take_splice: takes a slot for a splice; False when none is free.
    """

    def __init__(
        self,
        methods: Mapping[str, AnyMethod],
        remote_id: bytes,
        stream: StreamPort,
        head_timeout_ms: int,
        take_splice: Callable[[], bool],
    ) -> None:
        self._methods = methods
        self._remote_id = remote_id
        self._stream = stream
        self._head_timeout_ms = head_timeout_ms
        self._take_splice = take_splice
        self._progress_s = 0.0
        self._kept: tuple[AnyMethod, CallContext] | None = None

    async def answer(self) -> bool:
        """Read the request, run the handler, send the response and the body that follows it.

        Returns:
            Whether a splice is left to be run by `run_splice`.
        """
        try:
            method, context, response = await self._respond()
        except (ConnectionLostError, StreamResetError):
            await self._stream.reset(RESET_CODE)
            return False
        except FreeholdError as error:
            await refuse(self._stream, error)
            return False
        try:
            await self._send(method, response_bytes(response))
            if method.kind is Kind.SPLICE:
                self._kept = (method, context)
                return True
            await self._finish_answer(method, context)
        except FreeholdError as error:
            _log.debug("answer of %s was not delivered: %s", method.name, error)
            await self._stream.reset(RESET_CODE)
        return False

    async def run_splice(self) -> None:
        """Run the splice that `answer` left."""
        if self._kept is None:
            return
        method, context = self._kept
        if context._run is not None:
            with contextlib.suppress(FreeholdError):
                await self._guard(method, _as_coroutine(context._run(self._stream)))
        if not self._stream.done:
            await self._stream.reset(RESET_CODE)

    async def _respond(self) -> tuple[AnyMethod, CallContext, bytes]:
        try:
            async with asyncio.timeout(self._head_timeout_ms / 1000):
                head = await read_request_head(self._stream)
        except TimeoutError:
            raise _too_slow("the head") from None
        method = self._methods.get(head.method)
        if method is None:
            raise InvalidInputError(
                f"there is no method {head.method[:64]!r}",
                code="unknown_method",
                hint="the peer may run another version",
            )
        if not method.who(self._remote_id):
            raise RefusedError(f"you may not call {method.name}", code="not_allowed")
        if method.kind is Kind.SPLICE and not self._take_splice():
            raise busy("streams")
        try:
            async with asyncio.timeout(method.timeout_ms / 1000):
                data = await read_body(self._stream, head.request_bytes, method.max_request_bytes, "the request")
        except TimeoutError:
            raise _too_slow("the request") from None
        request = decode(data, method.request_type, max_bytes=method.max_request_bytes)
        context = CallContext(self._remote_id, self._stream, method.kind)
        if method.kind is Kind.UPLOAD:
            context._body = lambda: self._upload(method)
        response = await self._guard(method, _as_coroutine(method.handler(context, request)), timed=True)
        encoded = encode(response)
        if len(encoded) > method.max_response_bytes:
            _log.error("response of %s has %d bytes, at most %d", method.name, len(encoded), method.max_response_bytes)
            raise _internal(method)
        return method, context, encoded

    async def _finish_answer(self, method: AnyMethod, context: CallContext) -> None:
        if method.kind is Kind.DOWNLOAD:
            end = end_bytes()
            if context._chunks is not None:
                try:
                    await self._while_heard(self._guard(method, self._send_chunks(method, context._chunks)))
                except (ConnectionLostError, StreamResetError):
                    raise
                except FreeholdError as error:
                    end = failed_bytes(error)
            await self._send(method, end)
        await self._stream.finish()
        if method.kind is not Kind.CALL:
            await self._stream.stop(RESET_CODE)  # the caller may have more to send, or have left its side open

    async def _while_heard(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work until it is done or the caller has left: its side stays open while it listens."""
        sending = asyncio.ensure_future(work)
        listening = asyncio.ensure_future(self._stream.read(1))
        try:
            await asyncio.wait((sending, listening), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                listening.result()
                raise StreamResetError("the caller has left")
            sending.result()
        finally:
            for task in (sending, listening):
                task.cancel()
            await asyncio.wait((sending, listening))

    async def _send_chunks(self, method: AnyMethod, chunks: AsyncIterable[bytes]) -> None:
        async for chunk in chunks:
            for start in range(0, len(chunk), MAX_CHUNK_BYTES):
                await self._send(method, chunk_bytes(chunk[start : start + MAX_CHUNK_BYTES]))

    async def _send(self, method: AnyMethod, data: bytes) -> None:
        try:
            async with asyncio.timeout(method.timeout_ms / 1000):
                await self._stream.write(data)
        except TimeoutError:
            raise StreamResetError("the caller does not read", code="too_slow") from None

    async def _upload(self, method: AnyMethod) -> AsyncIterator[bytes]:
        """The caller's body: bounded in size, in gaps, and in the time that the caller lets us wait in all."""
        loop = asyncio.get_running_loop()
        received, waited_s = 0, 0.0
        while True:
            before = loop.time()
            try:
                async with asyncio.timeout(method.timeout_ms / 1000):
                    chunk = await read_chunk(self._stream)
            except TimeoutError:
                raise _too_slow("the body") from None
            self._progress_s = loop.time()
            waited_s += self._progress_s - before
            received += len(chunk)
            if not chunk:
                return
            if received > method.max_body_bytes:
                raise RemoteProtocolError(f"the body is longer than {method.max_body_bytes} bytes", code="oversized")
            if waited_s > method.timeout_ms / 1000 + received / method.min_bytes_per_second:
                raise _too_slow("the body")
            yield chunk

    async def _guard(self, method: AnyMethod, work: Coroutine[Any, Any, T], *, timed: bool = False) -> T:
        """Run code that is not ours in a task, so that its defects end there and are reported.

        Raises:
            FreeholdError: what the code raised, or code `internal` for a defect, or `timed_out`.
            InvariantError: the code found an invariant broken; the server halts.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        budget_s = method.timeout_ms / 1000 * (2 if method.kind is Kind.UPLOAD else 1)
        self._progress_s = loop.time()
        try:
            while not task.done():
                left_s = self._progress_s + budget_s - loop.time() if timed else None
                if left_s is not None and left_s <= 0:
                    raise UnreachableError(
                        f"{method.name} took longer than {method.timeout_ms} ms",
                        code="timed_out",
                        hint="try again later",
                    )
                await asyncio.wait((task,), timeout=left_s)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or (error is not None and not isinstance(error, FreeholdError | InvariantError)):
            _log.error("handler of %s failed", method.name, exc_info=error)
            raise _internal(method)
        return task.result()


async def refuse(stream: StreamPort, error: FreeholdError) -> None:
    """Answer a call with an error and end its stream; a caller that takes no bytes is not waited for."""
    try:
        async with asyncio.timeout(REFUSE_TIMEOUT_MS / 1000):
            await stream.write(error_bytes(error))
            await stream.finish()
        await stream.stop(REFUSED_CODE)
    except (TimeoutError, FreeholdError):
        await stream.reset(REFUSED_CODE)


async def _as_coroutine(awaitable: Any) -> Any:
    return await awaitable


def busy(what: str) -> RefusedError:
    """The answer to a caller who uses all its slots, or calls too fast."""
    return RefusedError(f"too many {what} at a time or too fast", code="busy", hint="wait a moment and try again")


def _too_slow(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"{what} came too slowly", code="too_slow", hint="send faster, or in smaller pieces")


def _internal(method: AnyMethod) -> FreeholdError:
    return FreeholdError(f"{method.name} failed inside the peer", code="internal", hint="its log says why")
