"""Whether and when a container that ended is started again (pure): compose's `restart`, with Docker's backoff.

A container that the agent stopped or the watchdog fenced is never restarted by its policy: only the ledger decides
that it runs again.
"""

import enum
from typing import Final

import msgspec

from freehold.runtime.records import Exit, ExitReason

FIRST_DELAY_MS: Final = 100
MAX_DELAY_MS: Final = 60_000
STEADY_MS: Final = 10_000  # a run this long ends a series of failures


class RestartKind(enum.StrEnum):
    """Compose's words."""

    NO = "no"
    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    UNLESS_STOPPED = "unless-stopped"


class RestartPolicy(msgspec.Struct, frozen=True):
    """A policy, and how often in a row `on-failure` tries (0: for ever)."""

    kind: RestartKind = RestartKind.NO
    max_retries: int = 0


class RestartDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about one exit.

    Attributes:
        restart: start it again.
        delay_ms: after this time.
        attempts: restarts in a row, to be handed in at the next exit.
        why: one sentence for people.
    """

    restart: bool
    delay_ms: int
    attempts: int
    why: str


def decide_restart(policy: RestartPolicy, ended: Exit, *, attempts: int, ran_ms: int) -> RestartDecision:
    """Decide about one exit.

    Args:
        policy: the service's.
        ended: how it ended.
        attempts: restarts in a row so far.
        ran_ms: how long it had run.
    """
    if ran_ms >= STEADY_MS:
        attempts = 0

    def stay(why: str) -> RestartDecision:
        return RestartDecision(restart=False, delay_ms=0, attempts=attempts, why=why)

    if ended.reason is ExitReason.STOPPED:
        return stay("it was stopped by order")
    if ended.reason is ExitReason.FENCED:
        return stay("its fence passed: only a new term or a renewed fence starts it again")
    if policy.kind is RestartKind.NO:
        return stay("its restart policy is no")
    if policy.kind is RestartKind.ON_FAILURE:
        if ended.reason is ExitReason.EXITED and ended.code == 0:
            return stay("it ended without failure")
        if policy.max_retries and attempts >= policy.max_retries:
            return stay(f"it failed {attempts + 1} times in a row")
    delay = min(FIRST_DELAY_MS << min(attempts, 20), MAX_DELAY_MS)
    return RestartDecision(
        restart=True, delay_ms=delay, attempts=attempts + 1, why=f"its restart policy is {policy.kind}"
    )
