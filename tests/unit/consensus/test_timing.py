"""When blocks are made and which time they carry."""

import pytest

from freehold.consensus.timing import Pace, block_time_ms, is_clock_behind, wait_ms

PACE = Pace(tick_ms=1_000, min_block_gap_ms=100)


@pytest.mark.parametrize(
    ("last", "wall", "time", "behind"),
    [
        (50_000, 60_000, 60_000, False),
        (50_000, 50_000, 50_001, False),
        (50_000, 40_000, 50_001, False),
        (50_000, 39_999, 50_001, True),
    ],
)
def test_block_time(last: int, wall: int, time: int, *, behind: bool) -> None:
    assert block_time_ms(last, wall) == time
    assert is_clock_behind(last, wall) is behind


@pytest.mark.parametrize(
    ("since", "wanted", "wait"),
    [(0, True, 100), (99, True, 1), (100, True, 0), (0, False, 1_000), (999, False, 1), (5_000, False, 0)],
)
def test_gaps(since: int, wait: int, *, wanted: bool) -> None:
    assert wait_ms(PACE, since_last_ms=since, is_wanted=wanted) == wait
