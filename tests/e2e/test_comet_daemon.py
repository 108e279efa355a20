"""A validator on CometBFT as people run it: the daemon with its HTTP face over the real engine, killed and started."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from comet_process import make_validators
from ledger_process import FAST, LedgerProcess, account, client_for

from freehold.base.amounts import TOKEN
from freehold.base.errors import RefusedError
from freehold.client.session import sign_tx
from freehold.crypto.strkey import encode_account
from freehold.ledger.keys import account_key
from freehold.ledger.records import Account
from freehold.ledger.transactions import Transfer
from freehold.light.headers import header_hash
from freehold.lightclient.client import LedgerClient

SINK = b"\x07" * 32


def transfer(sender: int, nonce: int, amount: int = TOKEN) -> bytes:
    return sign_tx("e2e-comet", account(sender), nonce, FAST.min_fee, 5_000, Transfer(SINK, amount))


async def balance(client: LedgerClient, id_: bytes) -> int:
    record = (await client.read([account_key(id_)])).get(account_key(id_), Account)
    return record.balance if record else 0


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def engine_of(daemon: LedgerProcess) -> int:
    """The daemon's child."""
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    engines = [int(pid) for pid in children if "cometbft" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(engines) == 1, children
    return engines[0]


async def first_run(home: Path, url: str) -> tuple[int, dict[str, Any]]:
    client = await client_for(home, url)
    try:
        status = await client.get_json("/v1/status")
        assert status["engine"] == "cometbft" and status["validators"] == 1 and status["proposing"], status
        outcome = await client.submit(transfer(0, 0))
        assert await balance(client, SINK) == TOKEN  # proven by the newest header, at once
        again = await client.submit(transfer(0, 0))
        assert (again.tx_id, again.height) == (outcome.tx_id, outcome.height)
        with pytest.raises(RefusedError) as refused:
            await client.submit(transfer(0, 0, 2 * TOKEN))
        assert refused.value.code == "wrong_nonce"
        await client.ask_faucet(encode_account(b"\x0a" * 32))
        block = await client.light_block(outcome.height + 1)
        before = await client.light_block(outcome.height)
        assert block.header.last_block_id.hash == header_hash(before.header)
        events = await client.get_json("/v1/events?limit=1000")
        assert outcome.tx_id.hex() in {row["tx_id"] for row in events["events"]}
        return outcome.height, status
    finally:
        await client.close()


def test_a_validator_serves_and_survives_kill_9(tmp_path: Path) -> None:
    home = make_validators(tmp_path, 1)[0]
    with LedgerProcess(home) as daemon:
        height, _ = asyncio.run(first_run(home, daemon.wait_started()))
        engine = engine_of(daemon)
        daemon.kill()
    with LedgerProcess(home) as daemon:
        url = daemon.wait_started()
        assert not alive(engine)

        async def go_on() -> None:
            client = await client_for(home, url)
            try:
                again = await client.submit(transfer(0, 0))
                assert again.height == height  # known from the blocks that were read back
                await client.submit(transfer(0, 1))
                assert await balance(client, SINK) == 2 * TOKEN
                row = await client.get_json(f"/v1/tx/{again.tx_id.hex()}")
                assert row["height"] == height and row["code"] == 0
            finally:
                await client.close()

        asyncio.run(go_on())
        engine = engine_of(daemon)
        assert daemon.stop() == 0, daemon.lines
    assert not alive(engine)
