"""Reads the binding's errors: it gives a kind and a Rust text, callers need a class and a stable code."""

import re

import iroh
from iroh.iroh_ffi import InternalError

from freehold.base.errors import FreeholdError, LocalProtocolError, RemoteProtocolError, UnreachableError
from freehold.transport.errors import ConnectionLostError, StreamResetError, WrongKeyError

# What a call of the binding may raise: its own error, or what is left of a panic in Rust.
FAULTS = (iroh.IrohError, InternalError)

Fault = iroh.IrohError | InternalError

# What a dial says on an endpoint whose driver (noq's `ConnectError::EndpointStopping`) or whose actors have ended.
_DEAD_ENDPOINT = ("endpoint stopping", "endpoint driver future was dropped", "state actor stopped")

_STREAM_END = re.compile(r"(Reset|Stopped)\((\d{1,20})\)")
_CLOSED_STREAM = "ClosedStream"


def words(error: Fault) -> str:
    """What the binding says; never empty."""
    return (error.message() if isinstance(error, iroh.IrohError) else str(error)).strip() or "the library failed"


def is_dead_endpoint(error: Fault) -> bool:
    """Whether a dial failed because the endpoint that dials serves no more."""
    text = words(error)
    return any(end in text for end in _DEAD_ENDPOINT)


def dial_error(error: Fault, node: str) -> FreeholdError:
    """Tell why dialling `node` (hex) failed.

    A node that answers with another key fails the TLS check of the key that was dialled; rustls calls every such
    failure an invalid peer certificate.
    """
    text = words(error)
    if "invalid peer certificate" in text:
        return WrongKeyError(
            f"whoever answered does not hold the key {node[:16]}..",
            code="wrong_key",
            hint="the address belongs to another node now; read the node's record again",
        )
    if "known protocol" in text:
        return RemoteProtocolError(
            f"{node[:16]}.. does not speak this protocol",
            code="wrong_protocol",
            hint="the two sides run different versions; update the older one",
        )
    return UnreachableError(
        f"cannot connect to {node[:16]}..: {_last_line(text)}",
        code="unreachable",
        hint="check that the node is up and its address is right",
    )


def connection_error(error: Fault) -> FreeholdError:
    """The error for an operation on a connection that failed."""
    return ConnectionLostError(f"the connection ended: {_last_line(words(error))}", code="connection_lost")


def stream_error(error: Fault) -> FreeholdError:
    """The error for an operation on a stream that failed."""
    text = words(error)
    match = _STREAM_END.search(text)
    if match is not None:
        verb = "reset the stream" if match[1] == "Reset" else "does not read on"
        return StreamResetError(f"the peer {verb} (code {match[2]})", reset_code=int(match[2]))
    if _CLOSED_STREAM in text:
        return LocalProtocolError("this side of the stream has already ended", code="stream_finished")
    return connection_error(error)


def _last_line(text: str) -> str:
    return text.splitlines()[-1].strip()[:200]
