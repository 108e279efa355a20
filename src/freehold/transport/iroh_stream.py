"""A stream over iroh whose reads survive cancellation and whose reset never waits behind a pending call.

The binding loses the bytes of a read that is cancelled after they arrived. So the read runs in a task of its own, at
most one per stream, and a cancelled caller leaves it running; its bytes go to the next caller. The binding also guards
each direction with a lock, so `reset` and `stop` first cancel what is pending there.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

import iroh

from freehold.base.errors import LocalProtocolError, RemoteProtocolError, check
from freehold.base.limits import KIB
from freehold.transport.errors import StreamResetError
from freehold.transport.iroh_faults import FAULTS, stream_error

MIN_READ_BYTES = 16 * KIB  # asked of the binding at a time, by a stream that carries little
MAX_READ_BYTES = 256 * KIB  # and by one that carries much; also the most that is buffered beyond what was asked for
WRITE_BYTES = 320 * KIB  # handed to the binding at a time; a whole chunk with its length
MAX_EXACT_BYTES = 64 * 1024 * KIB


class Stream:
    """A two-way pipe of bytes; see `ports.StreamPort`."""

    def __init__(self, inner: iroh.BiStream) -> None:
        self._send = inner.send()
        self._receive = inner.recv()
        self._buffer = bytearray()
        self._read_bytes = MIN_READ_BYTES
        self._pending_read: asyncio.Task[bytes] | None = None
        self._pending_write: asyncio.Task[None] | None = None
        self._reading = False
        self._read_ended = False
        self._write_ended = False
        self._torn = False
        self._broken: StreamResetError | None = None

    @property
    def done(self) -> bool:
        """Whether both directions have ended."""
        return self._read_ended and self._write_ended

    async def read(self, max_bytes: int) -> bytes:
        """Return 1 to `max_bytes` bytes, or b"" at the end."""
        check(max_bytes > 0, "read_asks_for_bytes", max_bytes=max_bytes)
        with self._one_reader():
            if not self._buffer:
                await self._fill()
            return self._take(max_bytes)

    async def read_exactly(self, count: int) -> bytes:
        """Return exactly `count` bytes."""
        check(0 <= count <= MAX_EXACT_BYTES, "read_exactly_is_bounded", count=count)
        with self._one_reader():
            while len(self._buffer) < count:
                if not await self._fill():
                    raise RemoteProtocolError(
                        f"the stream ended after {len(self._buffer)} of {count} bytes",
                        code="truncated",
                        hint="the peer stopped early; try again",
                    )
            return self._take(count)

    async def write(self, data: bytes) -> None:
        """Write all of `data`; waits while the peer's window is full."""
        self._check_writable()
        for start in range(0, len(data), WRITE_BYTES):
            piece = data if len(data) <= WRITE_BYTES else data[start : start + WRITE_BYTES]
            await self._write_piece(bytes(piece))

    async def finish(self) -> None:
        """Say that nothing more will be written."""
        self._check_writable()
        self._write_ended = True
        try:
            await self._send.finish()
        except FAULTS as error:
            raise stream_error(error) from None

    async def reset(self, code: int) -> None:
        """Abort both directions; bytes not yet delivered are dropped."""
        self._break(code)
        await self._cancel(self._pending_write)
        await self._cancel(self._pending_read)
        self._buffer.clear()
        await self._end(self._send.reset(code))
        await self._end(self._receive.stop(code))

    async def stop(self, code: int) -> None:
        """Tell the peer that nothing more will be read; our own writing goes on."""
        self._read_ended = True
        await self._cancel(self._pending_read)
        self._buffer.clear()
        await self._end(self._receive.stop(code))

    async def _fill(self) -> bool:
        """Wait for bytes; False at the end of the stream."""
        if self._broken is not None:
            raise self._broken
        if self._read_ended:
            return False
        if self._pending_read is None:
            self._pending_read = asyncio.ensure_future(self._receive.read(self._read_bytes))
            self._pending_read.add_done_callback(look_at)
        task = self._pending_read
        await asyncio.wait((task,))
        self._pending_read = None
        if task.cancelled():
            raise self._broken or StreamResetError("reading was stopped")
        try:
            data = task.result()
        except FAULTS as error:
            self._read_ended = True
            raise self._remember(stream_error(error)) from None
        if len(data) == self._read_bytes:
            self._read_bytes = min(2 * self._read_bytes, MAX_READ_BYTES)
        self._buffer += data
        self._read_ended = not data
        return bool(data)

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _write_piece(self, piece: bytes) -> None:
        task = asyncio.ensure_future(self._send.write_all(piece))
        task.add_done_callback(look_at)
        self._pending_write = task
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            self._torn = True
            task.cancel()
            raise
        finally:
            self._pending_write = None
        if task.cancelled():
            raise self._broken or StreamResetError("writing was stopped")
        try:
            task.result()
        except FAULTS as error:
            self._write_ended = True
            raise stream_error(error) from None

    def _check_writable(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._torn:
            raise LocalProtocolError("a write was cancelled half way; only reset is left", code="stream_torn")
        if self._pending_write is not None:
            raise LocalProtocolError("another write is under way", code="concurrent_write")

    @contextlib.contextmanager
    def _one_reader(self) -> Iterator[None]:
        if self._reading:
            raise LocalProtocolError("another read is under way", code="concurrent_read")
        self._reading = True
        try:
            yield
        finally:
            self._reading = False

    def _remember(self, error: Exception) -> Exception:
        if isinstance(error, StreamResetError):
            self._broken = error
        return error

    def _break(self, code: int) -> None:
        if self._broken is None:
            self._broken = StreamResetError(f"the stream was reset here (code {code})", reset_code=code)
        self._read_ended = self._write_ended = True

    @staticmethod
    async def _cancel(task: asyncio.Task[Any] | None) -> None:
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait((task,))

    @staticmethod
    async def _end(action: Coroutine[Any, Any, None]) -> None:
        # A direction that has already ended has nothing left to end.
        with contextlib.suppress(*FAULTS):
            await action


def look_at(task: asyncio.Task[Any]) -> None:
    """Mark a task's error as seen, as a caller that was cancelled may never come back for it."""
    if not task.cancelled():
        task.exception()
