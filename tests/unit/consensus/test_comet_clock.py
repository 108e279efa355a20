"""A validator hears that its clock is off when the votes say so for long enough, and never for another reason."""

from collections.abc import Iterator
from itertools import count
from statistics import median_low

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import FreeholdError
from freehold.consensus.comet.clock import COMPARED_BLOCKS, ClockWatch
from freehold.consensus.comet.complaints import FAR_OFF_MS

ME, OTHER = b"\1" * 20, b"\2" * 20
BEGUN_MS = 1_790_000_000_000
BLOCK_MS = 1_000


class Machine:
    """A watch on a machine whose clock is off by `off_ms`, and the true time."""

    def __init__(self, off_ms: int = 0) -> None:
        self.true_ms, self.off_ms = BEGUN_MS, off_ms
        self.watch = ClockWatch(ME, lambda: self.true_ms + self.off_ms)
        self.heights: Iterator[int] = count(1)
        self.voted_ms = self.true_ms

    def block(
        self, *, took_ms: int = BLOCK_MS, took_part: bool = True, signers: tuple[bytes, ...] = (ME, OTHER)
    ) -> None:
        """One block, decided when its votes are 100 ms old; its header has the time of the votes before."""
        height, time_ms = next(self.heights), self.voted_ms
        self.true_ms += took_ms
        if took_part:
            self.watch.voting(height)
        self.voted_ms = self.true_ms
        self.true_ms += 100
        self.watch.decided(height, time_ms, signers)

    def told(self) -> str | None:
        error = self.watch.complaint()
        return None if error is None else error.code


@pytest.mark.parametrize(
    ("off_ms", "code", "words"),
    [
        (60_000, "clock_ahead", "60 s ahead of"),
        (-3_600_000, "clock_behind", "3600 s behind"),
        (FAR_OFF_MS - 500, None, ""),
        (-FAR_OFF_MS, None, ""),
    ],
)
def test_a_clock_that_is_off_is_told_after_so_many_blocks_and_not_before(
    off_ms: int, code: str | None, words: str
) -> None:
    machine = Machine(off_ms)
    for _ in range(COMPARED_BLOCKS):
        machine.block()
    assert machine.told() is None  # the first block has none before it
    machine.block()
    assert machine.told() == code
    error = machine.watch.complaint()
    if isinstance(error, FreeholdError):
        assert words in error.message and "timedatectl" in error.hint
    machine.off_ms = 0
    machine.block()
    machine.block()
    assert machine.told() is None, "set right, and still complained of"


def test_blocks_that_take_minutes_say_nothing_about_the_clock() -> None:
    machine = Machine()
    for _ in range(3 * COMPARED_BLOCKS):
        machine.block(took_ms=600_000)
        assert machine.told() is None


def test_old_blocks_with_votes_of_an_earlier_life_say_nothing() -> None:
    """A home that was restored fetches blocks that hold its own votes."""
    machine = Machine(off_ms=3_600_000)
    for _ in range(3 * COMPARED_BLOCKS):
        machine.block(took_part=False)
    assert machine.told() is None


def test_blocks_that_went_on_without_its_vote_say_nothing() -> None:
    machine = Machine(off_ms=3_600_000)
    for _ in range(3 * COMPARED_BLOCKS):
        machine.block(signers=(OTHER,))
    assert machine.told() is None


@given(
    offsets=st.lists(st.integers(-1_000, 1_000), min_size=3, max_size=6),
    mine=st.integers(-4 * FAR_OFF_MS, 4 * FAR_OFF_MS),
    delays=st.lists(st.integers(0, 2_000), min_size=COMPARED_BLOCKS + 1, max_size=3 * COMPARED_BLOCKS),
)
def test_what_is_told_is_true(offsets: list[int], mine: int, delays: list[int]) -> None:
    """Whatever the votes' way took, and however far one of four is off: told when, and only when, it is surely so."""
    now = [BEGUN_MS]
    watch = ClockWatch(ME, lambda: now[0] + mine)
    time_ms = BEGUN_MS
    for height, delay in enumerate(delays, 1):
        now[0] += BLOCK_MS
        watch.voting(height)
        voted = median_low([now[0] + offset for offset in (*offsets, mine)])
        now[0] += delay
        watch.decided(height, time_ms, [ME, OTHER])
        time_ms = voted
    error = watch.complaint()
    slack = 1_000  # the others' own
    if error is not None:
        assert mine + max(delays) > FAR_OFF_MS - slack if error.code == "clock_ahead" else mine < -FAR_OFF_MS + slack
    elif abs(mine) > FAR_OFF_MS + 2_000 + slack:
        pytest.fail(f"{mine} ms off, and nothing is told")
