"""`kill -9` of the whole daemon under HTTP load: what clients were told is committed is there for ever after.

tests/contract kills the engine at each of its own steps; here the points are random in time, the load comes over HTTP
from verifying clients, and what counts is what those clients were answered.
"""

import asyncio
import base64
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from ledger_process import FAST, LedgerProcess, account, client_for, make_home, status_until

from freehold.base.amounts import TOKEN
from freehold.client.session import sign_tx
from freehold.ledger.keys import account_key
from freehold.ledger.records import Account
from freehold.ledger.transactions import Transfer, tx_id
from freehold.light.headers import header_hash
from freehold.lightclient.client import LedgerClient

SENDERS = 8
SINK = b"\x09" * 32
SEED = 20_261_125


class Load:
    """Clients that send one transfer after the other, and remember what they were answered."""

    def __init__(self) -> None:
        self.acknowledged: dict[bytes, int] = {}
        self.nonces = [0] * SENDERS
        self.open = 0
        self.first = asyncio.Event()
        self.refusals: list[str] = []
        self.http = httpx2.AsyncClient(trust_env=False, timeout=30.0)

    async def send_all(self, client: LedgerClient) -> None:
        """Go on until the server is gone."""
        self.first.clear()
        async with asyncio.TaskGroup() as group:
            for sender in range(SENDERS):
                group.create_task(self.send(client, sender))

    async def send(self, client: LedgerClient, sender: int) -> None:
        while True:
            nonce = self.nonces[sender]
            body = Transfer(SINK, TOKEN // 100 if self.acknowledged else TOKEN)
            data = sign_tx("e2e-ledger", account(sender), nonce, FAST.min_fee, 9_000, body)
            self.open += 1
            request = {"tx": base64.b64encode(data).decode(), "wait": "committed"}
            try:
                answer = (await self.http.post(f"{client.url}/v1/tx", json=request)).json()
            except (httpx2.HTTPError, OSError):
                return  # killed: after the restart this nonce tells whether it got in
            finally:
                self.open -= 1
            if answer["code"] != 0 or not answer["height"]:
                self.refusals.append(str(answer))
                return
            self.acknowledged[tx_id(data)] = answer["height"]
            self.nonces[sender] = nonce + 1
            self.first.set()


async def check(client: LedgerClient, load: Load, hashes: dict[int, bytes]) -> None:
    """Everything that was acknowledged is there; no header that was seen has changed."""
    # What the newest block did is proven by the header after it, which a restarted ledger makes at once.
    newest = max(load.acknowledged.values(), default=0)
    await status_until(client, lambda status: status["height"] > newest)
    keys = [account_key(account(n).public) for n in range(SENDERS)]
    snapshot = await client.read([*keys, account_key(SINK)])
    for sender, key in enumerate(keys):
        record = snapshot.get(key, Account)
        assert record is not None
        lost = load.nonces[sender] - record.nonce
        assert lost <= 0, f"{lost} acknowledged transfers of sender {sender} are lost"
        assert lost >= -1, "more got in than was sent"
        load.nonces[sender] = record.nonce
    for height, digest in hashes.items():
        assert header_hash((await client.light_block(height)).header) == digest, f"block {height} was rewritten"
    header = await client.refresh()
    hashes[header.height] = header.hash
    recent = sorted(load.acknowledged.items(), key=lambda item: -item[1])[:20]
    for id_, height in recent:
        answer = await client.get_json(f"/v1/tx/{id_.hex()}")
        assert (answer["code"], answer["height"]) == (0, height), answer


async def kill_many(home: Path, kills: int, seed: int, between: Callable[[], None] = lambda: None) -> tuple[Load, int]:
    load = Load()
    try:
        return load, await kill_under(load, home, kills, random.Random(seed), seed, between)
    finally:
        await load.http.aclose()


async def kill_under(
    load: Load, home: Path, kills: int, dice: random.Random, seed: int, between: Callable[[], None]
) -> int:
    in_flight = 0
    hashes: dict[int, bytes] = {}
    for run in range(kills + 1):
        with LedgerProcess(home) as daemon:
            client = await client_for(home, await asyncio.to_thread(daemon.wait_started))
            try:
                await check(client, load, hashes)
                if run == kills:
                    break
                sending = asyncio.create_task(load.send_all(client))
                async with asyncio.timeout(20):
                    await load.first.wait()
                delay = dice.uniform(0.0, 0.25)
                await asyncio.sleep(delay)  # the point of the kill, by chance: not a synchronisation
                waiting = load.open
                daemon.process.kill()
                in_flight += waiting > 0
                print(f"seed {seed} kill {run}: {delay * 1000:.0f} ms after the first answer, {waiting} waited")
                await sending
            finally:
                await client.close()
            assert await asyncio.to_thread(daemon.wait_ended) == -9
        between()
    return in_flight


def run(home: Path, kills: int, seed: int) -> None:
    load, in_flight = asyncio.run(kill_many(home, kills, seed))
    print(f"{len(load.acknowledged)} acknowledged, work in flight at {in_flight} of {kills} kills")
    assert in_flight >= 0.8 * kills, f"work was in flight at {in_flight} of {kills} kills"
    assert not load.refusals, load.refusals
    assert len(load.acknowledged) >= kills


def test_three_kills_under_http_load_lose_nothing(tmp_path):
    run(make_home(tmp_path / "ledger", accounts=SENDERS), 3, SEED)


def test_canary_a_ledger_that_forgets_is_caught(tmp_path):
    home = make_home(tmp_path / "ledger", accounts=SENDERS)
    with pytest.raises(AssertionError, match=r"acknowledged transfers of sender \d are lost"):
        asyncio.run(kill_many(home, 1, SEED, lambda: shutil.rmtree(home / "data")))


@pytest.mark.long
def test_fifty_kills_under_http_load_lose_nothing(tmp_path):
    run(make_home(tmp_path / "ledger", accounts=SENDERS), 50, random.SystemRandom().randrange(1 << 32))
