"""A validator on CometBFT as people run it: the daemon with its HTTP face over the real engine, killed and started."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from comet_process import make_validators
from ledger_process import FAST, LedgerProcess, account, client_for, genesis_of, status_until

from freehold.base.amounts import TOKEN
from freehold.base.errors import RefusedError, UnreachableError
from freehold.client.session import sign_tx
from freehold.crypto.strkey import encode_account
from freehold.ledger.keys import VRF_KEYS, account_key
from freehold.ledger.records import Account, VrfKeys
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
        gap = sign_tx("e2e-comet", account(2), 1, FAST.min_fee, outcome.height + 12, Transfer(SINK, TOKEN))
        with pytest.raises(RefusedError) as refused:
            await client.submit(gap)  # it waits for a nonce that never comes, until it is too old
        # told while it was waited for, or when it was offered again after that
        assert refused.value.code in ("tx_invalid", "expired") and "expired" in refused.value.message
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
        killed = engine_of(daemon)
        os.kill(killed, signal.SIGKILL)  # the engine alone: it leaves its socket, and the daemon starts another
        asyncio.run(pay_once_more(home, url, 2))
        engine = engine_of(daemon)
        assert engine != killed and daemon.stop() == 0, daemon.lines
    assert not alive(engine)


async def pay_once_more(home: Path, url: str, nonce: int) -> None:
    """A payment that is sent again until the engine that is being started takes it."""
    client = await client_for(home, url)
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(UnreachableError):
                    await client.submit(transfer(0, nonce))
                    return
                await asyncio.sleep(0.1)
    finally:
        await client.close()


async def pay_on(client: LedgerClient, sent: list[int], stop: asyncio.Event) -> None:
    while not stop.is_set():
        sent.append((await client.submit(transfer(1, len(sent)))).height)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def survive(homes: list[Path], daemons: list[LedgerProcess], urls: list[str], stack: ExitStack) -> None:
    client = await client_for(homes[0], ",".join(urls))
    sent: list[int] = []
    stop = asyncio.Event()
    paying = asyncio.create_task(pay_on(client, sent, stop))
    await until(lambda: len(sent) >= 3)
    daemons[0].kill()  # the one that is asked, while it holds a payment
    before = len(sent)
    await until(lambda: len(sent) >= before + 5)
    started = stack.enter_context(LedgerProcess(homes[0]))
    again = await client_for(homes[0], await asyncio.to_thread(started.wait_started))
    await until(lambda: len(sent) >= before + 8)
    stop.set()
    await paying
    newest = max(sent) + 1
    readers = [again, *[await client_for(homes[0], url) for url in urls[1:]]]
    blocks = set()
    for reader in readers:
        await status_until(reader, lambda status: status["height"] >= newest)
        blocks.add((await reader.light_block(newest)).header)
        snapshot = await reader.read([account_key(SINK), VRF_KEYS], newest)
        vrf = snapshot.get(VRF_KEYS, VrfKeys)
        assert vrf is not None and len(vrf.keys) == 4  # every block since the first carried their proofs
        record = snapshot.get(account_key(SINK), Account)
        assert record is not None and record.balance == len(sent) * TOKEN
    assert len(blocks) == 1  # one header, so one root, on all four
    for reader in (client, *readers):
        await reader.close()


def test_four_validators_survive_the_death_of_the_one_that_is_asked(tmp_path: Path) -> None:
    homes = make_validators(tmp_path, 4)
    with ExitStack() as stack:
        daemons = [stack.enter_context(LedgerProcess(home)) for home in homes]
        asyncio.run(survive(homes, daemons, [daemon.wait_started() for daemon in daemons], stack))


def change_genesis(home: Path) -> None:
    document = json.loads((home / "genesis.json").read_text())
    (home / "genesis.json").write_text(json.dumps(document | {"chain_id": "another"}))


def lose_the_signers_record(home: Path) -> None:
    (home / "engine/data/priv_validator_state.json").unlink()


def change_the_key(home: Path) -> None:
    (home / "validator.key").write_bytes(b"k" * 32)


def damage_the_blocks(home: Path) -> None:
    for path in (home / "engine/data/blockstore.db").glob("MANIFEST-*"):
        path.write_bytes(bytes(path.stat().st_size))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that has made blocks."""
    home = make_validators(tmp_path_factory.mktemp("stopped"), 1)[0]
    with LedgerProcess(home) as daemon:
        url = daemon.wait_started()

        async def work() -> None:
            await (await client_for(home, url)).close()

        asyncio.run(work())
        assert daemon.stop() == 0
    return home


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (change_genesis, "other_genesis"),
        (change_the_key, "other_key"),
        (lose_the_signers_record, "signer_record_missing"),
        pytest.param(damage_the_blocks, "engine_damaged", marks=pytest.mark.long),  # five starts
    ],
)
def test_a_home_that_contradicts_itself_is_refused(
    stopped: Path, tmp_path: Path, harm: Callable[[Path], None], code: str
) -> None:
    home = Path(shutil.copytree(stopped, tmp_path / "v"))
    harm(home)
    before = {path.relative_to(home): path.read_bytes() for path in home.glob("engine/data/*.db/*.ldb")}
    with LedgerProcess(home) as daemon:
        assert daemon.wait_ended() in (1, 2), daemon.lines
        last = daemon.lines[-1]
        assert (last["event"], last["code"]) == ("failed", code) and last["hint"], daemon.lines
    assert before == {path.relative_to(home): path.read_bytes() for path in home.glob("engine/data/*.db/*.ldb")}


def test_peers_of_another_chain_refuse_each_other_and_say_so(tmp_path: Path) -> None:
    homes = make_validators(tmp_path, 2)
    change_genesis(homes[1])

    async def halted(home: Path, url: str) -> dict[str, Any]:
        client = LedgerClient(url, genesis_of(home))
        try:
            return dict((await status_until(client, lambda status: status["halted"] is not None))["halted"])
        finally:
            await client.close()

    with ExitStack() as stack:
        daemons = [stack.enter_context(LedgerProcess(home)) for home in homes]
        for home, daemon in zip(homes, daemons, strict=True):
            told = asyncio.run(halted(home, daemon.wait_started()))
            assert told["code"] == "other_chain" and "validator.toml" in told["hint"]
