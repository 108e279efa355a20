"""Who does not sign loses its place in the table of candidates: when, for how long, and what bounds it."""

from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_grid import CHAIN, GENESIS_MS, Grid, Key, apply_changes, preset_with, state_digest, verify
from msgspec.structs import asdict, replace

from freehold.base.amounts import TOKEN
from freehold.base.codec import encode
from freehold.base.errors import InvalidInputError, InvariantError
from freehold.base.presets import (
    ATTENDANCE,
    MAINNET_ATTENDANCE,
    MINIMAL_ATTENDANCE,
    MINIMAL_ELECTIONS,
    AttendancePreset,
)
from freehold.ledger import keys
from freehold.ledger.attendance import choose_absent
from freehold.ledger.codes import Code
from freehold.ledger.elections import elect, in_order
from freehold.ledger.execute import execute_block
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.genesis_elections import parse_attendance
from freehold.ledger.invariants import check_state
from freehold.ledger.records import Attendance, Candidates, Params, ValidatorBond
from freehold.ledger.transactions import AddBond, Rejoin, ReleaseBond, Transfer, WithdrawBond
from freehold.ledger.validator_sets import set_at
from freehold.ledger.votes import Misbehavior, Vote

ERA_MS = 20_000
ELECTED = replace(MINIMAL_ELECTIONS, era_epochs=2, unbonding_ms=60_000, unbonding_blocks=5)
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


@pytest.fixture
def grid() -> Grid:
    return make_grid()


