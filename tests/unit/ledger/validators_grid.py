"""A ledger that elects its validators, in eras of two epochs, and what is done and read in its tests."""

from typing import Any

from ledger_grid import GENESIS_MS, Grid, Key, preset_with
from msgspec.structs import replace

from freehold.base.amounts import TOKEN
from freehold.base.presets import MINIMAL_ELECTIONS, ElectionPreset
from freehold.ledger import keys
from freehold.ledger.records import ValidatorBond
from freehold.ledger.transactions import (
    Transfer,
)
from freehold.ledger.validator_sets import set_at
from freehold.ledger.votes import Misbehavior

ERA_MS = 20_000  # two epochs


ELECTED = replace(MINIMAL_ELECTIONS, era_epochs=2, unbonding_ms=60_000, unbonding_blocks=5)


def make_grid(elections: ElectionPreset = ELECTED, **options: Any) -> Grid:
    grid = Grid(preset_with(report_epochs=8), validators=4, elections=elections, farms=2, **options)
    grid.block()
    return grid


def next_era(grid: Grid, **options: Any) -> None:
    """On to the first block of the next era, and to the height from which its set votes."""
    start = GENESIS_MS + ((grid.now - GENESIS_MS) // ERA_MS + 1) * ERA_MS
    grid.block(dt=start - grid.now, **options)
    grid.block(dt=100)
    grid.block(dt=100)


def join(grid: Grid, name: str, amount: int, *, owner: Key | None = None, vrf_key: bytes = b"") -> Key:
    """A new owner (unless one is given) bonds a new validator."""
    validator, owner = Key(f"{name}-validator"), owner or Key(f"{name}-owner")
    grid.ok(grid.faucet, Transfer(owner.public, amount + 10 * TOKEN))
    grid.ok(owner, grid.bond_body(owner, validator, amount, vrf_key=vrf_key))
    return validator


def powers(grid: Grid) -> dict[bytes, int]:
    """The newest set."""
    return dict(set_at(grid.state, grid.height + 2))


def bond_of(grid: Grid, validator: Key) -> ValidatorBond:
    return grid.need(keys.bond_key(validator.public), ValidatorBond)


def fault(grid: Grid, validator: Key, *, height: int = 0, kind: int = 1, time_ms: int = 0) -> Misbehavior:
    return Misbehavior(validator.public, 10, height or grid.height, time_ms or grid.now, kind, 40)
