"""Run in a network namespace of its own: two endpoints while the machine's links change; prints one JSON object."""

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from freehold.base.errors import FreeholdError
from freehold.transport.errors import ConnectionLostError
from freehold.transport.iroh_endpoint import Endpoint
from freehold.transport.ports import StreamPort

ALPN = "freehold/test/1"
SERVER = "198.51.100.1:4600"
SERVER_NET = "198.51.100.1/24"
SILENT = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")  # RFC 8032, test 1
SILENT_ADDRESS = "127.0.0.1:9"
WAIT_S = 20.0
DIED = "the endpoint died"
REFUSED = "cannot be opened again"
OPEN = "is open again"


class Told(logging.Handler):
    """Keeps what the endpoints log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._more = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._more.set()

    def count(self, words: str) -> int:
        return sum(words in line for line in self.lines)

    async def until(self, words: str, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.count(words) < count:
                self._more.clear()
                await self._more.wait()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def hold_descriptors() -> tuple[int, int]:
    """Fork a process that keeps every open socket, as one does between fork and exec. Returns its pid and its leash."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    return pid, write


def inode_of_server() -> str:
    """Which socket is bound to the server's port, as the kernel tells; empty for none."""
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return "".join(row[9] for row in rows if row[1].endswith(":11F8"))


async def until_bound_anew(before: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while inode_of_server() in ("", before):  # noqa: ASYNC110 - the kernel wakes nobody for this
            await asyncio.sleep(0.02)


def add_link() -> None:
    """What the start of a container does to the node's namespace."""
    ip("link", "add", "box", "type", "veth", "peer", "name", "inbox")
    ip("address", "add", "198.18.0.1/24", "dev", "box")
    ip("link", "set", "box", "up")
    ip("link", "set", "inbox", "up")


async def is_cut(stream: StreamPort) -> bool:
    try:
        await stream.read(1)
    except ConnectionLostError:
        return True
    return False


async def held(told: Told) -> None:
    """A container's link comes while a process holds our descriptors."""
    pid, leash = hold_descriptors()
    add_link()
    await told.until(DIED, 2)
    await told.until(REFUSED, 1)  # also our own first try finds the port taken, and is not the last
    os.close(leash)
    await asyncio.to_thread(os.waitpid, pid, 0)


async def gone(told: Told) -> None:
    """The server's address leaves the machine for a while, as when a lease of DHCP is renewed late."""
    ip("address", "del", SERVER_NET, "dev", "outside")
    await told.until(DIED, 1)
    await told.until(REFUSED, 1)
    ip("address", "add", SERVER_NET, "dev", "outside")
    await told.until(OPEN, 1)


async def back(told: Told) -> None:
    """The server's address comes back while the dead endpoint is being closed, which then binds it anew."""
    ip("address", "del", SERVER_NET, "dev", "outside")
    await told.until(DIED, 1)
    ip("address", "add", SERVER_NET, "dev", "outside")
    await told.until(OPEN, 1)


async def keep_dialling(endpoint: Endpoint) -> None:
    """Dial a node that is not there, again and again."""
    while True:
        with contextlib.suppress(FreeholdError):
            await endpoint.dial(SILENT, [SILENT_ADDRESS], ALPN, 1_000)


async def free(told: Told) -> None:
    """A container's link comes, and nobody forks."""
    before = inode_of_server()
    add_link()
    await until_bound_anew(before)


async def main(change: Callable[[Told], Awaitable[None]]) -> None:
    told = Told()
    logging.getLogger("freehold.transport.iroh_endpoint").addHandler(told)
    ip("link", "set", "lo", "up")
    ip("link", "add", "outside", "type", "veth", "peer", "name", "wire")
    ip("address", "add", SERVER_NET, "dev", "outside")
    ip("link", "set", "outside", "up")
    ip("link", "set", "wire", "up")
    server = await Endpoint.create(os.urandom(32), [SERVER], [ALPN])
    client = await Endpoint.create(os.urandom(32), ["0.0.0.0:0"], [])
    accepting = asyncio.ensure_future(server.accept())
    connection = await client.dial(server.node_id, server.addresses, ALPN, 5_000)
    stream = await connection.open()
    await stream.write(b"!")
    accepted = await (await accepting).accept_stream()
    assert await accepted.read_exactly(1) == b"!"
    waiting = asyncio.ensure_future(is_cut(accepted))
    accepting = asyncio.ensure_future(server.accept())
    dialling = asyncio.ensure_future(keep_dialling(server))
    changing = asyncio.ensure_future(change(told))
    if change is held:
        await told.until(DIED, 1)  # the dial begins at endpoints that are dead
    else:
        await changing
    # begun while the endpoints are dead, or while nothing happens
    redialled = await client.dial(server.node_id, server.addresses, ALPN, 8_000)
    await changing
    again = await asyncio.wait_for(accepting, WAIT_S)
    stream = await redialled.open()
    await stream.write(b"?")
    result = {
        "heard": (await (await again.accept_stream()).read_exactly(1)).decode(),
        "cut": waiting.done() and waiting.result(),
        "died": told.count(DIED),
        "same": [server.addresses == [SERVER], again.remote_id == client.node_id],
    }
    dialling.cancel()
    await client.close()
    await server.close()
    await asyncio.gather(waiting, dialling, return_exceptions=True)
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main({"held": held, "gone": gone, "back": back, "free": free}[sys.argv[1]]))
