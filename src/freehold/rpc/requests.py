"""From a request's bytes to what a route takes: strict, bounded, each failure a typed error."""

import re
from functools import cache
from typing import Final, TypeVar

import msgspec
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from freehold.base.decoders import convert, decode_json
from freehold.base.errors import InvalidInputError
from freehold.base.limits import MAX_RPC_BODY_BYTES
from freehold.rpc.answers import Request

R = TypeVar("R", bound=Request)

MAX_QUERY_BYTES: Final = 1_024
_NUMBER: Final = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z", re.ASCII)


def read_query(request: HttpRequest, kind: type[R] | None) -> R | None:
    """Decode the query: whole numbers, or text where the kind says so; each at most once, none unknown.

    Raises:
        InvalidInputError: anything else.
    """
    raw: bytes = request.scope["query_string"]
    if len(raw) > MAX_QUERY_BYTES:
        raise InvalidInputError("the query is too long", code="oversized")
    values: dict[str, int | str] = {}
    texts = _text_fields(kind) if kind else frozenset[str]()
    known = {field.name for field in msgspec.structs.fields(kind)} if kind else set[str]()
    for name, text in request.query_params.multi_items():
        if name not in known or name in values:
            raise InvalidInputError(
                f"query parameter {name[:40]!r} is {'repeated' if name in values else 'unknown'}",
                code="bad_request",
                hint=f"known: {', '.join(sorted(known)) or 'none'}; see /openapi.json",
            )
        if name in texts:
            values[name] = text
            continue
        if _NUMBER.match(text) is None:
            raise InvalidInputError(f"query parameter {name!r} must be a whole number", code="bad_request")
        values[name] = int(text)
    if kind is None:
        return None
    try:
        return convert(values, kind)
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from None


async def read_body(request: HttpRequest, kind: type[R]) -> R:
    """Read and decode a JSON body.

    Raises:
        InvalidInputError: not sent as application/json, too large, malformed, or cut off.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # Also keeps pages of other origins from posting without the browser asking first, which is never granted.
        raise InvalidInputError("the body must be sent as application/json", code="not_json")
    declared = request.headers.get("content-length", "0")
    if _NUMBER.match(declared) is not None and int(declared) > MAX_RPC_BODY_BYTES:
        raise _too_large()
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_RPC_BODY_BYTES:
                raise _too_large()
    except ClientDisconnect:
        raise InvalidInputError("the request was cut off", code="bad_request") from None
    try:
        return decode_json(body, kind)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _malformed(str(error)) from None


@cache
def _text_fields(kind: type[Request]) -> frozenset[str]:
    info = msgspec.inspect.type_info(kind)
    fields = info.fields if isinstance(info, msgspec.inspect.StructType) else ()
    return frozenset(field.name for field in fields if isinstance(field.type, msgspec.inspect.StrType))


def _malformed(why: str) -> InvalidInputError:
    return InvalidInputError(f"malformed request: {why[:200]}", code="bad_request", hint="see /openapi.json")


def _too_large() -> InvalidInputError:
    return InvalidInputError(f"a request has at most {MAX_RPC_BODY_BYTES} bytes", code="oversized")
