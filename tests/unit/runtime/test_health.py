"""The health table, followed event by event."""

from hypothesis import given
from hypothesis import strategies as st

from freehold.runtime.health import (
    TRANSITIONS,
    HealthCheck,
    HealthState,
    begin,
    is_due,
    observe,
)

CHECK = HealthCheck(test=("/bin/true",), interval_ms=10_000, retries=3, start_period_ms=30_000, start_interval_ms=2_000)


def states(results: list[tuple[int, bool]], check: HealthCheck = CHECK) -> list[HealthState]:
    health, seen = begin(check, 0), []
    for now, passed in results:
        health = observe(check, health, passed, now)
        seen.append(health.state)
    return seen


def test_failures_in_the_start_period_do_not_count() -> None:
    early = [(2_000, False), (4_000, False), (6_000, False), (8_000, False), (29_000, False)]
    assert states(early) == [HealthState.STARTING] * 5
    late = [(31_000, False), (41_000, False), (51_000, False)]
    assert states(early + late)[-3:] == [HealthState.STARTING, HealthState.STARTING, HealthState.UNHEALTHY]


def test_a_success_ends_the_start_period() -> None:
    results = [(2_000, True), (12_000, False), (13_000, False), (14_000, False)]
    assert states(results) == [HealthState.HEALTHY] * 3 + [HealthState.UNHEALTHY]


def test_a_success_forgives() -> None:
    results = [(31_000, False), (32_000, False), (33_000, True), (34_000, False), (35_000, False), (36_000, False)]
    assert states(results)[2:] == [HealthState.HEALTHY] * 3 + [HealthState.UNHEALTHY]
    assert states([*results, (37_000, False), (38_000, True)])[-2:] == [HealthState.UNHEALTHY, HealthState.HEALTHY]


def test_the_interval_is_short_only_in_the_start_period() -> None:
    health = begin(CHECK, 0)
    assert health.next_ms == 2_000 and not is_due(health, 1_999) and is_due(health, 2_000)
    assert observe(CHECK, health, False, 2_500).next_ms == 4_500
    assert observe(CHECK, health, True, 2_500).next_ms == 12_500


@given(
    st.lists(st.tuples(st.integers(0, 100_000), st.booleans()), max_size=40), st.integers(1, 4), st.integers(0, 60_000)
)
def test_no_history_leaves_the_table(results: list[tuple[int, bool]], retries: int, start: int) -> None:
    check = HealthCheck(test=("x",), retries=retries, start_period_ms=start)
    seen = states(sorted(results), check)
    assert all(state in HealthState for state in seen)
    if results and sorted(results)[-1][1]:
        assert seen[-1] is HealthState.HEALTHY


def test_every_state_is_in_the_table() -> None:
    assert {state for state, _ in TRANSITIONS} == set(HealthState) == set(TRANSITIONS.values())
