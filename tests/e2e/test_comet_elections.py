"""Elections on the real engine: a newcomer follows, bonds, is elected, proposes; a set that changes at an era's end."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
from comet_process import free_port, make_elected
from ledger_process import FAST, LedgerProcess, account

from freehold.base.amounts import TOKEN
from freehold.client.session import sign_tx
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.founding import settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.ledger_application import LedgerApplication
from freehold.ledger.bonds import validator_address
from freehold.ledger.keys import bond_key
from freehold.ledger.records import ValidatorBond
from freehold.ledger.state import read
from freehold.ledger.transactions import Bond, validator_possession_bytes
from freehold.light.trust import GENESIS_TRUST
from freehold.lightclient.client import LedgerClient
from freehold.lightclient.trust_store import TrustStore

CHAIN = "e2e-elections"
VALIDATORS = 3
LIMIT_S = 150.0


async def until(client: CometClient, height: int) -> int:
    async with asyncio.timeout(LIMIT_S):
        while (now := (await client.status()).height) < height:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return now


async def members_at(client: CometClient, height: int) -> dict[bytes, int]:
    """Who signs the block of a height, as the engine has it."""
    members = (await client.validators(height)).validators
    return {one.pub_key.ed25519: one.voting_power for one in members}


async def run(homes: list[OperatorHome]) -> None:
    late, owner = homes[-1], account(VALIDATORS)
    key = late.validator_key()
    async with AsyncExitStack() as stack:
        clients = []
        for home in homes:
            clients.append(await stack.enter_async_context(CometClient(home.rpc_socket)))
        await until(clients[0], 2)
        vrf_key = late.vrf_key().public
        possession = key.sign(validator_possession_bytes(CHAIN, key.public, owner.public, vrf_key))
        body = Bond(key.public, vrf_key, possession, 300 * TOKEN)
        code, log = await clients[0].submit(sign_tx(CHAIN, owner, 0, FAST.min_fee, 5_000, body))
        assert code == 0, log
        height = 0
        async with asyncio.timeout(LIMIT_S):
            while True:
                height = await until(clients[0], height + 1)
                members = await members_at(clients[0], height)
                if key.public in members:
                    break
        assert members == {home.validator_key().public: 200 for home in homes[:VALIDATORS]} | {key.public: 200}
        proposers = set()
        async with asyncio.timeout(LIMIT_S):
            while validator_address(key.public) not in proposers:
                height = await until(clients[0], height + 1)
                light = await clients[0].light_block(height, late.genesis())
                proposers.add(light.header.proposer_address)
        height = await until(clients[-1], height)
        hashes = {(await client.final_block(height)).app_hash for client in clients}
        assert len(hashes) == 1


async def read_across(urls: list[str], home: OperatorHome, newcomer: bytes, folder: Path) -> None:
    """A reader who knows genesis alone follows the change, compares the servers, and goes on from what it remembers."""
    trusted = home.genesis()
    heights = []
    for _ in range(2):
        client = LedgerClient(",".join(urls), trusted, store=TrustStore(folder, trusted, GENESIS_TRUST))
        try:
            snapshot = await client.read([bond_key(newcomer)])
        finally:
            await client.close()
        assert snapshot.get(bond_key(newcomer), ValidatorBond) is not None
        assert len(snapshot.light_block.validator_set.validators) == VALIDATORS + 1 > len(trusted.validators.validators)
        if client.comparison is None:  # the second reader, still at the header that the first one compared
            assert heights == [snapshot.at.height]
        else:
            assert client.comparison.refused == 0
            assert client.comparison.agreed + client.comparison.behind > 0
        heights.append(snapshot.at.height)
    assert heights == sorted(heights)


def status(url: str, home: OperatorHome, folder: Path) -> dict[str, Any]:
    """The shipped command, by somebody who knows genesis alone."""
    folder.mkdir()
    (folder / "genesis.json").write_bytes(home.genesis_path.read_bytes())
    environment = {"PATH": os.environ["PATH"], "FREEHOLD_HOME": str(folder), "FREEHOLD_RPC": url}
    command = [sys.executable, "-P", "-m", "freehold.cli.main", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    assert done.returncode == 0, done
    return dict(json.loads(done.stdout))


def clone(home: OperatorHome, folder: Path, homes: list[OperatorHome]) -> OperatorHome:
    """A second machine with a validator's key, an identity of its own among its peers, and no memory of its votes."""
    twin = OperatorHome(folder)
    folder.mkdir()
    for path in home.folder.glob("*.key"):
        if path.name != "p2p.key":
            (folder / path.name).write_bytes(path.read_bytes())
            (folder / path.name).chmod(0o600)
    twin.make_keys("twin", f"127.0.0.1:{free_port()}")
    settle(twin, home.genesis_path.read_bytes(), [other.card() for other in homes], rpc="127.0.0.1:0")
    return twin


async def until_removed(home: OperatorHome, guilty: bytes) -> None:
    async with CometClient(home.rpc_socket) as client, asyncio.timeout(LIMIT_S):
        height = await until(client, 1)
        while guilty in await members_at(client, height):
            height = await until(client, height + 1)
        await until(client, height + 3)  # the chain goes on without it


@pytest.mark.long
@pytest.mark.timeout(400)
def test_two_machines_with_one_key_vote_twice_and_lose_seat_and_bond(tmp_path: Path) -> None:
    homes = make_elected(tmp_path, CHAIN, VALIDATORS, late=1)
    with ExitStack() as stack:

        def start(home: OperatorHome) -> None:
            daemon = stack.enter_context(LedgerProcess(home.folder))
            stack.callback(daemon.stop)
            daemon.wait_started()

        for home in homes:
            start(home)
        start(clone(homes[0], tmp_path / "twin", homes))
        guilty = homes[0].validator_key().public
        asyncio.run(until_removed(homes[1], guilty))
    application = LedgerApplication.open(homes[1].data, homes[1].genesis(), None)
    bond = read(application.state, bond_key(guilty), ValidatorBond)
    application.close()
    assert bond is not None
    assert bond.is_removed
    assert bond.stake < 200 * TOKEN


@pytest.mark.long
def test_a_newcomer_bonds_is_elected_and_proposes(tmp_path: Path) -> None:
    homes = make_elected(tmp_path, CHAIN, VALIDATORS, late=1)
    daemons = [LedgerProcess(home.folder) for home in homes]
    try:
        urls = [daemon.wait_started() for daemon in daemons]
        asyncio.run(run(homes))
        asyncio.run(read_across(urls, homes[0], homes[-1].validator_key().public, tmp_path / "light"))
        told = status(urls[0], homes[0], tmp_path / "person")
        assert told["validators"] == VALIDATORS + 1
        assert (told["forgers"]["count"], told["forgers"]["parties"]) == (3, VALIDATORS + 1)  # of equal power
        assert all(row["owner"] for row in told["forgers"]["members"])
    finally:
        for daemon in daemons:
            daemon.process.terminate()
        for daemon in daemons:
            daemon.wait_ended()
            daemon.close()
