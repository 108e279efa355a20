"""When the next block is made and which time it carries: pure rules over two clocks.

Block time is max(previous + 1 ms, wall clock). A wall clock more than 10 s behind the newest block makes no blocks at
all: times that run ahead of the clock would void epochs and fences. Gaps are measured by the monotonic clock.
Spec: docs/spec/embedded-engine.md.
"""

from typing import Final, Protocol

import msgspec

MAX_CLOCK_LAG_MS: Final = 10_000


class Clock(Protocol):
    """The two clocks of a machine."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch."""

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back."""


class Pace(msgspec.Struct, frozen=True):
    """How blocks follow each other.

    Attributes:
        tick_ms: longest gap between blocks.
        min_block_gap_ms: shortest gap, when transactions wait or a proof block is due.
    """

    tick_ms: int
    min_block_gap_ms: int


def is_clock_behind(last_block_ms: int, wall_ms: int) -> bool:
    """Whether the wall clock is too far behind the newest block to propose."""
    return wall_ms < last_block_ms - MAX_CLOCK_LAG_MS


def block_time_ms(last_block_ms: int, wall_ms: int) -> int:
    """The time of the next block."""
    return max(last_block_ms + 1, wall_ms)


def wait_ms(pace: Pace, *, since_last_ms: int, is_wanted: bool) -> int:
    """How long to wait before the next block.

    Args:
        pace: the gaps.
        since_last_ms: monotonic time since the newest block was made.
        is_wanted: whether transactions wait, or the newest block carried some and its app hash stands in no header.
    """
    gap = pace.min_block_gap_ms if is_wanted else pace.tick_ms
    return max(0, gap - since_last_ms)
