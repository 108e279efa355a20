"""Who does not sign loses its place in the table of candidates: when, and for how long."""

import pytest
from attendance_grid import ERAS, make_grid, next_era, record
from ledger_grid import GENESIS_MS, Grid, Key
from msgspec.structs import replace
from validators_grid import ELECTED, ERA_MS, bond_of, powers

from freehold.base.amounts import TOKEN
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.invariants import check_state
from freehold.ledger.records import Candidates
from freehold.ledger.transactions import AddBond, Rejoin, ReleaseBond, Transfer, WithdrawBond
from freehold.ledger.votes import Misbehavior, Vote


@pytest.fixture
def grid() -> Grid:
    return make_grid()


def test_who_signs_nothing_loses_its_place_at_the_next_election_and_nothing_else(grid: Grid) -> None:
    idle, operator = grid.validators[3], grid.operators[3]
    before = bond_of(grid, idle)
    grid.away = {idle.public}
    next_era(grid)
    assert idle.public not in powers(grid)
    assert len(powers(grid)) == 3
    bond = bond_of(grid, idle)
    assert (bond.stake, bond.unbonding, bond.is_removed, bond.is_listed) == (before.stake, [], False, False)
    assert record(grid).absent == [(idle.public, 1)]
    assert record(grid).missed == []
    changes = [event.change for event in grid.events if getattr(event, "validator", None) == idle.public]
    assert changes == ["absent"]
    # it withdraws as anybody does
    grid.ok(operator, WithdrawBond(idle.public, 50 * TOKEN))
    check_state(grid.state)


@pytest.mark.parametrize(("signed", "is_out"), [(9, True), (10, False)])
def test_exactly_half_is_enough(signed: int, is_out: bool) -> None:
    """Twenty commits are counted, of blocks 2..21; the first block holds none."""
    grid = make_grid()
    next_era(grid, 17)  # ends the first era, whose first block held no commit
    validator = grid.validators[0].public
    start = record(grid).since_height
    for at in range(19):
        grid.away = {validator} if at >= signed else set()
        grid.block(dt=500)
    grid.away = {validator}
    grid.block(dt=GENESIS_MS + 2 * ERA_MS - grid.now)
    assert grid.height - start == 20
    assert (validator not in powers(grid)) is is_out


def test_an_era_with_few_blocks_judges_nobody(grid: Grid) -> None:
    grid.away = {grid.validators[0].public}
    next_era(grid, 6)
    assert len(powers(grid)) == 4
    assert record(grid).missed == []


def test_a_halted_chain_puts_nobody_out(grid: Grid) -> None:
    """Nobody signs while nothing is decided: only blocks count, never time."""
    for _ in range(3):
        grid.block(dt=10 * ERA_MS)
    assert len(powers(grid)) == 4


def test_an_owner_puts_it_back_after_the_wait(grid: Grid) -> None:
    idle, operator = grid.validators[3], grid.operators[3]
    assert grid.run(operator, Rejoin(idle.public)) == Code.NOT_ABSENT
    assert grid.run(operator, Rejoin(b"short")) == Code.BAD_FIELD
    assert grid.run(operator, Rejoin(Key("none").public)) == Code.UNKNOWN_VALIDATOR
    grid.away = {idle.public}
    next_era(grid)
    assert grid.run(operator, Rejoin(idle.public)) == Code.DEADLINE_NOT_PASSED
    assert grid.run(operator, AddBond(idle.public, TOKEN)) == Code.VALIDATOR_ABSENT
    assert grid.run(grid.operators[0], Rejoin(idle.public)) == Code.NOT_OWNER
    grid.away = set()
    next_era(grid)
    assert grid.run(operator, Rejoin(idle.public)) == Code.OK
    assert bond_of(grid, idle).is_listed
    assert record(grid).absent == []
    next_era(grid)
    assert powers(grid)[idle.public] == 200
    next_era(grid)
    assert idle.public in powers(grid)  # its first era after the return counts no older block


def test_a_return_needs_a_bond_and_a_place_and_no_fault() -> None:
    grid = make_grid(5, elections=replace(ELECTED, seats=5, max_candidates=5))
    idle, operator = grid.validators[4], grid.operators[4]
    grid.away = {idle.public}
    next_era(grid)
    other, owner = Key("other"), Key("owner")
    grid.ok(grid.faucet, Transfer(owner.public, 1_000 * TOKEN))
    grid.ok(owner, grid.bond_body(owner, other, 300 * TOKEN))
    grid.away = set()
    next_era(grid)
    assert grid.run(operator, Rejoin(idle.public)) == Code.NO_PLACE
    assert record(grid).absent[0][0] == idle.public
    grid.ok(operator, WithdrawBond(idle.public, 200 * TOKEN))
    assert grid.run(operator, Rejoin(idle.public)) == Code.BOND_TOO_LOW
    fault = Misbehavior(idle.public, 10, grid.height, grid.now, 1, 50)
    grid.block(faults=[fault])
    assert grid.run(operator, Rejoin(idle.public)) == Code.VALIDATOR_REMOVED


def test_an_ended_bond_is_no_longer_out(grid: Grid) -> None:
    idle, operator = grid.validators[3], grid.operators[3]
    grid.away = {idle.public}
    next_era(grid)
    grid.ok(operator, WithdrawBond(idle.public, 200 * TOKEN))
    grid.block(dt=ERA_MS + ELECTED.unbonding_ms)
    while grid.height + 1 < bond_of(grid, idle).unbonding[0].due_height:
        grid.block(dt=1)
    grid.ok(operator, ReleaseBond(idle.public))
    assert keys.bond_key(idle.public) not in grid.state
    assert record(grid).absent == []


