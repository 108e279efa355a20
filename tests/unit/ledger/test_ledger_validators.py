"""Elections: sets, caps, values, the invariants over them, and a genesis that has them."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_grid import CHAIN, GENESIS_MS, Grid, Key, preset_with, verify
from msgspec.structs import asdict, replace
from validators_grid import ELECTED, ERA_MS, bond_of, join, make_grid, next_era, powers

from freehold.base.amounts import TOKEN
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
from freehold.ledger.records import Candidates, Elections, Unbonding, ValidatorBond, ValidatorSets
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import (
    AddBond,
    Transfer,
    beacon_signing_bytes,
)
from freehold.ledger.validator_sets import set_at


@pytest.fixture
def grid() -> Grid:
    return make_grid()


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


def test_no_owner_can_halt_a_network_of_the_presets() -> None:
    for preset in (MINIMAL_ELECTIONS, MAINNET_ELECTIONS):
        assert preset.cap_permill * 3 < 1_000
        assert preset.light_attack_permill == 1_000
    assert MAINNET_ELECTIONS.min_owners >= 4


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
