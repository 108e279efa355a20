"""The fence's arithmetic."""

from freehold.agent.core.fencing import fence_of
from freehold.base.presets import MINIMAL

F, D = MINIMAL.fence_ms, MINIMAL.clock_allowance_ms


def test_it_holds_from_the_request_not_from_the_answer() -> None:
    fence = fence_of(1_000_000, asked_boottime_ms=5_000, boottime_ms=7_000, wall_ms=1_000_000, preset=MINIMAL)
    assert fence.deadline_boottime_ms == 5_000 + F
    assert fence.holds(5_000 + F - 1)
    assert not fence.holds(5_000 + F)


def test_an_old_header_gives_no_more_than_its_own_age_allows() -> None:
    fence = fence_of(1_000_000, asked_boottime_ms=7_000, boottime_ms=7_000, wall_ms=1_000_000 + 4_000, preset=MINIMAL)
    assert fence.deadline_boottime_ms == 7_000 + F - 4_000


def test_a_clock_far_behind_the_ledger_holds_nothing() -> None:
    behind = fence_of(1_000_000, 7_000, 7_000, 1_000_000 - D - 1, MINIMAL)
    assert behind.deadline_boottime_ms == 0
    assert "behind" in behind.reason
    assert fence_of(1_000_000, 7_000, 7_000, 1_000_000 - D, MINIMAL).holds(7_000)
