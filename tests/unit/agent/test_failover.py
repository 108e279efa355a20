"""A standby's challenges: resolved in the ledger's time; each one that is lost doubles the wait for the next."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from freehold.agent import failover
from freehold.agent.failover import Failover
from freehold.base.presets import MINIMAL
from freehold.ledger.transactions import Resolve

LEASE = bytes(32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [1_000]
    monkeypatch.setattr(failover, "boottime_ms", lambda: now[0])
    return now


def _failover(terms: int) -> Failover:
    chain: Any = SimpleNamespace(preset=MINIMAL, leases={LEASE: SimpleNamespace(terms=[None] * terms)})
    rest: Any = None
    return Failover(chain, rest, rest, rest, rest, rest, rest)


def test_a_lost_challenge_doubles_the_wait(clock: list[int]) -> None:
    standby = _failover(terms=1)
    assert standby._is_due(LEASE)
    waits = []
    for _ in range(40):
        standby._judge(LEASE, 1)
        began = clock[0]
        assert not standby._is_due(LEASE)
        clock[0] = standby._lost[LEASE][1]
        assert standby._is_due(LEASE)
        waits.append(clock[0] - began)
    v = MINIMAL.verdict_window_ms
    assert waits[:4] == [v, 2 * v, 4 * v, 8 * v]
    assert waits[-1] == MINIMAL.bounty_every_epochs * MINIMAL.epoch_ms


def test_a_challenge_that_was_right_ends_the_wait(clock: list[int]) -> None:
    standby = _failover(terms=2)
    standby._lost[LEASE] = (5, clock[0] + 1)
    standby._judge(LEASE, 1)
    assert standby._is_due(LEASE)


def test_a_lease_that_is_gone_is_forgotten(clock: list[int]) -> None:
    standby = _failover(terms=1)
    standby._lost[LEASE] = (5, clock[0] + 1)
    standby.chain.leases.clear()
    standby._judge(LEASE, 1)
    assert not standby._lost


def test_a_challenge_is_resolved_in_the_ledgers_time_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger halts within the window, for longer than the window is."""
    posted_ms, sent = 50_000, []
    standby = _failover(terms=1)
    standby.chain.header_ms, standby.chain.node_id = posted_ms, bytes([1]) * 32
    closes_ms = posted_ms + MINIMAL.verdict_window_ms
    standby.sender = SimpleNamespace(send=send_to(sent, standby))
    looks = iter([closes_ms - 1] * 100 + [closes_ms] * 100 + [closes_ms + 1])
    pause = asyncio.sleep

    async def next_poll(delay_s: float) -> None:
        assert delay_s == MINIMAL.poll_ms / 1_000
        standby.chain.header_ms = next(looks)
        await pause(0)

    async def silent(holder: bytes) -> bool:
        return False

    async def invited(challenge: bytes, height: int) -> Any:
        return SimpleNamespace(posted_ms=posted_ms)

    monkeypatch.setattr(failover.asyncio, "sleep", next_poll)
    monkeypatch.setattr(standby, "_answers_fresh_dial", silent)
    monkeypatch.setattr(standby, "_invite_witnesses", invited)
    asyncio.run(standby._challenge(LEASE, standby.chain.leases[LEASE], bytes([2]) * 32))
    assert [at for body, at in sent if isinstance(body, Resolve)] == [closes_ms + 1]
    assert len(sent) == 2


def send_to(sent: list[Any], standby: Failover) -> Any:
    async def send(body: Any) -> Any:
        sent.append((body, standby.chain.header_ms))
        return SimpleNamespace(height=7)

    return send
