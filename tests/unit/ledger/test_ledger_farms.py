"""Farms, nodes and stake."""

from typing import Any

import msgspec
import pytest
from ledger_grid import GENESIS_MS, Grid, Key, preset_with

from freehold.base.amounts import MAX_AMOUNT, TOKEN
from freehold.ledger import keys, schedule
from freehold.ledger.codes import Code
from freehold.ledger.draw import stake_at
from freehold.ledger.records import Farm, Node, NodeSlot
from freehold.ledger.transactions import (
    AddStake,
    Close,
    Deploy,
    Offer,
    Place,
    RegisterFarm,
    RegisterNode,
    ReleaseNode,
    Resources,
    RetireNode,
    Transfer,
    UpdateNode,
    possession_bytes,
)

CAPACITY = Resources(4000, 8192, 50_000)
OFFER = Offer(TOKEN, TOKEN, TOKEN)
NEW = Key("new-node")


@pytest.fixture
def grid() -> Grid:
    grid = Grid()
    grid.block()
    return grid


def joining(farm: Key, /, **changes: Any) -> RegisterNode:
    box_key = bytes(32)
    possession = NEW.sign(possession_bytes("freehold-test", NEW.public, farm.public, box_key))
    body = RegisterNode(NEW.public, box_key, possession, ["192.0.2.7:7000"], CAPACITY, OFFER, 100 * TOKEN, 10 * TOKEN)
    return msgspec.structs.replace(body, **changes)


def test_a_farm_is_registered_once_for_a_deposit(grid: Grid) -> None:
    tenant = grid.tenants[0]
    before = grid.balance(tenant.public)
    grid.ok(tenant, RegisterFarm("alpha", Place("BE", "Gent")))
    assert grid.balance(tenant.public) == before - grid.preset.min_fee - grid.preset.record_deposit
    assert grid.run(tenant, RegisterFarm("beta", Place("BE", ""))) == Code.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("name", "place", "code"),
    [
        ("", Place("BE", ""), Code.BAD_NAME),
        ("Upper", Place("BE", ""), Code.BAD_NAME),
        ("a" * 64, Place("BE", ""), Code.BAD_NAME),
        ("ok\n", Place("BE", ""), Code.BAD_NAME),
        ("ok", Place("be", ""), Code.BAD_FIELD),
        ("ok", Place("BEL", ""), Code.BAD_FIELD),
        ("ok", Place("BE\n", ""), Code.BAD_FIELD),
        ("ok", Place("BE", "x" * 65), Code.BAD_FIELD),
        ("ok", Place("BE", "Ge\nnt"), Code.BAD_FIELD),
        ("ok", Place("BE", "Ge\u202ent"), Code.BAD_FIELD),
        ("ok", Place("BE", "Liège"), Code.OK),
    ],
)
def test_names_and_places(grid: Grid, name: str, place: Place, code: Code) -> None:
    assert grid.run(grid.tenants[0], RegisterFarm(name, place)) == code


def test_a_farm_costs_its_deposit(grid: Grid) -> None:
    poor = Key("poor")
    grid.ok(grid.faucet, Transfer(poor.public, 2 * grid.preset.record_deposit))
    assert grid.run(poor, RegisterFarm("x", Place("BE", ""))) == Code.INSUFFICIENT_BALANCE


def test_a_node_joins_and_takes_part_from_the_second_epoch_after(grid: Grid) -> None:
    farm = grid.farms[0]
    before = grid.balance(farm.public)
    grid.ok(farm, joining(farm))
    deposit, fee = grid.preset.record_deposit, grid.preset.min_fee
    assert grid.balance(farm.public) == before - 110 * TOKEN - deposit - fee
    assert grid.balance(NEW.public) == 10 * TOKEN  # its purse, an account of its own
    node = grid.node(NEW.public)
    assert (node.farm, node.slot, node.stake, node.deposit) == (farm.public, 10, 100 * TOKEN, deposit)
    assert node.place == Place("DE", "Berlin")
    row = grid.slot(10)
    assert row is not None
    assert (row.node, row.owner, row.first_epoch, row.last_epoch, row.genesis) == (
        NEW.public,
        farm.public,
        2,
        -1,
        False,
    )
    assert grid.need(keys.farm_key(farm.public), Farm).nodes == 3
    assert grid.totals.node_slots == 11


