"""Several RPC servers of one ledger: the death of one is survived, and the state never seems to go back."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from freehold.base.errors import UnreachableError
from freehold.lightclient.servers import Servers

Answer = Callable[[str], tuple[int, Any]]  # path -> status and document
NEVER = 1 << 40


class Server:
    """A server that answers as it is told, and counts."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.hangs = False

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        self.asked.append(path)
        if self.hangs:
            await reader.read()  # until the client lets go
            writer.close()
            return
        status, document = self.answer(path)
        body = json.dumps(document).encode()
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


def at(height: int) -> Answer:
    return lambda path: (200, {"height": height} if path == "/v1/status" else {"of": height})


def run(work: Callable[[Server, Server, Servers], Awaitable[None]], *, stale_ms: int = NEVER) -> None:
    async def go() -> None:
        async with Server(at(5)) as first, Server(at(6)) as second:
            servers = Servers(f"{first.url}/, {second.url}", 5.0, stale_ms=stale_ms)
            try:
                await work(first, second, servers)
            finally:
                await servers.close()

    asyncio.run(go())


async def of(servers: Servers, limit_s: float = 5.0) -> int:
    return int(json.loads((await servers.exchange("GET", "/x", None, limit_s)).content)["of"])


def test_a_dead_server_is_left_and_not_asked_again() -> None:
    async def work(first: Server, second: Server, servers: Servers) -> None:
        assert await of(servers) == 5
        await first.__aexit__()
        assert [await of(servers) for _ in range(3)] == [6, 6, 6]
        assert second.asked == ["/v1/status", "/x", "/x", "/x"] and servers.url == second.url

    run(work)


def test_a_server_that_cannot_serve_is_left() -> None:
    async def work(first: Server, second: Server, servers: Servers) -> None:
        first.answer = lambda _: (503, {"code": "engine_unreachable"})
        assert await of(servers) == 6
        second.answer = lambda path: (503, {}) if path == "/x" else at(6)(path)
        answer = await servers.exchange("GET", "/x", None, 5.0)
        assert answer.status == 503  # the last one's words are told

    run(work)


def test_a_server_that_hangs_costs_a_read_half_of_its_time() -> None:
    async def work(first: Server, second: Server, servers: Servers) -> None:
        first.hangs = True
        assert await of(servers, 1.0) == 6
        assert servers.url == second.url

    run(work)


def test_a_server_that_is_behind_is_waited_for() -> None:
    async def work(first: Server, second: Server, servers: Servers) -> None:
        servers.floor = 8
        heights = iter((6, 7, 8))
        second.answer = lambda path: (200, {"height": next(heights)} if path == "/v1/status" else {"of": 8})
        await first.__aexit__()
        assert await of(servers) == 8
        assert second.asked == ["/v1/status"] * 3 + ["/x"]

    run(work)


def test_an_old_header_turns_to_the_next() -> None:
    async def work(first: Server, second: Server, servers: Servers) -> None:
        servers.judge(0)
        assert servers.url == second.url
        servers.judge(1 << 60)
        assert servers.url == second.url and not first.asked

    run(work, stale_ms=1_000)


def test_when_none_answers_all_are_named() -> None:
    async def work(first: Server, second: Server, servers: Servers) -> None:
        await first.__aexit__()
        await second.__aexit__()
        with pytest.raises(UnreachableError) as told:
            await of(servers)
        assert first.url in told.value.message and second.url in told.value.message and told.value.hint

    run(work)
