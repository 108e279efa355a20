"""What misbehaviour costs, and whom it removes."""

import pytest
from ledger_grid import Grid
from msgspec.structs import replace
from validators_grid import ELECTED, bond_of, fault, join, make_grid, next_era, powers

from freehold.base.amounts import TOKEN
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.records import Elections
from freehold.ledger.slashing import MAX_REMEMBERED, MisbehaviorKind
from freehold.ledger.transactions import (
    AddBond,
    WithdrawBond,
)
from freehold.ledger.validator_sets import set_at


@pytest.fixture
def grid() -> Grid:
    return make_grid()


def test_a_double_vote_is_cut_once_and_ends_the_validator(grid: Grid) -> None:
    guilty, treasury = grid.validators[1], grid.totals.treasury
    evidence = fault(grid, guilty)
    grid.block(dt=100, faults=[evidence, evidence])
    assert bond_of(grid, guilty).stake == 190 * TOKEN
    assert grid.totals.treasury == treasury + 10 * TOKEN
    grid.block(dt=100, faults=[evidence])
    assert bond_of(grid, guilty).stake == 190 * TOKEN
    grid.block(dt=100, faults=[fault(grid, guilty, height=2)])
    assert bond_of(grid, guilty).stake == 1_805 * TOKEN // 10
    assert guilty.public not in powers(grid)
    operator = grid.operators[1]
    assert grid.run(operator, AddBond(guilty.public, TOKEN)) == Code.VALIDATOR_REMOVED
    next_era(grid)
    assert guilty.public not in powers(grid)
    grid.ok(operator, WithdrawBond(guilty.public, bond_of(grid, guilty).stake))


def test_an_attack_on_light_clients_costs_everything_that_is_not_due(grid: Grid) -> None:
    guilty, operator = grid.validators[1], grid.operators[1]
    grid.ok(operator, WithdrawBond(guilty.public, 100 * TOKEN))
    grid.block(dt=100, faults=[fault(grid, guilty, kind=MisbehaviorKind.LIGHT_CLIENT_ATTACK)])
    bond = bond_of(grid, guilty)
    assert (bond.stake, bond.unbonding[0].amount) == (0, 0)


def test_what_is_on_its_way_back_is_cut_until_it_is_due(grid: Grid) -> None:
    guilty, operator = grid.validators[1], grid.operators[1]
    grid.ok(operator, WithdrawBond(guilty.public, 200 * TOKEN))
    done_at = grid.height
    next_era(grid)
    grid.block(dt=100, faults=[fault(grid, guilty, height=done_at)])
    assert bond_of(grid, guilty).unbonding[0].amount == 190 * TOKEN
    part = bond_of(grid, guilty).unbonding[0]
    while grid.height + 1 < part.due_height:
        grid.block(dt=100)
    late = fault(grid, guilty, height=done_at + 1, time_ms=grid.now)
    grid.block(dt=part.due_ms - grid.now, faults=[late])
    assert bond_of(grid, guilty).unbonding[0].amount == 190 * TOKEN  # due: its owner's, called for or not


def test_old_evidence_and_unknown_kinds_do_nothing(grid: Grid) -> None:
    guilty = grid.validators[1]
    evidence = fault(grid, guilty)
    for _ in range(ELECTED.unbonding_blocks):
        grid.block(dt=100)
    before = powers(grid)
    grid.block(dt=100, faults=[fault(grid, guilty, kind=0), fault(grid, guilty, kind=7)])
    grid.block(dt=ELECTED.unbonding_ms, faults=[evidence])
    assert bond_of(grid, guilty).stake == 200 * TOKEN
    assert set(powers(grid)) == set(before)


