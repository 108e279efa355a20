"""Upgrades: who may agree, when it takes effect, what an old program does, and replay across the change."""

from typing import Any

import pytest
from ledger_grid import CHAIN, GENESIS_MS, Grid, Key, apply_changes, preset_with, state_digest, verify
from msgspec.structs import replace

from freehold.base.amounts import TOKEN
from freehold.base.codec import encode
from freehold.base.errors import LocalProtocolError
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.execute import BlockInput, Lane, beacon_tx, check_tx, execute_block
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.records import Elections, Params
from freehold.ledger.rules import RULE_SETS, rules_at
from freehold.ledger.transactions import AddBond, Upgrade, beacon_signing_bytes
from freehold.ledger.upgrades import MAX_AHEAD_BLOCKS, MAX_APPROVALS, NOTICE_BLOCKS

HEIGHT = 30


@pytest.fixture
def grid() -> Grid:
    grid = Grid(preset_with(report_epochs=8), farms=2, validators=4)
    grid.block()
    return grid


def agree(grid: Grid, count: int = 3, **changes: Any) -> Upgrade:
    values: dict[str, Any] = {"height": HEIGHT, "rules": 2, "settings": [1]} | changes
    return grid.upgrade_body(**values, signers=grid.validators[:count])


def to_height(grid: Grid, height: int) -> None:
    while grid.height < height:
        grid.block(dt=100)


def test_more_than_two_thirds_agree_and_the_rules_change_at_the_height(grid: Grid) -> None:
    owner = grid.tenants[0]
    bond = grid.bond_body(owner, Key("v"), 100 * TOKEN)
    grid.ok(grid.faucet, agree(grid))
    assert grid.need(keys.PARAMS, Params).rules == [(1, 1), (HEIGHT, 2)]
    to_height(grid, HEIGHT - 2)
    assert grid.run(owner, bond) == Code.UNDECODABLE
    assert keys.ELECTIONS not in grid.state
    assert grid.run(owner, bond) == Code.OK
    assert grid.height == HEIGHT
    assert rules_at(grid.need(keys.PARAMS, Params), HEIGHT).version == 2
    assert rules_at(grid.need(keys.PARAMS, Params), HEIGHT - 1).version == 1


def test_an_agreed_upgrade_has_the_lane_of_governance_when_its_nonce_is_due(grid: Grid) -> None:
    def check(body: Upgrade, ahead: int = 0) -> tuple[Code, Lane]:
        data = grid.tx(grid.faucet, body, nonce=grid.nonce(grid.faucet.public) + ahead)
        result = check_tx(grid.state, data, grid.height + 1, verify)
        return result.code, result.lane

    assert check(agree(grid)) == (Code.OK, Lane.GOVERNANCE)
    assert check(agree(grid), ahead=1) == (Code.OK, Lane.USERS)
    assert check(agree(grid, count=2))[0] == Code.NOT_ENOUGH_POWER
    assert check(agree(grid, count=2), ahead=1) == (Code.OK, Lane.USERS)  # nobody has tried it yet


def test_an_upgrade_may_leave_elections_off(grid: Grid) -> None:
    grid.ok(grid.faucet, agree(grid, settings=[]))
    to_height(grid, HEIGHT)
    assert keys.ELECTIONS not in grid.state
    assert grid.run(grid.tenants[0], grid.bond_body(grid.tenants[0], Key("v"), 100 * TOKEN)) == Code.NO_ELECTIONS
    assert grid.run(grid.tenants[0], AddBond(Key("v").public, TOKEN)) == Code.UNKNOWN_VALIDATOR
    for _ in range(3):
        grid.next_epoch()
    assert grid.totals.fees > 0


REFUSED = [
    ({"count": 2}, Code.NOT_ENOUGH_POWER),  # exactly half
    ({"rules": 1}, Code.UNKNOWN_VERSION),
    ({"rules": 0}, Code.BAD_FIELD),
    ({"rules": 1 << 32}, Code.BAD_FIELD),
    ({"settings": [-1]}, Code.BAD_FIELD),
    ({"settings": [0] * 17}, Code.TOO_MANY),
    ({"height": 1 + NOTICE_BLOCKS}, Code.UPGRADE_TOO_SOON),
    ({"height": 0}, Code.UPGRADE_TOO_SOON),
    ({"height": 3 + MAX_AHEAD_BLOCKS}, Code.BAD_FIELD),
]


@pytest.mark.parametrize(("changes", "code"), REFUSED)
def test_what_an_upgrade_refuses(grid: Grid, changes: dict[str, Any], code: Code) -> None:
    before = grid.state[keys.PARAMS]
    if changes.get("settings") == [-1]:
        body = Upgrade(HEIGHT, 2, [-1], [])
    elif "rules" in changes and changes["rules"] > 1 << 31:
        body = Upgrade(HEIGHT, changes["rules"], [], [])
    else:
        body = agree(grid, **changes)
    assert grid.run(grid.faucet, body) == code
    assert grid.state[keys.PARAMS] == before


