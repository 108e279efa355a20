"""Making a stopped daemon's history anew from its blocks, on either engine."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from freehold.base.errors import InvalidInputError
from freehold.consensus.block_store import BlockStore
from freehold.consensus.chain import read_committed
from freehold.consensus.comet.client import RpcError
from freehold.consensus.comet.inspect import inspecting
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.errors import StorageDamagedError
from freehold.consensus.folder import FolderLock
from freehold.indexer.follower import BATCH_BLOCKS
from freehold.indexer.records import BlockRecord
from freehold.indexer.store import Index
from freehold.rpc import comet_desk, engine_desk
from freehold.rpc.archive import open_index
from freehold.rpc.config import DaemonHome

SAY_EVERY: Final = 100 * BATCH_BLOCKS

Say = Callable[[str], None]


def reindex(home: DaemonHome, say: Say) -> tuple[int, int]:
    """Remove the index of a home and make it anew.

    Args:
        home: of a daemon that does not run.
        say: told how far it got.

    Returns:
        The first and last height indexed; (0, 0) without blocks.

    Raises:
        FolderInUseError: the daemon runs.
        InvalidInputError: the home keeps no history, or its engine is not installed.
        StorageDamagedError: its blocks cannot be read.
    """
    if home.settings.index == "off":
        raise InvalidInputError("this home keeps no history", code="no_history", hint="set `index` in ledger.toml")
    index = open_index(home)
    with FolderLock(home.data):
        try:
            index.clear()
            index.open()
            if (home.folder / "validator.toml").exists():
                return asyncio.run(_from_comet(OperatorHome(home.folder), index, say))
            return _from_embedded(home, index, say)
        finally:
            index.close()


def _from_embedded(home: DaemonHome, index: Index, say: Say) -> tuple[int, int]:
    with BlockStore(home.data / "blocks") as blocks:
        for heights in _batches(blocks.lowest, blocks.height, say):
            index.add([_embedded_record(blocks, height) for height in heights])
        return blocks.lowest, blocks.height


def _embedded_record(blocks: BlockStore, height: int) -> BlockRecord:
    block = read_committed(blocks, height)
    if block is None:
        raise StorageDamagedError(f"block {height} is missing", code="blocks_damaged", hint="restore the data folder")
    return engine_desk.record_of(block)


async def _from_comet(home: OperatorHome, index: Index, say: Say) -> tuple[int, int]:
    if not (home.engine / "data/blockstore.db").exists():
        return 0, 0
    async with inspecting(home) as engine:
        lowest, newest = await engine.kept_heights()
        try:
            if newest:
                await engine.final_block(newest)
        except RpcError:  # stored, and not executed before it stopped
            newest -= 1
        for heights in _batches(lowest, newest, say):
            index.add([comet_desk.record_of(await engine.final_block(height)) for height in heights])
        return (lowest, newest) if newest >= lowest else (0, 0)


def _batches(lowest: int, newest: int, say: Say) -> Iterator[Iterable[int]]:
    for start in range(max(lowest, 1), newest + 1, BATCH_BLOCKS):
        yield range(start, min(newest + 1, start + BATCH_BLOCKS))
        if (start - lowest) % SAY_EVERY == 0:
            say(f"indexed from block {start} on, of {newest}")
