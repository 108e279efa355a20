"""Errors as HTTP shows them: one JSON form, the status by the error's code, never a text from inside the program."""

from typing import Final

import msgspec

from freehold.base.errors import FreeholdError, InvalidInputError, RefusedError, UnreachableError
from freehold.consensus.errors import EngineStoppedError, StorageError

STATUS_BY_CODE: Final = {
    "not_found": 404,
    "unknown_tx": 404,
    "height_unknown": 404,
    "no_faucet": 404,
    "no_history": 404,
    "unknown_block": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "account_exists": 409,
    "height_pruned": 410,
    "oversized": 413,
    "not_json": 415,
    "rate_limited": 429,
    "mempool_full": 503,
    "busy": 503,
    "halted": 503,
}


class ErrorAnswer(msgspec.Struct, omit_defaults=True):
    """What went wrong: a stable code, a sentence, the next step; `oldest_height` where an old height was asked for."""

    code: str
    message: str
    hint: str = ""
    oldest_height: int = 0


INTERNAL: Final = ErrorAnswer(
    "internal", "the ledger could not answer this request", "its operator finds the cause in the daemon's log"
)


def status_of(error: FreeholdError) -> int:
    """The HTTP status of an error: by its code, else by whose fault it is."""
    status = STATUS_BY_CODE.get(error.code)
    if status is not None:
        return status
    if isinstance(error, EngineStoppedError | StorageError | UnreachableError):
        return 503
    if isinstance(error, InvalidInputError):
        return 400
    return 403 if isinstance(error, RefusedError) else 500