def test_a_bond_that_ends_while_nobody_can_be_elected_is_no_longer_out(grid: Grid) -> None:
    """Judging looks at the bonds of all that are out."""
    idle, operator = grid.validators[3], grid.operators[3]
    grid.away = {idle.public}
    next_era(grid)
    grid.away = set()
    for owner, validator in zip(grid.operators, grid.validators, strict=True):
        grid.ok(owner, WithdrawBond(validator.public, 200 * TOKEN))
    part = bond_of(grid, idle).unbonding[0]
    while grid.height + 1 < part.due_height:
        grid.block(dt=1)
    grid.block(dt=part.due_ms - grid.now)
    assert [key for key, _ in record(grid).absent] == [idle.public]  # nobody stands, nobody is judged
    grid.ok(operator, ReleaseBond(idle.public))
    assert keys.bond_key(idle.public) not in grid.state
    assert record(grid).absent == []
    next_era(grid)


def test_who_misbehaved_is_no_longer_out_and_keeps_no_others_seat(grid: Grid) -> None:
    idle, other = grid.validators[3], grid.validators[2]
    grid.away = {idle.public}
    next_era(grid)
    owner, newcomer = Key("owner"), Key("newcomer")
    grid.ok(grid.faucet, Transfer(owner.public, 1_000 * TOKEN))
    grid.ok(owner, grid.bond_body(owner, newcomer, 200 * TOKEN))
    grid.away = set()
    next_era(grid)
    grid.block(dt=1, faults=[Misbehavior(idle.public, 10, 3, grid.now, 1, 40)])
    assert [key for key, _ in record(grid).absent] == [idle.public]
    grid.away = {other.public}
    next_era(grid)
    assert [key for key, _ in record(grid).absent] == [other.public]  # a quarter of those that could stand


def test_an_absence_lasts_until_its_owner_ends_it(grid: Grid) -> None:
    """Were it forgotten by itself, a coalition could put out a share of the power again and again."""
    idle, operator = grid.validators[3], grid.operators[3]
    grid.away = {idle.public}
    for _ in range(ERAS):
        next_era(grid)
    assert record(grid).absent == [(idle.public, 1)]
    grid.ok(operator, Rejoin(idle.public))


def test_who_would_not_be_elected_anyway_is_out_for_that_and_may_raise_its_bond() -> None:
    grid = make_grid(5, elections=replace(ELECTED, seats=5))
    idle, operator = grid.validators[4], grid.operators[4]
    grid.away = {idle.public}
    next_era(grid)
    assert record(grid).absent == [(idle.public, 1)]
    for number in range(5):  # who bond more: no seat is left for it
        owner = Key(f"owner-{number}")
        grid.ok(grid.faucet, Transfer(owner.public, 1_000 * TOKEN))
        grid.ok(owner, grid.bond_body(owner, Key(f"other-{number}"), 300 * TOKEN))
    grid.away = set()
    next_era(grid)
    assert record(grid).absent == []
    assert grid.run(operator, Rejoin(idle.public)) == Code.NOT_ABSENT
    grid.ok(operator, AddBond(idle.public, 200 * TOKEN))
    next_era(grid)
    assert idle.public in powers(grid)


def test_where_too_few_would_stand_everybody_stays() -> None:
    """Three owners are the least for an election: the one that is away keeps its place, and the others their votes."""
    grid = make_grid(3)
    grid.away = {grid.validators[0].public}
    next_era(grid)
    assert len(powers(grid)) == 3
    assert record(grid).absent == []
    assert len(grid.need(keys.CANDIDATES, Candidates).entries) == 3


def test_validators_of_genesis_without_a_bond_stay() -> None:
    grid = make_grid(bond=0)
    grid.away = {grid.validators[0].public}
    next_era(grid)
    assert len(powers(grid)) == 4


def test_all_away_leave_most_of_the_power_where_it_is() -> None:
    """What no chain can do, for it would stand still: the bound holds whatever the commits say."""
    grid = make_grid(9, elections=replace(ELECTED, seats=9))
    grid.away = {key.public for key in grid.validators}
    next_era(grid)
    assert len(powers(grid)) == 9 - 2  # two of nine are 222 permill, three would be 334
    assert len(record(grid).absent) == 2


def test_the_worst_go_first() -> None:
    grid = make_grid(9, elections=replace(ELECTED, seats=9))
    worst, bad, less = (grid.validators[at].public for at in (6, 2, 4))
    for _ in range(5):
        grid.away = {worst}
        grid.block(dt=100)
    grid.away = {worst, bad}
    grid.block(dt=100)
    grid.away = {worst, bad, less}
    next_era(grid)
    assert {key for key, _ in record(grid).absent} == {worst, bad}


def test_a_validator_that_comes_back_and_stays_dead_sits_one_era_of_three(grid: Grid) -> None:
    idle, operator = grid.validators[3], grid.operators[3]
    grid.away = {idle.public}
    sat = []
    for _ in range(9):
        next_era(grid)
        sat.append(idle.public in powers(grid))
        if record(grid).absent:
            grid.run(operator, Rejoin(idle.public))
    assert sat == [False, False, True] * 3


def test_votes_of_others_count_for_nothing(grid: Grid) -> None:
    """Of who has left, or never sat: the engine names the set of the height before."""
    stranger = Key("stranger").public
    grid.last_votes = lambda: [Vote(stranger, 10, False)]  # type: ignore[method-assign]
    grid.block()
    assert record(grid).missed == []


def test_counting_costs_nothing_while_everybody_signs(grid: Grid) -> None:
    before = grid.state[keys.ATTENDANCE]
    for _ in range(3):
        grid.block(dt=100)
    assert grid.state[keys.ATTENDANCE] is before


# -- rule-set 2, and the change to 3 --------------------------------------------------------------------------------
