"""What a server's answer says: JSON of the kind that was asked for, or its error in words that are safe to show."""

from typing import Any, Final

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError, NotVerifiedError, RefusedError, UnreachableError
from freehold.lightclient.servers import Answer

MAX_TEXT: Final = 300  # of a server's message


class StateValue(msgspec.Struct):
    """A key with its value, None when absent, and the proof."""

    key: str
    value: str | None
    proof: str


class StateAnswer(msgspec.Struct):
    """Of `POST /v1/state`."""

    height: int
    light_block: str
    values: list[StateValue]


class BlockAnswer(msgspec.Struct):
    """Of `GET /v1/light_block`."""

    height: int
    light_block: str


class TxAnswer(msgspec.Struct):
    """Of `POST /v1/tx`; height 0 while it is in no block."""

    tx_id: str
    code: int
    code_name: str
    height: int
    data: str


class _ErrorAnswer(msgspec.Struct):
    code: str
    message: str
    hint: str = ""


def decode_answer(answer: Answer, kind: Any) -> Any:
    """Read an answer.

    Args:
        answer: as it came.
        kind: what it must be.

    Raises:
        NotVerifiedError: it is malformed.
        RefusedError: the server said no.
        UnreachableError: the server cannot answer now.
    """
    if answer.status != 200:
        raise _server_error(answer.status, answer.content)
    try:
        return decode_json(answer.content, kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise NotVerifiedError(f"the server's answer is malformed: {plain(str(error))}", code="bad_answer") from None


def _server_error(status: int, content: bytes) -> FreeholdError:
    try:
        error = decode_json(content, _ErrorAnswer)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return UnreachableError(
            f"HTTP status {status} came without the words of a ledger's server",
            code="bad_answer",
            hint="another program may have that address: see FREEHOLD_RPC, and `rpc` in settings.toml of the home",
        )
    kind = UnreachableError if status >= 500 or status in (408, 429) else RefusedError
    return kind(plain(error.message), code=plain(error.code), hint=plain(error.hint))


def plain(text: str) -> str:
    """Give a server's text as a terminal may show it: bounded, nothing but printable characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_TEXT])
