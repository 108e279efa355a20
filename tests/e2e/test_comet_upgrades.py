"""Two upgrades on the real engine: agreed, in force, and replayed from the engine's own blocks into an empty state."""

import asyncio
import contextlib
import shutil
from pathlib import Path

import pytest
from comet_process import make_validators
from ledger_process import FAST, LedgerProcess, account

from freehold.base.amounts import TOKEN
from freehold.base.errors import UnreachableError
from freehold.client.session import sign_tx
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.operators import OperatorHome
from freehold.ledger.codes import Code
from freehold.ledger.transactions import Body, Bond, Rejoin, Upgrade, upgrade_bytes, validator_possession_bytes

CHAIN = "e2e-comet"
LIMIT_S = 120.0


async def until(client: CometClient, height: int) -> int:
    """Wait for a height; the engine answers only when it has replayed its blocks."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(UnreachableError):
                if (now := (await client.status()).height) >= height:
                    return now
            await asyncio.sleep(0.05)


async def upgraded(home: OperatorHome) -> tuple[int, bytes]:
    """Agree on rules 2, bond, agree on rules 3, and give the app hash of a later height."""
    key = home.validator_key()
    async with CometClient(home.rpc_socket) as client:

        async def send(nonce: int, body: Body) -> tuple[int, str]:
            return await client.submit(sign_tx(CHAIN, account(0), nonce, FAST.min_fee, 5_000, body))

        change = await until(client, 2) + 14
        message = upgrade_bytes(CHAIN, change, 2, [1])
        code, log = await send(0, Upgrade(change, 2, [1], [(key.public, key.sign(message))]))
        assert code == 0, log
        vrf_key = home.vrf_key().public
        possession = key.sign(validator_possession_bytes(CHAIN, key.public, account(0).public, vrf_key))
        bond = Bond(key.public, vrf_key, possession, 200 * TOKEN)
        await until(client, change - 3)
        assert await send(1, bond) == (1, "undecodable")  # not yet
        await until(client, change + 1)  # a block is stored before it is executed
        code, log = await send(1, bond)
        assert code == 0, log
        assert await send(2, Rejoin(key.public)) == (1, "undecodable")
        message = upgrade_bytes(CHAIN, change := await until(client, 2) + 20, 3, [])
        code, log = await send(2, Upgrade(change, 3, [], [(key.public, key.sign(message))]))
        assert code == 0, log
        await until(client, change + 1)  # a block is stored before it is executed
        assert await send(3, Rejoin(key.public)) == (Code.NOT_ABSENT, "not_absent")
        height = await until(client, change + 8)
        return height, (await client.final_block(height)).app_hash


async def hash_at(home: OperatorHome, height: int) -> bytes:
    async with CometClient(home.rpc_socket) as client:
        await until(client, height + 3)
        assert (await client.status()).height > height
        return (await client.final_block(height)).app_hash


@pytest.mark.long
def test_replay_from_the_engines_blocks_across_an_upgrade_gives_the_live_root(tmp_path: Path) -> None:
    home = OperatorHome(make_validators(tmp_path, 1)[0])
    with LedgerProcess(home.folder) as daemon:
        daemon.wait_started()
        height, live = asyncio.run(upgraded(home))
        daemon.stop()
    shutil.rmtree(home.data / "state")
    with LedgerProcess(home.folder) as daemon:
        daemon.wait_started()
        assert asyncio.run(hash_at(home, height)) == live
        daemon.stop()
