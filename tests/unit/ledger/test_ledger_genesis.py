"""Genesis: strict, complete, every token accounted for."""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from ledger_grid import CAPACITY, CHAIN, GENESIS_MS, OFFER, Grid, Key, preset_with

from freehold.base.amounts import TOKEN
from freehold.base.errors import InvalidInputError, LocalProtocolError
from freehold.base.presets import MAINNET, MINIMAL
from freehold.crypto.strkey import encode_account
from freehold.ledger import keys
from freehold.ledger.context import load_params
from freehold.ledger.genesis import SUPPLY, GenesisFarm, GenesisNode, app_state_document, initial_state, parse_preset
from freehold.ledger.invariants import check_state, total_tokens
from freehold.ledger.records import Account, Farm, Node, NodeSlot, Params, Totals
from freehold.ledger.rules import rules_at
from freehold.ledger.state import decode_record

FARM, NODE, FAUCET, VALIDATOR = Key("farm"), Key("node"), Key("faucet"), Key("validator")
VALIDATORS = [(VALIDATOR.public, 10)]


def document(**changes: Any) -> dict[str, Any]:
    made = app_state_document(
        MINIMAL,
        [GenesisFarm(FARM.public, "alpha", "BE", "Gent")],
        [GenesisNode(NODE.public, bytes(32), FARM.public, ["192.0.2.1:1"], CAPACITY, OFFER)],
        faucet=FAUCET.public,
    )
    return made | changes


def state(made: dict[str, Any]) -> dict[bytes, bytes]:
    return initial_state(made, CHAIN, GENESIS_MS, VALIDATORS)


def test_the_first_state() -> None:
    made = state(document())
    check_state(made)
    totals = decode_record(made[keys.TOTALS], Totals)
    assert (totals.supply, totals.node_slots, totals.epoch, totals.height) == (SUPPLY, 1, -1, 0)
    assert total_tokens(made) == 10_000_000 * TOKEN
    deposit = MINIMAL.record_deposit
    farm = decode_record(made[keys.account_key(FARM.public)], Account)
    assert farm.balance == 10_000 * TOKEN - 2 * deposit - 110 * TOKEN
    assert decode_record(made[keys.account_key(NODE.public)], Account).balance == 10 * TOKEN
    assert decode_record(made[keys.account_key(FAUCET.public)], Account).balance == 1_000_000 * TOKEN
    assert totals.treasury == SUPPLY - 1_010_000 * TOKEN
    assert decode_record(made[keys.farm_key(FARM.public)], Farm).nodes == 1
    slot = decode_record(made[keys.node_slot_key(0)], NodeSlot)
    assert (slot.first_epoch, slot.last_epoch, slot.genesis, slot.stakes) == (0, -1, True, [(0, 100 * TOKEN)])
    assert decode_record(made[keys.node_key(NODE.public)], Node).stake == 100 * TOKEN


def test_it_is_plain_json_and_round_trips() -> None:
    made = document()
    assert msgspec.json.decode(msgspec.json.encode(made)) == made
    assert state(msgspec.json.decode(msgspec.json.encode(made))) == state(made)


def test_parameters_are_what_the_document_says() -> None:
    scaled = preset_with(epoch_ms=20_000, report_epochs=10)
    made = app_state_document(scaled, [], [], accounts={FARM.public: TOKEN})
    params, preset = load_params(state(made))
    assert preset == scaled
    assert (params.chain_id, params.genesis_ms, params.validators, params.faucet) == (
        CHAIN,
        GENESIS_MS,
        VALIDATORS,
        b"",
    )
    assert params.rules == [(1, 1)]


def test_both_presets_can_work() -> None:
    for preset in (MINIMAL, MAINNET):
        values = {name: getattr(preset, name) for name in preset.__struct_fields__ if name != "name"}
        assert parse_preset(preset.name, values) == preset


def test_unknown_rules_refuse_to_run() -> None:
    params = Params(1, CHAIN, 0, "minimal", [], [], b"", [(1, 1), (50, 99)])
    assert rules_at(params, 49).version == 1
    with pytest.raises(LocalProtocolError) as caught:
        rules_at(params, 50)
    assert caught.value.code == "unknown_rules"
    with pytest.raises(LocalProtocolError):
        rules_at(params, 0)


