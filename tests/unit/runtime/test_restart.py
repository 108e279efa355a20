"""Restart policies against every kind of end."""

import pytest

from freehold.runtime.records import Exit, ExitReason
from freehold.runtime.restart import MAX_DELAY_MS, RestartKind, RestartPolicy, decide_restart

FAILED = Exit(reason=ExitReason.EXITED, code=1)
DONE = Exit(reason=ExitReason.EXITED, code=0)


def restarts(policy: str, ended: Exit, attempts: int = 0, ran_ms: int = 0, max_retries: int = 0) -> bool:
    return decide_restart(
        RestartPolicy(RestartKind(policy), max_retries), ended, attempts=attempts, ran_ms=ran_ms
    ).restart


@pytest.mark.parametrize("policy", ["no", "always", "on-failure", "unless-stopped"])
@pytest.mark.parametrize("reason", [ExitReason.STOPPED, ExitReason.FENCED])
def test_what_was_stopped_or_fenced_stays(policy: str, reason: ExitReason) -> None:
    assert not restarts(policy, Exit(reason=reason, code=137))


def test_policies() -> None:
    oom = Exit(reason=ExitReason.OOM, code=137)
    reboot = Exit(reason=ExitReason.HOST_REBOOT)
    table = {
        "no": (False, False, False, False),
        "always": (True, True, True, True),
        "unless-stopped": (True, True, True, True),
        "on-failure": (False, True, True, True),
    }
    for policy, wanted in table.items():
        assert tuple(restarts(policy, ended) for ended in (DONE, FAILED, oom, reboot)) == wanted, policy


def test_on_failure_counts_failures_in_a_row() -> None:
    assert restarts("on-failure", FAILED, attempts=1, max_retries=2)
    assert not restarts("on-failure", FAILED, attempts=2, max_retries=2)
    assert restarts("on-failure", FAILED, attempts=2, ran_ms=10_000, max_retries=2)  # a steady run begins a new series


def test_the_delay_doubles_to_a_minute() -> None:
    policy, attempts, delays = RestartPolicy(RestartKind.ALWAYS), 0, []
    for _ in range(30):
        decision = decide_restart(policy, FAILED, attempts=attempts, ran_ms=5)
        delays.append(decision.delay_ms)
        attempts = decision.attempts
    assert delays[:4] == [100, 200, 400, 800]
    assert delays[-1] == MAX_DELAY_MS
    assert decide_restart(policy, FAILED, attempts=attempts, ran_ms=60_000).delay_ms == 100
