"""A ledger that judges who signs, in eras of two epochs, and what is read in its tests."""

from typing import Any

from ledger_grid import GENESIS_MS, Grid, preset_with
from validators_grid import ELECTED, ERA_MS

from freehold.base.presets import (
    MINIMAL_ATTENDANCE,
    AttendancePreset,
)
from freehold.ledger import keys
from freehold.ledger.records import Attendance

ERAS = 8


def make_grid(validators: int = 4, attendance: AttendancePreset = MINIMAL_ATTENDANCE, **options: Any) -> Grid:
    grid = Grid(
        preset_with(report_epochs=8),
        validators=validators,
        elections=options.pop("elections", ELECTED),
        attendance=attendance,
        farms=2,
        **options,
    )
    grid.block()
    return grid


def next_era(grid: Grid, blocks: int = 19) -> None:
    """So many blocks of this era, then the first of the next one."""
    start = GENESIS_MS + ((grid.now - GENESIS_MS) // ERA_MS + 1) * ERA_MS
    for _ in range(blocks):
        grid.block(dt=(start - grid.now) // (blocks + 1))
    grid.block(dt=start - grid.now)


def record(grid: Grid) -> Attendance:
    return grid.need(keys.ATTENDANCE, Attendance)
