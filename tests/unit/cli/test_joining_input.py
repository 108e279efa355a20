"""What `freehold ledger join` makes of a genesis document that is not what it should be: nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from freehold.base.errors import InvalidInputError
from freehold.base.presets import ELECTIONS, MINIMAL
from freehold.cli.joining import join
from freehold.consensus.comet.founding import genesis_of
from freehold.consensus.comet.operators import OperatorHome
from freehold.ledger.genesis import app_state_document


@pytest.mark.parametrize(
    "elections", [5, [], {}, {"values": 5, "bonds": []}, {"values": {"seats": "x"}, "bonds": []}, {"values": {}}]
)
def test_elections_of_another_form_are_refused_before_a_home_is_made(tmp_path: Path, elections: Any) -> None:
    card = OperatorHome(tmp_path / "one").make_keys("one", "127.0.0.1:1")
    state = app_state_document(MINIMAL, [], [], elections=ELECTIONS["minimal"])
    document = json.loads(genesis_of([card], "chain", state))
    document["app_state"]["elections"] = elections
    (tmp_path / "genesis.json").write_text(json.dumps(document))
    home = tmp_path / "home"
    with pytest.raises(InvalidInputError) as error:
        join(
            home=home,
            genesis=str(tmp_path / "genesis.json"),
            operators=[tmp_path / "one" / "operator.json"],
            name="two",
            address="127.0.0.1:2",
        )
    assert (error.value.code, home.exists()) == ("bad_genesis", False)
