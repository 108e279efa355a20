"""The parts behind the routes: rates, history, configuration, log lines."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc_kit import make_genesis

from freehold.base.errors import InvalidInputError
from freehold.rpc.answers import MAX_LIST
from freehold.rpc.config import load_home, parse_address, read_key
from freehold.rpc.desk import BlockEvent, BlockRecord, BlockTx
from freehold.rpc.history import History
from freehold.rpc.logs import MAX_REPEATS, JsonLog
from freehold.rpc.rates import RateLimiter, client_of


def test_a_bucket_fills_at_its_rate_and_no_higher_than_its_burst():
    rates = RateLimiter(rate=2, burst=4)
    assert [rates.take("a", 1, 0.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.5]
    assert rates.take("b", 4, 0.0) == 0.0
    assert rates.take("a", 1, 0.5) == 0.0
    assert rates.take("a", 4, 100.0) == 0.0 and rates.take("a", 1, 100.0) == 0.5


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0.5, 5), st.floats(-1, 2)), max_size=80))
def test_nobody_gets_more_than_burst_and_rate_allow(asks):
    rates, now, taken = RateLimiter(rate=3, burst=10, max_clients=4), 0.0, dict[int, float]()
    for client, points, step in asks:
        now = max(0.0, now + step)
        if client < 4 and not rates.take(str(client), points, now):
            taken[client] = taken.get(client, 0) + points
    span = sum(max(0.0, step) for _, _, step in asks)
    assert all(points <= 10 + 3 * span + 1e-6 for points in taken.values()) and len(rates) <= 4


def test_clients_are_networks_where_one_has_many_addresses():
    assert client_of("2001:db8:1:2:3:4:5:6") == client_of("2001:db8:1:2::9") != client_of("2001:db8:1:3::9")
    assert client_of("::ffff:10.0.0.1") == client_of("10.0.0.1") != client_of("10.0.0.2")
    assert client_of("fe80::1%eth0") == client_of("fe80::1") and client_of("x" * 100) == "x" * 64


def block(height: int, txs: int = 1, events: int = 0) -> BlockRecord:
    payment = {"lease": "aa", "epoch": "1", "to": "", "amount": str(height), "role": "treasury", "node": ""}
    rows = [BlockTx(b"%d-%d" % (height, n), n % 2, b"", [BlockEvent("payment", payment)] * events) for n in range(txs)]
    return BlockRecord(height, height * 10, bytes(32), rows)


def test_history_forgets_the_oldest_blocks_with_all_that_was_in_them():
    history = History(max_blocks=3)
    for height in range(1, 6):
        history.add(block(height, txs=2, events=1))
    assert history.oldest_height == 3 and [row.height for row in history.blocks(10)] == [5, 4, 3]
    assert history.outcome(b"2-0") is None and history.outcome(b"3-1").height == 3
    assert [row.amount for row in history.payments(MAX_LIST)] == [5, 5, 4, 4, 3, 3]
    rows, reached = history.events(0, 3)
    assert [row.height for row in rows] == [3, 3, 4, 4] and reached == 4
    assert history.events(5, 3) == ([], 5) and history.blocks(10)[0].failed == 1


def test_history_is_bounded_by_rows_too():
    history = History(max_blocks=100, max_rows=50)
    for height in range(1, 20):
        history.add(block(height, txs=10, events=1))
    assert history.oldest_height == 18
    history.add(block(20, txs=100))
    assert history.oldest_height == 20 and len(history.blocks(9)) == 1


def test_of_equal_transactions_the_one_that_succeeded_counts():
    history = History(max_blocks=2)
    twice = [BlockTx(b"x", 0, b"1", []), BlockTx(b"x", 9, b"", [])]
    history.add(BlockRecord(1, 0, bytes(32), twice))
    assert history.outcome(b"x").code == 0
    history.add(BlockRecord(2, 0, bytes(32), [BlockTx(b"y", 9, b"", [])]))  # put there too early
    history.add(BlockRecord(3, 0, bytes(32), [BlockTx(b"y", 0, b"2", [])]))
    assert (history.outcome(b"y").code, history.outcome(b"y").height) == (0, 3)
    history.add(BlockRecord(4, 0, bytes(32), []))
    assert history.outcome(b"y").height == 3 and history.outcome(b"x") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:4600", "127.0.0.1:4600"), ("[::1]:80", "[::1]:80"), ("0.0.0.0:0", "0.0.0.0:0")],
)
def test_addresses(text, expected):
    assert str(parse_address(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "4600", "localhost:4600", "::1:80", "1.2.3.4:", "1.2.3.4:65536", "[1.2.3.4]:1", "1.2.3.4:²"]
)
def test_bad_addresses(text):
    with pytest.raises(InvalidInputError) as caught:
        parse_address(text)
    assert caught.value.code == "bad_address"


def make_home(folder: Path) -> Path:
    (folder / "genesis.json").write_bytes(make_genesis())
    (folder / "ledger.toml").write_text('listen = ["127.0.0.1:0"]\n')
    (folder / "validator.key").write_bytes(b"v" * 32)
    (folder / "validator.key").chmod(0o600)
    return folder


def test_a_home_is_read(tmp_path):
    home = load_home(make_home(tmp_path))
    assert home.faucet is None and home.data == tmp_path / "data" and home.settings.keep_blocks == 0
    assert home.genesis.validators.validators[0].pub_key.ed25519 == home.validator.public


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("ledger.toml", b"", "bad_settings"),
        ("ledger.toml", b"listen = []", "bad_settings"),
        ("ledger.toml", b'listen = ["127.0.0.1:1"]\nlisten2 = 1', "bad_settings"),
        ("ledger.toml", b'listen = ["nowhere:1"]', "bad_address"),
        ("ledger.toml", b"\xff", "bad_settings"),
        ("ledger.toml", b"#" * 70_000, "oversized"),
        ("genesis.json", b"{}", "bad_genesis"),
        ("validator.key", b"short", "bad_key"),
        ("validator.key", b"v" * 33, "oversized"),
        ("validator.key", None, "missing_file"),
        ("genesis.json", None, "missing_file"),
    ],
)
def test_what_is_wrong_with_a_home_is_told(tmp_path, name, content, code):
    path = make_home(tmp_path) / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError) as caught:
        load_home(tmp_path)
    assert caught.value.code == code and "vvvv" not in caught.value.message


def test_a_key_that_others_may_read_is_refused(tmp_path):
    path = make_home(tmp_path) / "validator.key"
    path.chmod(0o640)
    with pytest.raises(InvalidInputError) as caught:
        read_key(path)
    assert caught.value.code == "open_key" and "chmod 600" in caught.value.hint


def test_log_lines_are_json_and_nobody_floods_them():
    out, now = io.StringIO(), [0.0]
    log = JsonLog(out, lambda: now[0])
    for number in range(MAX_REPEATS + 5):
        log.write("bad_peer", {"n": number, "raw": b"\x00\n"}, level="warning")
    log.write("other")
    now[0] = 61.0
    log.write("bad_peer")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(lines) == MAX_REPEATS + 2
    assert lines[0]["level"] == "warning" and lines[0]["event"] == "bad_peer" and lines[0]["n"] == 0
    assert lines[-1]["left_out"] == 5


def test_a_log_on_a_full_disk_ends_nothing():
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    JsonLog(Full()).write("anything")
