"""Errors by whose fault they are, each with the exit code that the command line gives it.

Four channels (docs: CONTRIBUTING): an expected rejection in the core is a value (`ledger.codes.Code`); a peer's
fault raises `RemoteProtocolError`, ours `LocalProtocolError`; a user's error owns its exit code and the next
step; a broken invariant halts through `check`.
"""

from typing import Any, ClassVar, NoReturn


class ExitCode:
    """Exit codes of every command; see the README."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    REFUSED = 3
    UNREACHABLE = 4
    NOT_VERIFIED = 5


class FreeholdError(Exception):
    """An error that a person is meant to read.

    Attributes:
        code: stable machine-readable word, such as `price_above_limit`.
        hint: what to do next, one sentence.
    """

    exit_code: ClassVar[int] = ExitCode.FAILED

    def __init__(self, message: str, *, code: str = "failed", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint


class InvalidInputError(FreeholdError):
    """The input is wrong: a file, an argument, an amount."""

    exit_code = ExitCode.INVALID


class RefusedError(FreeholdError):
    """The ledger or a policy said no."""

    exit_code = ExitCode.REFUSED


class UnreachableError(FreeholdError):
    """Nobody answered, or not in time."""

    exit_code = ExitCode.UNREACHABLE


class NotVerifiedError(FreeholdError):
    """A proof, header, signature or digest did not verify."""

    exit_code = ExitCode.NOT_VERIFIED


class CodecError(InvalidInputError):
    """Bytes are not the canonical encoding of the expected type."""


class RemoteProtocolError(FreeholdError):
    """The peer broke the protocol; its connection is closed."""

    exit_code = ExitCode.UNREACHABLE


class LocalProtocolError(FreeholdError):
    """We were about to break the protocol: a defect on our side."""


class InvariantError(AssertionError):
    """A condition that must always hold does not: stop before damage spreads."""


def check(condition: bool, name: str, **context: Any) -> None:
    """Halt when a condition that must always hold does not; stays on under `python -O`.

    Args:
        condition: what must be true.
        name: stable name of the invariant, for the log.
        context: values that explain the failure.

    Raises:
        InvariantError: the condition is false.
    """
    if not condition:
        _fail(name, context)


def _fail(name: str, context: dict[str, Any]) -> NoReturn:
    details = ", ".join(f"{key}={value!r}" for key, value in sorted(context.items()))
    raise InvariantError(f"invariant {name} broken: {details}")
