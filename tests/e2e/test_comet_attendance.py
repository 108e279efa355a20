"""A validator that signs nothing, on the real engine: put out, the chain goes on faster, it comes back and signs."""

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from comet_process import make_elected
from ledger_process import LedgerProcess, client_for, status_until
from person import Person
from test_comet_elections import LIMIT_S, members_at, until

from freehold.base.amounts import TOKEN
from freehold.base.errors import UnreachableError
from freehold.client.home import Home
from freehold.client.wallet import create, keys_of
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.ledger_application import LedgerApplication
from freehold.ledger import keys
from freehold.ledger.bonds import validator_address
from freehold.ledger.records import Attendance, ValidatorBond
from freehold.ledger.state import read
from freehold.light.genesis import TrustedGenesis

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

VALIDATORS = 4
WORDS = "abandon " * 11 + "about"
LOOKED_AT = 16  # blocks: each of four proposes four of them


async def pace(client: CometClient, genesis: TrustedGenesis, last: int) -> tuple[float, int]:
    """Milliseconds a block, and how many needed more than one round, of the newest blocks up to a height."""
    blocks = [await client.light_block(height, genesis) for height in range(last - LOOKED_AT, last + 1)]
    times = [block.header.time.ms for block in blocks]
    rounds = [block.signed_header.commit.round for block in blocks[1:]]
    return (times[-1] - times[0]) / LOOKED_AT, sum(number > 0 for number in rounds)


async def until_seated(client: CometClient, key: bytes, height: int, *, seated: bool) -> int:
    """The first height, of those looked at, at which a validator votes or does not any more."""
    async with asyncio.timeout(LIMIT_S):
        while (key in await members_at(client, height)) != seated:
            height = await until(client, height + 1)
    return height


async def rejoined(owner: Person, key: bytes) -> None:
    """Its owner asks until the wait is over."""
    async with asyncio.timeout(LIMIT_S):
        while "error" in (answer := await asyncio.to_thread(owner.type, "ledger", "rejoin", key.hex(), code=None)):
            assert answer["error"]["code"] == "deadline_not_passed"
            await asyncio.sleep(0.2)
    again = await asyncio.to_thread(owner.type, "ledger", "rejoin", key.hex(), code=3)
    assert again["error"]["code"] == "not_absent"


def shown(owner: Person, home: OperatorHome) -> None:
    """What its owner reads while it is out, and cannot do."""
    key = home.validator_key().public.hex()
    rows = {row["validator"]: row for row in owner.type("ledger", "validators")["validators"]}
    assert (rows[key]["state"], rows[key]["absent"], rows[key]["power"]) == ("absent", True, 0)
    assert rows[key]["may_rejoin"] == owner.type("ledger", "rejoin", key, "--plan")["plan"]["may_rejoin"]
    text = owner.read("ledger", "validators")
    assert f"{key[:16]} is out, for it did not sign" in text
    assert f"rejoin {key}" in text
    raised = owner.type("ledger", "bond", "10", "--home", str(home.folder), code=3)
    assert raised["error"]["code"] == "validator_absent"


async def signs(client: CometClient, genesis: TrustedGenesis, key: bytes, height: int) -> int:
    """The first height whose commit holds a validator's vote."""
    address = validator_address(key)
    async with asyncio.timeout(LIMIT_S):
        while True:
            block = await client.light_block(height, genesis)
            if address in {vote.validator_address for vote in block.signed_header.commit.signatures if vote.signature}:
                return height
            height = await until(client, height + 1)


async def told(home: OperatorHome, url: str, code: str | None) -> dict[str, str] | None:
    client = await client_for(home.folder, url)
    try:
        status = await status_until(client, lambda status: (status["notice"] or {"code": None})["code"] == code)
    finally:
        await client.close()
    notice: dict[str, str] | None = status["notice"]
    return notice