def test_exactly_two_thirds_are_not_enough() -> None:
    grid = Grid(farms=2, validators=3)
    grid.block()
    assert grid.run(grid.faucet, agree(grid, 2)) == Code.NOT_ENOUGH_POWER
    assert grid.run(grid.faucet, agree(grid, 3)) == Code.OK


def test_approvals_are_of_validators_each_once_and_for_this_upgrade(grid: Grid) -> None:
    body = agree(grid, 4)
    twice = replace(body, approvals=[body.approvals[0], *body.approvals])
    assert grid.run(grid.faucet, twice) == Code.NOT_SORTED
    stranger = grid.upgrade_body(HEIGHT, 2, [1], [*grid.validators, Key("stranger")])
    assert grid.run(grid.faucet, stranger) == Code.UNKNOWN_VALIDATOR
    for change in ({"height": HEIGHT + 1}, {"rules": 3}, {"settings": []}):
        assert grid.run(grid.faucet, replace(body, **change)) == Code.BAD_SIGNATURE
    many = replace(body, approvals=[(bytes([at]), b"") for at in range(MAX_APPROVALS + 1)])
    assert grid.run(grid.faucet, many) == Code.TOO_MANY


def test_one_change_at_a_time_and_none_twice(grid: Grid) -> None:
    grid.ok(grid.faucet, agree(grid))
    assert grid.run(grid.faucet, agree(grid, height=HEIGHT + 5)) == Code.UPGRADE_PENDING
    to_height(grid, HEIGHT)
    assert grid.run(grid.faucet, agree(grid, height=HEIGHT + 50)) == Code.UNKNOWN_VERSION


def test_an_old_program_agrees_and_then_halts_with_the_next_step(grid: Grid) -> None:
    grid.ok(grid.faucet, agree(grid, rules=max(RULE_SETS) + 1))
    to_height(grid, HEIGHT - 1)
    state = dict(grid.state)
    with pytest.raises(LocalProtocolError) as caught:
        grid.block(dt=100)
    assert caught.value.code == "unknown_rules"
    assert f"height {HEIGHT}" in caught.value.message
    assert "install the Freehold release" in caught.value.hint
    assert grid.state == state


def test_replay_across_the_change_gives_the_live_state() -> None:
    grid = Grid(preset_with(report_epochs=8), farms=2, validators=4)
    genesis = dict(grid.state)
    grid.block()
    grid.ok(grid.faucet, agree(grid))
    to_height(grid, HEIGHT)
    grid.ok(grid.tenants[0], grid.bond_body(grid.tenants[0], grid.validators[0], 300 * TOKEN))
    for _ in range(3):
        grid.next_epoch()
    for block in grid.blocks:
        apply_changes(genesis, execute_block(genesis, block, verify))
    assert state_digest(genesis) == state_digest(grid.state)
    assert grid.need(keys.ELECTIONS, Elections).power == 10


def test_a_block_with_a_body_of_later_rules_gives_what_an_older_program_gave(grid: Grid) -> None:
    """Programs with and without rule-set 2 must give the same results up to the change, or they would part ways."""
    known = grid.tx(grid.tenants[0], grid.bond_body(grid.tenants[0], Key("v"), 100 * TOKEN))
    unknown = known.replace(encode(30) + b"\xc4", encode(99) + b"\xc4", 1)
    assert unknown != known
    wrong_version = grid.tx(grid.tenants[0], grid.bond_body(grid.tenants[0], Key("v"), 100 * TOKEN), version=9)
    codes = [result.code for result in grid.block(known, unknown, wrong_version)]
    assert codes == [Code.UNDECODABLE] * 3


def test_unknown_rules_in_genesis_are_refused_at_start() -> None:
    params = Params(1, CHAIN, 0, "minimal", [], [], b"", [(1, max(RULE_SETS) + 1)])
    with pytest.raises(LocalProtocolError):
        rules_at(params, 1)


def test_a_genesis_may_begin_with_rule_set_2_without_elections() -> None:
    document = app_state_document(preset_with(), [], []) | {"rules": 2}
    validator = Key("validator")
    state = initial_state(document, CHAIN, GENESIS_MS, [(validator.public, 10)])
    beacon = beacon_tx(1, validator.sign(beacon_signing_bytes(CHAIN, 1)))
    result = execute_block(state, BlockInput(1, GENESIS_MS, validator.public, [beacon]), verify)
    assert result.validator_updates == []