def test_what_registration_refuses(grid: Grid) -> None:
    farm, tenant = grid.farms[0], grid.tenants[0]
    assert grid.run(tenant, joining(tenant)) == Code.UNKNOWN_FARM
    stolen = joining(grid.farms[1])  # possession was shown to another farm
    assert grid.run(farm, stolen) == Code.BAD_POSSESSION
    cases: list[tuple[dict[str, Any], Code]] = [
        ({"possession": bytes(64)}, Code.BAD_POSSESSION),
        ({"possession": b""}, Code.BAD_POSSESSION),
        ({"box_key": b"1" * 32}, Code.BAD_POSSESSION),
        ({"box_key": b"1"}, Code.BAD_FIELD),
        ({"node": b"1"}, Code.BAD_FIELD),
        ({"node": grid.nodes[0].public}, Code.ALREADY_EXISTS),
        ({"stake": 100 * TOKEN - 1}, Code.STAKE_TOO_LOW),
        ({"stake": -1}, Code.BAD_AMOUNT),
        ({"stake": MAX_AMOUNT + 1}, Code.BAD_AMOUNT),
        ({"stake": 100_000 * TOKEN}, Code.INSUFFICIENT_BALANCE),
        ({"purse": -1}, Code.BAD_AMOUNT),
        ({"purse": 1}, Code.BAD_AMOUNT),  # would not cover the account's own deposit
        ({"capacity": Resources(0, 1, 1)}, Code.BAD_FIELD),
        ({"capacity": Resources(1, 0, 1)}, Code.BAD_FIELD),
        ({"capacity": Resources(1, 1, -1)}, Code.BAD_FIELD),
        ({"capacity": Resources(1 << 31, 1, 1)}, Code.BAD_FIELD),
        ({"offer": Offer(-1, 0, 0)}, Code.BAD_FIELD),
        ({"offer": Offer(0, 0, 10**14)}, Code.BAD_FIELD),
        ({"addresses": ["192.0.2.1"]}, Code.BAD_FIELD),
        ({"addresses": ["192.0.2.1:0"]}, Code.BAD_FIELD),
        ({"addresses": ["192.0.2.1:65536"]}, Code.BAD_FIELD),
        ({"addresses": ["192.0.2.256:1"]}, Code.BAD_FIELD),
        ({"addresses": ["192.0.02.1:1"]}, Code.BAD_FIELD),
        ({"addresses": ["example.org:80"]}, Code.BAD_FIELD),
        ({"addresses": ["192.0.2.1:80\n"]}, Code.BAD_FIELD),
        ({"addresses": ["192.0.2.1:80"] * 2}, Code.BAD_FIELD),
        ({"addresses": [f"192.0.2.{at}:80" for at in range(5)]}, Code.BAD_FIELD),
    ]
    for changes, code in cases:
        assert grid.run(farm, joining(farm, **changes)) == code, (changes, code)
    assert grid.totals.node_slots == 10
    grid.ok(farm, joining(farm, addresses=["[2001:db8::1]:65535", "255.255.255.255:1"]))


def test_updating_is_the_owners_and_keeps_what_is_leased(grid: Grid) -> None:
    node = grid.nodes[0].public
    body = UpdateNode(node, ["192.0.2.9:1"], CAPACITY, OFFER)
    assert grid.run(grid.farms[1], body) == Code.NOT_OWNER
    assert grid.run(grid.farms[0], msgspec.structs.replace(body, node=bytes(32))) == Code.UNKNOWN_NODE
    assert grid.run(grid.farms[0], msgspec.structs.replace(body, addresses=["x"])) == Code.BAD_FIELD
    grid.ok(grid.farms[0], body)
    assert (grid.node(node).capacity, grid.node(node).offer) == (CAPACITY, OFFER)
    grid.deploy(grid.tenants[0], [[0]])
    for small in (Resources(999, 8192, 50_000), Resources(4000, 1023, 50_000), Resources(4000, 8192, 1023)):
        assert grid.run(grid.farms[0], msgspec.structs.replace(body, capacity=small)) == Code.NODE_BUSY
    grid.ok(grid.farms[0], msgspec.structs.replace(body, capacity=Resources(1000, 1024, 1024)))


