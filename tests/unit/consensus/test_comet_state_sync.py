"""What a home says about state sync, and what the engine is told of it."""

import json
import tomllib
from pathlib import Path

import msgspec
import pytest

from freehold.base.errors import InvalidInputError
from freehold.base.presets import MINIMAL
from freehold.consensus.comet.addresses import check_server, check_state_sync, merge_peers, parse_peer
from freehold.consensus.comet.configuration import begin_signing, held_data, prepare, remove_data
from freehold.consensus.comet.founding import genesis_of, settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.errors import StorageDamagedError
from freehold.ledger.genesis import app_state_document
from freehold.light.trust import trust_period_ms

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
    section, record = engine_files(home)
    assert section["enable"] is True
    assert section["rpc_servers"] == "http://192.0.2.1:4600/v1/engine,http://192.0.2.2:4600/v1/engine"
    assert (section["trust_height"], section["trust_hash"]) == (7, HASH.upper())
    assert record == {"height": "7", "round": 0, "step": 3}
    assert (home.engine / "chunks").is_dir()
    settings = home.settings()
    home.save_settings(msgspec.structs.replace(settings, snapshot_interval=5))
    assert home.settings() == msgspec.structs.replace(settings, snapshot_interval=5)


@pytest.mark.parametrize(
    ("servers", "trust", "code"),
    [
        (SERVERS[:1], f"7:{HASH}", "bad_state_sync"),
        ([SERVERS[0], SERVERS[0]], f"7:{HASH}", "bad_state_sync"),
        ([], f"7:{HASH}", "bad_state_sync"),
        ([SERVERS[0], SERVERS[0].upper() + "/"], f"7:{HASH}", "bad_state_sync"),
        ([SERVERS[0], "192.0.2.2:4600"], f"7:{HASH}", "bad_server"),
        ([SERVERS[0], "ftp://192.0.2.2:4600"], f"7:{HASH}", "bad_server"),
        ([SERVERS[0], "http://exam ple:4600"], f"7:{HASH}", "bad_address"),
        ([SERVERS[0], "http://example:0"], f"7:{HASH}", "bad_address"),
        ([SERVERS[0], "http://example:4600/v1"], f"7:{HASH}", "bad_address"),
        ([SERVERS[0], "http://[::1%,http://192.0.2.6:1,]:4600"], f"7:{HASH}", "bad_address"),
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


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("http://Example.org", "http://example.org:80"),
        ("https://example.org/", "https://example.org:443"),
        ("http://192.0.2.1:4600", "http://192.0.2.1:4600"),
        ("http://[2001:db8::1]:4600/", "http://[2001:db8::1]:4600"),
        ("http://[2001:db8::1]", "http://[2001:db8::1]:80"),
    ],
)
def test_a_server_is_written_in_one_way(text: str, place: str) -> None:
    assert check_server(text) == place == check_server(place)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("ab" * 20, "bad_address"),
        ("AB" * 20 + "@192.0.2.1:1", "bad_peer"),
        ("ab" * 19 + "@192.0.2.1:1", "bad_peer"),
        ("ab" * 20 + "@192.0.2.1", "bad_address"),
        ("ab" * 20 + "@2001:db8::1:26656", "bad_address"),
        ("ab" * 20 + "@host:65536", "bad_address"),
        ("ab" * 20 + '@ho"st:1', "bad_address"),
        ("ab" * 20 + "@host:1,x", "bad_address"),
        ("ab" * 20 + "@[fe80::1%eth0]:1", "bad_address"),
        ("ab" * 20 + "@[::1%," + "cd" * 20 + "@192.0.2.6:1,]:1", "bad_address"),
        ("ab" * 20 + '@[::1%"]\nmetrics = "192.0.2.6:1"\n#]:1', "bad_address"),
    ],
)
def test_what_is_no_peer_is_refused_with_its_code(text: str, code: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_peer(text)
    assert refused.value.code == code
    assert refused.value.hint


def test_peers_are_added_by_their_ids_and_bounded() -> None:
    ids = [f"{number:040x}" for number in range(70)]
    known = [f"{ids[0]}@192.0.2.1:1", f"{ids[1]}@host.example:2"]
    merged = merge_peers(known, [f"{ids[0]}@192.0.2.9:9", f"{ids[2]}@192.0.2.3:3", f"{ids[5]}@192.0.2.5:5"], ids[5])
    assert merged == [f"{ids[0]}@192.0.2.9:9", f"{ids[1]}@host.example:2", f"{ids[2]}@192.0.2.3:3"]
    with pytest.raises(InvalidInputError) as refused:
        merge_peers(known, [f"{id_}@192.0.2.1:1" for id_ in ids], "")
    assert refused.value.code == "too_many_peers"


def test_what_an_operator_has_set_stays_when_a_home_is_set_up_again(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    other = OperatorHome(tmp_path / "other").make_keys("other", "192.0.2.7:26656")
    mine = msgspec.structs.replace(
        home.settings(),
        listen="0.0.0.0:26656",
        peers=[f"{'ab' * 20}@friend.example:26656"],
        keep_blocks=77,
        metrics="127.0.0.1:26660",
        snapshot_interval=5,
        snapshot_keep=3,
        snapshot_chunk_bytes=65_536,
        state_sync=SERVERS,
        trust=f"7:{HASH}",
    )
    home.save_settings(mine)
    home.rpc_settings_path.write_text('listen = ["192.0.2.1:80"]\nkeep_blocks = 9\n')
    settle(home, home.genesis_path.read_bytes(), [home.card(), other], rpc="127.0.0.1:0")
    assert home.settings() == msgspec.structs.replace(mine, peers=[*mine.peers, f"{other.peer}@{other.address}"])
    assert home.rpc_settings_path.read_text() == 'listen = ["192.0.2.1:80"]\nkeep_blocks = 9\n'
    settle(home, home.genesis_path.read_bytes(), [], rpc="127.0.0.1:0", state_sync=[])
    assert (home.settings().state_sync, home.settings().trust, home.settings().keep_blocks) == ([], "", 77)


def test_a_record_of_what_was_signed_only_rises(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    path = home.engine / "data" / "priv_validator_state.json"
    begin_signing(home, 12)
    assert json.loads(path.read_text()) == {"height": "12", "round": 0, "step": 3}
    path.write_text('{"height": "15", "round": 2, "step": 2, "signature": "kept"}')
    begin_signing(home, 14)
    assert json.loads(path.read_text())["signature"] == "kept"
    begin_signing(home, 16)
    assert json.loads(path.read_text()) == {"height": "16", "round": 0, "step": 3}
    path.write_text("not json")
    with pytest.raises(StorageDamagedError) as refused:
        begin_signing(home, 17)
    assert refused.value.code == "signer_record_damaged"
    assert path.read_text() == "not json"


def test_data_goes_and_keys_settings_and_the_record_stay(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    prepare(home, MINIMAL)
    before = {path.name: path.read_bytes() for path in home.folder.iterdir() if path.is_file()}
    for name in ("blockstore.db", "state.db", "cs.wal"):
        (home.engine / "data" / name).mkdir()
    for name in ("state", "state.restoring", "snapshots"):
        (home.data / name).mkdir(parents=True)
    (home.folder / "index").mkdir()
    assert len(held_data(home)) == 7
    remove_data(home)
    assert held_data(home) == []
    assert {path.name: path.read_bytes() for path in home.folder.iterdir() if path.is_file()} == before
    assert (home.engine / "data" / "priv_validator_state.json").exists()


def test_the_engine_trusts_no_longer_than_readers_do(tmp_path: Path) -> None:
    home = make_home(tmp_path, state_sync=SERVERS, trust=f"7:{HASH}")
    section, _ = engine_files(home)
    assert section["trust_period"] == f"{trust_period_ms(home.genesis())}ms" == "2400000ms"
