"""The chain view: its fence rests on reads of this node's own records."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from freehold.agent import chain as chain_module
from freehold.agent.chain import ChainView
from freehold.base.errors import UnreachableError
from freehold.base.presets import MINIMAL
from freehold.ledger.keys import node_key

ME, GENESIS_MS = bytes(32), 1_000_000


def _header(height: int, asked: int) -> Any:
    return SimpleNamespace(height=height, time_ms=GENESIS_MS + asked, asked_boottime_ms=asked)


class FakeLedger:
    """A server that answers what a test lets it answer."""

    chain_id = "freehold-test"

    def __init__(self) -> None:
        self.newest = _header(1, 0)
        self.serves_us = True

    async def read(self, keys: list[bytes], height: int | None = None) -> Any:
        if node_key(ME) in keys and not self.serves_us:
            raise UnreachableError("too many requests", code="rate_limited")
        return SimpleNamespace(at=self.newest, get=lambda key, kind: None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [0]
    monkeypatch.setattr(chain_module, "boottime_ms", lambda: now[0])
    monkeypatch.setattr(chain_module, "wall_ms", lambda: GENESIS_MS + now[0])
    return now


def _view() -> tuple[ChainView, FakeLedger]:
    ledger = FakeLedger()
    served: Any = ledger
    return ChainView(served, ME, MINIMAL, GENESIS_MS), ledger


def test_headers_of_other_reads_renew_no_fence(clock: list[int]) -> None:
    view, ledger = _view()
    asyncio.run(view.poll())
    assert view.fence().holds(clock[0])
    ledger.serves_us = False
    for clock[0] in range(1_000, MINIMAL.fence_ms + 1_000, 1_000):
        ledger.newest = _header(1 + clock[0] // 1_000, clock[0])  # a witness' read brought it
        with pytest.raises(UnreachableError):
            asyncio.run(view.poll())
    assert not view.fence().holds(clock[0])
    assert view.header is not None
    assert view.header.height == 1


def test_the_same_height_renews_no_fence(clock: list[int]) -> None:
    view, ledger = _view()
    asyncio.run(view.poll())
    clock[0] = MINIMAL.fence_ms
    ledger.newest = _header(1, clock[0])  # asked for again, the same block
    asyncio.run(view.poll())
    assert not view.fence().holds(clock[0])
    ledger.newest = _header(2, clock[0])
    asyncio.run(view.poll())
    assert view.fence().holds(clock[0])
