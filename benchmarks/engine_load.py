"""The load tool of the engine's benchmarks: transactions into the engines' own RPC, commits seen in their blocks.

The same for every application: HTTP over the engine's unix socket, `broadcast_tx_sync` in batches of JSON-RPC, so that
each transaction was checked when its answer comes. A transaction's latency runs from its batch's sending to the moment
when a poll of the engine first shows its block.
"""

import asyncio
import base64
import hashlib
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

BATCH: Final = 10  # the most that the engine takes in one request
POLL_S: Final = 0.02
WAIT_LIMIT_S: Final = 120.0


@dataclass
class Outcome:
    """What a run showed: `span_s` from the first sending to the last commit."""

    committed: int = 0
    refused: int = 0
    span_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    blocks: int = 0

    @property
    def rate(self) -> float:
        """Committed transactions a second."""
        return self.committed / self.span_s if self.span_s else 0.0

    def percentile(self, percent: int) -> float:
        """A percentile of the latencies, in seconds."""
        return statistics.quantiles(self.latencies_s, n=100)[percent - 1]


class Rpc:
    """One keep-alive connection to an engine's RPC socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(self, body: bytes) -> Any:
        """Post a JSON-RPC body (one call or a batch) and read the answer."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_unix_connection(str(self._socket), limit=64 << 20)
        head = (
            f"POST / HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in answer.split(b"\r\n")[1:] if b": " in line)
        if b"content-length" in fields:
            data = await self._reader.readexactly(int(fields[b"content-length"]))
        else:
            data = await self._read_chunks(self._reader)
        return json.loads(data)

    async def _read_chunks(self, reader: asyncio.StreamReader) -> bytes:
        parts = []
        while size := int(await reader.readline(), 16):
            parts.append(await reader.readexactly(size))
            await reader.readline()
        await reader.readline()
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()


async def offer(
    sockets: Sequence[Path], streams: Sequence[Sequence[bytes]], *, rate: float | None, waiting: int
) -> Outcome:
    """Send transactions and wait until all that were taken are committed.

    Args:
        sockets: of the engines' RPC; stream i goes to engine i mod their number.
        streams: each sent in its order over a connection of its own.
        rate: transactions a second over all streams; None for as many as are taken.
        waiting: how many may be sent and not yet seen in a block.
    """
    run = _Run(waiting)
    watcher = asyncio.create_task(run.watch(sockets[0]))
    begun = time.perf_counter()
    pause = BATCH * len(streams) / rate if rate else 0.0
    try:
        await asyncio.gather(
            *(run.send(sockets[index % len(sockets)], txs, pause) for index, txs in enumerate(streams))
        )
        async with asyncio.timeout(WAIT_LIMIT_S):
            await run.drained()
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    run.outcome.span_s = run.last_commit - begun
    return run.outcome


async def await_height(sockets: Sequence[Path], height: int) -> None:
    """Wait until every engine has a block of a height."""
    async with asyncio.timeout(WAIT_LIMIT_S):
        for socket in sockets:
            rpc = Rpc(socket)
            while await newest_height(rpc) < height:  # noqa: ASYNC110 - the engine tells it to who asks alone
                await asyncio.sleep(POLL_S)
            rpc.close()


async def newest_height(rpc: Rpc) -> int:
    """Ask an engine for its newest height."""
    answer = await rpc.call(_call("status"))
    return int(answer["result"]["sync_info"]["latest_block_height"])


class _Run:
    def __init__(self, waiting: int) -> None:
        self.outcome = Outcome()
        self.last_commit = 0.0
        self._sent: dict[bytes, float] = {}
        self._waiting = waiting
        self._changed = asyncio.Condition()

    async def send(self, socket: Path, txs: Sequence[bytes], pause_s: float) -> None:
        rpc, due = Rpc(socket), time.perf_counter()
        try:
            for start in range(0, len(txs), BATCH):
                batch = txs[start : start + BATCH]
                if pause_s:
                    due += pause_s
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                async with self._changed:
                    await self._changed.wait_for(lambda: len(self._sent) < self._waiting)
                now = time.perf_counter()
                for tx in batch:
                    self._sent[hashlib.sha256(tx).digest()] = now
                for tx, answer in zip(batch, await rpc.call(_body(batch)), strict=True):
                    if "error" in answer or answer["result"]["code"]:
                        self.outcome.refused += 1
                        self._sent.pop(hashlib.sha256(tx).digest(), None)
        finally:
            rpc.close()

    async def drained(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._sent)

    async def watch(self, socket: Path) -> None:
        """Follow an engine's blocks."""
        rpc = Rpc(socket)
        try:
            height = await newest_height(rpc)
            while True:
                newest = await newest_height(rpc)
                seen = time.perf_counter()
                while height < newest:
                    height += 1
                    await self._take(rpc, height, seen)
                await asyncio.sleep(POLL_S)
        finally:
            rpc.close()

    async def _take(self, rpc: Rpc, height: int, seen: float) -> None:
        answer = await rpc.call(_call("block", height=str(height)))
        async with self._changed:
            for text in answer["result"]["block"]["data"]["txs"] or []:
                sent = self._sent.pop(hashlib.sha256(base64.b64decode(text)).digest(), None)
                if sent is not None:
                    self.outcome.committed += 1
                    self.outcome.latencies_s.append(seen - sent)
                    self.last_commit = seen
            self.outcome.blocks += 1
            self._changed.notify_all()


def _call(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def _body(txs: Sequence[bytes]) -> bytes:
    calls = [
        {
            "jsonrpc": "2.0",
            "id": index,
            "method": "broadcast_tx_sync",
            "params": {"tx": base64.b64encode(tx).decode()},
        }
        for index, tx in enumerate(txs)
    ]
    return json.dumps(calls).encode()
