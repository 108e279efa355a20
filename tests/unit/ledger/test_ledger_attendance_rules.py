"""Rule-set 3 begins: by an upgrade, by genesis; what it refuses, and which broken states are seen."""

from typing import Any

import pytest
from attendance_grid import make_grid, next_era, record
from ledger_grid import CHAIN, GENESIS_MS, Grid, Key, apply_changes, preset_with, state_digest, verify
from msgspec.structs import asdict, replace
from validators_grid import ELECTED, bond_of, powers

from freehold.base.amounts import TOKEN
from freehold.base.codec import encode
from freehold.base.errors import InvalidInputError, InvariantError
from freehold.base.presets import (
    ATTENDANCE,
    MAINNET_ATTENDANCE,
    MINIMAL_ATTENDANCE,
    MINIMAL_ELECTIONS,
)
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.execute import execute_block
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.genesis_elections import parse_attendance
from freehold.ledger.invariants import check_state
from freehold.ledger.records import Params
from freehold.ledger.transactions import AddBond, ClaimFees, Rejoin, ReleaseBond, Transfer, WithdrawBond


@pytest.fixture
def grid() -> Grid:
    return make_grid()


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


def test_withdrawals_before_and_after_the_change_count_by_the_rules_of_their_own_block() -> None:
    """In one era; a replay over the change of rules gives the same state."""
    grid = old_grid()
    genesis = initial_state(grid.document, CHAIN, GENESIS_MS, [(key.public, 10) for key in grid.validators])
    change = grid.height + 12
    grid.ok(grid.faucet, grid.upgrade_body(change, 3, [], grid.validators), dt=10)
    owner, validator, values = Key("owner-0"), grid.validators[0], MINIMAL_ELECTIONS
    while grid.height < change - 2:
        grid.block(dt=10)
    for height in (change - 1, change):
        grid.ok(owner, WithdrawBond(validator.public, 10 * TOKEN), dt=10)
        assert grid.height == height
    before, after = bond_of(grid, validator).unbonding
    end = GENESIS_MS + values.era_epochs * grid.preset.epoch_ms
    assert grid.now < end  # one era
    assert before.due_ms == after.due_ms == end + values.unbonding_ms
    assert before.due_height == change - 1 + values.unbonding_blocks
    left = -(-(end - grid.now) * 2 // grid.preset.tick_ms)
    assert after.due_height == change + left + 2 + values.unbonding_blocks
    while grid.height + 1 < before.due_height:
        grid.block(dt=1)
    grid.ok(owner, ReleaseBond(validator.public), dt=before.due_ms - grid.now)
    assert bond_of(grid, validator).unbonding == [after]
    while grid.height + 1 < after.due_height:
        grid.block(dt=1)
    grid.ok(owner, ReleaseBond(validator.public), dt=1)
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


def test_elections_that_come_with_rule_set_3_wait_for_its_height() -> None:
    grid = Grid(preset_with(report_epochs=8), farms=2, validators=4)
    grid.block()
    grid.ok(grid.faucet, grid.upgrade_body(14, 2, [], grid.validators))
    while grid.height < 14:
        grid.block(dt=10)
    grid.ok(grid.faucet, grid.upgrade_body(28, 3, [1], grid.validators))
    while grid.height < 27:
        grid.block(dt=10)
        assert keys.ELECTIONS not in grid.state
    grid.block(dt=10)
    assert keys.ELECTIONS in grid.state and record(grid).since_height == 27


def test_rule_set_3_without_elections_counts_nobody() -> None:
    grid = Grid(preset_with(report_epochs=8), farms=2, validators=4)
    grid.block()
    grid.ok(grid.faucet, grid.upgrade_body(14, 3, [], grid.validators))
    while grid.height < 16:
        grid.block(dt=10)
    assert keys.ATTENDANCE not in grid.state


@pytest.mark.parametrize("rules", [2, 3])
def test_without_elections_whatever_is_said_of_a_bond_is_refused_and_halts_nobody(rules: int) -> None:
    grid = Grid(preset_with(report_epochs=8), farms=2, validators=4)
    grid.block()
    grid.ok(grid.faucet, grid.upgrade_body(14, rules, [], grid.validators))
    while grid.height < 14:
        grid.block(dt=10)
    owner, none = grid.tenants[0], Key("none").public
    bodies = [AddBond(none, TOKEN), WithdrawBond(none, TOKEN), ReleaseBond(none), ClaimFees(none), Rejoin(none)]
    for body in bodies if rules > 2 else bodies[:-1]:
        assert grid.check(grid.tx(owner, body)) == Code.UNKNOWN_VALIDATOR
        assert grid.run(owner, body) == Code.UNKNOWN_VALIDATOR


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
