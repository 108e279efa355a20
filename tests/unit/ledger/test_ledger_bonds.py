"""Bonds and shares of fees."""

from typing import Any

import pytest
from ledger_grid import FEE, GENESIS_MS, Grid, Key, verify
from msgspec.structs import replace
from validators_grid import ELECTED, ERA_MS, bond_of, fault, join, make_grid, next_era, powers

from freehold.base.amounts import MAX_AMOUNT, TOKEN
from freehold.base.codec import encode
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger import keys
from freehold.ledger.beacons import voters
from freehold.ledger.bonds import MAX_UNBONDING, validator_address
from freehold.ledger.codes import Code
from freehold.ledger.execute import Lane, check_tx
from freehold.ledger.records import Elections, Params, ValidatorAddress, VrfKeys
from freehold.ledger.transactions import (
    AddBond,
    ClaimFees,
    ReleaseBond,
    Transfer,
    WithdrawBond,
)


@pytest.fixture
def grid() -> Grid:
    return make_grid()


def test_a_bond_takes_amount_and_deposit_and_names_its_validator(grid: Grid) -> None:
    owner, validator = grid.tenants[0], Key("v")
    before = grid.balance(owner.public)
    assert grid.run(owner, grid.bond_body(owner, validator, 100 * TOKEN, vrf_key=bytes(32))) == Code.OK
    assert grid.balance(owner.public) == before - 100 * TOKEN - FEE - grid.preset.record_deposit
    found = grid.need(keys.validator_address_key(validator_address(validator.public)), ValidatorAddress)
    assert found.validator == validator.public
    assert grid.run(owner, grid.bond_body(owner, validator, 100 * TOKEN)) == Code.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"possession": bytes(64)}, Code.BAD_POSSESSION),
        ({"possession": b""}, Code.BAD_POSSESSION),
        ({"vrf_key": b"short"}, Code.BAD_FIELD),
        ({"validator": b"short"}, Code.BAD_FIELD),
        ({"validator": Key("other").public}, Code.BAD_POSSESSION),
        ({"amount": 0}, Code.BAD_AMOUNT),
        ({"amount": -1}, Code.BAD_AMOUNT),
        ({"amount": MAX_AMOUNT + 1}, Code.BAD_AMOUNT),
        ({"amount": 100 * TOKEN - 1}, Code.BOND_TOO_LOW),
        ({"amount": 2_000 * TOKEN}, Code.INSUFFICIENT_BALANCE),
    ],
)
def test_what_bonding_refuses(grid: Grid, changes: dict[str, Any], code: Code) -> None:
    owner = grid.tenants[0]
    body = replace(grid.bond_body(owner, Key("v"), 100 * TOKEN), **changes)
    assert grid.run(owner, body) == code


def test_the_lane_of_governance_is_for_those_who_hold_a_bond_and_for_what_is_tried_out(grid: Grid) -> None:
    """So its room costs a bond for each sender, and one transaction of each is in it."""

    def lane(sender: Key, body: Any, ahead: int = 0) -> Lane:
        nonce = grid.nonce(sender.public) + ahead
        result = check_tx(grid.state, grid.tx(sender, body, nonce=nonce), grid.height + 1, verify)
        assert result.code == Code.OK
        return result.lane

    operator, validator, owner = grid.operators[0], grid.validators[0].public, grid.tenants[0]
    bond = grid.bond_body(owner, Key("v"), 100 * TOKEN)
    assert lane(owner, bond) == lane(operator, AddBond(validator, 1)) == Lane.GOVERNANCE
    assert lane(operator, WithdrawBond(validator, 200 * TOKEN)) == Lane.GOVERNANCE
    assert lane(operator, Transfer(owner.public, 1)) == Lane.USERS
    assert lane(owner, bond, ahead=1) == lane(owner, AddBond(Key("none").public, 1), ahead=1) == Lane.USERS
    poor = grid.bond_body(owner, Key("v"), 2_000 * TOKEN)
    refused = check_tx(grid.state, grid.tx(owner, poor), grid.height + 1, verify)
    assert refused.code == Code.INSUFFICIENT_BALANCE


def test_another_owner_cannot_take_a_possession_signature(grid: Grid) -> None:
    body = grid.bond_body(grid.tenants[0], Key("v"), 100 * TOKEN)
    assert grid.run(grid.tenants[1], body) == Code.BAD_POSSESSION


