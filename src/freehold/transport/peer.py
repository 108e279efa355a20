"""The calling side: `Peer` makes calls to one node over the pool's link to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from typing import Generic, Self, TypeVar

from freehold.base.codec import decode, encode
from freehold.base.errors import CodecError, RemoteProtocolError
from freehold.base.limits import MAX_FRAME_BYTES
from freehold.transport.errors import ConnectionLostError, StreamResetError, timed_out
from freehold.transport.pool import Link, Pool
from freehold.transport.ports import StreamPort
from freehold.transport.wire import MAX_CHUNK_BYTES, chunk_bytes, end_bytes, read_chunk, read_response, request_bytes

Response = TypeVar("Response")

GIVEN_UP_CODE = 5


class Download(Generic[Response]):
    """A response and the body that follows it; iterate it, or leave its `async with` to stop early.

    Attributes:
        response: the response record.
    """

    def __init__(self, response: Response, stream: StreamPort, link: Link, gap_timeout_ms: int | None) -> None:
        self.response = response
        self._stream = stream
        self._link = link
        self._gap_s = None if gap_timeout_ms is None else gap_timeout_ms / 1000
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._gap_s), self._link.waiting():
                chunk = await read_chunk(self._stream)
        except TimeoutError:
            await self.aclose()
            raise timed_out("the next piece", int((self._gap_s or 0) * 1000)) from None
        except RemoteProtocolError:
            await self.aclose()
            raise
        self._link.seen()
        if not chunk:
            self._ended = True
            await self._stream.finish()
            await self._stream.stop(GIVEN_UP_CODE)
            raise StopAsyncIteration
        return chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop here; the sender is told."""
        if not self._ended:
            self._ended = True
            await self._stream.reset(GIVEN_UP_CODE)


