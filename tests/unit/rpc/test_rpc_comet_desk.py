"""The desk over CometBFT, at a start: what is told of the blocks that come before the engine answers."""

import asyncio
from pathlib import Path

from msgspec.structs import replace

from freehold.consensus.abci.following import FinalBlock
from freehold.consensus.comet.client import CometClient
from freehold.crypto.ed25519 import PrivateKey
from freehold.light.genesis import genesis_document, parse_genesis
from freehold.light.types import Timestamp
from freehold.rpc.comet_desk import READ_BACK_BLOCKS, CometDesk

REBUILT = 1_000
MEANWHILE = 300
GENESIS = genesis_document(
    chain_id="desk-1",
    genesis_time=Timestamp.from_ms(1_790_000_000_000),
    validators=[(PrivateKey.from_seed(b"v" * 32).public, 10, "one")],
    app_state={},
    app_hash=b"",
)


def block_of(height: int) -> FinalBlock:
    return FinalBlock(height=height, time_ms=height, hash=b"", txs=(), results=(), app_hash=bytes(32))


class Engine(CometClient):
    """Gives the blocks of the past; while it does, new ones are committed."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.desk: CometDesk | None = None

    async def final_block(self, height: int) -> FinalBlock:
        if self.desk is not None:
            desk, self.desk = self.desk, None
            for new in range(REBUILT + 1, REBUILT + MEANWHILE + 1):
                desk._committed(block_of(new))
        return block_of(height)


def test_a_state_that_is_rebuilt_from_its_blocks_does_not_fill_memory_with_them(tmp_path: Path) -> None:
    """The engine replays them before it answers any question: as many as the ledger has."""

    async def main() -> None:
        told: list[int] = []
        async with Engine(tmp_path / "rpc.sock") as engine:
            desk = CometDesk(engine, parse_genesis(GENESIS), GENESIS, keep_heights=8, tick_ms=1_000)
            desk.subscribe(lambda block: told.append(block.height))
            for height in range(1, REBUILT + 1):
                desk._committed(block_of(height))
            assert desk._backlog is not None and len(desk._backlog) == READ_BACK_BLOCKS
            engine.desk = desk
            await desk._read_back(desk._begun_at)
            assert told == list(range(REBUILT - 2 * READ_BACK_BLOCKS + 1, REBUILT + MEANWHILE + 1))

    asyncio.run(main())


def test_evidence_is_counted_once_in_new_blocks_and_not_in_those_read_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine(tmp_path / "rpc.sock") as engine:
            desk = CometDesk(engine, parse_genesis(GENESIS), GENESIS, keep_heights=8, tick_ms=1_000)
            desk._committed(block_of(1))
            assert desk.standing().faults == 0
            desk._committed(replace(block_of(2), faults=2))
            desk._committed(block_of(3))
            await desk._read_back(3)
            assert desk.standing().faults == 2

    asyncio.run(main())
