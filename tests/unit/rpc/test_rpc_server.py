"""Bounds of the server on real sockets: what a peer may delay, how many may connect, what is no HTTP."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from rpc_kit import Face, FakeDesk, desk_at, run

from freehold.rpc.server import MAX_HEAD_BYTES, BoundedProtocol, Server, listen, make_server

GET = b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n"


class Impatient(BoundedProtocol):
    idle_s = 0.15
    request_s = 0.3
    max_connections = 6
    max_connections_per_client = 3
    lost: asyncio.Event  # set anew by each test

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.connections:
            self.lost.set()


def serve(work: Callable[[int, Server], Awaitable[Any]], desk: FakeDesk | None = None) -> Any:
    async def go() -> Any:
        Impatient.lost = asyncio.Event()
        async with Face(desk or desk_at(2)) as face:
            server = make_server(face.app, Impatient)
            opened = listen("127.0.0.1", 0)
            port = opened.getsockname()[1]
            serving = asyncio.create_task(server.serve([opened]))
            try:
                async with asyncio.timeout(20):
                    return await work(port, server)
            finally:
                server.should_exit = True
                await serving

    return run(go())


async def read_all(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def exchange(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await read_all(reader)
    writer.close()
    return answer


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def test_what_is_no_http_is_answered_in_the_one_form():
    for garbage in (b"\x16\x03\x01\x00\xa5\r\n\r\n", b"hello\r\n\r\n", b"GET / HTP/1.1\r\n\r\n"):
        answer = serve(lambda port, _, data=garbage: exchange(port, data))
        assert answer.startswith(b"HTTP/1.1 400") and body_of(answer)["code"] == "bad_request"


def test_an_endless_head_is_refused():
    answer = serve(lambda port, _: exchange(port, b"GET / HTTP/1.1\r\nx: " + b"a" * (MAX_HEAD_BYTES + 1)))
    assert answer.startswith(b"HTTP/1.1 4") and body_of(answer)["code"] == "bad_request"


def test_a_silent_peer_and_a_dripping_one_are_cut():
    async def drip(port: int, _: Server) -> list[bytes]:
        async def dripping() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            ended = asyncio.create_task(read_all(reader))
            for byte in GET[:-1] * 10:
                writer.write(bytes([byte]))
                done, _ = await asyncio.wait({ended}, timeout=0.05)
                if done:
                    break
            writer.close()
            return await ended

        return list(await asyncio.gather(exchange(port, b""), dripping()))

    assert serve(drip) == [b"", b""]


def test_a_body_that_never_comes_is_cut():
    head = b"POST /v1/state HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"
    assert serve(lambda port, _: exchange(port, head)) == b""


def test_an_answer_that_is_never_read_is_cut():
    async def work(port: int, server: Server) -> int:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        body = json.dumps({"keys": ["50"] * 256}).encode()
        head = b"POST /v1/state HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        for _ in range(40):
            writer.write(head % len(body) + body)
        await Impatient.lost.wait()
        writer.close()
        return len(server.server_state.connections)

    assert serve(work) == 0


def test_connections_are_bounded_for_each_client_and_places_come_back():
    async def work(port: int, server: Server) -> list[bool]:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for reader, writer in held:
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
        refused = await exchange(port, GET)
        for reader, writer in held:
            writer.close()
            await read_all(reader)
        await Impatient.lost.wait()
        later = await exchange(port, GET)
        return [refused == b"", b"200 OK" in later]

    assert serve(work) == [True, True]


def test_answers_are_not_held_back_by_the_kernel():
    """Head and body are two writes: with Nagle's delay the second waits 40 ms for the first's acknowledgement."""

    async def work(port: int, server: Server) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        (connection,) = server.server_state.connections
        option = connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        return int(option)

    assert serve(work) == 1


def test_requests_on_one_connection_are_answered_in_turn():
    answer = serve(lambda port, _: exchange(port, GET * 3))
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_an_upgrade_is_not_granted():
    ask = b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    assert serve(lambda port, _: exchange(port, ask)).startswith(b"HTTP/1.1 200 OK")
