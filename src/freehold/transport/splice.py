"""Pumps bytes between a stream of the transport and a TCP connection, as tunnels and probes need it.

Each direction ends by itself: the end of one side's bytes is passed on as an end, not as a close, so a client that has
sent all may still receive. A reset of one side resets the other. At most `CHUNK_BYTES` per direction are held here;
what is slower holds back what is faster.
"""

import asyncio
import contextlib
from dataclasses import dataclass

from freehold.base.errors import FreeholdError
from freehold.base.limits import KIB
from freehold.transport.ports import StreamPort

CHUNK_BYTES = 64 * KIB
RESET_CODE = 6
IDLE_CODE = 7


@dataclass
class SpliceCount:
    """What went through.

    Attributes:
        to_tcp_bytes: from the stream to TCP.
        from_tcp_bytes: from TCP to the stream.
        ended: `finished`, `reset` or `idle`.
        moved_at_s: loop time at which a byte last moved.
    """

    to_tcp_bytes: int = 0
    from_tcp_bytes: int = 0
    ended: str = "finished"
    moved_at_s: float = 0.0


async def splice(
    stream: StreamPort,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    idle_timeout_ms: int | None = None,
) -> SpliceCount:
    """Pump both ways until both directions have ended; closes both sides before it returns.

    Args:
        stream: the transport's side.
        reader: the TCP side, incoming.
        writer: the TCP side, outgoing.
        idle_timeout_ms: end when no byte moved in either direction for so long; None waits for ever.
    """
    loop = asyncio.get_running_loop()
    count = SpliceCount(moved_at_s=loop.time())
    pumps = {
        asyncio.ensure_future(_to_tcp(stream, writer, count)),
        asyncio.ensure_future(_from_tcp(stream, reader, count)),
    }
    clean = False
    try:
        running = set(pumps)
        while running:
            left_s = None
            if idle_timeout_ms is not None:
                left_s = count.moved_at_s + idle_timeout_ms / 1000 - loop.time()
                if left_s <= 0:
                    count.ended = "idle"
                    return count
            done, running = await asyncio.wait(running, timeout=left_s, return_when=asyncio.FIRST_EXCEPTION)
            if any(task.exception() is not None for task in done):
                count.ended = "reset"
                _raise_defects(done)
                return count
        clean = True
        return count
    finally:
        for task in pumps:
            task.cancel()
        # Before the first await here: a second cancellation must not leave the socket open.
        if clean:
            writer.close()
        else:
            writer.transport.abort()
        await asyncio.wait(pumps)
        if not clean:
            await stream.reset(IDLE_CODE if count.ended == "idle" else RESET_CODE)
        with contextlib.suppress(OSError):  # the other side may be gone already
            await writer.wait_closed()


async def _to_tcp(stream: StreamPort, writer: asyncio.StreamWriter, count: SpliceCount) -> None:
    loop = asyncio.get_running_loop()
    while data := await stream.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
        count.to_tcp_bytes += len(data)
        count.moved_at_s = loop.time()
    writer.write_eof()


async def _from_tcp(stream: StreamPort, reader: asyncio.StreamReader, count: SpliceCount) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(CHUNK_BYTES):
        await stream.write(data)
        count.from_tcp_bytes += len(data)
        count.moved_at_s = loop.time()
    await stream.finish()


def _raise_defects(tasks: "set[asyncio.Task[None]]") -> None:
    """Failures of either side are an end like others; anything else is a defect of ours and is not hidden."""
    for task in tasks:
        error = task.exception()
        if error is not None and not isinstance(error, OSError | FreeholdError):
            raise error
