"""Validators that cheat: two engines with one key, invalid and oversize proposals, shifted clocks, silent votes.

Each is tolerated by the three honest ones; what it costs is printed as milliseconds a block beside those without it.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from faults import seed_of
from ledger_process import LedgerProcess, account
from validators import (
    P2P_PORT,
    Load,
    Validators,
    address,
    ask,
    check_load,
    rich,
    url,
    wait_gone,
    with_validators,
    write_settings,
)

from freehold.base.amounts import TOKEN
from freehold.base.presets import MINIMAL, MINIMAL_ELECTIONS
from freehold.consensus.comet.operators import Card, OperatorHome
from freehold.crypto.hashing import sha256
from freehold.ledger.genesis import GenesisBond, app_state_document
from freehold.ledger.keys import bond_key
from freehold.ledger.records import ValidatorBond
from freehold.lightclient.client import LedgerClient

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(900)]

VARIANTS = Path(__file__).with_name("variant_daemon.py")
BLOCKS = 24
SHIFT_MS = 3_600_000
LOSES_TURNS = ("invalid", "oversize")
HEADER_LAG_MS = 15_000  # of a loaded machine; the shift is an hour
BOND = 1_000 * TOKEN


async def pace(net: Validators, members: list[int]) -> float:
    """Milliseconds a block, over some that are made meanwhile."""
    begun, first = time.monotonic(), await net.height(members[0])
    await net.reach(first + BLOCKS, members[:1])
    return (time.monotonic() - begun) * 1_000 / (await net.height(members[0]) - first)


async def tolerate(net: Validators, variant: str, **environment: str) -> None:
    rng = seed_of(f"byzantine {variant}")
    await net.start_all()
    honest = [0, 1, 2]
    async with Load(rng, honest) as load:
        await load.more(5)
        plain = await pace(net, honest)
        await net.kill(3)
        net.start(3, program=(str(VARIANTS), variant), **environment)
        await net.started(3)
        await net.reach(await net.height(0), [3])
        acknowledged = len(load.acknowledged)
        since = await net.height(0)
        cheated = await pace(net, honest)
        assert len(load.acknowledged) > acknowledged
        behind_ms = time.time() * 1_000 - (await ask(0, "/v1/status"))["time_ms"]
        assert abs(behind_ms) < HEADER_LAG_MS, f"headers lag by {behind_ms:.0f} ms"
        await net.agree()
    print(f"{variant}: {plain:.0f} ms a block without, {cheated:.0f} ms with ({cheated / plain:.2f} times)")
    print(f"headers are {behind_ms:.0f} ms old, {len(load.acknowledged)} payments acknowledged")
    turns = proposed(net, 3, since)
    print(f"blocks of its own since: {turns} of {max(net.blocks) - since}")
    assert bool(turns) != (variant in LOSES_TURNS)
    await check_load(net, load)


def proposed(net: Validators, index: int, since: int) -> int:
    """How many of the blocks above a height a validator proposed."""
    own = sha256(net.cards[index].validator_key)[:20]
    return sum(proposer == own for height, proposer in net.proposers.items() if height > since)


@pytest.mark.parametrize("variant", ["invalid", "oversize", "silent"])
def test_a_cheating_application_is_tolerated(tmp_path: Path, variant: str) -> None:
    with_validators(tmp_path, lambda net: tolerate(net, variant))


def test_votes_of_a_clock_an_hour_off_move_no_header(tmp_path: Path) -> None:
    async def work(net: Validators) -> None:
        await tolerate(net, "shifted", SHIFT_MS=str(SHIFT_MS))

    with_validators(tmp_path, work)


def with_bonds(cards: list[Card]) -> dict[str, Any]:
    """A ledger that elects validators, each of genesis bonded."""
    bonds = [GenesisBond(card.validator_key, account(100 + n).public, BOND) for n, card in enumerate(cards)]
    elections = msgspec.structs.replace(MINIMAL_ELECTIONS, cap_permill=1_000)
    return app_state_document(MINIMAL, [], [], accounts=rich(), elections=elections, bonds=bonds)


def make_twin(net: Validators, index: int, folder: Path) -> OperatorHome:
    """Another machine with the same validator's keys, and an address of its own."""
    twin, where = OperatorHome(folder), len(net.homes)
    twin.folder.mkdir(mode=0o700)
    for name in ("validator.key", "vrf.key"):
        (twin.folder / name).write_bytes((net.homes[index].folder / name).read_bytes())
        (twin.folder / name).chmod(0o600)
    twin.make_keys("twin", f"{address(where)}:{P2P_PORT}")
    twin.genesis_path.write_bytes(net.homes[index].genesis_path.read_bytes())
    settings = msgspec.structs.replace(
        net.homes[index].settings(),
        name="twin",
        listen=f"{address(where)}:{P2P_PORT}",
        peers=[f"{card.peer}@{card.address}" for n, card in enumerate(net.cards) if n != index],
    )
    twin.save_settings(settings)
    write_settings(twin, where)
    return twin


async def evidence(net: Validators, above: int) -> int:
    """The first block above a height that holds evidence of two votes, as the first engine has it; 0 for none."""
    newest = await net.height(0)
    transport = httpx2.AsyncHTTPTransport(uds=str(net.homes[0].rpc_socket))
    async with httpx2.AsyncClient(transport=transport, timeout=20) as engine:
        for height in range(above + 1, newest + 1):
            call = {"jsonrpc": "2.0", "id": 1, "method": "block", "params": {"height": str(height)}}
            block = (await engine.post("http://engine/", json=call)).json()["result"]["block"]
            if block["evidence"]["evidence"]:
                return height
    return 0


async def read_bond(net: Validators, key: bytes) -> ValidatorBond:
    """A validator's bond as the ledger has it now, proven under a verified header."""
    client = LedgerClient(url(0), net.genesis)
    try:
        bond = (await client.read([bond_key(key)])).get(bond_key(key), ValidatorBond)
    finally:
        await client.close()
    assert bond is not None
    return bond


async def double_sign(net: Validators, folder: Path) -> None:
    rng = seed_of("double sign")
    await net.start_all()
    key = net.cards[3].validator_key
    twin = make_twin(net, 3, folder / "twin")
    async with Load(rng, [0, 1, 2]) as load:
        await load.more(5)
        whole = await read_bond(net, key)
        assert whole.stake == BOND and not whole.slashed and not whole.is_removed, whole
        assert load.open, "no work is in flight"
        inside = ("nsenter", f"--net=/run/netns/{net.net.names[4]}", "--")
        begun, first = time.monotonic(), await net.height(0)
        with LedgerProcess(twin.folder, before=inside) as other:
            await asyncio.to_thread(other.wait_started)
            async with asyncio.timeout(200):
                while not (found := await evidence(net, first)):  # noqa: ASYNC110
                    await asyncio.sleep(0.5)
            print(f"evidence in block {found} after {time.monotonic() - begun:.1f} s")
        await asyncio.to_thread(wait_gone, twin)
        await load.more(5)
        await net.reach(found + 3, [0, 1, 2])
        cut = await read_bond(net, key)
        print(f"bond {whole.stake} before, {cut.stake} after; cut for {cut.slashed}")
        lost = BOND * MINIMAL_ELECTIONS.duplicate_vote_permill // 1_000
        assert lost and cut.stake == BOND - lost and cut.slashed and cut.is_removed, cut
        await net.agree()
    await check_load(net, load)


def test_two_engines_with_one_key_are_slashed(tmp_path: Path) -> None:
    with_validators(tmp_path, lambda net: double_sign(net, tmp_path), spare=1, app_state=with_bonds)