def test_only_the_owner_moves_a_bond(grid: Grid) -> None:
    validator, stranger = grid.validators[0], grid.tenants[0]
    for body in (AddBond, WithdrawBond):
        assert grid.run(stranger, body(validator.public, TOKEN)) == Code.NOT_OWNER
        assert grid.run(stranger, body(Key("none").public, TOKEN)) == Code.UNKNOWN_VALIDATOR
        assert grid.run(stranger, body(b"x", TOKEN)) == Code.BAD_FIELD
    assert grid.run(stranger, ReleaseBond(validator.public)) == Code.NOT_OWNER


def test_what_is_withdrawn_stays_liable_from_the_end_of_the_era(grid: Grid) -> None:
    operator, validator = grid.operators[0], grid.validators[0]
    assert grid.run(operator, WithdrawBond(validator.public, 201 * TOKEN)) == Code.BAD_AMOUNT
    assert grid.run(operator, WithdrawBond(validator.public, 150 * TOKEN)) == Code.BOND_TOO_LOW
    assert grid.run(operator, WithdrawBond(validator.public, 200 * TOKEN)) == Code.OK
    due = GENESIS_MS + ERA_MS + ELECTED.unbonding_ms
    assert bond_of(grid, validator).unbonding[0].due_ms == due
    assert powers(grid)[validator.public] == 10  # until the election
    assert grid.run(operator, ReleaseBond(validator.public)) == Code.NOTHING_DUE
    next_era(grid)
    assert validator.public not in powers(grid)
    while grid.height + 2 < bond_of(grid, validator).unbonding[0].due_height:
        grid.block(dt=1)
    before = grid.balance(operator.public)
    assert grid.run(operator, ReleaseBond(validator.public), dt=due - grid.now - 1) == Code.NOTHING_DUE
    earned = bond_of(grid, validator).earned
    assert earned > 0
    assert grid.run(operator, ReleaseBond(validator.public)) == Code.OK
    assert grid.balance(operator.public) == before + 200 * TOKEN + grid.preset.record_deposit + earned - FEE
    assert keys.bond_key(validator.public) not in grid.state
    assert keys.validator_address_key(validator_address(validator.public)) not in grid.state


def test_a_halt_does_not_release_what_evidence_can_still_reach(grid: Grid) -> None:
    operator, validator = grid.operators[0], grid.validators[0]
    grid.ok(operator, WithdrawBond(validator.public, 200 * TOKEN))
    due = bond_of(grid, validator).unbonding[0]
    assert grid.run(operator, ReleaseBond(validator.public), dt=10 * ELECTED.unbonding_ms) == Code.NOTHING_DUE
    while grid.height + 1 < due.due_height:
        grid.block(dt=100)
    assert grid.run(operator, ReleaseBond(validator.public)) == Code.OK


def test_a_halt_at_the_end_of_an_era_releases_nothing_of_what_backed_it(grid: Grid) -> None:
    """Withdrawn in an era's first blocks, equivocated in its last one, halted until the time is over."""
    operator, validator = grid.operators[0], grid.validators[0]
    grid.ok(operator, WithdrawBond(validator.public, 200 * TOKEN))
    due = bond_of(grid, validator).unbonding[0]
    pause_ms = grid.preset.tick_ms // 2
    while grid.now + pause_ms < GENESIS_MS + ERA_MS:  # as fast as the engine goes
        grid.block(dt=pause_ms)
    at, time_ms = grid.height, grid.now
    assert at > ELECTED.unbonding_blocks + 2  # counted from the withdrawal, all of it would be due
    assert grid.run(operator, ReleaseBond(validator.public), dt=due.due_ms - grid.now) == Code.NOTHING_DUE
    grid.block(dt=1, faults=[fault(grid, validator, height=at, time_ms=time_ms)])
    assert bond_of(grid, validator).unbonding[0].amount == 200 * TOKEN * 95 // 100
    while grid.height + 1 < due.due_height:
        grid.block(dt=1)
    assert grid.run(operator, ReleaseBond(validator.public)) == Code.OK


def test_a_bond_does_not_end_while_its_validator_sits() -> None:
    """Where too few stand the sitting set stays, and answers with what is left."""
    grid = make_grid(replace(ELECTED, min_owners=4))
    operator, validator = grid.operators[0], grid.validators[0]
    grid.ok(operator, WithdrawBond(validator.public, 200 * TOKEN))
    part = bond_of(grid, validator).unbonding[0]
    next_era(grid)
    while grid.height + 1 < part.due_height:
        grid.block(dt=1)
    assert grid.run(operator, ReleaseBond(validator.public), dt=part.due_ms - grid.now) == Code.OK
    assert bond_of(grid, validator).power == powers(grid)[validator.public] == 10
    assert grid.run(operator, ReleaseBond(validator.public)) == Code.NOTHING_DUE
    join(grid, "new", 200 * TOKEN)
    next_era(grid)
    assert validator.public not in powers(grid)
    grid.ok(operator, ReleaseBond(validator.public))
    assert keys.bond_key(validator.public) not in grid.state


