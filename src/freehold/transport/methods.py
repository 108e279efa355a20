"""What a server offers: a table of methods, each with its limits and with who may call it.

Glossary:
    CALL: one request, one response.
    UPLOAD: the request is followed by a body from the caller; the handler reads it with `context.body()`.
    DOWNLOAD: the response is followed by a body to the caller; the handler names it with `context.download(chunks)`.
    SPLICE: after the response the stream is a raw pipe; the handler names who runs it with `context.splice(run)`.
"""

import enum
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from freehold.base.errors import check
from freehold.base.limits import KIB, MAX_FRAME_BYTES
from freehold.transport.ports import StreamPort
from freehold.transport.wire import is_method_name

Request = TypeVar("Request")
Response = TypeVar("Response")
Who = Callable[[bytes], bool]
Run = Callable[[StreamPort], Awaitable[None]]


class Kind(enum.Enum):
    """What follows request and response; see the module's glossary."""

    CALL = "call"
    UPLOAD = "upload"
    DOWNLOAD = "download"
    SPLICE = "splice"


@dataclass
class CallContext:
    """What a handler knows of its caller.

    Attributes:
        remote_id: the caller's node id, proven by the handshake.
        stream: the stream of this call; only a splice touches it directly.
        kind: the method's kind.
    """

    remote_id: bytes
    stream: StreamPort
    kind: Kind
    _body: Callable[[], AsyncIterator[bytes]] | None = None
    _chunks: AsyncIterable[bytes] | None = None
    _run: Run | None = None

    def body(self) -> AsyncIterator[bytes]:
        """The caller's body, chunk by chunk, with the method's bounds on size and slowness."""
        check(self._body is not None, "only_an_upload_has_a_body", kind=self.kind)
        return self._body() if self._body is not None else _nothing()

    def download(self, chunks: AsyncIterable[bytes]) -> None:
        """Name the body that follows the response; items above 256 KiB are cut."""
        check(self.kind is Kind.DOWNLOAD, "only_a_download_sends_a_body", kind=self.kind)
        self._chunks = chunks

    def splice(self, run: Run) -> None:
        """Name who gets the raw stream after the response; the stream is reset when `run` leaves it open."""
        check(self.kind is Kind.SPLICE, "only_a_splice_gets_the_stream", kind=self.kind)
        self._run = run


@dataclass(frozen=True)
class Method(Generic[Request, Response]):
    """One method of a server.

    Attributes:
        name: 1 to 64 of a-z 0-9 _ . /.
        request_type: a `base.codec.Record`.
        response_type: a `base.codec.Record`.
        handler: `async (context, request) -> response`; a `FreeholdError` that it raises goes to the caller.
        who: whether the node or tenant with this id may call; asked before the request is read.
        timeout_ms: for the request to arrive and the handler to answer; and the longest gap within a body.
        kind: what follows request and response.
        max_request_bytes: longest encoded request.
        max_response_bytes: longest encoded response.
        max_body_bytes: longest body of an UPLOAD in all.
        min_bytes_per_second: an UPLOAD that stays below this for longer than `timeout_ms` is cut off.
    """

    name: str
    request_type: type[Request]
    response_type: type[Response]
    handler: Callable[[CallContext, Request], Awaitable[Response]]
    who: Who
    timeout_ms: int
    kind: Kind = Kind.CALL
    max_request_bytes: int = 4 * KIB
    max_response_bytes: int = MAX_FRAME_BYTES
    max_body_bytes: int = 0
    min_bytes_per_second: int = 4 * KIB

    def __post_init__(self) -> None:
        check(is_method_name(self.name), "method_name_is_legal", method=self.name)
        check(0 < self.max_request_bytes <= MAX_FRAME_BYTES, "request_is_bounded", method=self.name)
        check(0 < self.max_response_bytes <= MAX_FRAME_BYTES, "response_is_bounded", method=self.name)
        check((self.max_body_bytes > 0) == (self.kind is Kind.UPLOAD), "body_bound_fits_kind", method=self.name)
        check(self.timeout_ms > 0 and self.min_bytes_per_second > 0, "method_is_timed", method=self.name)


AnyMethod = Method[Any, Any]


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one server; per peer so that one cannot starve the others, in all so that many cannot either."""

    calls_per_peer: int = 32
    calls: int = 256
    splices_per_peer: int = 64
    splices: int = 512
    connections_per_peer: int = 4
    connections: int = 512
    calls_per_second: int = 200  # a peer's sustained rate
    calls_burst: int = 400
    peers_remembered: int = 4_096
    head_timeout_ms: int = 5_000


def everybody(remote_id: bytes) -> bool:
    """A `who` that lets everyone call."""
    return len(remote_id) > 0


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk
