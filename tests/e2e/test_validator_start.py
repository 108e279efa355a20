"""Bad input when a validator starts: each case is told with its cause and the next step, and nothing is changed."""

import asyncio
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comet_process import free_port, make_validators
from ledger_process import FAST, LedgerProcess, account, client_for, status_until

from freehold.base.amounts import TOKEN
from freehold.consensus.comet.complaints import FAR_OFF_MS, check_clock
from freehold.consensus.comet.founding import genesis_of as document_of
from freehold.consensus.comet.founding import settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.ledger.genesis import app_state_document

HALT_S = 60.0


def refused(home: Path, environment: dict[str, str] | None = None, timeout_s: float = 30.0) -> dict[str, Any]:
    """Start, wait for the end, and give the last words."""
    with LedgerProcess(home, environment=environment) as daemon:
        code = daemon.wait_ended(timeout_s)
        assert code in (1, 2), (code, daemon.lines)
        last = daemon.lines[-1]
    assert last["event"] == "failed" and last["message"] and last["hint"], last
    return last


def test_a_damaged_state(tmp_path: Path) -> None:
    home = make_validators(tmp_path, 1)[0]
    with LedgerProcess(home) as daemon:
        asyncio.run(until_blocks(home, daemon.wait_started()))
        daemon.stop()
    state = home / "data/state/data.mdb"
    state.write_bytes(os.urandom(state.stat().st_size))
    told = refused(home)
    assert "damaged" in told["message"] or "damaged" in told["code"], told


async def until_blocks(home: Path, url: str) -> None:
    client = await client_for(home, url)
    await status_until(client, lambda status: status["height"] > 2)
    await client.close()


@pytest.mark.long
def test_a_damaged_engine(tmp_path: Path) -> None:
    home = make_validators(tmp_path, 1)[0]
    with LedgerProcess(home) as daemon:
        asyncio.run(until_blocks(home, daemon.wait_started()))
        daemon.stop()
    for path in (home / "engine/data/blockstore.db").glob("MANIFEST-*"):
        path.write_bytes(b"no manifest")
    told = refused(home, timeout_s=90.0)  # it is tried five times
    assert told["code"] == "engine_damaged" and "engine.log" in told["hint"]


@pytest.mark.long
def test_a_genesis_that_was_changed_under_an_engine(tmp_path: Path) -> None:
    one, other = make_validators(tmp_path / "a", 1)[0], make_validators(tmp_path / "b", 1)[0]
    with LedgerProcess(one) as daemon:
        asyncio.run(until_blocks(one, daemon.wait_started()))
        daemon.stop()
    for name in ("genesis.json", "validator.key", "vrf.key"):
        if (other / name).exists():
            (one / name).write_bytes((other / name).read_bytes())
    assert refused(one)["code"] == "other_genesis"


def test_a_clock_far_behind(tmp_path: Path) -> None:
    ahead = time.time_ns() // 1_000_000 + 3_600_000
    told = refused(make_validators(tmp_path, 1, genesis_ms=ahead)[0])
    assert (
        told["code"] == "clock_behind" and " s behind the ledger's" in told["message"] and "timedatectl" in told["hint"]
    )
    check_clock(ahead, ahead - FAR_OFF_MS)


async def until_halted(url: str, code: str) -> dict[str, Any]:
    """Poll the status until it names a reason for making no blocks."""
    halted: dict[str, Any] | None = None
    async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as http:
        deadline = time.monotonic() + HALT_S
        while halted is None or halted["code"] != code:
            assert time.monotonic() < deadline, f"not {code} but {halted}"
            with contextlib.suppress(httpx2.HTTPError):
                halted = (await http.get(f"{url}/v1/status")).json()["halted"]
            await asyncio.sleep(0.1)
    return halted


def make_strangers(folder: Path, chains: tuple[str, str], treasure: tuple[int, int]) -> list[Path]:
    """Two validators who know each other's cards and took another genesis each."""
    homes = [OperatorHome(folder / name) for name in ("v0", "v1")]
    cards = [home.make_keys(home.folder.name, f"127.0.0.1:{free_port()}") for home in homes]
    now = time.time_ns() // 1_000_000
    for home, chain, amount in zip(homes, chains, treasure, strict=True):
        state = app_state_document(FAST, [], [], accounts={account(0).public: amount * TOKEN})
        settle(home, document_of(cards, chain, state, time_ms=now), cards, rpc="127.0.0.1:0")
    return [home.folder for home in homes]


@pytest.mark.long
@pytest.mark.parametrize(
    ("code", "chains", "treasure"),
    [("other_chain", ("chain-a", "chain-b"), (1, 1)), ("peers_disagree", ("chain-a", "chain-a"), (1, 2))],
)
def test_peers_with_another_genesis(
    tmp_path: Path, code: str, chains: tuple[str, str], treasure: tuple[int, int]
) -> None:
    homes = make_strangers(tmp_path, chains, treasure)
    with LedgerProcess(homes[0]) as one, LedgerProcess(homes[1]) as two:
        urls = [daemon.wait_started() for daemon in (one, two)]
        told = asyncio.run(first_of(urls, code))
    assert told["hint"]


async def first_of(urls: list[str], code: str) -> dict[str, Any]:
    """The validator that proposes second sees that the first one's block does not fit."""
    tasks = [asyncio.create_task(until_halted(url, code)) for url in urls]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    return done.pop().result()
