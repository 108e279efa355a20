"""The fence as arithmetic: until when a node may run terms that have standbys (docs/spec/leases.md, "Fence")."""

from dataclasses import dataclass

from freehold.base.presets import Preset


@dataclass(frozen=True)
class Fence:
    """Until when the fence holds, on the boot-time clock; 0 when it does not, and why."""

    deadline_boottime_ms: int
    reason: str = ""

    def holds(self, boottime_ms: int) -> bool:
        """Whether it holds now."""
        return boottime_ms < self.deadline_boottime_ms


def fence_of(header_ms: int, asked_boottime_ms: int, boottime_ms: int, wall_ms: int, preset: Preset) -> Fence:
    """The fence that the newest verified header gives.

    Both must hold: boot time since the request for the header was sent < F, and wall clock - header time < F. A wall
    clock more than D behind the header is wrong by an unknown amount, so nothing may rest on it.

    Args:
        header_ms: time of the newest verified header.
        asked_boottime_ms: when its request was sent.
        boottime_ms: boot time now.
        wall_ms: wall clock now.
        preset: F and D.
    """
    if wall_ms < header_ms - preset.clock_allowance_ms:
        behind = header_ms - wall_ms
        return Fence(0, f"this machine's clock is {behind} ms behind the ledger's newest header: set the clock")
    by_request = asked_boottime_ms + preset.fence_ms
    by_header = boottime_ms + (header_ms + preset.fence_ms - wall_ms)
    return Fence(min(by_request, by_header), "no fresh header of the ledger")
