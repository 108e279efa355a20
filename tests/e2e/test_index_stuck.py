"""A database that hangs under a running ledger: blocks and answers go on, memory stays bounded, history catches up.

PostgreSQL is held by SIGSTOP, SQLite's file is locked by another process; what was pruned meanwhile is told as missing.
"""

import asyncio
import base64
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
from comet_process import free_port
from ledger_process import FAST, LedgerProcess, account, client_for, make_home

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/indexer"))
from postgres_server import PostgresServer

from freehold.base.amounts import TOKEN
from freehold.base.limits import MIB
from freehold.client.session import sign_tx
from freehold.ledger.transactions import Transfer

pytestmark = pytest.mark.long
SENDERS = 8
ANSWER_S = 3.0  # the longest that any answer of the ledger itself may take; the machine is shared
# The same daemon with a queue of 8 blocks, so that pruning overtakes it within seconds.
SHORT_QUEUE = (
    "-c",
    "import sys, freehold.indexer.follower as follower; follower.QUEUE_BLOCKS = 8; "
    "from freehold.rpc.main import main; sys.exit(main(sys.argv[1:]))",
)
HOLD = (
    "import sqlite3, sys; it = sqlite3.connect(sys.argv[1], isolation_level=None); it.execute('BEGIN IMMEDIATE'); "
    "print('held', flush=True); sys.stdin.read()"
)