async def run(homes: Sequence[OperatorHome], daemons: list[LedgerProcess], owner: Person) -> None:
    idle, genesis = homes[-1].validator_key().public, homes[0].genesis()
    others = {home.validator_key().public: 200 for home in homes[:-1]}
    async with AsyncExitStack() as stack:
        first, *_, last = [await stack.enter_async_context(CometClient(home.rpc_socket)) for home in homes]
        await signs(first, genesis, idle, await until(first, 3))
        daemons[-1].kill()
        daemons[-1].close()
        begun = await until(first, 1)
        out = await until_seated(first, idle, begun, seated=False)
        assert await members_at(first, out) == others
        assert out - begun > LOOKED_AT
        slow, failed = await pace(first, genesis, out - 1)
        fast, still = await pace(first, genesis, await until(first, out + LOOKED_AT + 2))
        print(
            f"out at {out}: {slow:.0f} ms a block, {failed} of {LOOKED_AT} in a later round; then {fast:.0f}, {still}"
        )
        assert failed > 0  # a dead proposer's turn
        assert fast < slow
        await asyncio.to_thread(shown, owner, homes[-1])
        daemons[-1] = LedgerProcess(homes[-1].folder)
        url = await asyncio.to_thread(daemons[-1].wait_started)
        notice = await told(homes[-1], url, "validator_absent")
        words = ("ledger", "status", "--home", str(homes[-1].folder))
        standing = (await asyncio.to_thread(owner.type, *words))["standing"]
        assert standing["state"] == "absent" and standing["may_rejoin"]
        assert standing["next"] == f"freehold ledger rejoin {idle.hex()}"
        assert standing["next"] in await asyncio.to_thread(owner.read, *words)
        beside = await asyncio.to_thread(owner.type, "ledger", "status", "--home", str(homes[0].folder))
        assert (beside["standing"]["state"], beside["standing"]["absent"]) == ("votes", [idle.hex()])
        assert notice is not None
        assert f"freehold ledger rejoin {idle.hex()}" in notice["hint"]
        await rejoined(owner, idle)
        back = await until_seated(first, idle, await until(first, 1), seated=True)
        assert await members_at(first, back) == others | {idle: 200}
        signed = await signs(first, genesis, idle, back)
        assert await told(homes[-1], url, None) is None
        print(f"back at {back}, its vote is in the commit of {signed}")
        await until(first, signed + 2)
        await until(last, signed + 2)
        assert (await first.final_block(signed + 1)).app_hash == (await last.final_block(signed + 1)).app_hash


async def answering(home: OperatorHome) -> None:
    """The engine answers only when it has replayed its blocks."""
    async with CometClient(home.rpc_socket) as client, asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(UnreachableError):
                await client.status()
                return
            await asyncio.sleep(0.05)


def replayed(home: OperatorHome, validator: bytes) -> tuple[int, bytes, Attendance, ValidatorBond]:
    """Start alone, so that all stored blocks are executed, and stop; give height, root, attendance, and a bond."""
    with LedgerProcess(home.folder) as daemon:
        daemon.wait_started()
        asyncio.run(answering(home))
        daemon.stop()
    application = LedgerApplication.open(home.data, home.genesis(), None)
    try:
        attendance = read(application.state, keys.ATTENDANCE, Attendance)
        bond = read(application.state, keys.bond_key(validator), ValidatorBond)
        assert attendance is not None and bond is not None
        return application.state.height, application.state.app_hash, attendance, bond
    finally:
        application.close()


def test_a_validator_that_stops_signing_is_put_out_and_comes_back(tmp_path: Path) -> None:
    homes = make_elected(tmp_path, "e2e-attendance", VALIDATORS, owners={VALIDATORS - 1: keys_of(WORDS).id})
    idle = homes[-1].validator_key().public
    daemons = [LedgerProcess(home.folder) for home in homes]
    try:
        urls = [daemon.wait_started() for daemon in daemons]
        owner = Person(tmp_path / "owner", urls[0], homes[0].genesis_path)
        create(Home(tmp_path / "owner"), owner.passphrase, WORDS)
        asyncio.run(run(homes, daemons, owner))
        for daemon in daemons:
            daemon.process.terminate()
        for daemon in daemons:
            daemon.wait_ended()
    finally:
        for daemon in daemons:
            daemon.close()
    live = replayed(homes[0], idle)
    _, _, attendance, bond = live
    assert attendance.absent == []
    assert (bond.stake, bond.is_listed, bond.unbonding) == (200 * TOKEN, True, [])  # nothing was cut
    shutil.rmtree(homes[0].data / "state")
    assert replayed(homes[0], idle) == live  # a state made anew from the blocks alone decides the same
