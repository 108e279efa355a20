"""Anything at all is thrown at every route: the answer is typed, never a 5xx, and the ledger is as it was."""

import json
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rpc_kit import Face, FakeDesk, desk_at, run

from freehold.rpc.errors import ErrorAnswer
from freehold.rpc.routes import ROUTES

DESK = desk_at(2)
METHODS = ["GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"]
PATHS = [route.path for route in ROUTES] + ["/", "/v1/genesis", "/openapi.json", "/v1", "/v1/status/", "//v1/status"]
FIELDS = ["keys", "height", "tx", "wait", "account", "limit", "after_height", "x", ""]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(["50", "committed", "checked", "AAAA", "G" * 56, "null", "00" * 128, "0" * 257])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)
)
bodies = st.one_of(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(FIELDS), values, max_size=5).map(lambda value: json.dumps(value).encode()),
    values.map(lambda value: json.dumps(value).encode()),
)
queries = st.lists(
    st.tuples(st.sampled_from(FIELDS), st.integers().map(str) | st.text(max_size=20) | st.just("1")), max_size=3
)
ids = st.text(st.characters(codec="utf-8"), max_size=70) | st.binary(min_size=32, max_size=32).map(bytes.hex)
media = st.sampled_from(["application/json", "application/json; charset=x", "text/plain", "", "multipart/form-data"])


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    path = draw(st.sampled_from(PATHS))
    if "{id}" in path:
        path = path.replace("{id}", quote(draw(ids), safe=""))
    right = [route.method for route in ROUTES if route.path == path]
    return {
        "method": draw(st.sampled_from(right) if right and draw(st.booleans()) else st.sampled_from(METHODS)),
        "url": path,
        "params": draw(queries),
        "content": draw(bodies),
        "headers": {"content-type": draw(media)},
    }


def survive(asks: list[dict[str, Any]]) -> None:
    async def work(desk: FakeDesk) -> None:
        async with Face(desk, wait_s=0.01) as face:
            for ask in asks:
                response = await face.http.request(**ask)
                assert response.status_code < 500, (ask, response.text)
                if response.status_code != 200 and ask["method"] != "HEAD":
                    error = msgspec.json.decode(response.content, type=ErrorAnswer)
                    assert error.code and error.message, (ask, response.text)
                assert (response.status_code == 405) == ("allow" in response.headers)
            assert not face.reports

    before, root = DESK.height, DESK.states[-1].root
    DESK.receivers.clear()
    run(work(DESK))
    assert DESK.height == before and DESK.states[-1].root == root and not DESK.waiting


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(requests(), min_size=1, max_size=8))
def test_every_route_survives_anything(asks):
    survive(asks)


@pytest.mark.long
@settings(max_examples=3_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(requests(), min_size=1, max_size=8))
def test_every_route_survives_anything_for_long(asks):
    survive(asks)
