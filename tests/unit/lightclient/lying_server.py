"""A ledger's HTTP server that can lie: the honest application on a real socket, its answers twisted on the way out."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import httpx2
from rpc_kit import GENESIS_MS, Face, FakeDesk

from freehold.lightclient.client import LedgerClient

NOW_MS = GENESIS_MS + 3_600_000  # the client's clock
Twist = Callable[[str, Any], Any]  # path and decoded answer -> what is sent instead


class LyingServer:
    """Set `twist` to change JSON, `source` to answer by path (with a status, or 200), `raw` to send bytes, or none.

    `slow` is waited for before an answer of `source`.
    """

    def __init__(self, desk: FakeDesk, *, timeout_s: float = 5.0, **fields: Any) -> None:
        self.face = Face(desk)
        self.twist: Twist | None = None
        self.raw: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None
        self.source: Callable[[str], Any] | None = None
        self.slow: Callable[[str], Awaitable[None]] | None = None
        self._timeout_s = timeout_s
        self._fields = fields  # of the client
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "LyingServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        trusted = self._fields.pop("trusted", self.face.desk.trusted)
        self.client = LedgerClient(
            self.url, trusted, timeout_s=self._timeout_s, **{"now_ms": lambda: NOW_MS, **self._fields}
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        await self.face.__aexit__(kind, error, trace)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if self.raw is not None:
            await self.raw(writer)
            return
        if self.source is not None:
            if self.slow is not None:
                await self.slow(path)
            told = self.source(path)
            status, document = told if isinstance(told, tuple) else (200, told)
            await send(writer, status, json.dumps(document).encode())
            return
        kind = {"content-type": headers["content-type"]} if body else {}
        response = await self.face.http.request(method, path, content=body, headers=kind)
        await send(writer, response.status_code, self._twisted(path, response))

    def _twisted(self, path: str, response: httpx2.Response) -> bytes:
        if self.twist is None:
            return response.content
        return json.dumps(self.twist(path, response.json())).encode()


async def send(writer: asyncio.StreamWriter, status: int, content: bytes) -> None:
    start = f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    writer.write(start.encode() + content)
    await writer.drain()
