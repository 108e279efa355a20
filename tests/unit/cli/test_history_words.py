"""`history`, `tx` and `block` against a running daemon, and in words; a server that lies about a block is caught."""

import asyncio
import json
import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "e2e"))
from ledger_process import FAST, LedgerProcess, account, client_for, make_home, status_until

from freehold.base.amounts import TOKEN
from freehold.base.errors import InvalidInputError
from freehold.cli import history
from freehold.cli.eventwords import _SENTENCES, Names, sentence
from freehold.cli.main import run
from freehold.client.session import sign_tx
from freehold.crypto.strkey import encode_account
from freehold.ledger.events import Event
from freehold.ledger.transactions import Transfer

NAMES = Names({"farms": [{"id": "GFARM", "name": "ghent"}], "leases": []}, 0, 3_600_000)
SINK = b"\x09" * 32


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    home = make_home(tmp_path / "ledger", accounts=2)
    person = tmp_path / "person"
    person.mkdir()
    (person / "genesis.json").write_bytes((home / "genesis.json").read_bytes())
    with LedgerProcess(home) as daemon:
        url = daemon.wait_started()
        monkeypatch.setenv("FREEHOLD_HOME", str(person))
        monkeypatch.setenv("FREEHOLD_RPC", url)
        yield home, daemon, asyncio.run(send(home, url))


async def send(home: Path, url: str) -> list[str]:
    client = await client_for(home, url)
    try:
        ids = []
        for nonce in range(3):
            data = sign_tx("e2e-ledger", account(0), nonce, FAST.min_fee, 9_000, Transfer(SINK, (nonce + 1) * TOKEN))
            outcome = await client.submit(data)
            ids.append(outcome.tx_id.hex())
            height = outcome.height
        async with asyncio.timeout(20):
            while (await client.get_json("/v1/history?limit=1"))["indexed"][-1]["last"] < height:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await status_until(client, lambda status: status["height"] > height)
    finally:
        await client.close()
    return ids


def asked(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict:
    assert run([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


async def lie(session, path, kind, ask=history._get):
    answer = await ask(session, path, kind)
    return msgspec.structs.replace(answer, time_ms=answer.time_ms + 1)


def test_history_tx_block_and_reindex(ledger, capsys, monkeypatch):
    home, daemon, ids = ledger
    who = encode_account(SINK)
    page = asked(capsys, "history", "--account", who, "--limit", "2")
    assert page["word"] == "claimed" and page["next_cursor"]
    rest = asked(capsys, "history", "--account", who, "--cursor", page["next_cursor"], "--since", "1h")
    events = page["events"] + rest["events"]
    assert [event["tx_id"] for event in events] == ids[::-1] and not rest["next_cursor"]
    assert events[0]["text"].endswith(f"sent 3 tokens to account {who[:8]}..{who[-4:]}"), events[0]["text"]
    tx = asked(capsys, "tx", ids[1])
    assert tx["code_name"] == "OK" and tx["events"][0]["attributes"]["amount"] == str(2 * TOKEN)
    block = asked(capsys, "block", str(tx["height"]))
    assert block["header_checked"] is True and ids[1] in [row["tx_id"] for row in block["txs"]]
    assert asked(capsys, "block", block["hash"])["height"] == tx["height"]
    assert asked(capsys, "tx", "0" * 64, code=3)["error"]["code"] == "unknown_tx"
    assert asked(capsys, "block", "999999", code=3)["error"]["code"] == "unknown_block"
    assert asked(capsys, "history", "--farm", "nowhere", code=2)["error"]["code"] == "unknown_farm"
    assert run(["history"]) == 0
    assert "claimed, not proven" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(history, "_get", lie)
        assert asked(capsys, "block", "1", code=5)["error"]["code"] == "false_history"
    assert asked(capsys, "ledger", "reindex", "--home", str(home), code=1)["error"]["code"] == "folder_in_use"
    assert daemon.stop() == 0
    (home / "index" / "history.sqlite").write_bytes(b"damaged" * 4_000)
    heights = asked(capsys, "ledger", "reindex", "--home", str(home))["heights"]
    assert heights[0] == 1 and heights[1] >= tx["height"]


@pytest.mark.parametrize("kind", [str(kind.__struct_config__.tag) for kind in Event.__args__])
def test_every_event_has_its_sentence_also_when_a_server_leaves_things_out(kind):
    assert sentence(kind, {}, NAMES)
    assert kind in _SENTENCES or kind == "validators"


def test_payments_are_told_in_names_hours_and_tokens():
    values = {"lease": "ab" * 32, "epoch": "2", "to": "GFARM", "amount": "12345678", "role": "holder", "node": ""}
    assert sentence("payment", values, NAMES) == (
        "lease abababab..abab paid 1.2345678 tokens to farm ghent as holder for 1970-01-01 02:00:00 to 03:00:00"
    )
    assert "not shown to be served" in sentence("payment", values | {"role": "refund"}, NAMES)


@pytest.mark.parametrize(
    ("text", "since"), [("30m", 8_200_000), ("2h", 2_800_000), ("1970-01-01T00:01", 60_000), ("1970-01-02", 86_400_000)]
)
def test_times_ago_and_moments(text, since):
    assert history.parse_since(text, 10_000_000) == since


@pytest.mark.parametrize("text", ["", "x", "5w", "9999999d", "400d", "1960-01-01", "30m; DROP"])
def test_what_is_no_time(text):
    with pytest.raises(InvalidInputError):
        history.parse_since(text, 10_000_000)
