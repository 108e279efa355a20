"""What the RPC needs of a transport: endpoint, connection, stream; `tests/contract` holds every transport to it.

Rules that every implementation keeps (docs/spec/transport.md, "Interface"):
    * the remote id was proven by the handshake, never taken from a message;
    * a cancelled `read`, `read_exactly`, `accept` or `accept_stream` loses nothing: the next call returns it;
    * after a cancelled `write` the sending side is torn and can only be reset;
    * one reader and one writer per stream at a time; a second one is refused with `LocalProtocolError`;
    * `reset` and `close` wake whoever waits, with an error.
"""

from typing import Protocol

MAX_STREAMS = 128  # streams that a peer may have open on one connection; above calls + splices of `ServerLimits`
NODE_ID_BYTES = 32


class StreamPort(Protocol):
    """A reliable, ordered, two-way pipe of bytes with flow control; each direction ends by itself."""

    @property
    def done(self) -> bool:
        """Whether both directions have ended (finished, read to the end, reset or stopped)."""

    async def read(self, max_bytes: int) -> bytes:
        """Return 1 to `max_bytes` bytes, or b"" at the end.

        Raises:
            StreamResetError: the peer reset the stream, or we did.
            ConnectionLostError: the connection ended.
        """

    async def read_exactly(self, count: int) -> bytes:
        """Return exactly `count` bytes.

        Raises:
            RemoteProtocolError: the stream ended before (code `truncated`).
        """

    async def write(self, data: bytes) -> None:
        """Write all of `data`; waits while the peer's window is full."""

    async def finish(self) -> None:
        """Say that nothing more will be written."""

    async def reset(self, code: int) -> None:
        """Abort both directions; bytes not yet delivered are dropped."""

    async def stop(self, code: int) -> None:
        """Tell the peer that nothing more will be read; our own writing goes on."""


class ConnectionPort(Protocol):
    """A connection to one peer, whose key the handshake proved."""

    @property
    def remote_id(self) -> bytes:
        """The peer's node id, 32 bytes."""

    @property
    def alpn(self) -> str:
        """The protocol that both sides agreed on."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""

    async def open(self) -> StreamPort:
        """Open a stream; the peer sees it with the first byte written."""

    async def accept_stream(self) -> StreamPort:
        """Return the next stream that the peer opened.

        Raises:
            ConnectionLostError: the connection ended.
        """

    def close(self, code: int, reason: str) -> None:
        """Close at once; streams on both sides fail with `ConnectionLostError`."""

    async def closed(self) -> str:
        """Wait for the end of the connection; returns the reason."""


class EndpointPort(Protocol):
    """A local endpoint with a key of its own."""

    @property
    def node_id(self) -> bytes:
        """Our node id, 32 bytes."""

    @property
    def addresses(self) -> list[str]:
        """The `ip:port` addresses that we were asked to listen on, with the real ports."""

    async def dial(self, node_id: bytes, addresses: list[str], alpn: str, timeout_ms: int) -> ConnectionPort:
        """Connect to a peer by its key.

        Raises:
            WrongKeyError: another key answered (code `wrong_key`).
            TimedOutError: nobody answered in time.
            UnreachableError: the connection could not be made.
            RemoteProtocolError: the peer does not speak `alpn` (code `wrong_protocol`).
        """

    async def accept(self) -> ConnectionPort:
        """Return the next connection whose handshake is complete.

        Raises:
            ConnectionLostError: the endpoint is closed (code `endpoint_closed`).
        """

    async def close(self) -> None:
        """Close all connections and sockets; may be called twice."""