def next_era(grid: Grid, blocks: int = 19) -> None:
    """So many blocks of this era, then the first of the next one."""
    start = GENESIS_MS + ((grid.now - GENESIS_MS) // ERA_MS + 1) * ERA_MS
    for _ in range(blocks):
        grid.block(dt=(start - grid.now) // (blocks + 1))
    grid.block(dt=start - grid.now)


def powers(grid: Grid) -> dict[bytes, int]:
    return dict(set_at(grid.state, grid.height + 2))


def record(grid: Grid) -> Attendance:
    return grid.need(keys.ATTENDANCE, Attendance)


def bond_of(grid: Grid, validator: Key) -> ValidatorBond:
    return grid.need(keys.bond_key(validator.public), ValidatorBond)


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


def rounds(members: dict[bytes, int], count: int) -> list[bytes]:
    """Proposers by CometBFT's weighted round robin."""
    total, priority, chosen = sum(members.values()), dict.fromkeys(members, 0), []
    for _ in range(count):
        for key, power in members.items():
            priority[key] += power
        first = max(priority, key=lambda key: (priority[key], key))
        priority[first] -= total
        chosen.append(first)
    return chosen


@pytest.mark.parametrize("away", [0, 4])
def test_proposers_below_a_third_who_leave_out_votes_put_out_nobody(away: int) -> None:
    """Each leaves out all it can: a third, less one; also of a victim that is itself away for a fifth of the time."""
    grid = make_grid(10)
    next_era(grid)
    members = dict(powers(grid))
    hostile, victims = set(sorted(members)[:3]), sorted(members)[-3:]
    for at, proposer in enumerate(rounds(members, 38)):
        grid.away = set(victims) if proposer in hostile else set(victims[:1]) if at % 10 < away // 2 else set()
        grid.block(dt=500)
    assert max(count for _, count in record(grid).missed) >= 11
    next_era(grid, 1)
    assert record(grid).absent == []


def test_half_of_the_proposers_do_put_out_a_victim() -> None:
    grid = make_grid(10)
    next_era(grid)
    members = dict(powers(grid))
    hostile, victim = set(sorted(members)[:6]), max(members)
    for proposer in rounds(members, 38):
        grid.away = {victim} if proposer in hostile else set()
        grid.block(dt=500)
    next_era(grid, 1)
    assert [key for key, _ in record(grid).absent] == [victim]


def share_after_cutting_off(hostile: int, max_absent_permill: int) -> list[Fraction]:
    """The share of a coalition, era after era, in which as many others as can be are left out of every commit."""
    grid = make_grid(
        24,
        replace(MINIMAL_ATTENDANCE, max_absent_permill=max_absent_permill),
        elections=replace(ELECTED, seats=64, max_candidates=128),
    )
    coalition = {key.public for key in grid.validators[:hostile]}
    shares = []
    for _ in range(ERAS):
        members = powers(grid)
        grid.away = set(sorted(members.keys() - coalition)[: (len(members) - 1) // 3])
        next_era(grid)
        members = powers(grid)
        shares.append(Fraction(sum(members[key] for key in members.keys() & coalition), sum(members.values())))
    return shares


@pytest.mark.parametrize(("hostile", "least"), [(5, Fraction(1, 3)), (11, Fraction(2, 3))])
def test_who_cuts_others_off_gains_no_more_than_the_bound(hostile: int, least: Fraction) -> None:
    """Below a quarter nobody comes to a third (and halts), below a half nobody to two thirds (and rewrites)."""
    shares = share_after_cutting_off(hostile, 250)
    assert shares[0] > Fraction(hostile, 24)
    assert max(shares) == Fraction(hostile, 24 - 6) < least
    free = share_after_cutting_off(hostile, 1_000)  # without the bound
    assert free[-1] > least


@pytest.mark.parametrize(("big", "is_out"), [(4, False), (8, True)])
def test_nobody_is_put_out_where_the_cap_would_cut_those_that_stay(big: int, is_out: bool) -> None:
    """With four big ones and a small one left, equal shares would make the small one a fifth of the power."""
    voting = replace(ELECTED, seats=16, cap_permill=200, min_owners=3, min_total_bond=0)
    entries = [(1_000 * TOKEN, bytes([at]), bytes([at])) for at in range(big + 1)] + [(100 * TOKEN, b"s", b"s")]
    power = elect(voting, entries)
    assert power is not None
    gone = choose_absent(voting, MINIMAL_ATTENDANCE, entries, power, [], [bytes([0])])
    assert gone == ([bytes([0])] if is_out else [])


@given(
    stakes=st.lists(st.tuples(st.integers(100, 5_000), st.integers(0, 7)), min_size=4, max_size=16),
    order=st.randoms(use_true_random=False),
    seats=st.integers(4, 16),
    cap=st.integers(150, 334),
)
@settings(max_examples=400, deadline=None)
def test_no_coalition_gains_more_than_the_bound_whatever_is_bonded(
    stakes: list[tuple[int, int]], order: Random, seats: int, cap: int
) -> None:
    """Everybody else signs nothing: a coalition has at most 4/3 of what it had, and whom it seats for those put out.

    Three owners may have 334 permill each, which is 1.002 thirds.
    """
    voting = replace(ELECTED, seats=seats, cap_permill=cap, min_total_bond=0)
    entries = in_order((stake * TOKEN, bytes([at]), bytes([owner])) for at, (stake, owner) in enumerate(stakes))
    power = elect(voting, entries)
    if power is None:
        return
    coalition = {bytes([owner]) for owner in range(8) if order.random() < 0.5}
    owner_of = {key: owner for _, key, owner in entries}
    wanting = [key for key in power if owner_of[key] not in coalition]
    order.shuffle(wanting)
    gone: list[bytes] = []
    for _ in range(3):  # era after era
        rest = [entry for entry in entries if entry[1] not in gone]
        gone += choose_absent(
            voting, MINIMAL_ATTENDANCE, rest, power, gone, [key for key in wanting if key not in gone]
        )
    after = elect(voting, [entry for entry in entries if entry[1] not in gone])
    assert after is not None
    newly = sum(value for key, value in after.items() if key not in power and owner_of[key] in coalition)
    before = sum(value for key, value in power.items() if owner_of[key] in coalition)
    share = Fraction(before + newly, sum(power.values()))
    now = Fraction(sum(value for key, value in after.items() if owner_of[key] in coalition), sum(after.values()))
    assert now <= share * Fraction(4, 3) * Fraction(1_002, 1_000)
    assert sum(power[key] for key in gone) * 4 <= sum(power.values())


def test_exactly_the_bound_may_be_out_and_no_more() -> None:
    """Four of equal power: one of them is a quarter. A second one that stops keeps its seat."""
    grid = make_grid(5, elections=replace(ELECTED, min_owners=2), attendance=replace(MINIMAL_ATTENDANCE))
    first, second = grid.validators[0].public, grid.validators[1].public
    grid.away = {first}
    next_era(grid)
    grid.away = {first, second}
    for _ in range(3):
        next_era(grid)
    assert [key for key, _ in record(grid).absent] == [first]  # 200 permill; two would be 400
    four = make_grid(4)
    four.away = {four.validators[0].public}
    next_era(four)
    assert len(record(four).absent) == 1  # 250


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


def old_grid() -> Grid:
    """A ledger that elects by rule-set 2."""
    grid = Grid(preset_with(report_epochs=8), farms=2, validators=5)
    grid.block()
    grid.ok(grid.faucet, grid.upgrade_body(14, 2, [1], grid.validators))
    for number in range(5):
        owner = Key(f"owner-{number}")
        grid.ok(grid.faucet, Transfer(owner.public, 1_000 * TOKEN), dt=10)
    while grid.height < 14:
        grid.block(dt=10)
    for number, validator in enumerate(grid.validators):
        owner = Key(f"owner-{number}")
        grid.ok(owner, grid.bond_body(owner, validator, 200 * TOKEN), dt=10)
    return grid


def long_era(grid: Grid) -> None:
    """To the first block of the next era of the minimal preset, a minute."""
    start = GENESIS_MS + ((grid.now - GENESIS_MS) // 60_000 + 1) * 60_000
    for _ in range(30):
        grid.block(dt=(start - grid.now) // 40)
    grid.block(dt=start - grid.now)


def test_rule_set_2_counts_nobody_and_3_begins_to_with_the_presets_values() -> None:
    grid = old_grid()
    genesis = initial_state(grid.document, CHAIN, GENESIS_MS, [(key.public, 10) for key in grid.validators])
    idle, owner = grid.validators[4], Key("owner-4")
    grid.away = {idle.public}
    long_era(grid)
    long_era(grid)
    assert idle.public in powers(grid)
    assert keys.ATTENDANCE not in grid.state
    assert grid.run(owner, Rejoin(idle.public)) == Code.UNDECODABLE
    assert grid.run(owner, AddBond(idle.public, TOKEN)) == Code.OK
    change = grid.height + 12
    grid.ok(grid.faucet, grid.upgrade_body(change, 3, [], grid.validators))
    while grid.height < change:
        grid.block(dt=100)
    assert [version for _, version in grid.need(keys.PARAMS, Params).rules] == [1, 2, 3]
    assert record(grid).since_height == change - 1
    assert record(grid).missed == [(idle.public, 1)]
    assert record(grid).values == list(asdict(ATTENDANCE["minimal"]).values())
    long_era(grid)
    assert idle.public not in powers(grid)
    grid.away = set()
    long_era(grid)
    grid.ok(owner, Rejoin(idle.public))
    long_era(grid)
    assert idle.public in powers(grid)
    for block in grid.blocks:
        apply_changes(genesis, execute_block(genesis, block, verify))
    assert state_digest(genesis) == state_digest(grid.state)


def test_one_upgrade_may_pass_over_rule_set_2() -> None:
    grid = Grid(preset_with(report_epochs=8), farms=2, validators=4)
    grid.block()
    grid.ok(grid.faucet, grid.upgrade_body(14, 3, [1], grid.validators))
    while grid.height < 14:
        grid.block(dt=10)
    assert record(grid).since_height == 13
    assert keys.ELECTIONS in grid.state


def test_rule_set_3_without_elections_counts_nobody() -> None:
    grid = Grid(preset_with(report_epochs=8), farms=2, validators=4)
    grid.block()
    grid.ok(grid.faucet, grid.upgrade_body(14, 3, [], grid.validators))
    while grid.height < 16:
        grid.block(dt=10)
    assert keys.ATTENDANCE not in grid.state


# -- genesis and invariants -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [
        {"attendance": None},
        {"attendance": {}},
        {"attendance": asdict(MINIMAL_ATTENDANCE) | {"more": 1}},
        {"attendance": asdict(replace(MINIMAL_ATTENDANCE, min_signed_permill=1_001))},
        {"attendance": asdict(replace(MINIMAL_ATTENDANCE, max_absent_permill=-1))},
        {"attendance": asdict(replace(MINIMAL_ATTENDANCE, wait_eras=0))},
        {"attendance": asdict(replace(MINIMAL_ATTENDANCE, wait_eras=1 << 21))},
        {"rules": 2},
    ],
)
def test_what_a_genesis_refuses(edit: dict[str, Any]) -> None:
    document = app_state_document(preset_with(), [], [], elections=ELECTED)
    if "rules" in edit:
        document |= edit
    else:
        document["elections"] |= edit
    with pytest.raises(InvalidInputError) as caught:
        initial_state(document, CHAIN, GENESIS_MS, [(Key("v").public, 10)])
    assert caught.value.code == "bad_genesis"


def test_a_genesis_of_rule_set_2_goes_on_counting_nobody() -> None:
    document = app_state_document(preset_with(), [], [], elections=ELECTED) | {"rules": 2}
    del document["elections"]["attendance"]
    state = initial_state(document, CHAIN, GENESIS_MS, [(Key("v").public, 10)])
    assert keys.ATTENDANCE not in state


def test_the_presets_hold_their_own_rules() -> None:
    for preset in (MINIMAL_ATTENDANCE, MAINNET_ATTENDANCE):
        assert parse_attendance(asdict(preset)) == preset
        assert preset.max_absent_permill * 4 <= 1_000


def test_the_invariants_see_what_is_broken(grid: Grid) -> None:
    grid.away = {grid.validators[3].public}
    next_era(grid)
    good = record(grid)
    broken = [
        (replace(good, missed=[(grid.validators[0].public, grid.height)]), "missed_within_the_era"),
        (replace(good, since_height=0, missed=[(b"b", 1), (b"a", 1)]), "missed_ascending"),
        (replace(good, absent=[*good.absent, *good.absent]), "absent_bounded"),
        (replace(good, absent=[(grid.validators[0].public, 1)]), "absent_has_no_place"),
    ]
    for value, name in broken:
        state = dict(grid.state)
        state[keys.ATTENDANCE] = encode(value)
        with pytest.raises(InvariantError, match=name):
            check_state(state)
