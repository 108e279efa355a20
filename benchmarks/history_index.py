"""`index.insert`, `index.page`: history written from full blocks, and a page of one account's events out of it."""

import random
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Row, Spent, by_cpu, load, measured, one_core, row
from freehold.crypto.hashing import sha256
from freehold.crypto.strkey import encode_account
from freehold.indexer.cursors import TOP
from freehold.indexer.databases import SqliteDatabase
from freehold.indexer.records import BlockEvent, BlockRecord, BlockTx
from freehold.indexer.store import Index

TXS = 1_000
ACCOUNTS = 10_000
PAGES = 300
PAGE = 100
BARE = "CREATE TABLE bare (height INTEGER, position INTEGER, id BLOB, attributes TEXT, PRIMARY KEY (height, position))"


def run(blocks: int = 100) -> Iterator[Row]:
    """Blocks of 1,000 transfers between accounts drawn uniformly; beside bare inserts of one row for each."""
    with tempfile.TemporaryDirectory() as name, one_core():
        folder = Path(name)
        index = Index(SqliteDatabase(folder / "history.sqlite"), "bench")
        index.open()
        bare = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", BARE):
            bare.execute(statement)
        try:
            yield from _run(index, bare, blocks)
        finally:
            bare.close()
            index.close()


def _run(index: Index, bare: sqlite3.Connection, blocks: int) -> Iterator[Row]:
    dice = random.Random(blocks)
    names = [encode_account(sha256(number.to_bytes(4, "big"))) for number in range(ACCOUNTS)]
    spent, plain = Spent(), Spent()
    for height in range(1, blocks + 1):
        block = _block(height, names, dice)
        with measured(spent):
            index.add([block])
        with measured(plain):
            bare.execute("BEGIN IMMEDIATE")
            rows = [(height, at, tx.id, str(tx.events[0].attributes)) for at, tx in enumerate(block.txs)]
            bare.executemany("INSERT INTO bare VALUES (?, ?, ?, ?)", rows)
            bare.execute("COMMIT")
    count = blocks * TXS
    yield row(
        "index.insert",
        count / spent.wall_s,
        "transfers/s",
        "bare SQLite inserts/s of one row for each transfer, in transactions of as many",
        count / plain.wall_s,
        f"{count} transfers in blocks of {TXS}, {ACCOUNTS} accounts drawn uniformly; 4 rows and 5 index entries each, "
        f"one transaction a block, WAL, synchronous NORMAL, one core; {by_cpu(count, spent, plain)}",
        spent.cpu_s,
    )
    asked = [dice.choice(names) for _ in range(PAGES)]
    with measured() as paging:
        found = sum(len(index.events([name], TOP, PAGE).events) for name in asked)
    with measured() as reading:
        for _ in asked:
            low = dice.randrange(1, blocks + 1)
            bare.execute("SELECT * FROM bare WHERE height <= ? ORDER BY height DESC LIMIT ?", (low, PAGE)).fetchall()
    yield row(
        "index.page",
        paging.wall_s / PAGES * 1e3,
        "ms a page of one account's events",
        f"ms a bare SQLite page of {PAGE} rows by primary key",
        reading.wall_s / PAGES * 1e3,
        f"{PAGES} first pages of up to {PAGE} events ({found / PAGES:.0f} on average), {count} transfers indexed, "
        f"one core; {load()}",
        paging.cpu_s,
    )


def _block(height: int, names: list[str], dice: random.Random) -> BlockRecord:
    txs = []
    for at in range(TXS):
        sender, to = dice.choice(names), dice.choice(names)
        event = BlockEvent("transfer", {"sender": sender, "to": to, "amount": str(dice.randrange(10**9))})
        txs.append(BlockTx(sha256(b"%d/%d" % (height, at)), 0, b"", [event]))
    return BlockRecord(height, height * 1_000, sha256(b"%d" % height), txs)