def edit(path: list[str | int], value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(made: dict[str, Any]) -> None:
        target: Any = made
        for step in path[:-1]:
            target = target[step]
        if value is KeyError:
            del target[path[-1]]
        else:
            target[path[-1]] = value

    return apply


BAD = [
    edit(["rules"], 99),
    edit(["rules"], "1"),
    edit(["preset"], "other"),
    edit(["preset"], KeyError),
    edit(["extra"], 1),
    edit(["values", "epoch_ms"], KeyError),
    edit(["values", "unknown"], 1),
    edit(["values", "epoch_ms"], 0),
    edit(["values", "epoch_ms"], "10000"),
    edit(["values", "epoch_ms"], 10_000.0),
    edit(["values", "epoch_ms"], True),
    edit(["values", "tick_ms"], 10_001),
    edit(["values", "report_window_ms"], 10_001),
    edit(["values", "report_slot_ms"], 10_001),
    edit(["values", "report_epochs"], 3),
    edit(["values", "witnesses"], 16),
    edit(["values", "threshold"], 1),
    edit(["values", "threshold"], 4),
    edit(["values", "full_age_epochs"], 0),
    edit(["values", "min_fee"], 0),
    edit(["values", "verdict_window_ms"], 6_001),
    edit(["values", "verdict_fee"], TOKEN),
    edit(["values", "farm_permill"], 901),
    edit(["values", "reserve_permill"], 1_001),
    edit(["values", "void_percent"], 101),
    edit(["values", "record_deposit"], -1),
    edit(["treasury"], "-1"),
    edit(["treasury"], "1e9"),
    edit(["treasury"], 1),
    edit(["treasury"], "922337203685"),
    edit(["faucet"], encode_account(Key("x").public)),
    edit(["faucet"], "G"),
    edit(["accounts", 0, "balance"], "0.01"),
    edit(["accounts", 0, "id"], "GABC"),
    edit(["accounts"], []),
    edit(["farms", 0, "name"], "Bad Name"),
    edit(["farms", 0, "country"], "Belgium"),
    edit(["farms", 0, "owner"], encode_account(Key("x").public)),
    edit(["farms"], []),
    edit(["nodes", 0, "node"], "00"),
    edit(["nodes", 0, "node"], NODE.public.hex().upper()),
    edit(["nodes", 0, "box_key"], ""),
    edit(["nodes", 0, "farm"], encode_account(FAUCET.public)),
    edit(["nodes", 0, "addresses"], ["here"]),
    edit(["nodes", 0, "capacity", "vcpu_milli"], 0),
    edit(["nodes", 0, "capacity", "gpu"], 1),
    edit(["nodes", 0, "offer", "vcpu_hour"], -1),
    edit(["nodes", 0, "stake"], "99"),
    edit(["nodes", 0, "stake"], "99999"),
    edit(["nodes", 0, "purse"], "0.01"),
    edit(["nodes", 0, "extra"], 1),
]


@pytest.mark.parametrize("change", BAD)
def test_what_genesis_refuses(change: Callable[[dict[str, Any]], None]) -> None:
    made = copy.deepcopy(document())
    change(made)
    with pytest.raises(InvalidInputError) as caught:
        state(made)
    assert caught.value.message
    assert caught.value.exit_code == 2


def test_what_is_named_twice_is_refused() -> None:
    for family in ("accounts", "farms", "nodes"):
        made = document()
        made[family] = made[family] * 2
        with pytest.raises(InvalidInputError):
            state(made)


@pytest.mark.parametrize(
    ("chain_id", "genesis_ms", "validators"),
    [
        ("", GENESIS_MS, VALIDATORS),
        ("x" * 51, GENESIS_MS, VALIDATORS),
        (CHAIN, 0, VALIDATORS),
        (CHAIN, GENESIS_MS, []),
        (CHAIN, GENESIS_MS, VALIDATORS * 2),
        (CHAIN, GENESIS_MS, [(b"short", 1)]),
        (CHAIN, GENESIS_MS, [(bytes(32), 0)]),
    ],
)
def test_the_frame_of_genesis(chain_id: str, genesis_ms: int, validators: list[tuple[bytes, int]]) -> None:
    with pytest.raises(InvalidInputError):
        initial_state(document(), chain_id, genesis_ms, validators)


def test_more_balances_than_supply_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        app_state_document(MINIMAL, [], [], accounts={FARM.public: SUPPLY + 1})


def test_genesis_nodes_are_drawn_in_epoch_0() -> None:
    grid = Grid()
    grid.block()
    assert all(len(grid.witnesses(node.public, 0)) == 3 for node in grid.nodes)
