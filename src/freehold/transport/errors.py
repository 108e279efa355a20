"""Errors of the transport: who failed, told apart by class and by a stable code (docs/spec/transport.md, "Errors").

A fault of the path or of the peer's process has one of the codes below and is raised by us. What the peer's handler
answered is raised as a `RemoteAnswer`, so that a peer cannot pass its word off as our own finding.
"""

from freehold.base.errors import (
    FreeholdError,
    InvalidInputError,
    NotVerifiedError,
    RefusedError,
    RemoteProtocolError,
    UnreachableError,
)


class WrongKeyError(NotVerifiedError):
    """Somebody else answered at the address: the handshake proved another key, or none."""


class ConnectionLostError(UnreachableError):
    """The connection ended: closed by either side, timed out, or its peer stopped answering."""


class StreamResetError(UnreachableError):
    """One stream ended early, by either side; the connection goes on.

    Attributes:
        reset_code: the application code given, or 0.
    """

    def __init__(self, message: str, *, reset_code: int = 0, code: str = "stream_reset", hint: str = "") -> None:
        super().__init__(message, code=code, hint=hint)
        self.reset_code = reset_code


class TimedOutError(UnreachableError):
    """The peer did not answer, or not fast enough, within the time allowed."""


class RemoteAnswer(FreeholdError):
    """The peer's handler answered with an error: its words, not our finding."""


class RemoteFailedError(RemoteAnswer):
    """The peer says that it failed."""


class RemoteInvalidError(RemoteAnswer, InvalidInputError):
    """The peer says that the request is invalid."""

    exit_code = InvalidInputError.exit_code


class RemoteRefusedError(RemoteAnswer, RefusedError):
    """The peer says no: not allowed, too busy, or against a rule."""

    exit_code = RefusedError.exit_code


class RemoteUnreachableError(RemoteAnswer, UnreachableError):
    """The peer says that it could not reach what was asked for."""

    exit_code = UnreachableError.exit_code


class RemoteNotVerifiedError(RemoteAnswer, NotVerifiedError):
    """The peer says that something did not verify on its side."""

    exit_code = NotVerifiedError.exit_code


_BY_STATUS: dict[int, type[RemoteAnswer]] = {
    1: RemoteFailedError,
    2: RemoteInvalidError,
    3: RemoteRefusedError,
    4: RemoteUnreachableError,
    5: RemoteNotVerifiedError,
}


def remote_answer(status: int, code: str, message: str, hint: str) -> RemoteAnswer:
    """Make the error that a peer answered with.

    Args:
        status: 1 to 5, the exit code of the error's kind.
        code: the peer's code, already bounded.
        message: the peer's message, already bounded and printable.
        hint: the peer's hint, already bounded and printable.

    Raises:
        RemoteProtocolError: no such status.
    """
    kind = _BY_STATUS.get(status)
    if kind is None:
        raise RemoteProtocolError(f"the peer answered with status {status}", code="bad_status")
    return kind(message, code=code, hint=hint)


def timed_out(what: str, timeout_ms: int) -> TimedOutError:
    """The error for something that took longer than `timeout_ms` milliseconds."""
    return TimedOutError(
        f"{what} took longer than {timeout_ms} ms",
        code="timed_out",
        hint="the peer may be down, overloaded or cut off; try again later",
    )
