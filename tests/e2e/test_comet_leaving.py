"""An embedded ledger's daemon is stopped, and validators on the real engine go on with its state."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

from comet_process import free_port
from ledger_process import FAST, VALIDATOR, LedgerProcess, account, client_for, genesis_of, make_home, status_until

from freehold.base.amounts import TOKEN
from freehold.base.errors import RefusedError
from freehold.client.session import sign_tx
from freehold.consensus.carried_genesis import carried_app_state, check_origin
from freehold.consensus.comet.founding import genesis_of as document_of
from freehold.consensus.comet.founding import settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.leaving import export_last_state
from freehold.ledger.keys import CARRIED, account_key
from freehold.ledger.records import Account, Carried
from freehold.ledger.transactions import Transfer

OLD, NEW = "e2e-ledger", "e2e-left"
SINK = account(7).public
TRANSFERS = 5
SECONDS = 60


def transfer(chain_id: str, nonce: int) -> bytes:
    return sign_tx(chain_id, account(0), nonce, FAST.min_fee, 5_000, Transfer(SINK, TOKEN))


async def accounts_of(home: Path, url: str, above: int = 0) -> list[Account]:
    client = await client_for(home, url)
    try:
        await status_until(client, lambda status: status["height"] > above)
        names = [account_key(account(number).public) for number in range(8)]
        answer = await client.read(names)
        records = [answer.get(name, Account) for name in names]
        assert None not in records
        return [record for record in records if record is not None]
    finally:
        await client.close()


async def height_of(home: Path, url: str) -> int:
    client = await client_for(home, url)
    try:
        return int((await client.get_json("/v1/status"))["height"])
    finally:
        await client.close()


async def pay(home: Path, url: str) -> None:
    client = await client_for(home, url)
    try:
        for nonce in range(TRANSFERS):
            await client.submit(transfer(OLD, nonce))
    finally:
        await client.close()


async def go_on(home: Path, url: str, height: int) -> None:
    client = await client_for(home, url)
    try:
        carried = (await client.read([CARRIED])).get(CARRIED, Carried)
        assert carried is not None and (carried.chain_id, carried.height) == (OLD, height - 1)
        try:
            await client.submit(transfer(OLD, TRANSFERS))
            raise AssertionError("a transaction of the old chain was taken")
        except RefusedError as error:
            assert error.code == "wrong_chain"
        outcome = await client.submit(transfer(NEW, TRANSFERS))
        assert outcome.height >= height
        await status_until(client, lambda status: status["height"] > outcome.height + 3)
    finally:
        await client.close()


def test_validators_go_on_with_an_embedded_ledgers_state(tmp_path: Path) -> None:
    old = make_home(tmp_path / "old")
    with LedgerProcess(old) as daemon:
        url = daemon.wait_started()
        asyncio.run(pay(old, url))
        before = asyncio.run(accounts_of(old, url))
        daemon.stop()
    last = export_last_state(old / "data", genesis_of(old), VALIDATOR, time.time_ns() // 1_000_000)
    height = last.light_block.header.height
    homes = [OperatorHome(tmp_path / f"v{index}") for index in range(2)]
    cards = [home.make_keys(f"v{index}", f"127.0.0.1:{free_port()}") for index, home in enumerate(homes)]
    document = document_of(cards, NEW, carried_app_state(last.light_block, last.records), initial_height=height)
    for home in homes:
        assert check_origin(settle(home, document, cards, rpc="127.0.0.1:0"), genesis_of(old)) == height - 1
    with ExitStack() as stack:
        daemons = [stack.enter_context(LedgerProcess(home.folder)) for home in homes]
        urls = [daemon.wait_started() for daemon in daemons]
        assert asyncio.run(accounts_of(homes[0].folder, urls[0])) == before
        asyncio.run(asyncio.wait_for(go_on(homes[0].folder, urls[0], height), SECONDS))
        after = asyncio.run(accounts_of(homes[0].folder, urls[0]))
        newest = asyncio.run(height_of(homes[0].folder, urls[0])) + 2  # the others may be a block ahead of this one
        assert (after[0].nonce, after[7].balance) == (TRANSFERS + 1, before[7].balance + TOKEN)
        for daemon in daemons:
            daemon.stop()
    with ExitStack() as stack:  # and again after a restart, by replay of the engine's blocks
        daemons = [stack.enter_context(LedgerProcess(home.folder)) for home in homes]
        urls = [daemon.wait_started() for daemon in daemons]
        assert asyncio.run(accounts_of(homes[1].folder, urls[1], newest)) == after
        for daemon in daemons:
            daemon.stop()