def leave_in_the_block_that_elects_others(rules: int) -> tuple[Grid, list[Key], list[Key]]:
    """All of a set had withdrawn and sat on where nobody else stood; owners and validators."""
    grid = make_grid(replace(ELECTED, min_owners=4, seats=4), bond=0)
    params = grid.need(keys.PARAMS, Params)
    grid.state[keys.PARAMS] = encode(replace(params, rules=[(1, rules)]))
    owners = [Key(f"old-{number}-owner") for number in range(4)]
    leaving = [
        join(grid, f"old-{number}", 200 * TOKEN, owner=owner, vrf_key=bytes([number]) * 32)
        for number, owner in enumerate(owners)
    ]
    next_era(grid)
    for owner, validator in zip(owners, leaving, strict=True):
        grid.ok(owner, WithdrawBond(validator.public, 200 * TOKEN))
    due = max(bond_of(grid, validator).unbonding[0].due_ms for validator in leaving)
    for _ in range(ELECTED.unbonding_blocks + 80):
        grid.block(dt=100)
    grid.block(dt=due - grid.now)
    assert set(powers(grid)) == {validator.public for validator in leaving}  # nobody else stands
    for number in range(4):
        join(grid, f"new-{number}", 300 * TOKEN, vrf_key=bytes([9]) * 32)
    start = GENESIS_MS + ((grid.now - GENESIS_MS) // ERA_MS + 1) * ERA_MS
    releases = [grid.tx(owner, ReleaseBond(validator.public)) for owner, validator in zip(owners, leaving, strict=True)]
    grid.block(*releases, dt=start - grid.now)
    assert not set(powers(grid)) & {validator.public for validator in leaving}
    return grid, owners, leaving


def test_a_bond_does_not_end_before_its_validators_last_vote() -> None:
    """The bond holds the key by which its votes' extensions are checked: without it they would be refused."""
    grid, owners, leaving = leave_in_the_block_that_elects_others(rules=3)
    for code in (Code.NOTHING_DUE, Code.OK):  # they vote at the next height, and the block after it carries that
        assert all(voter.vrf_key for height in (0, 1) for voter in voters(grid.state, grid.height + height))
        releases = [grid.tx(owner, ReleaseBond(one.public)) for owner, one in zip(owners, leaving, strict=True)]
        assert {result.code for result in grid.block(*releases, dt=100)} == {code}
    assert not any(keys.bond_key(validator.public) in grid.state for validator in leaving)


def test_rule_set_2_ends_a_bond_in_the_block_that_elects_others() -> None:
    """So it stays, for replay."""
    grid, _, leaving = leave_in_the_block_that_elects_others(rules=2)
    assert not any(keys.bond_key(validator.public) in grid.state for validator in leaving)


def test_several_parts_and_what_is_bonded_between_them_each_answer_for_their_own_era() -> None:
    grid = make_grid(bond=1_000 * TOKEN)
    operator, validator = grid.operators[0], grid.validators[0]
    grid.ok(operator, WithdrawBond(validator.public, 300 * TOKEN))
    grid.ok(operator, AddBond(validator.public, 100 * TOKEN))
    next_era(grid)
    grid.ok(operator, WithdrawBond(validator.public, 200 * TOKEN))
    first, second = bond_of(grid, validator).unbonding
    assert second.due_ms == first.due_ms + ERA_MS and second.due_height > first.due_height
    while grid.height + 1 < first.due_height:
        grid.block(dt=1)
    # a fault in the block in which the first part comes due takes of the second and of what still stands
    grid.block(dt=first.due_ms - grid.now, faults=[fault(grid, validator)])
    bond = bond_of(grid, validator)
    assert [part.amount for part in bond.unbonding] == [300 * TOKEN, 190 * TOKEN] and bond.stake == 570 * TOKEN
    before = grid.balance(operator.public)
    grid.ok(operator, ReleaseBond(validator.public), dt=1)
    assert grid.balance(operator.public) == before + 300 * TOKEN - FEE
    assert [part.amount for part in bond_of(grid, validator).unbonding] == [190 * TOKEN]


@pytest.mark.parametrize("left_ms", [1, 249, 250, 251, 499, 500, 501, 4_999])
def test_no_vote_of_the_set_is_for_a_later_height_than_reckoned(grid: Grid, left_ms: int) -> None:
    """Withdrawn so long before the end of an era, however fast the engine goes on."""
    operator, validator = grid.operators[0], grid.validators[0]
    grid.block(dt=GENESIS_MS + ERA_MS - left_ms - grid.now - 1)
    grid.ok(operator, WithdrawBond(validator.public, 200 * TOKEN), dt=1)
    liable = bond_of(grid, validator).unbonding[0].due_height - ELECTED.unbonding_blocks
    while validator.public in powers(grid):
        grid.block(dt=grid.preset.tick_ms // 2)
    last = max(height for height, members in grid.engine.sets.items() if validator.public in members)
    assert last < liable <= last + 2


def test_a_part_may_be_taken_and_parts_are_few() -> None:
    grid = make_grid(bond=1_000 * TOKEN)
    operator, validator = grid.operators[0], grid.validators[0]
    for _ in range(MAX_UNBONDING):
        grid.ok(operator, WithdrawBond(validator.public, TOKEN))
    assert grid.run(operator, WithdrawBond(validator.public, TOKEN)) == Code.TOO_MANY
    assert bond_of(grid, validator).is_listed


def test_a_bond_of_a_ledger_with_vrf_keys_needs_one_by_which_it_can_vote() -> None:
    grid = make_grid()
    grid.state[keys.VRF_KEYS] = encode(VrfKeys(1, []))
    owner = grid.tenants[0]
    for vrf_key, code in (
        (b"", Code.BAD_FIELD),
        (bytes(32), Code.BAD_FIELD),
        (PrivateKey.from_seed(b"v" * 32).public, Code.OK),
    ):
        data = grid.tx(owner, grid.bond_body(owner, Key("v"), 100 * TOKEN, vrf_key=vrf_key))
        assert check_tx(grid.state, data, grid.height + 1, verify).code == code


def test_there_are_no_bonds_under_rule_set_1_or_without_elections() -> None:
    grid = Grid(farms=2)
    grid.block()
    data = grid.tx(grid.tenants[0], grid.bond_body(grid.tenants[0], Key("v"), 100 * TOKEN))
    assert grid.check(data) == Code.UNDECODABLE  # what a program without these rules says
    assert grid.block(data)[0].code == Code.UNDECODABLE


def test_fees_are_shared_by_power_and_pulled(grid: Grid) -> None:
    fees = grid.totals.fees
    fee = 1_000_000
    grid.ok(grid.tenants[0], Transfer(grid.faucet.public, TOKEN), fee=fee)
    assert grid.totals.fees == fees + fee // 5
    operator, validator = grid.operators[0], grid.validators[0]
    before = grid.balance(operator.public)
    grid.ok(grid.tenants[1], ClaimFees(validator.public))
    assert grid.balance(operator.public) == before + fee * 8 // 10 // 4
    assert grid.run(grid.tenants[1], ClaimFees(Key("none").public)) == Code.UNKNOWN_VALIDATOR


def test_a_claim_of_nothing_is_refused(grid: Grid) -> None:
    newcomer = join(grid, "new", 200 * TOKEN)
    assert grid.run(grid.tenants[0], ClaimFees(newcomer.public)) == Code.NOTHING_DUE


def test_earnings_follow_the_power_of_each_era(grid: Grid) -> None:
    newcomer = join(grid, "new", 400 * TOKEN)
    next_era(grid)
    assert powers(grid)[newcomer.public] == 266
    grid.ok(grid.tenants[0], Transfer(grid.faucet.public, TOKEN), fee=1_066_000)
    owner = Key("new-owner")
    before = grid.balance(owner.public)
    grid.ok(grid.tenants[1], ClaimFees(newcomer.public))
    assert grid.balance(owner.public) - before == 1_066_000 * 8 // 10 * 266 // 1_066


def test_validators_without_a_bond_earn_nothing() -> None:
    grid = make_grid(bond=0)
    grid.ok(grid.tenants[0], Transfer(grid.faucet.public, TOKEN))
    assert grid.need(keys.ELECTIONS, Elections).pool == 0
    # until they bond their seat
    operator, validator = grid.operators[0], grid.validators[0]
    grid.ok(operator, grid.bond_body(operator, validator, 100 * TOKEN))  # type: ignore[arg-type]
    assert bond_of(grid, validator).power == 10  # type: ignore[arg-type]
    assert grid.need(keys.ELECTIONS, Elections).pool > 0
