"""The health of a container as a compose `healthcheck` defines it (pure): one table of states and what happens.

The agent runs the test inside the container (`ContainerRuntime.execute`) when `is_due` says so and tells `observe` how
it went. Source: the compose specification's healthcheck; Docker's HEALTHCHECK for the meaning of the start period.
"""

import enum
from typing import Final

import msgspec


class HealthState(enum.StrEnum):
    """What a container's health is called."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class HealthEvent(enum.StrEnum):
    """What one test amounts to."""

    PASSED = "passed"
    FAILED_EARLY = "failed_early"  # within the start period, before any success: does not count
    FAILED = "failed"
    FAILED_LAST = "failed_last"  # as often in a row as `retries` allows


TRANSITIONS: Final[dict[tuple[HealthState, HealthEvent], HealthState]] = {
    (HealthState.STARTING, HealthEvent.PASSED): HealthState.HEALTHY,
    (HealthState.STARTING, HealthEvent.FAILED_EARLY): HealthState.STARTING,
    (HealthState.STARTING, HealthEvent.FAILED): HealthState.STARTING,
    (HealthState.STARTING, HealthEvent.FAILED_LAST): HealthState.UNHEALTHY,
    (HealthState.HEALTHY, HealthEvent.PASSED): HealthState.HEALTHY,
    (HealthState.HEALTHY, HealthEvent.FAILED): HealthState.HEALTHY,
    (HealthState.HEALTHY, HealthEvent.FAILED_LAST): HealthState.UNHEALTHY,
    (HealthState.UNHEALTHY, HealthEvent.PASSED): HealthState.HEALTHY,
    (HealthState.UNHEALTHY, HealthEvent.FAILED_LAST): HealthState.UNHEALTHY,
}


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A compose healthcheck in numbers.

    Attributes:
        test: program and arguments to run inside.
        interval_ms: between the end of one test and the start of the next.
        timeout_ms: a test that takes longer has failed.
        retries: failures in a row that make it unhealthy.
        start_period_ms: failures in this time after the start do not count, until a test has passed.
        start_interval_ms: the interval during the start period.
    """

    test: tuple[str, ...]
    interval_ms: int = 30_000
    timeout_ms: int = 30_000
    retries: int = 3
    start_period_ms: int = 0
    start_interval_ms: int = 5_000


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The health of one run of a container; starts anew with each start.

    Attributes:
        state: see `HealthState`.
        started_ms: when the container was started.
        failures: in a row, those that count.
        has_passed: a test has passed since the start.
        next_ms: when the next test is due.
    """

    state: HealthState
    started_ms: int
    failures: int
    has_passed: bool
    next_ms: int


def begin(check: HealthCheck, now_ms: int) -> Health:
    """The health of a container that was just started."""
    health = Health(state=HealthState.STARTING, started_ms=now_ms, failures=0, has_passed=False, next_ms=0)
    return msgspec.structs.replace(health, next_ms=now_ms + compute_interval(check, health, now_ms))


def compute_interval(check: HealthCheck, health: Health, now_ms: int) -> int:
    """Milliseconds until the next test."""
    early = is_early(check, health, now_ms)
    return min(check.start_interval_ms, check.interval_ms) if early else check.interval_ms


def is_early(check: HealthCheck, health: Health, now_ms: int) -> bool:
    """Whether a failure now would lie in the start period."""
    return not health.has_passed and now_ms - health.started_ms < check.start_period_ms


def is_due(health: Health, now_ms: int) -> bool:
    """Whether the next test should run now."""
    return now_ms >= health.next_ms


def observe(check: HealthCheck, health: Health, passed: bool, now_ms: int) -> Health:
    """Take in the result of one test.

    Args:
        check: the healthcheck.
        health: before.
        passed: the test ended in time with status 0.
        now_ms: when it ended.
    """
    failures = health.failures
    if passed:
        event, failures = HealthEvent.PASSED, 0
    elif is_early(check, health, now_ms):
        event = HealthEvent.FAILED_EARLY
    else:
        failures = min(failures + 1, check.retries)
        event = HealthEvent.FAILED_LAST if failures == check.retries else HealthEvent.FAILED
    after = Health(
        state=TRANSITIONS[health.state, event],
        started_ms=health.started_ms,
        failures=failures,
        has_passed=health.has_passed or passed,
        next_ms=0,
    )
    return msgspec.structs.replace(after, next_ms=now_ms + compute_interval(check, after, now_ms))
