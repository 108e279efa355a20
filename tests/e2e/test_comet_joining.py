"""An operator outside genesis gets onto a running chain by one command, bonds, is elected, and signs."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from comet_process import free_port, make_elected
from ledger_process import FAST, LedgerProcess, account, client_for

from freehold.base.amounts import TOKEN
from freehold.client.session import sign_tx
from freehold.consensus.comet.operators import OperatorHome
from freehold.crypto.strkey import decode_account
from freehold.ledger.bonds import validator_address
from freehold.ledger.keys import account_key
from freehold.ledger.records import Account
from freehold.ledger.transactions import Transfer
from freehold.light.types import BlockIDFlag
from freehold.lightclient.client import LedgerClient

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

CHAIN = "e2e-joining"
FOUNDERS = 4
BOND = 300
LIMIT_S = 60.0


class Operator:
    """Types commands, with a wallet in a folder of its own."""

    def __init__(self, folder: Path, genesis: Path) -> None:
        folder.mkdir()
        (folder / "genesis.json").write_bytes(genesis.read_bytes())
        (folder / "passphrase").write_text("a passphrase of several words\n")
        self.environment = {
            **os.environ,
            "FREEHOLD_HOME": str(folder),
            "FREEHOLD_PASSPHRASE_FILE": str(folder / "passphrase"),
        }

    def type(self, *arguments: str, code: int = 0, rpc: str = "") -> dict[str, Any]:
        program = Path(sys.executable).with_name("freehold")
        environment = self.environment | ({"FREEHOLD_RPC": rpc} if rpc else {})
        command = [program, *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment)
        assert done.returncode == code, (arguments, done)
        return dict(json.loads(done.stdout))


def wait(what: str, wanted: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not wanted():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.2)


def height_of(url: str) -> int:
    return int(httpx2.get(f"{url}/v1/status", timeout=5.0, trust_env=False).json()["height"])


async def pay(client: LedgerClient, to: bytes, amount: int, nonces: range) -> int:
    """Payments of the account that bonds nobody; gives the height of the last."""
    for nonce in nonces:
        body = Transfer(to, amount * TOKEN)
        outcome = await client.submit(sign_tx(CHAIN, account(FOUNDERS), nonce, FAST.min_fee, 5_000, body))
    return outcome.height


async def balance(home: Path, url: str, owner: bytes) -> int:
    """As a reader sees it who verifies everything from genesis."""
    client = await client_for(home, url)
    try:
        found = (await client.read([account_key(owner)])).get(account_key(owner), Account)
        return found.balance if found is not None else 0
    finally:
        await client.close()


async def signers(home: Path, url: str, height: int) -> set[bytes]:
    """Whose signatures for the block stand in the commit of a height; verified."""
    client = await client_for(home, url)
    try:
        block = await client.light_block(height)
        commit = block.signed_header.commit
        return {one.validator_address for one in commit.signatures if one.block_id_flag == BlockIDFlag.COMMIT}
    finally:
        await client.close()


def refusals(person: Operator, late: Path, common: list[str], urls: list[str], digest: str) -> None:
    """Bad input is told, and nothing is made."""
    source = ["--genesis", urls[0]]
    told = person.type(*common, *source, code=3)["error"]
    assert told["code"] == "needs_digest" and digest in told["message"] and digest in told["hint"]
    assert person.type(*common, *source, "--digest", "ab" * 32, code=5)["error"]["code"] == "wrong_digest"
    good = [*common, *source, "--digest", digest]
    one = person.type(*good, "--state-sync", f"{urls[0]},{urls[0]}/", code=2)["error"]
    assert one["code"] == "bad_state_sync" and "twice" in one["message"]
    same = urls[0].replace("127.0.0.1", "localhost")
    assert person.type(*good, "--state-sync", f"{urls[0]},{same}", code=2)["error"]["code"] == "bad_state_sync"
    dead = f"http://127.0.0.1:{free_port()}"
    told = person.type(*good, "--state-sync", f"{urls[0]},{dead}", code=4)["error"]
    assert told["code"] == "server_unreachable" and dead in told["message"]
    wrong = ["--state-sync", ",".join(urls[:2]), "--trust", f"2:{'ab' * 32}"]
    assert person.type(*good, *wrong, code=5)["error"]["code"] == "trust_root_mismatch"
    assert not late.exists()


def test_an_operator_outside_genesis_joins_by_state_sync_is_elected_and_signs(tmp_path: Path) -> None:
    founders = make_elected(tmp_path, CHAIN, FOUNDERS)
    for home in founders:
        home.save_settings(msgspec.structs.replace(home.settings(), snapshot_interval=10, snapshot_keep=10))
    late = tmp_path / "late"
    person = Operator(tmp_path / "person", founders[0].genesis_path)
    digest = founders[0].genesis().digest.hex()
    with ExitStack() as stack:
        daemons = [stack.enter_context(LedgerProcess(home.folder)) for home in founders]
        urls = [daemon.wait_started() for daemon in daemons]
        wallet = person.type("wallet", "new", rpc=urls[0])["account"]
        owner = decode_account(wallet)

        async def early() -> int:
            payer = await client_for(founders[0].folder, urls[0])
            try:
                return await pay(payer, owner, 50, range(10))
            finally:
                await payer.close()

        paid_at = asyncio.run(early())
        snapshots = ["ledger", "snapshot", "list", "--home", str(founders[1].folder)]
        wait("a snapshot", lambda: any(row["height"] >= paid_at for row in person.type(*snapshots)["snapshots"]))

        peers = [f"{home.card().peer}@{home.card().address}" for home in founders[:2]]
        where = ["--name", "late", "--address", f"127.0.0.1:{free_port()}", "--rpc", f"127.0.0.1:{free_port()}"]
        common = ["ledger", "join", "--home", str(late), "--peer", *peers, *where]
        refusals(person, late, common, urls, digest)
        good = [*common, "--genesis", urls[0], "--digest", digest, "--state-sync", ",".join(urls[:2])]
        planned = person.type(*good, "--plan")
        assert planned["plan"] and planned["validators"] == FOUNDERS and not late.exists()
        joined = person.type(*good)
        assert joined["genesis"] == digest and joined["peers"] == peers and joined["newest"] >= paid_at
        assert joined["next"] == [f"freehold ledger run --home {late}", f"freehold ledger bond AMOUNT --home {late}"]

        begun = time.monotonic()
        daemon = stack.enter_context(LedgerProcess(late))
        url = daemon.wait_started()
        wait("restored", lambda: height_of(url) >= joined["newest"])
        took_s = time.monotonic() - begun
        assert "Snapshot restored" in (late / "engine/engine.log").read_text()
        assert asyncio.run(balance(late, url, owner)) == 500 * TOKEN  # it serves reads, with proofs

        # it bonds by its own face, is elected, and its signature stands in a commit that others serve
        bonded = person.type("ledger", "bond", str(BOND), "--home", str(late), rpc=url)
        key = OperatorHome(late).card().validator_key
        assert bonded["validator"] == key.hex()

        def votes() -> bool:
            rows = person.type("ledger", "validators", rpc=url)["validators"]
            return any(row["validator"] == key.hex() and row["state"] == "votes" for row in rows)

        wait("elected", votes)
        elected_at = height_of(urls[0])
        address, seen = validator_address(key), list[int]()

        def signed() -> bool:
            height = height_of(urls[0])
            if address in asyncio.run(signers(founders[0].folder, urls[0], height - 1)):
                seen.append(height - 1)
            return bool(seen)

        wait("its signature in a commit", signed)
        again = person.type(*good, code=3)["error"]
        assert again["code"] == "needs_force" and "blockstore.db" in again["message"]
        assert person.type(*good, "--force", code=1)["error"]["code"] == "folder_in_use"
        print(f"restored in {took_s:.1f} s; bonded at {bonded['height']}, votes by {elected_at}, signed {seen[0]}")
        assert daemon.stop() == 0
        lost_at = json.loads((late / "engine/data/priv_validator_state.json").read_text())
        forced = person.type(*good, "--force")  # begins anew, and keeps the record of what it signed
        assert str(late / "data/state") in forced["destroys"] and not (late / "data/state").exists()
        kept = json.loads((late / "engine/data/priv_validator_state.json").read_text())
        assert int(kept["height"]) >= int(lost_at["height"])
        for one in daemons:
            one.process.terminate()
        assert [one.wait_ended() for one in daemons] == [0] * FOUNDERS
