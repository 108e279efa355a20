"""Blocks made from a seed, and a source of them that can be moved on by hand."""

import random
from collections.abc import Iterable
from pathlib import Path

from freehold.base.errors import RefusedError
from freehold.crypto.hashing import sha256
from freehold.crypto.strkey import encode_account
from freehold.indexer.cursors import TOP, Place
from freehold.indexer.databases import Database, SqliteDatabase
from freehold.indexer.records import BlockEvent, BlockRecord, BlockTx
from freehold.indexer.store import EventLine, Index
from freehold.indexer.subjects import subjects_of

CHAIN = "index-test 00"
ACCOUNTS = [encode_account(bytes([n]) * 32) for n in range(5)]
LEASES = [bytes([100 + n]).hex() * 32 for n in range(4)]
T0_MS = 1_767_225_600_000


def make_event(dice: random.Random) -> BlockEvent:
    if dice.random() < 0.5:
        sender, to = dice.sample(ACCOUNTS, 2)
        return BlockEvent("transfer", {"sender": sender, "to": to, "amount": str(dice.randrange(10**9))})
    to = dice.choice(["", *ACCOUNTS])
    values = {"lease": dice.choice(LEASES), "epoch": str(dice.randrange(99)), "to": to, "amount": "7", "role": "holder"}
    return BlockEvent("payment", values)


def make_block(height: int, seed: int = 0) -> BlockRecord:
    """The block of a height, the same for the same seed."""
    dice = random.Random((seed << 32) + height)
    txs = []
    for number in range(dice.randrange(4)):
        code = dice.choice([0, 0, 0, 9])
        events = [] if code else [make_event(dice) for _ in range(dice.randrange(4))]
        # now and then the same bytes come again, refused
        id_ = sha256(b"again") if dice.random() < 0.1 else sha256(b"%d/%d/%d" % (seed, height, number))
        txs.append(BlockTx(id_, code, b"data" if not code else b"", events))
    return BlockRecord(height, T0_MS + height * 1_000, sha256(b"block %d %d" % (seed, height)), txs)


def make_blocks(heights: Iterable[int], seed: int = 0) -> list[BlockRecord]:
    return [make_block(height, seed) for height in heights]


def expected(blocks: Iterable[BlockRecord], subjects: Iterable[str] = ()) -> list[EventLine]:
    """The events of blocks as the index should list them."""
    wanted, lines = set(subjects), []
    for block in blocks:
        events = [(tx, event) for tx in block.txs for event in tx.events]
        for position, (tx, event) in enumerate(events):
            if not wanted or wanted & set(subjects_of(event)):
                place = Place(block.height, position)
                lines.append(EventLine(place, block.time_ms, tx.id, event.kind, event.attributes))
    return sorted(lines, key=lambda line: line.place, reverse=True)


def walk(index: Index, subjects: list[str], limit: int, since_ms: int = 0) -> list[EventLine]:
    """All pages."""
    lines, below = [], TOP
    while True:
        page = index.events(subjects, below, limit, since_ms=since_ms)
        assert len(page.events) <= limit
        lines += page.events
        if page.next is None:
            return lines
        below = page.next


def sqlite_index(folder: Path, chain: str = CHAIN) -> Index:
    return Index(database(folder), chain)


def database(folder: Path) -> Database:
    return SqliteDatabase(folder / "history.sqlite")


class Blocks:
    """A block store in memory that has pruned below `lowest`."""

    def __init__(self, newest: int = 0, seed: int = 0) -> None:
        self.newest = newest
        self.lowest = 1
        self.seed = seed
        self.read: list[int] = []

    async def block_range(self) -> tuple[int, int]:
        return (self.lowest, self.newest) if self.newest else (0, 0)

    async def block_record(self, height: int) -> BlockRecord:
        if not self.lowest <= height <= self.newest:
            raise RefusedError("not kept", code="height_pruned")
        self.read.append(height)
        return make_block(height, self.seed)
