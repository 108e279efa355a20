"""`freehold ledger validators|bond|unbond|release|claim|rejoin|possession|upgrade` on a running ledger, as typed."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_process import FAST, FAUCET, VALIDATOR, LedgerProcess, make_home
from msgspec.structs import replace
from person import Person

from freehold.base.presets import MINIMAL_ELECTIONS
from freehold.crypto.strkey import encode_account
from freehold.ledger.genesis import app_state_document
from freehold.light.genesis import genesis_document
from freehold.light.types import Timestamp

CHAIN = "e2e-validators"
KEY = VALIDATOR.public.hex()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[tuple[Person, Path]]:
    """A ledger with elections; the embedded engine's one validator stays, for nobody else stands."""
    home = make_home(tmp_path / "ledger")
    state = app_state_document(FAST, [], [], faucet=FAUCET.public, elections=replace(MINIMAL_ELECTIONS, min_owners=3))
    (home / "genesis.json").write_bytes(
        genesis_document(
            chain_id=CHAIN,
            genesis_time=Timestamp.from_ms(time.time_ns() // 1_000_000),
            validators=[(VALIDATOR.public, 10, "v0")],
            app_state=state,
        )
    )
    with LedgerProcess(home) as daemon:
        person = Person(tmp_path / "person", daemon.wait_started(), home / "genesis.json")
        yield person, home


def test_the_life_of_a_bond_as_typed(ledger: tuple[Person, Path], tmp_path: Path) -> None:
    person, home = ledger
    account = person.type("wallet", "new")["account"]
    before = person.type("ledger", "validators")
    assert [(row["validator"], row["state"], row["bond"]) for row in before["validators"]] == [(KEY, "votes", None)]

    plan = person.type("ledger", "bond", "200", "--home", str(home), "--plan")["plan"]
    assert (plan["amount"], plan["deposit"], plan["rank"], plan["power"]) == ("200", "0.1", 1, 0)
    assert person.type("wallet", "balance")["balance"] == "1000"  # a plan costs nothing
    low = person.type("ledger", "bond", "50", "--home", str(home), code=2)
    assert low["error"]["code"] == "bond_too_low"

    # the key agrees on its machine, the wallet pays on another
    card = tmp_path / "card.json"
    card.write_text(json.dumps(person.type("ledger", "possession", "--home", str(home), "--owner", account)))
    assert person.type("ledger", "bond", "200", "--possession", str(card))["validator"] == KEY
    assert person.type("ledger", "bond", "50", "--home", str(home))["plan"]["bond"] == "250"
    stranger = encode_account(FAUCET.public)
    card.write_text(json.dumps(person.type("ledger", "possession", "--home", str(home), "--owner", stranger)))
    assert person.type("ledger", "bond", "200", "--possession", str(card), code=2)["error"]["code"] == "wrong_owner"
    assert person.type("ledger", "bond", "200", code=2)["error"]["code"] == "bad_usage"

    planned = person.type("ledger", "unbond", KEY, "100", "--plan")["plan"]
    assert (planned["amount"], planned["retires"]) == ("100", False)
    person.type("ledger", "unbond", KEY, "100")
    assert person.type("ledger", "unbond", KEY, "100", code=3)["error"]["code"] == "bond_too_low"
    assert person.type("ledger", "unbond", "00" * 32, "1", code=3)["error"]["code"] == "unknown_validator"
    (row,) = person.type("ledger", "validators")["validators"]
    assert (row["bond"], row["owner"], row["unbonding"][0]["amount"]) == ("150", account, "100")
    assert row["unbonding"][0]["due"][:16] == planned["due"][:16]

    assert person.type("ledger", "claim", KEY, "--plan")["plan"]["earned"] != "0"
    person.type("ledger", "claim", KEY)
    assert person.type("ledger", "release", KEY, "--plan")["plan"]["due"] == "0"
    assert person.type("ledger", "release", KEY, code=3)["error"]["code"] == "nothing_due"
    assert person.type("ledger", "unbond", KEY, "--all")["plan"]["retires"]
    text = person.read("ledger", "validators")
    assert "next election" in text
    assert "who signs less than 50 % of an era's blocks loses its place" in text
    assert before["attendance"]["least_blocks"] == 30
    assert (row["missed_blocks"], row["absent"], row["may_rejoin"]) == (0, False, None)
    assert person.type("ledger", "rejoin", KEY, code=3)["error"]["code"] == "not_absent"
    assert "rules 3 since height 1" in text


def test_an_upgrade_as_typed(ledger: tuple[Person, Path], tmp_path: Path) -> None:
    person, home = ledger
    person.type("wallet", "new")
    approval = person.type("ledger", "upgrade", "--home", str(home), "--height", "5000", "--rules", "4")
    path = tmp_path / "approval.json"
    path.write_text(json.dumps(approval | {"validator": FAUCET.public.hex()}))
    refused = person.type("ledger", "upgrade", "--approvals", str(path), code=2)
    assert refused["error"]["code"] == "not_enough_power"
    path.write_text(json.dumps(approval))
    done = person.type("ledger", "upgrade", "--approvals", str(path))
    assert (done["rules"], done["from"]) == (4, 5000)
    assert "rules 4 from height 5000" in person.read("ledger", "validators")
    assert person.type("ledger", "upgrade", "--approvals", str(path), code=3)["error"]["code"] == "upgrade_pending"


def test_a_ledger_without_elections_says_so(tmp_path: Path) -> None:
    home = make_home(tmp_path / "ledger")
    with LedgerProcess(home) as daemon:
        person = Person(tmp_path / "person", daemon.wait_started(), home / "genesis.json")
        person.type("wallet", "new")
        refused = person.type("ledger", "bond", "200", "--home", str(home), code=3)
        assert refused["error"]["code"] == "no_elections"
        assert "keeps the validators of its genesis" in person.read("ledger", "validators")
