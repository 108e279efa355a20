"""The beacon on the real engine, with one of four validators hostile: it gains nothing, and what it costs is told."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from comet_process import make_validators
from ledger_process import LedgerProcess

from freehold.base.codec import decode
from freehold.base.errors import UnreachableError
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.operators import OperatorHome
from freehold.crypto.hashing import sha256
from freehold.ledger.beacons import VrfBeaconTx
from freehold.light.types import BlockIDFlag, LightBlock

LIMIT_S = 60.0
HEIGHTS = 10


@contextmanager
def hostile(home: Path, kind: str) -> Iterator[None]:
    program = [sys.executable, str(Path(__file__).with_name("hostile_validator.py")), str(home), kind]
    with subprocess.Popen(program) as process:
        try:
            yield
        finally:
            process.kill()  # its engine dies with it


class Row:
    """A block: its proofs, who signed it, in which round."""

    def __init__(self, light: LightBlock, first: bytes) -> None:
        self.places = [place for place, _ in decode(first, VrfBeaconTx, max_bytes=4_096).proofs]
        commit = light.signed_header.commit
        self.proposer = light.header.proposer_address
        self.round = commit.round
        self.time_ms = light.header.time.ms
        self.app_hash = light.header.app_hash
        self.absent = {
            member.address
            for member, signature in zip(light.validator_set.validators, commit.signatures, strict=True)
            if signature.block_id_flag != BlockIDFlag.COMMIT
        }


async def reached(client: CometClient, height: int) -> bool:
    try:
        return (await client.status()).height >= height
    except UnreachableError:
        return False  # the daemon says that it started before its engine listens


async def watch(home: Path) -> list[Row]:
    operator = OperatorHome(home)
    genesis = operator.genesis()
    async with CometClient(operator.rpc_socket) as client, asyncio.timeout(LIMIT_S):
        while not await reached(client, HEIGHTS):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        return [
            Row(await client.light_block(height, genesis), (await client.final_block(height)).txs[0])
            for height in range(2, HEIGHTS)
        ]


def run(folder: Path, kind: str) -> tuple[list[Row], bytes, int]:
    """Three honest daemons and a hostile one; gives the blocks, and the hostile one's address and place."""
    homes = make_validators(folder, 4)
    with ExitStack() as stack:
        daemons = [stack.enter_context(LedgerProcess(home)) for home in homes[:3]]
        stack.enter_context(hostile(homes[3], kind))
        for daemon in daemons:
            daemon.wait_started()
        rows = asyncio.run(watch(homes[0]))
        others = asyncio.run(watch(homes[1]))
        assert [row.app_hash for row in rows] == [row.app_hash for row in others]
        assert [daemon.stop() for daemon in daemons] == [0, 0, 0]
    keys = sorted(OperatorHome(home).validator_key().public for home in homes)
    key = OperatorHome(homes[3]).validator_key().public
    return rows, sha256(key)[:20], keys.index(key)


def pace(rows: list[Row]) -> float:
    return (rows[-1].time_ms - rows[0].time_ms) / (len(rows) - 1)


@pytest.mark.long
def test_one_that_withholds_gains_nothing_and_stops_nobody(tmp_path: Path) -> None:
    """Its votes are in some commits nevertheless: the engine asks nobody about one that comes after the decision."""
    rows, address, place = run(tmp_path, "withhold")
    absent = sum(address in row.absent for row in rows)
    rounds = [row.round for row in rows]
    print(f"withheld: {len(rows)} blocks, {pace(rows):.0f} ms each, absent from {absent} commits, rounds {rounds}")
    assert all(place not in row.places and len(row.places) == 3 for row in rows)
    assert any(row.proposer == address for row in rows)  # its own proposals are as good as others'


@pytest.mark.long
def test_one_that_forges_loses_its_turns(tmp_path: Path) -> None:
    rows, address, _ = run(tmp_path, "forge")
    print(f"forged: {len(rows)} blocks, {pace(rows):.0f} ms each, rounds {[row.round for row in rows]}")
    assert all(row.proposer != address for row in rows)
    assert any(row.round > 0 for row in rows)  # work in flight: it had its turn, and was refused
