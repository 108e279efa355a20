"""The ASGI application: the table of routes under limits, one form of errors, the status page. CORS is off.

Invariant: whatever comes in, what goes out is the route's answer or an `ErrorAnswer`; causes stay in the log.
"""

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from freehold.base.errors import FreeholdError, UnreachableError
from freehold.rpc import openapi
from freehold.rpc.errors import INTERNAL, ErrorAnswer, status_of
from freehold.rpc.rates import RateLimiter, client_of
from freehold.rpc.requests import read_body, read_query
from freehold.rpc.routes import ROUTES, Route
from freehold.rpc.service import Service

MAX_ACTIVE: Final = 256  # requests at work at once
MAX_ACTIVE_PER_CLIENT: Final = 64
PAGE_POINTS: Final = 2.0

_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_encode = msgspec.json.Encoder().encode

Report = Callable[[str, dict[str, Any]], None]
Answered = Callable[[str, int, float], None]
Endpoint = Callable[[HttpRequest], Awaitable[Response]]


class Gate:
    """Who may ask now: a rate for each client, and a number of requests at work for each and for all."""

    def __init__(self, rates: RateLimiter, now_s: Callable[[], float] = time.monotonic) -> None:
        self._rates = rates
        self._now_s = now_s
        self._active: dict[str, int] = {}
        self._total = 0

    def enter(self, client: str, points: float) -> float:
        """Let a request in.

        Returns:
            0.0, or the seconds after which this client may ask again: then it is not in.

        Raises:
            UnreachableError: too many requests are at work.
        """
        wait_s = self.charge(client, points)
        if wait_s:
            return wait_s
        mine = self._active.get(client, 0)
        if self._total >= MAX_ACTIVE or mine >= MAX_ACTIVE_PER_CLIENT:
            raise UnreachableError("too many requests are at work", code="busy", hint="try again in a second")
        self._active[client] = mine + 1
        self._total += 1
        return 0.0

    def charge(self, client: str, points: float) -> float:
        """Take points of a client, at most a whole burst; gives 0.0, or the seconds after which they can be taken."""
        return self._rates.take(client, min(points, self._rates.burst), self._now_s())

    def leave(self, client: str) -> None:
        """A request that was let in is done."""
        self._total -= 1
        left = self._active[client] - 1
        if left:
            self._active[client] = left
        else:
            del self._active[client]


def make_app(service: Service, rates: RateLimiter, report: Report, answered: Answered = lambda *_: None) -> Starlette:
    """Build the application.

    Args:
        service: answers.
        rates: how often a client may ask.
        report: called with a name and fields when the server itself is at fault.
        answered: called with the route's name, the status and the seconds of each request.
    """
    gate = Gate(rates)
    version_text = version("freehold")
    page = files("freehold.rpc").joinpath("page.html").read_bytes()
    fixed = {
        "/": (page, "text/html; charset=utf-8", _page_headers(page)),
        "/v1/genesis": (service.desk.genesis, "application/json", {}),
        "/openapi.json": (_encode(openapi.document(version_text)), "application/json", {}),
    }
    routes = []
    for route in ROUTES:
        endpoint = _counted(route.name, answered, _endpoint(service, gate, route, report))
        routes.append(HttpRoute(route.path, endpoint, methods=[route.method]))
    for path, (content, media, headers) in fixed.items():
        endpoint = _counted(path, answered, _fixed(gate, content, media, headers))
        routes.append(HttpRoute(path, endpoint, methods=["GET"]))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
    app.router.redirect_slashes = False  # a path is right or wrong; redirects have no typed form
    return app


def _endpoint(service: Service, gate: Gate, route: Route, report: Report) -> Endpoint:
    async def answer(request: HttpRequest) -> Response:
        argument: Any = read_query(request, route.query)
        if route.body is not None:
            argument = await read_body(request, route.body)
        elif request.path_params:
            argument = request.path_params["id"]
        if route.more_points is not None:
            client = client_of(request.client.host if request.client else "")
            wait_s = gate.charge(client, route.more_points(service, argument))
            if wait_s:
                return _rate_limited(wait_s)
        return _json(200, await route.call(service, argument))

    async def endpoint(request: HttpRequest) -> Response:
        client = client_of(request.client.host if request.client else "")
        try:
            wait_s = gate.enter(client, route.points)
        except FreeholdError as error:
            return error_response(error)
        if wait_s:
            return _rate_limited(wait_s)
        try:
            async with asyncio.timeout(route.time_limit_s):
                return await answer(request)
        except FreeholdError as error:
            return error_response(error, service.desk.standing().oldest_height)
        except TimeoutError:
            return error_response(
                UnreachableError("the request was not done in time", code="request_timeout", hint="try again")
            )
        except Exception as error:  # the edge: a defect in one answer must not end the ledger, and is told in the log
            report("request_failed", {"route": route.name, "error": f"{type(error).__name__}: {error}"[:500]})
            return _json(500, INTERNAL)
        finally:
            gate.leave(client)

    return endpoint


def _counted(name: str, answered: Answered, endpoint: Endpoint) -> Endpoint:
    async def counted(request: HttpRequest) -> Response:
        begun = time.monotonic()
        response = await endpoint(request)
        answered(name, response.status_code, time.monotonic() - begun)
        return response

    return counted


def _fixed(gate: Gate, content: bytes, media: str, headers: dict[str, str]) -> Endpoint:
    async def endpoint(request: HttpRequest) -> Response:
        client = client_of(request.client.host if request.client else "")
        try:
            read_query(request, None)
            wait_s = gate.enter(client, PAGE_POINTS)
        except FreeholdError as error:
            return error_response(error)
        if wait_s:
            return _rate_limited(wait_s)
        gate.leave(client)
        return Response(content, media_type=media, headers={**_HEADERS, **headers})

    return endpoint


def error_response(error: FreeholdError, oldest_height: int = 0) -> Response:
    """The response of an error.

    Args:
        error: what went wrong.
        oldest_height: the lowest height that can still be asked for; told when an older one was.
    """
    if error.code == "height_pruned":
        hint = f"heights from {oldest_height} on can still be proven"
        return _json(status_of(error), ErrorAnswer(error.code, error.message, hint, oldest_height))
    return _json(status_of(error), ErrorAnswer(error.code, error.message, error.hint))


def _rate_limited(wait_s: float) -> Response:
    response = _json(429, ErrorAnswer("rate_limited", "too many requests", f"wait {wait_s:.2f} seconds"))
    response.headers["retry-after"] = str(max(1, round(wait_s + 0.5)))
    return response


def _http_error(_: HttpRequest, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        answer = ErrorAnswer("method_not_allowed", "this path has another method", "see the Allow header")
    elif status == 404:
        answer = ErrorAnswer("not_found", "there is no such path", "see /openapi.json")
    else:
        answer = ErrorAnswer("bad_request", "the request cannot be served", "see /openapi.json")
    response = _json(status, answer)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def _json(status: int, answer: Any) -> Response:
    return Response(_encode(answer), status, media_type="application/json", headers=_HEADERS)


def _page_headers(page: bytes) -> dict[str, str]:
    """Let the page run its own script and style and ask its own server, nothing else."""
    sources = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(sha256(found).digest()).decode()}'"
            for found in re.findall(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), page, re.DOTALL)
        )
        for tag in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {"content-security-policy": policy, "referrer-policy": "no-referrer"}