def test_stake_counts_from_the_second_epoch_after_it_changed() -> None:
    grid = Grid(preset_with(report_epochs=8))
    grid.block()
    farm, node = grid.farms[0], grid.nodes[0].public
    history: dict[int, int] = {}
    for _ in range(7):
        epoch = grid.epoch
        grid.ok(farm, AddStake(node, 2 * TOKEN))
        grid.ok(farm, AddStake(node, TOKEN))
        history[epoch + 2] = grid.node(node).stake
        row = grid.slot(0)
        assert row is not None
        assert len(row.stakes) <= 4
        for asked in (epoch - 1, epoch, epoch + 1, epoch + 2):  # what a draw can still ask for
            known = [stake for start, stake in sorted(history.items()) if start <= asked]
            if asked >= 0:
                assert stake_at(row, asked) == (known[-1] if known else 100 * TOKEN), (epoch, asked)
        grid.next_epoch(reports=False)
    assert grid.run(grid.farms[1], AddStake(node, TOKEN)) == Code.NOT_OWNER
    assert grid.run(farm, AddStake(bytes(32), TOKEN)) == Code.UNKNOWN_NODE
    assert grid.run(farm, AddStake(node, 0)) == Code.BAD_AMOUNT
    assert grid.run(farm, AddStake(node, -TOKEN)) == Code.BAD_AMOUNT
    assert grid.run(farm, AddStake(node, 10**17)) == Code.INSUFFICIENT_BALANCE


def test_a_node_retires_and_is_released_after_its_last_window(grid: Grid) -> None:
    farm, node = grid.farms[0], grid.nodes[0].public
    ids = grid.deploy(grid.tenants[0], [[0]], accept=False)
    assert grid.run(farm, RetireNode(node)) == Code.NODE_BUSY
    grid.ok(grid.tenants[0], Close(ids[0], ""))
    grid.next_epoch()
    assert grid.run(farm, ReleaseNode(node)) == Code.NODE_BUSY
    assert grid.run(grid.farms[1], RetireNode(node)) == Code.NOT_OWNER
    grid.ok(farm, RetireNode(node))
    last = grid.epoch
    row = grid.need(keys.node_slot_key(0), NodeSlot)
    assert (row.last_epoch, grid.node(node).retired_epoch) == (last, last)
    for body in (RetireNode(node), AddStake(node, 1), UpdateNode(node, [], CAPACITY, OFFER)):
        assert grid.run(farm, body) == Code.NODE_RETIRED
    before = grid.balance(farm.public)
    end = schedule.window_end_ms(grid.preset, GENESIS_MS, last)
    grid.block(dt=end - 3 - grid.now)
    assert grid.run(farm, ReleaseNode(node), dt=1) == Code.DEADLINE_NOT_PASSED
    assert grid.run(grid.farms[1], ReleaseNode(node), dt=1) == Code.NOT_OWNER
    grid.ok(farm, ReleaseNode(node), dt=1)
    assert grid.now == end
    deposit, fee = grid.preset.record_deposit, grid.preset.min_fee
    assert grid.balance(farm.public) == before + 100 * TOKEN + deposit - fee
    assert grid.read(keys.node_key(node), Node) is None
    assert grid.run(farm, ReleaseNode(node)) == Code.UNKNOWN_NODE
    assert grid.need(keys.farm_key(farm.public), Farm).nodes == 1
    assert grid.need(keys.node_slot_key(0), NodeSlot).owner == farm.public  # old draws stay checkable


def test_a_retired_node_takes_no_leases(grid: Grid) -> None:
    grid.ok(grid.farms[0], RetireNode(grid.nodes[0].public))
    assert grid.node(grid.nodes[0].public).retired_epoch == 1  # in epoch 0 too it is told from "not retired"
    assert grid.run(grid.tenants[0], Deploy("x", [], [grid.order([0])])) == Code.NODE_RETIRED
