"""A background process that dies with whoever started it, until it stands by itself."""

import ctypes
import os
import signal

STARTED_BY = "FREEHOLD_STARTED_BY"
_PR_SET_PDEATHSIG = 1


def marked(environment: dict[str, str]) -> dict[str, str]:
    """An environment that tells the child who its parent is."""
    return {**environment, STARTED_BY: str(os.getpid())}


def follow_parent() -> bool:
    """In the child: be killed when the parent dies. False: it died already, so do not start.

    Does nothing where nobody named a parent. The kernel sends the signal, so a SIGKILL of the parent is noticed too; a
    parent that died before the kernel was asked shows by its child having another one.
    """
    named = os.environ.pop(STARTED_BY, "")
    if not named:
        return True
    _set_signal(signal.SIGKILL)
    return named == str(os.getppid())


def outlive_parent() -> None:
    """In the child, once others can find and stop it: go on after the parent."""
    _set_signal(0)


def _set_signal(number: int) -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):  # Linux alone has it
        libc.prctl(_PR_SET_PDEATHSIG, number)
