"""Making a stopped daemon's history anew from its blocks."""

from collections.abc import Callable

from freehold.base.errors import InvalidInputError, check
from freehold.consensus.block_store import BlockStore
from freehold.consensus.chain import read_committed
from freehold.consensus.folder import FolderLock
from freehold.indexer.follower import BATCH_BLOCKS
from freehold.rpc.archive import open_index
from freehold.rpc.config import DaemonHome
from freehold.rpc.engine_desk import record_of

SAY_EVERY = 100 * BATCH_BLOCKS


def reindex(home: DaemonHome, say: Callable[[str], None]) -> tuple[int, int] | None:
    """Remove the index of a home and make it anew.

    Args:
        home: of a daemon that does not run.
        say: told how far it got.

    Returns:
        The first and last height indexed, (0, 0) without blocks; None on CometBFT, whose blocks only its running engine
        gives: there the daemon makes the index when it starts.

    Raises:
        FolderInUseError: the daemon runs.
        InvalidInputError: the home keeps no history.
    """
    if home.settings.index == "off":
        raise InvalidInputError("this home keeps no history", code="no_history", hint="set `index` in ledger.toml")
    index = open_index(home)
    with FolderLock(home.data):
        try:
            index.clear()
            index.open()
            if (home.folder / "validator.toml").exists():
                return None
            with BlockStore(home.data / "blocks") as blocks:
                for start in range(blocks.lowest, blocks.height + 1 if blocks.height else 0, BATCH_BLOCKS):
                    records = []
                    for height in range(start, min(blocks.height + 1, start + BATCH_BLOCKS)):
                        block = read_committed(blocks, height)
                        check(block is not None, "final_blocks_are_kept", height=height)
                        if block is not None:
                            records.append(record_of(block))
                    index.add(records)
                    if (start - blocks.lowest) % SAY_EVERY == 0:
                        say(f"indexed up to block {records[-1].height} of {blocks.height}")
                return (blocks.lowest, blocks.height) if blocks.height else (0, 0)
        finally:
            index.close()
