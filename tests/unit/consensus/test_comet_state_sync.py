"""What a home says about state sync, and what the engine is told of it."""

import json
import tomllib
from pathlib import Path

import msgspec
import pytest

from freehold.base.errors import InvalidInputError
from freehold.base.presets import MINIMAL
from freehold.consensus.comet.configuration import prepare
from freehold.consensus.comet.founding import genesis_of, settle
from freehold.consensus.comet.operators import OperatorHome, check_state_sync
from freehold.ledger.genesis import app_state_document

SERVERS = ["http://192.0.2.1:4600", "http://192.0.2.2:4600"]
HASH = "ab" * 32


def make_home(folder: Path, **state_sync: object) -> OperatorHome:
    home = OperatorHome(folder)
    card = home.make_keys("one", "127.0.0.1:26656")
    document = genesis_of([card], "chain", app_state_document(MINIMAL, [], []), time_ms=1_790_000_000_000)
    settle(home, document, [card], rpc="127.0.0.1:0", **state_sync)  # type: ignore[arg-type]
    return home


def engine_files(home: OperatorHome) -> tuple[dict[str, object], dict[str, object]]:
    prepare(home, MINIMAL)
    config = tomllib.loads((home.engine / "config" / "config.toml").read_text())
    record = json.loads((home.engine / "data" / "priv_validator_state.json").read_text())
    return config["statesync"], record


def test_without_servers_the_engine_fetches_blocks(tmp_path: Path) -> None:
    assert engine_files(make_home(tmp_path)) == ({"enable": False}, {"height": "0", "round": 0, "step": 0})


def test_servers_and_trust_reach_the_engine_and_nothing_is_signed_below_the_trusted_height(tmp_path: Path) -> None:
    home = make_home(tmp_path, state_sync=SERVERS, trust=f"7:{HASH}")
    (home.engine / "chunks" / "left").mkdir(parents=True)
    section, record = engine_files(home)
    assert section["enable"] is True
    assert section["rpc_servers"] == "http://192.0.2.1:4600/v1/engine,http://192.0.2.2:4600/v1/engine"
    assert (section["trust_height"], section["trust_hash"]) == (7, HASH.upper())
    assert record == {"height": "7", "round": 0, "step": 3}
    assert list((home.engine / "chunks").iterdir()) == []  # what a killed sync left is gone
    settings = home.settings()
    home.save_settings(msgspec.structs.replace(settings, snapshot_interval=5))
    assert home.settings() == msgspec.structs.replace(settings, snapshot_interval=5)


@pytest.mark.parametrize(
    ("servers", "trust", "code"),
    [
        (SERVERS[:1], f"7:{HASH}", "bad_state_sync"),
        ([SERVERS[0], SERVERS[0]], f"7:{HASH}", "bad_state_sync"),
        ([], f"7:{HASH}", "bad_state_sync"),
        ([SERVERS[0], "192.0.2.2:4600"], f"7:{HASH}", "bad_state_sync"),
        ([SERVERS[0], "http://example:4600"], f"7:{HASH}", "bad_address"),
        ([SERVERS[0], "http://192.0.2.2:4600,http://evil"], f"7:{HASH}", "bad_address"),
        (SERVERS, "", "bad_trust"),
        (SERVERS, HASH, "bad_trust"),
        (SERVERS, f"0:{HASH}", "bad_trust"),
        (SERVERS, f"-1:{HASH}", "bad_trust"),
        (SERVERS, f"7:{HASH[:-1]}", "bad_trust"),
        (SERVERS, f"7:{HASH[:-1]}g", "bad_trust"),
        (SERVERS, f"{1 << 63}:{HASH}", "bad_trust"),
    ],
)
def test_what_is_no_state_sync_is_refused_with_its_code(servers: list[str], trust: str, code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_state_sync(servers, trust)
    assert refused.value.code == code
    assert refused.value.hint
