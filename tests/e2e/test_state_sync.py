"""A validator of four loses its data and is restored by state sync, though two of its three peers send poisoned chunks.

All are daemons of their own over the real engine. The liars are the shipped program with one function replaced: what
they read from their snapshots is changed by a byte. The honest one serves no chunk before a poisoned one was refused.
The canary takes chunks without comparing their hashes; the same run must catch it.
"""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from comet_process import make_validators
from ledger_process import FAST, LedgerProcess, account, client_for

from freehold.base.amounts import TOKEN
from freehold.client.session import sign_tx
from freehold.consensus.comet.founding import settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.ledger.transactions import Transfer
from freehold.light.headers import header_hash

pytestmark = pytest.mark.long

SHIPPED = ("-m", "freehold.rpc.main")
VARIANTS = Path(__file__).with_name("variant_daemon.py")
SINK = b"\x07" * 32
NOT_REFUSED = "no poisoned chunk was refused by its hash"
PATCHED = """
import sys
from pathlib import Path
from freehold.consensus.snapshot_store import SnapshotFolder
from freehold.rpc.main import main

marker, honest = Path(sys.argv[1]), sys.argv[2] == "honest"
real, listed = SnapshotFolder.load, SnapshotFolder.listed

def offer(self):
    offered = marker.with_name("offered")  # heights that all three have: none may be the honest one's alone
    newest = int(offered.read_text()) if offered.exists() else 0
    return [one for one in listed(self) if one[1].height <= newest]

def load(self, *place):
    chunk = real(self, *place)
    if honest or chunk is None:
        return chunk if marker.exists() else None
    marker.touch()
    return chunk[:-1] + bytes([chunk[-1] ^ 1])

SnapshotFolder.load, SnapshotFolder.listed = load, offer
sys.exit(main(sys.argv[3:]))
"""


def status(url: str) -> dict[str, Any]:
    answer = httpx2.get(f"{url}/v1/status", timeout=5.0, trust_env=False)
    found = answer.json()
    assert answer.status_code == 200 and isinstance(found, dict), answer.text
    return found


def wait(wanted: Callable[[], bool], timeout_s: float, otherwise: str = "it did not happen in time") -> None:
    deadline = time.monotonic() + timeout_s
    while not wanted():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)


def is_above(url: str, height: int) -> bool:
    return height_of(url) > height


def height_of(url: str) -> int:
    return int(status(url)["height"])


def cli(*arguments: str) -> tuple[int, dict[str, Any]]:
    program = Path(sys.executable).with_name("freehold")
    done = subprocess.run([program, *arguments, "--json"], capture_output=True, timeout=120, check=False)
    return done.returncode, json.loads(done.stdout)


def common(homes: list[Path]) -> set[int]:
    """Heights of the snapshots that all of these have."""
    rows = [cli("ledger", "snapshot", "list", "--home", str(home))[1]["snapshots"] for home in homes]
    return set.intersection(*({int(row["height"]) for row in found} for found in rows))


async def pay(home: Path, url: str, nonces: range) -> int:
    """Payments, one after the other; gives the height of the last."""
    client = await client_for(home, url)
    try:
        for nonce in nonces:
            tx = sign_tx("e2e-comet", account(0), nonce, FAST.min_fee, 5_000, Transfer(SINK, TOKEN))
            outcome = await client.submit(tx)
        return outcome.height
    finally:
        await client.close()


async def trusted(home: Path, url: str, height: int) -> str:
    client = await client_for(home, url)
    try:
        return f"{height}:{header_hash((await client.light_block(height)).header).hex()}"
    finally:
        await client.close()


def lose_and_rejoin(home: Path, servers: list[str], trust: str) -> None:
    """The data folders are gone; what the operator has kept (keys, genesis, cards) stays."""
    own = OperatorHome(home)
    shutil.rmtree(own.data)
    shutil.rmtree(own.engine)
    shutil.rmtree(home / "index", ignore_errors=True)
    cards = [OperatorHome(home.with_name(f"v{index}")).card() for index in range(4)]
    document = own.genesis_path.read_bytes()
    settle(own, document, cards, rpc="127.0.0.1:0", state_sync=servers, trust=trust)


def refused(daemon: LedgerProcess) -> list[dict[str, Any]]:
    """What it said of chunks with another hash than the snapshot's."""
    return [line for line in daemon.said() if "another hash" in json.dumps(line)]


