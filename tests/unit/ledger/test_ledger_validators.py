"""Bonds, elections, shares of fees, and what misbehaviour costs."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_grid import CHAIN, FEE, GENESIS_MS, Grid, Key, preset_with, verify
from msgspec.structs import asdict, replace

from freehold.base.amounts import MAX_AMOUNT, TOKEN
from freehold.base.codec import encode
from freehold.base.errors import InvalidInputError, InvariantError
from freehold.base.presets import MAINNET_ELECTIONS, MINIMAL_ELECTIONS, ElectionPreset
from freehold.ledger import keys
from freehold.ledger.bonds import MAX_UNBONDING, validator_address
from freehold.ledger.codes import Code
from freehold.ledger.elections import elect, owner_limit
from freehold.ledger.execute import BlockInput, beacon_tx, check_proposal
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.genesis_elections import GenesisBond, parse_elections
from freehold.ledger.invariants import check_state
from freehold.ledger.records import Candidates, Elections, Unbonding, ValidatorAddress, ValidatorBond, ValidatorSets
from freehold.ledger.slashing import MisbehaviorKind
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import (
    AddBond,
    ClaimFees,
    ReleaseBond,
    Transfer,
    WithdrawBond,
    beacon_signing_bytes,
)
from freehold.ledger.validator_sets import set_at
from freehold.ledger.votes import Misbehavior

ERA_MS = 20_000  # two epochs
ELECTED = replace(MINIMAL_ELECTIONS, era_epochs=2, unbonding_ms=60_000, unbonding_blocks=5)


def make_grid(elections: ElectionPreset = ELECTED, **options: Any) -> Grid:
    grid = Grid(preset_with(report_epochs=8), validators=4, elections=elections, farms=2, **options)
    grid.block()
    return grid


@pytest.fixture
def grid() -> Grid:
    return make_grid()


def next_era(grid: Grid, **options: Any) -> None:
    """On to the first block of the next era, and to the height from which its set votes."""
    start = GENESIS_MS + ((grid.now - GENESIS_MS) // ERA_MS + 1) * ERA_MS
    grid.block(dt=start - grid.now, **options)
    grid.block(dt=100)
    grid.block(dt=100)


def join(grid: Grid, name: str, amount: int, *, owner: Key | None = None) -> Key:
    """A new owner (unless one is given) bonds a new validator."""
    validator, owner = Key(f"{name}-validator"), owner or Key(f"{name}-owner")
    grid.ok(grid.faucet, Transfer(owner.public, amount + 10 * TOKEN))
    grid.ok(owner, grid.bond_body(owner, validator, amount))
    return validator


def powers(grid: Grid) -> dict[bytes, int]:
    """The newest set."""
    return dict(set_at(grid.state, grid.height + 2))


def bond_of(grid: Grid, validator: Key) -> ValidatorBond:
    return grid.need(keys.bond_key(validator.public), ValidatorBond)


def fault(grid: Grid, validator: Key, *, height: int = 0, kind: int = 1, time_ms: int = 0) -> Misbehavior:
    return Misbehavior(validator.public, 10, height or grid.height, time_ms or grid.now, kind, 40)


# -- elections ----------------------------------------------------------------------------------------------------


def test_the_first_era_is_that_of_genesis_and_the_next_elects_by_bond(grid: Grid) -> None:
    newcomer = join(grid, "new", 400 * TOKEN)
    assert set(powers(grid).values()) == {10}
    next_era(grid)
    # five owners: 200 each and 400, of 1,200: 250 permill = 1/3 of the others' 800
    assert powers(grid) == {key.public: 200 for key in grid.validators} | {newcomer.public: 266}
    assert grid.engine.sets[grid.height] == powers(grid)


def test_a_change_is_in_force_two_heights_after_its_block(grid: Grid) -> None:
    newcomer = join(grid, "new", 200 * TOKEN)
    start = GENESIS_MS + ERA_MS
    grid.block(dt=start - grid.now)
    decided = grid.height
    assert newcomer.public not in dict(set_at(grid.state, decided + 1))
    assert newcomer.public in dict(set_at(grid.state, decided + 2))
    for _ in range(8):
        grid.block(dt=100)
    # a proposer is one of its height's set, and of no other
    stranger = Key("nobody")
    for proposer, code in ((stranger, Code.BAD_BEACON), (newcomer, Code.OK)):
        height = grid.height + 1
        beacon = beacon_tx(height, proposer.sign(beacon_signing_bytes(CHAIN, height)))
        block = BlockInput(height, grid.now + 100, proposer.public, [beacon])
        assert check_proposal(grid.state, block, verify) == code


def test_seats_are_bounded_and_go_to_the_highest_bonds() -> None:
    grid = make_grid(replace(ELECTED, seats=4, max_candidates=6))
    rich = join(grid, "rich", 300 * TOKEN)
    join(grid, "poor", 100 * TOKEN)
    next_era(grid)
    assert len(powers(grid)) == 4
    assert rich.public in powers(grid)


def test_the_table_is_bounded_and_who_loses_a_place_keeps_the_bond() -> None:
    grid = make_grid(replace(ELECTED, seats=4, max_candidates=5))
    poor = join(grid, "poor", 150 * TOKEN)
    owner, late = Key("late-owner"), Key("late")
    grid.ok(grid.faucet, Transfer(owner.public, 1_000 * TOKEN))
    assert grid.run(owner, grid.bond_body(owner, late, 150 * TOKEN)) == Code.NO_PLACE
    join(grid, "rich", 300 * TOKEN)
    assert not bond_of(grid, poor).is_listed
    assert bond_of(grid, poor).stake == 150 * TOKEN
    grid.ok(grid.faucet, Transfer(Key("poor-owner").public, 100 * TOKEN))
    assert grid.run(Key("poor-owner"), AddBond(poor.public, TOKEN)) == Code.NO_PLACE
    assert grid.run(Key("poor-owner"), AddBond(poor.public, 100 * TOKEN)) == Code.OK
    assert bond_of(grid, poor).is_listed
    assert len(grid.need(keys.CANDIDATES, Candidates).entries) == 5


def test_too_few_owners_or_too_little_bonded_seat_nobody() -> None:
    grid = make_grid(replace(ELECTED, min_total_bond=2_000 * TOKEN), bond=0)
    before = powers(grid)
    join(grid, "one", 600 * TOKEN)
    for number in range(2):
        join(grid, f"more-{number}", 200 * TOKEN)
    next_era(grid)
    assert powers(grid) == before
    join(grid, "enough", 1_200 * TOKEN)
    next_era(grid)
    assert set(powers(grid)).isdisjoint(before)


def test_one_owner_with_many_validators_has_one_cap(grid: Grid) -> None:
    owner = Key("whale-owner")
    mine = [join(grid, f"whale-{number}", 900 * TOKEN, owner=owner) for number in range(3)]
    next_era(grid)
    power = powers(grid)
    assert sum(power[key.public] for key in mine) * 4 <= sum(power.values())


@given(
    st.lists(st.tuples(st.integers(TOKEN, 10_000_000 * TOKEN), st.integers(0, 12)), min_size=1, max_size=40),
    st.integers(1, 1_000),
    st.integers(1, 12),
)
def test_no_owner_exceeds_the_cap(rows: list[tuple[int, int]], cap: int, seats: int) -> None:
    entries = sorted(
        ((stake, bytes([at]) * 32, bytes([owner])) for at, (stake, owner) in enumerate(rows)),
        key=lambda row: (-row[0], row[1]),
    )
    preset = replace(
        ELECTED, cap_permill=cap, seats=seats, min_owners=1, min_bond=TOKEN, min_total_bond=0, max_candidates=40
    )
    power = elect(preset, entries)
    assert power
    assert len(power) <= seats
    owner_of = {key: owner for _, key, owner in entries}
    held: dict[bytes, int] = {}
    for key, value in power.items():
        assert value > 0
        held[owner_of[key]] = held.get(owner_of[key], 0) + value
    share = max(cap, -(-1000 // len(held)))
    assert all(value * 1000 <= share * sum(held.values()) for value in held.values())
    # nobody gets more power than tokens, and who is below the limit gets all
    tokens: dict[bytes, int] = {}
    for stake, _, owner in entries[:seats]:
        tokens[owner] = tokens.get(owner, 0) + stake // TOKEN
    limit = owner_limit(list(tokens.values()), cap)
    assert held == {owner: min(value, limit) for owner, value in tokens.items()}


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=30), st.integers(1, 1_000))
def test_the_limit_is_the_largest(held: list[int], cap: int) -> None:
    share = Fraction(max(cap, -(-1000 // len(held))), 1000)
    limit = owner_limit(held, cap)
    assert limit <= share * sum(min(value, limit) for value in held)
    more = limit + 1
    assert max(held) <= limit or more > share * sum(min(value, more) for value in held)


# -- bonds --------------------------------------------------------------------------------------------------------


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


def test_a_part_may_be_taken_and_parts_are_few() -> None:
    grid = make_grid(bond=1_000 * TOKEN)
    operator, validator = grid.operators[0], grid.validators[0]
    for _ in range(MAX_UNBONDING):
        grid.ok(operator, WithdrawBond(validator.public, TOKEN))
    assert grid.run(operator, WithdrawBond(validator.public, TOKEN)) == Code.TOO_MANY
    assert bond_of(grid, validator).is_listed


def test_there_are_no_bonds_under_rule_set_1_or_without_elections() -> None:
    grid = Grid(farms=2)
    grid.block()
    data = grid.tx(grid.tenants[0], grid.bond_body(grid.tenants[0], Key("v"), 100 * TOKEN))
    assert grid.check(data) == Code.UNDECODABLE  # what a program without these rules says
    assert grid.block(data)[0].code == Code.UNDECODABLE


# -- fees ---------------------------------------------------------------------------------------------------------


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


# -- misbehaviour -------------------------------------------------------------------------------------------------


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


# -- values -------------------------------------------------------------------------------------------------------


def test_no_owner_can_halt_a_network_of_the_presets() -> None:
    for preset in (MINIMAL_ELECTIONS, MAINNET_ELECTIONS):
        assert preset.cap_permill * 3 < 1_000
        assert preset.light_attack_permill == 1_000
    assert MAINNET_ELECTIONS.min_owners >= 4


# -- the canary of the invariants -----------------------------------------------------------------------------------


def bond_edit(**changes: Any) -> Callable[[Grid], None]:
    def apply(grid: Grid) -> None:
        key = keys.bond_key(grid.validators[0].public)
        grid.state[key] = encode(replace(grid.need(key, ValidatorBond), **changes))

    return apply


def elections_edit(edit: Callable[[Elections], dict[str, Any]]) -> Callable[[Grid], None]:
    def apply(grid: Grid) -> None:
        record = grid.need(keys.ELECTIONS, Elections)
        grid.state[keys.ELECTIONS] = encode(replace(record, **edit(record)))

    return apply


def sets_edit(members: Callable[[Grid], list[tuple[bytes, int]]]) -> Callable[[Grid], None]:
    def apply(grid: Grid) -> None:
        grid.state[keys.VALIDATOR_SETS] = encode(ValidatorSets(1, [(0, members(grid))]))

    return apply


@pytest.mark.parametrize(
    ("tamper", "name"),
    [
        (bond_edit(stake=200 * TOKEN + 1), "tokens_conserved"),
        (bond_edit(unbonding=[Unbonding(1, 0, 0)]), "tokens_conserved"),
        (elections_edit(lambda record: {"pool": record.pool + 1}), "tokens_conserved"),
        (elections_edit(lambda record: {"power": record.power + 1}), "power_matches"),
        (bond_edit(earned=10**9), "pool_covers_earnings"),
        (bond_edit(earned=-1), "bond_positive"),
        (bond_edit(power=11), "power_is_the_newest_set's"),
        (bond_edit(is_removed=True), "removed_never_stands"),
        (bond_edit(is_listed=False), "candidates_match"),
        (bond_edit(unbonding=[Unbonding(0, 0, 0)] * (MAX_UNBONDING + 1)), "unbonding_bounded"),
        (sets_edit(lambda _: []), "validator_set_not_empty"),
        (sets_edit(lambda grid: [(grid.validators[0].public, 0)]), "validator_set_not_empty"),
        (sets_edit(lambda grid: [(grid.validators[0].public, 10)] * 2), "validators_named_once"),
        (lambda grid: grid.state.pop(keys.ELECTIONS), "no_bonds_without_elections"),
        (
            lambda grid: grid.state.pop(keys.validator_address_key(validator_address(grid.validators[0].public))),
            "addresses_match",
        ),
    ],
)
def test_a_tampered_state_is_noticed(grid: Grid, tamper: Callable[[Grid], None], name: str) -> None:
    check_state(grid.state)
    tamper(grid)
    with pytest.raises(InvariantError, match=name):
        check_state(grid.state)


def test_a_set_above_the_cap_is_noticed(grid: Grid) -> None:
    next_era(grid)
    first, other = grid.validators[0], grid.validators[1]
    members = [
        (key, power + 50 * (key == first.public) - 50 * (key == other.public)) for key, power in powers(grid).items()
    ]
    sets_edit(lambda _: members)(grid)
    bond_edit(power=250)(grid)
    key = keys.bond_key(other.public)
    grid.state[key] = encode(replace(grid.need(key, ValidatorBond), power=150))
    with pytest.raises(InvariantError, match="power_within_cap"):
        check_state(grid.state)


# -- genesis ------------------------------------------------------------------------------------------------------


def genesis_state(bonds: list[GenesisBond], elections: ElectionPreset = ELECTED, **edits: Any) -> dict[bytes, bytes]:
    document = app_state_document(preset_with(), [], [], elections=elections, bonds=bonds)
    document["elections"] |= edits
    document |= {"rules": edits["rules"]} if "rules" in edits else {}
    document["elections"].pop("rules", None)
    members = [(Key(f"validator-{number}").public, 10) for number in range(4)]
    return initial_state(document, CHAIN, GENESIS_MS, members)


def genesis_bonds(amount: int = 20_000 * TOKEN) -> list[GenesisBond]:
    return [GenesisBond(Key(f"validator-{number}").public, Key("one-owner").public, amount) for number in range(4)]


def test_one_owner_may_bond_several_validators_of_genesis() -> None:
    state = genesis_state(genesis_bonds())
    check_state(state)
    elections = decode_record(state[keys.ELECTIONS], Elections)
    assert (elections.power, elections.is_elected) == (40, False)


@pytest.mark.parametrize(
    ("bonds", "edits"),
    [
        ([GenesisBond(Key("stranger").public, Key("o").public, 200 * TOKEN)], {}),
        ([*genesis_bonds(), genesis_bonds()[0]], {}),
        (genesis_bonds(TOKEN), {}),
        ([], {"values": {}}),
        ([], {"values": asdict(ELECTED) | {"more": 1}}),
        ([], {"values": asdict(replace(ELECTED, seats=0))}),
        ([], {"values": asdict(replace(ELECTED, seats=129, max_candidates=129))}),
        ([], {"values": asdict(replace(ELECTED, max_candidates=7))}),
        ([], {"values": asdict(replace(ELECTED, min_bond=1))}),
        ([], {"values": asdict(replace(ELECTED, min_owners=9))}),
        ([], {"values": asdict(replace(ELECTED, cap_permill=0))}),
        ([], {"values": asdict(replace(ELECTED, era_epochs=0))}),
        ([], {"values": asdict(replace(ELECTED, unbonding_ms=0))}),
        ([], {"values": asdict(replace(ELECTED, unbonding_blocks=0))}),
        ([], {"values": asdict(replace(ELECTED, fee_permill=1_001))}),
        ([], {"values": asdict(replace(ELECTED, duplicate_vote_permill=-1))}),
        ([], {"rules": 1}),
    ],
)
def test_what_a_genesis_with_elections_refuses(bonds: list[GenesisBond], edits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        genesis_state(bonds, **edits)
    assert caught.value.code == "bad_genesis"


def test_the_presets_can_elect() -> None:
    for preset in (MINIMAL_ELECTIONS, MAINNET_ELECTIONS):
        assert parse_elections(asdict(preset)) == preset