@pytest.mark.parametrize(("more_ms", "more_blocks", "is_cut"), [(0, 1, True), (1, 0, True), (1, 1, False)])
def test_evidence_counts_until_both_its_time_and_its_blocks_are_over(
    grid: Grid, more_ms: int, more_blocks: int, is_cut: bool
) -> None:
    guilty = grid.validators[1]
    evidence = fault(grid, guilty)
    for _ in range(ELECTED.unbonding_blocks + more_blocks - 1):
        grid.block(dt=1)
    grid.block(dt=evidence.time_ms + ELECTED.unbonding_ms + more_ms - grid.now, faults=[evidence])
    assert bond_of(grid, guilty).stake == (190 if is_cut else 200) * TOKEN
    assert (guilty.public in powers(grid)) == (not is_cut)


@pytest.mark.parametrize(("before", "is_cut"), [(0, True), (1, False)])
def test_a_bond_answers_from_its_own_block_on(grid: Grid, before: int, is_cut: bool) -> None:
    newcomer = join(grid, "new", 200 * TOKEN)
    since = bond_of(grid, newcomer).since_height
    grid.block(dt=100, faults=[fault(grid, newcomer, height=since - before)])
    assert bond_of(grid, newcomer).stake == (190 if is_cut else 200) * TOKEN


def test_the_state_knows_who_voted_at_the_height_before_whatever_changes_in_a_row() -> None:
    grid = make_grid(bond=0)
    for number in (0, None, 1, 2, None, None):
        grid.block(dt=100, faults=[] if number is None else [fault(grid, grid.validators[number])])
        for height in range(grid.height - 1, grid.height + 3):
            assert dict(set_at(grid.state, height)) == grid.engine.sets[height], (grid.height, height)
    assert len(powers(grid)) == 1


def test_few_faults_of_one_bond_are_remembered_the_newest() -> None:
    grid = make_grid(bond=1_000 * TOKEN)
    guilty = grid.validators[1]
    for number in range(MAX_REMEMBERED + 3):
        grid.block(dt=1, faults=[fault(grid, guilty, height=number + 1)])
    remembered = [height for height, _ in bond_of(grid, guilty).slashed]
    assert remembered == list(range(4, MAX_REMEMBERED + 4))


def test_what_is_left_of_an_elected_set_is_not_an_elected_one() -> None:
    """Nobody cuts it to the cap."""
    grid = make_grid(replace(ELECTED, min_owners=5))
    rich = join(grid, "rich", 400 * TOKEN)
    next_era(grid)
    assert grid.need(keys.ELECTIONS, Elections).is_elected
    grid.block(dt=100, faults=[fault(grid, grid.validators[1])])
    power = powers(grid)
    assert len(power) == 4 and power[rich.public] * 1000 > ELECTED.cap_permill * sum(power.values())
    assert not grid.need(keys.ELECTIONS, Elections).is_elected
    next_era(grid)
    assert powers(grid) == power and not grid.need(keys.ELECTIONS, Elections).is_elected


def test_evidence_older_than_the_bond_ends_the_seat_and_cuts_nothing(grid: Grid) -> None:
    newcomer = join(grid, "new", 200 * TOKEN)
    next_era(grid)
    grid.block(dt=100, faults=[fault(grid, newcomer, height=1)])
    assert newcomer.public not in powers(grid)
    assert bond_of(grid, newcomer).stake == 200 * TOKEN


def test_the_set_is_never_empty() -> None:
    grid = make_grid(bond=0)
    everyone = [fault(grid, validator) for validator in grid.validators]
    grid.block(dt=100, faults=everyone[:3])
    assert set(powers(grid)) == {grid.validators[3].public}
    grid.block(dt=100, faults=everyone[3:])
    assert set(powers(grid)) == {grid.validators[3].public}  # a chain must have somebody


def test_a_removed_validator_is_replaced_at_once_and_nobody_exceeds_the_cap(grid: Grid) -> None:
    newcomer = join(grid, "new", 200 * TOKEN)
    grid.block(dt=100, faults=[fault(grid, grid.validators[0])])
    assert set(powers(grid)) == {key.public for key in [*grid.validators[1:], newcomer]}
