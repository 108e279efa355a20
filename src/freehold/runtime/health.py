"""The health of a container as a compose `healthcheck` defines it (pure): one table of states and what happens.

The agent runs the test inside the container (`ContainerRuntime.execute`) when `is_due` says so and tells `observe` how
it went. Source: the compose specification's healthcheck; Docker's HEALTHCHECK for the meaning of the start period.
"""

import enum
from typing import Final

import msgspec

from freehold.base.errors import InvalidInputError

MIN_INTERVAL_MS: Final = 1_000
MAX_INTERVAL_MS: Final = 24 * 3_600_000


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


def make_check(test: str | list[str], **settings: int) -> HealthCheck | None:
    """Make a healthcheck from compose's `test` and numbers; None for `["NONE"]`.

    Args:
        test: a shell line, or a list that starts with CMD, CMD-SHELL or NONE.
        settings: the fields of `HealthCheck`, in milliseconds.

    Raises:
        InvalidInputError: a form or number that means nothing (`bad_healthcheck`).
    """
    words = ["CMD-SHELL", test] if isinstance(test, str) else list(test)
    if words[:1] == ["NONE"]:
        return None
    if words[:1] == ["CMD-SHELL"] and len(words) == 2 and words[1]:
        argv: tuple[str, ...] = ("/bin/sh", "-c", words[1])
    elif words[:1] == ["CMD"] and len(words) > 1:
        argv = tuple(words[1:])
    else:
        raise InvalidInputError(
            "a healthcheck's test must be a line, or a list that starts with CMD, CMD-SHELL or NONE",
            code="bad_healthcheck",
            hint='for example ["CMD", "curl", "-f", "http://localhost"]',
        )
    check = HealthCheck(test=argv, **settings)
    spans = (check.interval_ms, check.timeout_ms, check.start_interval_ms)
    bad = any(not MIN_INTERVAL_MS <= span <= MAX_INTERVAL_MS for span in spans)
    if bad or not 1 <= check.retries <= 1_000 or not 0 <= check.start_period_ms <= MAX_INTERVAL_MS:
        raise InvalidInputError(
            "a healthcheck's number is out of range",
            code="bad_healthcheck",
            hint="intervals and timeout from 1 s to 24 h, retries from 1 to 1,000",
        )
    return check


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