class Watch:
    """Senders of transfers, and a reader of status and metrics; remembers how long answers took."""

    def __init__(self, url: str, metrics: int, pid: int) -> None:
        self.url, self.pid = url, pid
        self.metrics_url = f"http://127.0.0.1:{metrics}/metrics"
        self.sent = 0
        self._to = account(SENDERS).public
        self.slowest_s = 0.0
        self.memory: list[int] = []
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._http = httpx2.AsyncClient(trust_env=False, timeout=30.0)
        self._tasks = [asyncio.create_task(self._pay(sender)) for sender in range(SENDERS)]
        self._tasks.append(asyncio.create_task(self._look()))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)
        await self._http.aclose()

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        response = await self._http.get(f"{self.url}{path}")
        return response.status_code, response.json()

    async def height(self) -> int:
        return int((await self.get("/v1/status"))[1]["height"])

    async def metric(self, name: str) -> float:
        page = (await self._http.get(self.metrics_url)).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else -1.0

    async def until(self, wanted: Callable[[], Any], limit_s: float = 60.0) -> None:
        async with asyncio.timeout(limit_s):
            while not await wanted():  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def caught_up(self) -> bool:
        behind = await self.metric("freehold_index_behind_blocks")
        for task in self._tasks:
            if task.done():
                await task  # a sender met a refusal
        return 0 <= behind <= 3 and await self.metric('freehold_index_failed{code=""}') == 0

    async def _pay(self, sender: int) -> None:
        nonce = 0
        while not self._stop.is_set():
            data = sign_tx("e2e-ledger", account(sender), nonce, FAST.min_fee, 9_000, Transfer(self._to, TOKEN // 100))
            request = {"tx": base64.b64encode(data).decode(), "wait": "committed"}
            answer = (await self._http.post(f"{self.url}/v1/tx", json=request)).json()
            assert answer["code"] == 0 and answer["height"], answer
            self.sent += 1
            nonce += 1

    async def _look(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            await self.get("/v1/status")
            await self.get("/v1/blocks?limit=5")
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            self.memory.append(pages * 4_096)
            await asyncio.sleep(0.1)


def prepare(folder: Path, index: str, keep_blocks: int = 0) -> tuple[Path, int]:
    home, port = make_home(folder / "ledger", accounts=SENDERS + 1), free_port()
    with (home / "ledger.toml").open("a") as file:
        file.write(f'index = "{index}"\nmetrics = "127.0.0.1:{port}"\nkeep_blocks = {keep_blocks}\n')
    return home, port


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process has begun to write, and does not end."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield
        finally:
            other.stdin.close()


async def go_on_without(watch: Watch, blocks: int, reason: str) -> None:
    """The database hangs: see so many more blocks, and that history alone is concerned."""
    begun, sent, memory = await watch.height(), watch.sent, max(watch.memory)
    await watch.until(lambda: _reached(watch, begun + blocks))
    await watch.until(lambda: _failed(watch, reason))
    assert await watch.metric("freehold_index_behind_blocks") >= blocks - 5
    for _ in range(10):  # each waits half a second at most, also when it is the first to meet the silence
        asked = time.monotonic()
        assert (await watch.get(f"/v1/tx/{'0' * 64}"))[1]["code"] == "unknown_tx"
        assert time.monotonic() - asked < ANSWER_S / 2
    print(
        f"{reason}: {await watch.height() - begun} blocks, {watch.sent - sent} transfers, slowest answer"
        f" {watch.slowest_s * 1e3:.0f} ms, an unknown transaction told after {time.monotonic() - asked:.1f} s, memory"
        f" {memory / MIB:.1f} to {max(watch.memory) / MIB:.1f} MiB"
    )
    assert watch.sent > sent + blocks
    assert watch.slowest_s < ANSWER_S
    assert max(watch.memory) < memory + 48 * MIB


async def _reached(watch: Watch, height: int) -> bool:
    return await watch.height() >= height


async def _answers(watch: Watch, path: str) -> bool:
    return (await watch.get(path))[0] == 200


async def _failed(watch: Watch, reason: str) -> bool:
    return await watch.metric(f'freehold_index_failed{{code="{reason}"}}') == 1


def test_a_postgresql_that_is_stopped(tmp_path: Path) -> None:
    with PostgresServer() as server:
        home, port = prepare(tmp_path, server.url)
        with LedgerProcess(home) as daemon:
            url = daemon.wait_started()

            async def work() -> None:
                await (await client_for(home, url)).close()
                async with Watch(url, port, daemon.process.pid) as watch:
                    await watch.until(lambda: _reached(watch, 40))
                    await watch.until(watch.caught_up)
                    assert (await watch.get("/v1/history"))[0] == 200
                    with server.stopped():
                        await go_on_without(watch, 300, "index_slow")
                        status, answer = await watch.get("/v1/history")
                        assert (status, answer["code"]) in [(503, "index_slow"), (503, "index_unavailable")], answer
                    await watch.until(watch.caught_up)
                    await watch.until(lambda: _answers(watch, "/v1/history/blocks?limit=1"))
                    answer = (await watch.get("/v1/history/blocks?limit=1"))[1]
                    assert [(span["first"], span["last"]) for span in answer["indexed"]] == [
                        (1, answer["blocks"][0]["height"])
                    ]

            asyncio.run(work())
            with server.stopped():
                begun = time.monotonic()
                assert daemon.stop() == 0, daemon.lines[-3:]
                print(f"stopped in {time.monotonic() - begun:.1f} s while the database hung")
                assert time.monotonic() - begun < 15
        waiting = [line for line in daemon.lines if line["event"] == "index_waiting"]
        assert {line["code"] for line in waiting} >= {"index_slow"} and all(line["hint"] for line in waiting)
        assert "index_gap" not in {line["event"] for line in daemon.lines}


@pytest.mark.parametrize("keep_blocks", [0, 40])
def test_an_sqlite_file_that_another_process_has_locked(tmp_path: Path, keep_blocks: int) -> None:
    """With 40 blocks kept, blocks are pruned before they are indexed: every list and the alarm say so."""
    home, port = prepare(tmp_path, "sqlite", keep_blocks)
    with LedgerProcess(home, program=SHORT_QUEUE) as daemon:
        url = daemon.wait_started()

        async def work() -> tuple[int, list[tuple[int, int]]]:
            await (await client_for(home, url)).close()
            async with Watch(url, port, daemon.process.pid) as watch:
                await watch.until(lambda: _reached(watch, 20))
                await watch.until(watch.caught_up)
                with held(home / "index/history.sqlite"):
                    await go_on_without(watch, 200, "index_unavailable")
                    status, answer = await watch.get("/v1/history")
                    assert status == 503 or answer["indexed"], answer  # what was open before can still be read
                await watch.until(watch.caught_up)
                answer = (await watch.get("/v1/history/blocks?limit=1"))[1]
                missing = int(await watch.metric("freehold_index_missing_blocks"))
                return missing, [(span["first"], span["last"]) for span in answer["indexed"]]

        missing, spans = asyncio.run(work())
        assert daemon.stop() == 0
    gaps = [(line["first"], line["last"]) for line in daemon.lines if line["event"] == "index_gap"]
    print(f"keep_blocks {keep_blocks}: spans {spans}, {missing} missing")
    if keep_blocks:
        assert len(spans) == 2 and spans[0][0] == 1 and missing == spans[1][0] - spans[0][1] - 1 > 0
        assert gaps == [(spans[0][1] + 1, spans[1][0] - 1)]
    else:
        assert len(spans) == 1 and spans[0][0] == 1 and not missing and not gaps
