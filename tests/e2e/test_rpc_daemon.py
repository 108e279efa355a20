"""The ledger daemon as people run it: a process, HTTP, signals, and what is told when it cannot go on."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ledger_process import FAST, VALIDATOR, LedgerProcess, account, client_for, genesis_of, make_home, status_until

from freehold.base.amounts import TOKEN
from freehold.base.errors import FreeholdError, RefusedError, UnreachableError
from freehold.client.session import sign_tx
from freehold.crypto.strkey import encode_account
from freehold.ledger.keys import account_key
from freehold.ledger.records import Account
from freehold.ledger.transactions import Transfer, Upgrade, upgrade_bytes
from freehold.lightclient.client import LedgerClient


def with_client(home: Path, url: str, work: Callable[[LedgerClient], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        client = await client_for(home, url)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(go())


def transfer(sender: int, nonce: int, amount: int = TOKEN, to: bytes = b"\x07" * 32) -> bytes:
    return sign_tx("e2e-ledger", account(sender), nonce, FAST.min_fee, 5_000, Transfer(to, amount))


def failure(daemon: LedgerProcess, code: str, exit_code: int) -> dict[str, Any]:
    assert daemon.wait_ended() == exit_code, daemon.lines
    last = daemon.lines[-1]
    assert last["event"] == "failed" and last["code"] == code and last["hint"], daemon.lines
    assert all(line["event"] != "not_json" for line in daemon.lines), daemon.lines
    return last


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "ledger")


@pytest.fixture
def daemon(home: Path) -> Iterator[LedgerProcess]:
    with LedgerProcess(home) as running:
        yield running


def test_a_transfer_is_committed_proven_and_there_after_a_restart(home, daemon):
    url = daemon.wait_started()

    async def first(client: LedgerClient) -> Any:
        outcome = await client.submit(transfer(0, 0))
        again = await client.submit(transfer(0, 0))
        snapshot = await client.read([account_key(b"\x07" * 32), account_key(account(0).public)])
        return outcome, again, snapshot, await client.get_json(f"/v1/tx/{outcome.tx_id.hex()}")

    outcome, again, snapshot, by_id = with_client(home, url, first)
    received = snapshot.get(account_key(b"\x07" * 32), Account)
    assert received.balance == TOKEN and snapshot.get(account_key(account(0).public), Account).nonce == 1
    assert outcome.height == again.height == by_id["height"] < snapshot.at.height
    assert daemon.stop() == 0
    with LedgerProcess(home) as restarted:

        async def second(client: LedgerClient) -> Any:
            snapshot = await client.read([account_key(b"\x07" * 32)])
            events = await client.get_json(f"/v1/events?after_height={outcome.height - 1}")
            return snapshot, await client.get_json(f"/v1/tx/{outcome.tx_id.hex()}"), events

        later, by_id_later, events = with_client(home, restarted.wait_started(), second)
        assert later.get(account_key(b"\x07" * 32), Account) == received and by_id_later == by_id
        assert [row["kind"] for row in events["events"] if row["tx_id"] == outcome.tx_id.hex()] == ["transfer"]


def test_codes_of_refused_transactions_reach_the_client(home, daemon):
    async def work(client: LedgerClient) -> list[str]:
        codes = []
        for data in (transfer(0, 3_000), transfer(0, 0, amount=10**15), b"nonsense", transfer(99, 0)):
            with pytest.raises(RefusedError) as caught:
                await client.submit(data)
            codes.append(caught.value.code)
        return codes

    codes = with_client(home, daemon.wait_started(), work)
    assert codes == ["wrong_nonce", "insufficient_balance", "undecodable", "unknown_account"]


def test_the_faucet_gives_many_at_once_each_once(home, daemon):
    new = [bytes([100 + n]) * 32 for n in range(5)]

    async def work(client: LedgerClient) -> Any:
        await asyncio.gather(*(client.ask_faucet(encode_account(one)) for one in new))
        with pytest.raises(RefusedError) as caught:
            await client.ask_faucet(encode_account(new[0]))
        snapshot = await client.read([account_key(one) for one in new])
        return caught.value.code, [snapshot.get(account_key(one), Account).balance for one in new]

    code, balances = with_client(home, daemon.wait_started(), work)
    assert code == "account_exists" and balances == [1_000 * TOKEN] * 5


def test_versions_of_the_state_are_kept_as_long_as_the_preset_says(home, daemon):
    async def work(client: LedgerClient) -> Any:
        nonce, height = 0, 0
        while height <= FAST.state_heights + 3:
            height = (await client.submit(transfer(0, nonce))).height
            nonce += 1
        status = await client.get_json("/v1/status")
        oldest = status["oldest_height"] + 2  # two blocks may be made meanwhile
        snapshot = await client.read([account_key(account(0).public)], oldest)
        with pytest.raises(RefusedError) as caught:
            await client.read([account_key(account(0).public)], 1)
        return snapshot, oldest, caught.value

    snapshot, oldest, error = with_client(home, daemon.wait_started(), work)
    assert snapshot.at.height == oldest > 1 and error.code == "height_pruned" and "from" in error.hint


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_within_two_seconds_while_clients_wait(home, daemon, number):
    url = daemon.wait_started()

    async def work(client: LedgerClient) -> float:
        # A nonce with a gap before it waits for ever.
        waiting = [asyncio.create_task(client.submit(transfer(0, nonce))) for nonce in (5, 6, 7)]
        await status_until(client, lambda status: status["mempool"]["txs"] == 3)
        started = time.monotonic()
        daemon.process.send_signal(number)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.to_thread(daemon.process.wait, 10)
        took = time.monotonic() - started
        assert all(isinstance(outcome, FreeholdError) for outcome in outcomes), outcomes
        return took

    assert with_client(home, url, work) < 2.0
    assert daemon.wait_ended() == 0 and daemon.lines[-1]["event"] == "stopped", daemon.lines
    assert all(line["level"] == "info" for line in daemon.lines if line["event"] != "log.uvicorn.error"), daemon.lines


def test_check_prints_the_settings_without_secrets_and_ends(home):
    with LedgerProcess(home, "--check") as checking:
        assert checking.wait_ended() == 0
        text = checking.output()
    assert json.loads(text)["chain_id"] == "e2e-ledger" and not (home / "data").exists()
    assert (home / "validator.key").read_bytes().hex() not in text


def test_a_port_in_use(home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        (home / "ledger.toml").write_text(f'listen = ["127.0.0.1:{other.getsockname()[1]}"]')
        with LedgerProcess(home) as refused:
            assert "cannot listen" in failure(refused, "cannot_listen", 2)["message"]
    assert not (home / "data").exists()


def test_a_data_folder_held_by_another(home, daemon):
    daemon.wait_started()
    with LedgerProcess(home) as second:
        failure(second, "folder_in_use", 1)


def test_a_genesis_unlike_the_datas(home, daemon):
    daemon.wait_started()
    assert daemon.stop() == 0
    make_home(home, accounts=3)
    with LedgerProcess(home) as refused:
        assert refused.wait_ended() != 0
        assert "genesis" in refused.lines[-1]["message"] and refused.lines[-1]["hint"], refused.lines


def test_a_key_that_genesis_does_not_name(home):
    (home / "validator.key").write_bytes(b"x" * 32)
    with LedgerProcess(home) as refused:
        failure(refused, "not_sole_validator", 2)


@pytest.mark.parametrize("name", ["last_signed", "state/data.mdb", "blocks/data.mdb"])
def test_damaged_data(home, daemon, name):
    url = daemon.wait_started()
    with_client(home, url, lambda client: client.submit(transfer(0, 0)))
    assert daemon.stop() == 0
    path = home / "data" / name
    data = bytearray(path.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    path.write_bytes(data)
    with LedgerProcess(home) as refused:
        assert refused.wait_ended() == 1, refused.lines
        last = refused.lines[-1]
        assert last["event"] == "failed" and last["hint"], refused.lines


def test_a_clock_far_behind_keeps_serving_and_says_so(tmp_path):
    """A genesis an hour ahead is to this clock what a clock set back an hour is to a running ledger."""
    home = make_home(tmp_path / "ahead", genesis_ms=time.time_ns() // 1_000_000 + 3_600_000)
    with LedgerProcess(home) as running:
        url = running.wait_started()
        assert running.wait_for("engine_state")["state"] == "clock_behind"

        async def work() -> Any:
            client = LedgerClient(url, genesis_of(home))
            try:
                return await client.get_json("/v1/status")
            finally:
                await client.close()

        status = asyncio.run(work())
        assert status["proposing"] is False and status["height"] == 0 and "clock" in status["halted"]["message"]
        assert running.stop() == 0


@pytest.mark.root
def test_a_full_disk_halts_without_acknowledging_and_goes_on_once_there_is_room(home):
    data = home / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(data)], check=True)
    try:
        with LedgerProcess(home) as running:
            url = running.wait_started()
            acknowledged = with_client(home, url, lambda client: client.submit(transfer(0, 0)))
            room = shutil.disk_usage(data).free
            filler = data / "filler"
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, room)

            async def full(client: LedgerClient) -> Any:
                last, codes = 0, set[str]()
                for nonce in range(1, 400):
                    try:
                        last = (await client.submit(transfer(0, nonce))).height
                    except UnreachableError as error:
                        codes.add(error.code)
                        break
                return last, codes, await client.get_json("/v1/status")

            _, codes, status = with_client(home, url, full)
            assert codes == {"disk_full"} and status["halted"]["code"] == "disk_full", (codes, status)
            assert "free space" in status["halted"]["message"] + status["halted"]["hint"]
            nonce_before = with_client(home, url, nonce_of)
            assert running.stop() == 0
        filler.unlink()
        with LedgerProcess(home) as again:
            url = again.wait_started()
            assert with_client(home, url, nonce_of) >= nonce_before >= 1
            found = with_client(home, url, lambda client: client.get_json(f"/v1/tx/{acknowledged.tx_id.hex()}"))
            assert found["height"] == acknowledged.height
            assert again.stop() == 0
    finally:
        subprocess.run(["umount", str(data)], check=True)


async def nonce_of(client: LedgerClient) -> int:
    record = (await client.read([account_key(account(0).public)])).get(account_key(account(0).public), Account)
    assert record is not None
    return record.nonce


def test_agreed_rules_that_the_program_does_not_know_end_it_and_say_what_to_install(home: Path, daemon: LedgerProcess):
    url = daemon.wait_started()
    rules = 99

    async def agree(client: LedgerClient) -> Any:
        height = (await client.get_json("/v1/status"))["height"] + 20
        message = upgrade_bytes("e2e-ledger", height, rules, [])
        body = Upgrade(height, rules, [], [(VALIDATOR.public, VALIDATOR.sign(message))])
        return height, await client.submit(sign_tx("e2e-ledger", account(0), 0, FAST.min_fee, 5_000, body))

    height, outcome = with_client(home, url, agree)
    assert outcome.code == 0
    last = failure(daemon, "unknown_rules", 1)
    assert f"height {height} needs rules version {rules}" in last["message"]
    assert "install" in last["hint"]
    with LedgerProcess(home) as again:
        last = failure(again, "unknown_rules", 1)
        assert f"height {height} needs" in last["message"] and "install" in last["hint"]
        assert not [line for line in again.lines if line["event"] == "started"]


def test_the_operators_page_has_a_listener_of_its_own(home: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (home / "ledger.toml").open("a") as file:
        file.write(f'metrics = "127.0.0.1:{port}"\n')
    with LedgerProcess(home) as daemon:
        url = daemon.wait_started()
        page = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=10, trust_env=False)
        assert page.status_code == 200 and "freehold_block_age_seconds" in page.text
        assert httpx2.get(f"{url}/metrics", timeout=10, trust_env=False).status_code == 404
        assert daemon.stop() == 0