def restore_though_peers_lie(tmp_path: Path, program: Sequence[str]) -> None:
    """`program` is the build that is restored."""
    homes = make_validators(tmp_path, 4)
    for home in homes:
        own = OperatorHome(home)
        own.save_settings(msgspec.structs.replace(own.settings(), snapshot_interval=20, snapshot_keep=10))
    marker = tmp_path / "poison-was-sent"

    def start(index: int) -> LedgerProcess:
        if index == 0:
            return LedgerProcess(homes[index])
        role = "honest" if index == 1 else "liar"
        return LedgerProcess(homes[index], program=("-c", PATCHED, str(marker), role))

    with ExitStack() as stack:
        daemons = [stack.enter_context(start(index)) for index in range(4)]
        urls = [daemon.wait_started() for daemon in daemons]
        asyncio.run(pay(homes[1], urls[1], range(20)))
        wait(lambda: len(common(homes[1:])) >= 2, 90)
        daemons[0].kill()
        lost_at = height_of(urls[1])
        asyncio.run(pay(homes[1], urls[1], range(20, 25)))  # the other three go on
        trust = asyncio.run(trusted(homes[1], urls[1], max(1, lost_at - 10)))
        lose_and_rejoin(homes[0], [urls[1], urls[2]], trust)
        offered = max(common(homes[1:]))
        marker.with_name("offered").write_text(str(offered))
        begun = time.monotonic()
        again = stack.enter_context(LedgerProcess(homes[0], program=program))
        url = f"http://{again.wait_for('started', 90)['listen'][0]}"
        # a build that believes may still get through in the end, or try poisoned snapshots for as long as it is let
        wait(lambda: bool(refused(again)) or height_of(url) > lost_at, 150, NOT_REFUSED)
        assert refused(again), NOT_REFUSED
        wait(lambda: height_of(url) > lost_at, 150)
        took_s = time.monotonic() - begun
        last = asyncio.run(pay(homes[1], urls[1], range(25, 30)))
        wait(lambda: all(height_of(one) >= last + 1 for one in (url, *urls[1:])), 30)
        roots = {asyncio.run(app_hash(home, one, last + 1)) for home, one in zip(homes, (url, *urls[1:]), strict=True)}
        assert len(roots) == 1
        # it votes again: with one of the others gone the ledger still makes blocks
        daemons[3].kill()
        newest = height_of(url)
        wait(lambda: height_of(url) > newest + 3, 60)
        assert again.stop() == 0
        engine = (homes[0] / "engine" / "engine.log").read_text()
        assert marker.exists(), "no poisoned chunk was sent"
        assert engine.count("Snapshot accepted, restoring") == 1, "a liar's chunk cost the whole snapshot"
        assert f'"height":{offered},' in next(line for line in engine.splitlines() if "Snapshot restored" in line)
        assert "Snapshot restored" in engine
        print(f"restored in {took_s:.1f} s, {len(refused(again))} poisoned chunks refused")
        roll_back_and_on(homes[0])


def test_a_lost_home_is_restored_though_peers_lie(tmp_path: Path) -> None:
    restore_though_peers_lie(tmp_path, SHIPPED)


def test_canary_a_build_that_compares_no_hashes_of_chunks_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=NOT_REFUSED) as caught:
        restore_though_peers_lie(tmp_path, (str(VARIANTS), "believing"))
    print(f"caught: {str(caught.value)[:2_000]}")


async def app_hash(home: Path, url: str, height: int) -> bytes:
    client = await client_for(home, url)
    try:
        return (await client.light_block(height)).header.app_hash
    finally:
        await client.close()


def roll_back_and_on(home: Path) -> None:
    """A stopped validator goes back by one block, twice, and catches up with the others again."""
    code, refused = cli("ledger", "rollback", "--home", str(home))
    assert (code, refused["error"]["code"]) == (3, "needs_force")
    assert "state.db" in refused["error"]["message"]
    for hard in ((), ("--hard",)):
        code, done = cli("ledger", "rollback", "--home", str(home), "--force", *hard)
        assert code == 0, done
        before = int(done["from_height"])
        assert done["height"] == before - 1
        with LedgerProcess(home) as daemon:
            url = daemon.wait_started()
            code, running = cli("ledger", "rollback", "--home", str(home), "--force")
            assert (code, running["error"]["code"]) == (1, "folder_in_use")
            wait(partial(is_above, url, before), 60)
            assert daemon.stop() == 0