class Peer:
    """One node to call.

    Args:
        pool: holds the connection.
        node_id: whom to call, 32 bytes.
        addresses: `ip:port` where it may be, from its record.
    """

    def __init__(self, pool: Pool, node_id: bytes, addresses: Sequence[str]) -> None:
        self._pool = pool
        self.node_id = node_id
        self.addresses = list(addresses)

    async def call(
        self,
        method: str,
        request: object,
        response_type: type[Response],
        timeout_ms: int,
        *,
        max_response_bytes: int = MAX_FRAME_BYTES,
    ) -> Response:
        """Make one call.

        Args:
            method: its name.
            request: a record.
            response_type: the record that is expected.
            timeout_ms: for all of it: dialling, sending, the handler, the answer.
            max_response_bytes: refuse longer answers.

        Raises:
            RemoteAnswer: the peer answered with an error.
            TimedOutError: no answer in time.
            UnreachableError: the connection failed, or could not be made.
            WrongKeyError: somebody else answered.
            RemoteProtocolError: the answer is malformed.
        """
        with _within(timeout_ms, method, self.node_id) as deadline:
            async with deadline, self._opened(method, request, timeout_ms) as (stream, link):
                await stream.finish()
                return await self._response(stream, link, response_type, max_response_bytes)

    async def upload(
        self,
        method: str,
        request: object,
        chunks: AsyncIterable[bytes],
        response_type: type[Response],
        timeout_ms: int,
        *,
        gap_timeout_ms: int = 30_000,
    ) -> Response:
        """Make a call with a body.

        Args:
            method: its name.
            request: a record.
            chunks: the body; pieces are cut to 256 KiB.
            response_type: the record that is expected.
            timeout_ms: for dialling and sending the request, and again from the end of the body to the answer.
            gap_timeout_ms: longest time that the peer may let us wait to take one piece.

        Raises:
            see `call`; and what `chunks` raises.
        """
        with _within(timeout_ms, method, self.node_id) as deadline:
            async with deadline, self._opened(method, request, timeout_ms) as (stream, link):
                deadline.reschedule(None)
                # A peer that refuses stops reading; its answer then says why.
                with contextlib.suppress(StreamResetError):
                    async with link.waiting():
                        await self._send_body(stream, chunks, gap_timeout_ms)
                deadline.reschedule(asyncio.get_running_loop().time() + timeout_ms / 1000)
                return await self._response(stream, link, response_type, MAX_FRAME_BYTES)

    @staticmethod
    async def _send_body(stream: StreamPort, chunks: AsyncIterable[bytes], gap_timeout_ms: int) -> None:
        async for chunk in chunks:
            for start in range(0, len(chunk), MAX_CHUNK_BYTES):
                await _write(stream, chunk_bytes(chunk[start : start + MAX_CHUNK_BYTES]), gap_timeout_ms)
        await _write(stream, end_bytes(), gap_timeout_ms)
        await stream.finish()

    async def download(
        self,
        method: str,
        request: object,
        response_type: type[Response],
        timeout_ms: int,
        *,
        gap_timeout_ms: int | None = 30_000,
    ) -> Download[Response]:
        """Make a call whose answer has a body; use the result in `async with`.

        Args:
            method: its name.
            request: a record.
            response_type: the record that precedes the body.
            timeout_ms: until that record is here.
            gap_timeout_ms: longest wait for the next piece; None waits as long as the peer shows life.

        Raises:
            see `call`; iterating raises the same.
        """
        stream, link, response = await self._open_kept(method, request, response_type, timeout_ms)
        return Download(response, stream, link, gap_timeout_ms)

    async def splice(
        self, method: str, request: object, response_type: type[Response], timeout_ms: int
    ) -> tuple[Response, StreamPort]:
        """Make a call after which the stream is a raw pipe, ours to end.

        Args:
            method: its name.
            request: a record.
            response_type: the record that precedes the raw bytes.
            timeout_ms: until that record is here.

        Raises:
            see `call`.
        """
        stream, _, response = await self._open_kept(method, request, response_type, timeout_ms)
        return response, stream

    async def _open_kept(
        self, method: str, request: object, response_type: type[Response], timeout_ms: int
    ) -> tuple[StreamPort, Link, Response]:
        with _within(timeout_ms, method, self.node_id) as deadline:
            async with deadline:
                stream, link = await self._open(method, request, timeout_ms)
                kept = False
                try:
                    response = await self._response(stream, link, response_type, MAX_FRAME_BYTES)
                    kept = True
                    return stream, link, response
                finally:
                    if not kept:
                        await stream.reset(GIVEN_UP_CODE)

    @contextlib.asynccontextmanager
    async def _opened(self, method: str, request: object, timeout_ms: int) -> AsyncIterator[tuple[StreamPort, Link]]:
        """A stream on which the request was sent; it is reset unless all went well."""
        stream, link = await self._open(method, request, timeout_ms)
        complete = False
        try:
            yield stream, link
            complete = True
        finally:
            link.release(stream)
            if not complete:
                await stream.reset(GIVEN_UP_CODE)

    async def _open(self, method: str, request: object, timeout_ms: int) -> tuple[StreamPort, Link]:
        data = request_bytes(method, encode(request))
        link = await self._pool.link(self.node_id, self.addresses, timeout_ms)
        try:
            stream = await link.open()
        except ConnectionLostError:  # it died unnoticed; nothing was sent yet, so a fresh one may try again
            self._pool.drop(self.node_id, "lost")
            link = await self._pool.link(self.node_id, self.addresses, timeout_ms)
            stream = await link.open()
        sent = False
        try:
            async with link.waiting():
                # A peer that refuses before it has read all stops reading; its answer then says why.
                with contextlib.suppress(StreamResetError):
                    await stream.write(data)
            sent = True
        finally:
            if not sent:
                await stream.reset(GIVEN_UP_CODE)
        return stream, link

    @staticmethod
    async def _response(stream: StreamPort, link: Link, kind: type[Response], max_bytes: int) -> Response:
        async with link.waiting():
            data = await read_response(stream, max_bytes)
        link.seen()
        try:
            return decode(data, kind, max_bytes=max_bytes)
        except CodecError as error:
            raise RemoteProtocolError(error.message, code=error.code) from None


@contextlib.contextmanager
def _within(timeout_ms: int, method: str, node_id: bytes) -> Iterator[asyncio.Timeout]:
    """A deadline to enter, whose passing is told as `TimedOutError`."""
    try:
        yield asyncio.timeout(timeout_ms / 1000)
    except TimeoutError:
        raise timed_out(f"{method} at {node_id.hex()[:16]}..", timeout_ms) from None


async def _write(stream: StreamPort, data: bytes, timeout_ms: int) -> None:
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            await stream.write(data)
    except TimeoutError:
        raise timed_out("sending the next piece", timeout_ms) from None
