"""Whether this validator's clock is the others': told while blocks are made, from what consensus itself says.

A block's time is the median, by power, of the times that validators put into their votes for the block before. So it
is compared with this machine's clock at the moment when the block before was decided here: right clocks differ by how
long votes travel, however long the next block took. Only blocks for which this run voted, and whose commit holds that
vote, are compared: whoever fetches old blocks, or is late, is not taken for one whose clock is ahead.
Spec: docs/spec/faults.md.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.consensus.comet.complaints import FAR_OFF_MS

COMPARED_BLOCKS: Final = 16  # all must say so: one slow round, or one late vote, says nothing


class _Decided(NamedTuple):
    height: int
    now_ms: int
    took_part: bool


class ClockWatch:
    """See the module; `voting` and `decided` come from one thread, `complaint` from any."""

    def __init__(self, address: bytes, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        """Bind this validator's address (20 bytes) and its clock (milliseconds since 1970)."""
        self._address = address
        self._now_ms = now_ms
        self._voting = 0
        self._before = _Decided(-1, 0, took_part=False)
        self._off_ms: deque[int] = deque(maxlen=COMPARED_BLOCKS)
        self._least_ms = 0  # by which all of them say that the clock is off

    def voting(self, height: int) -> None:
        """Take in that this run judges a proposal for a height, and will vote."""
        self._voting = height

    def decided(self, height: int, time_ms: int, signers: Sequence[bytes]) -> None:
        """Take in a block that the validators agreed on.

        Args:
            height: of the block.
            time_ms: as its header says.
            signers: addresses of those whose votes for the block before it holds.
        """
        before = self._before
        self._before = _Decided(height, self._now_ms(), self._voting == height)
        if before.height != height - 1 or not before.took_part:
            self._off_ms.clear()
        elif self._address in signers:
            self._off_ms.append(before.now_ms - time_ms)
        full = len(self._off_ms) == COMPARED_BLOCKS
        self._least_ms = max(min(self._off_ms), 0) + min(max(self._off_ms), 0) if full else 0

    def complaint(self) -> FreeholdError | None:
        """Give `clock_ahead` or `clock_behind` when the newest blocks agree on it; None otherwise."""
        off_ms = self._least_ms
        if abs(off_ms) <= FAR_OFF_MS:
            return None
        where = "ahead of" if off_ms > 0 else "behind"
        return InvalidInputError(
            f"this machine's clock is {abs(off_ms) / 1_000:.0f} s {where} the time that the validators' votes agree on",
            code="clock_ahead" if off_ms > 0 else "clock_behind",
            hint="set the clock (`timedatectl set-ntp true`); if it is right, the others' are wrong: call them",
        )
