"""uvicorn, bounded: so many connections in all and for each client, and a deadline for everything a peer may delay.

uvicorn alone lets a peer hold a connection for ever by sending, or reading, a byte now and then. Here a connection that
waits for a request has `IDLE_S`, one with a request at work `REQUEST_S`; then it is cut.
"""

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, Final

import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from freehold.rpc.errors import ErrorAnswer
from freehold.rpc.rates import client_of

MAX_CONNECTIONS: Final = 512
MAX_CONNECTIONS_PER_CLIENT: Final = 128
MAX_HEAD_BYTES: Final = 16 * 1024
IDLE_S: Final = 15.0
KEEP_ALIVE_S: Final = 10
REQUEST_S: Final = 40.0
STOP_S: Final = 1


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with the bounds of this module; a subclass may set others."""

    idle_s = IDLE_S
    request_s = REQUEST_S
    max_connections = MAX_CONNECTIONS
    max_connections_per_client = MAX_CONNECTIONS_PER_CLIENT
    _deadline: asyncio.TimerHandle | None = None
    _is_counted = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or cut it when there are too many."""
        peer = transport.get_extra_info("peername")
        self._peer = client_of(peer[0]) if peer else ""
        same = sum(1 for other in self.connections if getattr(other, "_peer", None) == self._peer)
        if len(self.connections) >= self.max_connections or same >= self.max_connections_per_client:
            transport.abort()
            return
        self._is_counted = True
        super().connection_made(transport)
        self._arm(self.idle_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the deadline go with the connection."""
        self._disarm()
        if self._is_counted:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._is_counted:
            super().data_received(data)

    def handle_events(self) -> None:
        """Give a request that has begun its own deadline; those of one connection come one after the other."""
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle:
            self._arm(self.request_s)

    def on_response_complete(self) -> None:
        """Wait for the next request, but not for ever."""
        self._arm(self.idle_s)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in the one form of errors."""
        body = msgspec.json.encode(ErrorAnswer("bad_request", msg, "speak HTTP/1.1; see /openapi.json"))
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: the daemon has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the process's signals alone."""
        yield


def make_server(app: Any, protocol: type[BoundedProtocol] = BoundedProtocol) -> Server:
    """Build the server of an ASGI application; run it by `serve(sockets)`."""
    return Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
            backlog=256,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        OSError: the address is in use, or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only where the protocol is named; with it an answer takes 40 ms.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((host, port))
        opened.listen(256)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened
