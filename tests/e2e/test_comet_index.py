"""`kill -9` of a whole validator on CometBFT under load: its history is what its blocks say, each row once.

After each death the index that is left is held against one that `ledger reindex` makes from the engine's own store. A
daemon whose index counts blocks before it holds them, `variant_daemon.py torn`, is caught at its first death between
the two; the shipped index dies at each such step and is whole.
"""

import asyncio
import base64
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comet_process import make_validators
from faults import seed_of
from ledger_process import FAST, LedgerProcess, account
from validators import wait_gone
from variant_daemon import INDEX_STEPS

from freehold.base.amounts import TOKEN
from freehold.client.session import sign_tx
from freehold.consensus.comet.operators import OperatorHome
from freehold.indexer.schema import TABLES
from freehold.ledger.transactions import Transfer, tx_id
from freehold.rpc.config import load_home
from freehold.rpc.reindex import reindex

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
SENDERS = 8
A_TIME = 16  # transfers that a sender lets wait at once
AMOUNT = TOKEN // 100
VARIANT = str(Path(__file__).with_name("variant_daemon.py"))
COUNTED = ("spans", "meta")  # one row says how far; the rest are rows of blocks

Rows = dict[str, set[tuple[Any, ...]]]


class Load:
    """Senders that let many transfers wait, and remember those that they were told are in a block."""

    def __init__(self) -> None:
        self.nonces = [0] * SENDERS
        self.acknowledged: dict[bytes, int] = {}
        self.open = 0
        self.cut_off = 0  # requests that a death left without an answer
        self.told = 0  # the newest height that history said it holds

    async def run(self, url: str, first: asyncio.Event) -> None:
        """Go on until the server is gone."""
        async with httpx2.AsyncClient(trust_env=False, timeout=20.0) as http, asyncio.TaskGroup() as group:
            for sender in range(SENDERS):
                group.create_task(self._send(http, url, sender, first))
            group.create_task(self._ask(http, url))

    async def _send(self, http: httpx2.AsyncClient, url: str, sender: int, first: asyncio.Event) -> None:
        to = account((sender + 1) % SENDERS).public
        nonce = self.nonces[sender]
        while True:
            for number in range(A_TIME):
                data = sign_tx("e2e-comet", account(sender), nonce, FAST.min_fee, 9_000, Transfer(to, AMOUNT))
                wait = "committed" if number == A_TIME - 1 else "checked"
                self.open += 1
                try:
                    body = {"tx": base64.b64encode(data).decode(), "wait": wait}
                    answer = (await http.post(f"{url}/v1/tx", json=body)).json()
                except (httpx2.HTTPError, OSError, ValueError) as error:
                    self.cut_off += not isinstance(error, httpx2.ConnectError)
                    return  # killed
                finally:
                    self.open -= 1
                if answer.get("code_name") == "WRONG_NONCE":  # sent before an earlier death, and in a block
                    nonce += 1
                    continue
                if answer["code"] != 0:
                    return  # stopping, or starting: the next run goes on
                if answer["height"]:
                    self.acknowledged[tx_id(data)] = answer["height"]
                    self.nonces[sender] = nonce
                    first.set()
                nonce += 1

    async def _ask(self, http: httpx2.AsyncClient, url: str) -> None:
        while True:
            try:
                answer = (await http.get(f"{url}/v1/history/blocks?limit=1")).json()
            except (httpx2.HTTPError, OSError, ValueError):
                return
            if answer.get("indexed"):
                self.told = max(self.told, answer["indexed"][-1]["last"])
            await asyncio.sleep(0.02)


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the index's lock, so that blocks wait for it and are then written many at a time."""
    with closing(sqlite3.connect(home / "index/history.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.rollback()


async def die(home: Path, dice: random.Random, load: Load, kill: int) -> None:
    """Start, load, and kill at a random point with work in flight."""
    with LedgerProcess(home) as daemon:
        url = await asyncio.to_thread(daemon.wait_started)
        first = asyncio.Event()
        sending = asyncio.create_task(load.run(url, first))
        async with asyncio.timeout(60):
            await first.wait()
            if kill % 2:
                before = max(load.acknowledged.values())
                while load.told < before:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                with locked(home):
                    await asyncio.sleep(dice.uniform(1.0, 3.0))  # how many blocks are left waiting, by chance
            delay_s = dice.uniform(0.0, 0.15 if kill % 2 else 1.0)
            await asyncio.sleep(delay_s)  # the point of the kill, by chance
            while not load.open:  # noqa: ASYNC110
                await asyncio.sleep(0)
        in_flight = load.open
        daemon.process.kill()
        assert await asyncio.to_thread(daemon.wait_ended) == -9
        await sending
    await asyncio.to_thread(wait_gone, OperatorHome(home))
    print(f"kill {kill}: {delay_s * 1e3:.0f} ms after {'a lock' if kill % 2 else 'a payment'}, {in_flight} in flight")


def rows_of(folder: Path) -> Rows:
    """Every row; one that stands twice is a finding."""
    found: Rows = {}
    with closing(sqlite3.connect(folder / "history.sqlite")) as raw:
        for table in TABLES:
            rows = [tuple(row) for row in raw.execute(f"SELECT * FROM {table}")]  # noqa: S608
            found[table] = set(rows)
            assert len(found[table]) == len(rows), f"a row stands twice in {table}"
        order = [column[1] for column in raw.execute("PRAGMA table_info(subjects)")]
    assert order[1] == "height"  # in `subjects` it stands second, in the others first
    return found


def held_against_blocks(home: Path, load: Load) -> tuple[int, int]:
    """Make the index anew beside the one that is left, and compare; gives the newest height of both."""
    left, kept = home / "index", home / "index.left"
    left.rename(kept)
    lowest, newest = reindex(load_home(home), lambda _: None)
    was, made = rows_of(kept), rows_of(left)
    shutil.rmtree(left)
    kept.rename(left)
    assert lowest == 1 and made["spans"] == {(1, newest)}
    ((first, last),) = was["spans"] or {(1, 0)}
    assert first == 1 and load.told <= last <= newest, f"{load.told} was told, {first} to {last} stand of {newest}"
    assert was["meta"] == made["meta"]
    for table in set(TABLES) - set(COUNTED):
        column = 1 if table == "subjects" else 0
        wanted = {row for row in made[table] if row[column] <= last}
        lost, more = wanted - was[table], was[table] - wanted
        assert not lost and not more, f"{table} is torn at {last}: {len(lost)} rows are missing, {len(more)} too many"
    paid = {id_: height for height, _, id_, code, _ in made["txs"] if code == 0}
    for id_, height in load.acknowledged.items():
        assert height > newest or paid.get(id_) == height, f"an acknowledged transfer of block {height} is missing"
    return last, newest


async def die_at(home: Path, variant: str, step: str, load: Load) -> None:
    """Start, load, and let the daemon die at a step of its index with work in flight."""
    with LedgerProcess(home, program=(VARIANT, variant)) as daemon:
        url = await asyncio.to_thread(daemon.wait_started)
        first = asyncio.Event()
        sending = asyncio.create_task(load.run(url, first))
        async with asyncio.timeout(60):
            await first.wait()
        cut_off = load.cut_off
        (home / "die_at").write_text(step)
        assert await asyncio.to_thread(daemon.wait_ended) == -9
        await sending
    in_flight = load.cut_off - cut_off
    await asyncio.to_thread(wait_gone, OperatorHome(home))
    print(f"{variant} died at step {step}, {in_flight} in flight")
    assert in_flight, "no work is in flight"


async def kill_many(home: Path, kills: int) -> None:
    dice, load = seed_of("comet_index"), Load()
    behind = 0
    for kill in range(kills):
        await die(home, dice, load, kill)
        last, newest = await asyncio.to_thread(held_against_blocks, home, load)
        print(f"  indexed {last} of {newest} blocks, {len(load.acknowledged)} acknowledged")
        behind += last < newest
    assert behind >= kills / 4, f"blocks waited for the index at {behind} of {kills} deaths only"
    with LedgerProcess(home) as daemon:
        url = await asyncio.to_thread(daemon.wait_started)
        async with httpx2.AsyncClient(trust_env=False, timeout=20.0) as http, asyncio.timeout(60):
            newest = max(load.acknowledged.values())
            while load.told <= newest:
                answer = (await http.get(f"{url}/v1/history/blocks?limit=1")).json()
                load.told = answer["indexed"][-1]["last"] if answer.get("indexed") else 0
                await asyncio.sleep(0.05)
        assert await asyncio.to_thread(daemon.stop) == 0
    last, newest = await asyncio.to_thread(held_against_blocks, home, load)
    print(f"{kills} kills, blocks waited at {behind}; at the end {last} of {newest} indexed")
    assert last >= max(load.acknowledged.values())


def make_home(folder: Path) -> Path:
    home = make_validators(folder, 1, accounts=SENDERS)[0]
    (home / "ledger.toml").write_text(
        'listen = ["127.0.0.1:0"]\npoints_per_second = 100000.0\npoints_burst = 100000.0\n'
    )
    return home


def test_an_index_equals_its_blocks_after_every_death(tmp_path: Path) -> None:
    asyncio.run(kill_many(make_home(tmp_path), 14))


async def die_at_steps(home: Path) -> None:
    load, before = Load(), 0
    for step in INDEX_STEPS:
        await die_at(home, "indexing", step, load)
        last, newest = await asyncio.to_thread(held_against_blocks, home, load)
        print(f"  indexed {last} of {newest} blocks, {len(load.acknowledged)} acknowledged")
        assert newest > before, "no block was made"
        before = newest


def test_an_index_is_whole_after_death_at_each_of_its_steps(tmp_path: Path) -> None:
    asyncio.run(die_at_steps(make_home(tmp_path)))


def test_canary_an_index_that_counts_before_it_writes_is_caught(tmp_path: Path) -> None:
    home, load = make_home(tmp_path), Load()
    asyncio.run(die_at(home, "torn", "counted", load))
    with pytest.raises(AssertionError, match=r"is torn at \d+: [1-9]\d* rows are missing, 0 too many"):
        held_against_blocks(home, load)
