"""A process that indexes blocks of a seed as fast as it can, until it is killed: `index_child.py FOLDER SEED [torn]`.

`torn` is the canary: the span becomes durable before its rows, in a transaction of its own.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from index_kit import CHAIN, Blocks, database, make_block

from freehold.indexer.follower import IndexFollower
from freehold.indexer.records import BlockRecord
from freehold.indexer.store import Index

NEWEST = 1_000_000
TOLD = 100  # of every 200 blocks; the others are read back


def tell(*words: object) -> None:
    os.write(1, " ".join(map(str, words)).encode() + b"\n")  # one line at once: two threads tell


class ToldIndex(Index):
    def add(self, blocks: Sequence[BlockRecord]) -> None:
        tell("adding", blocks[0].height)
        self.write(blocks)

    def write(self, blocks: Sequence[BlockRecord]) -> None:
        super().add(blocks)


class TornIndex(ToldIndex):
    def write(self, blocks: Sequence[BlockRecord]) -> None:
        for block in blocks:
            with self._database.write() as transaction:
                newest = block.height - 1
                self._add_span(transaction, block.height, newest)
            with self._database.write() as transaction:
                self._add_rows(transaction, block)


async def main(folder: Path, seed: int, torn: bool) -> None:
    index = (TornIndex if torn else ToldIndex)(database(folder), CHAIN)
    source = Blocks(NEWEST, seed)
    follower = IndexFollower(index, source, lambda event, fields: tell(event, fields))
    follower.start()
    last = -1
    while True:
        await asyncio.sleep(0)
        if follower.indexed != last:
            last = follower.indexed
            tell("indexed", last)
            for height in range(last + 1, last + 1 + TOLD if last % 400 < 200 else 0):
                follower.receive(make_block(height, seed))


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["torn"]))
