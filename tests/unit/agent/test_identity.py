"""A node's home: settings come back as they were written, and trust is read strictly."""

from pathlib import Path

import pytest

from freehold.agent.identity import NodeHome, NodeSettings, create_keys, write_settings
from freehold.base.errors import InvalidInputError
from freehold.light.genesis import genesis_document
from freehold.light.trust import GENESIS_TRUST, PinnedTrust
from freehold.light.types import Timestamp

URLS = "http://127.0.0.1:4600,http://127.0.0.1:4601"


def home_of(folder: Path, **fields: str) -> NodeHome:
    create_keys(folder)
    document = genesis_document(
        chain_id="test", genesis_time=Timestamp.from_ms(0), validators=[(bytes(32), 1, "v0")], app_state={}
    )
    (folder / "genesis.json").write_bytes(document)
    write_settings(folder, NodeSettings(ledger=URLS, listen="127.0.0.1:4700", **fields))
    return NodeHome(folder)


def test_settings_come_back_and_trust_begins_at_genesis(tmp_path: Path) -> None:
    home = home_of(tmp_path, name="attic")
    assert (home.settings.ledger, home.settings.name, home.trust) == (URLS, "attic", GENESIS_TRUST)


def test_trust_may_begin_at_a_header(tmp_path: Path) -> None:
    pin = PinnedTrust(12, bytes(range(32)))
    assert home_of(tmp_path, trust=str(pin)).trust == pin
    with pytest.raises(InvalidInputError) as caught:
        home_of(tmp_path, trust="12")
    assert caught.value.code == "bad_trust"
