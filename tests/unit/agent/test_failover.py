"""A standby's challenges: each one that is lost doubles the wait for the next."""

from types import SimpleNamespace
from typing import Any

import pytest

from freehold.agent import failover
from freehold.agent.failover import Failover
from freehold.base.presets import MINIMAL

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
