"""The index is a function of the blocks: however they came, live or read back, in one run or many, it is the same."""

import asyncio
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "indexer"))
from index_kit import ACCOUNTS, LEASES, Blocks, database, make_block, make_blocks, sqlite_index, walk

from freehold.indexer.cursors import TOP
from freehold.indexer.follower import IndexFollower
from freehold.indexer.schema import TABLES
from freehold.indexer.store import Index


def tables(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    with database(folder).read() as reading:
        return {name: sorted(reading.rows(f"SELECT * FROM {name}")) for name in TABLES}  # noqa: S608


def rebuilt(folder: Path, newest: int, seed: int, lowest: int = 1) -> None:
    index = sqlite_index(folder)
    index.open()
    index.add(make_blocks(range(lowest, newest + 1), seed))
    index.close()


async def live(folder: Path, steps: list[tuple[int, int, bool]], seed: int) -> int:
    """Runs of (blocks told, blocks made while it was away, wait for the index)."""
    source = Blocks(seed=seed)
    for told, unseen, waits in steps:
        source.newest += unseen
        follower = IndexFollower(sqlite_index(folder), source, lambda event, fields: pytest.fail(f"{event} {fields}"))
        follower.start()
        for _ in range(told):
            source.newest += 1
            follower.receive(make_block(source.newest, seed))
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while waits and follower.indexed < source.newest:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await follower.stop()
    return source.newest


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 90), st.booleans()), min_size=1, max_size=4),
    st.integers(0, 1 << 20),
)
def test_an_index_made_live_equals_one_made_from_the_blocks(steps, seed):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        newest = asyncio.run(live(folder / "live", [*steps, (1, 0, True)], seed))
        rebuilt(folder / "anew", newest, seed)
        assert tables(folder / "live") == tables(folder / "anew")


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from([*ACCOUNTS, *LEASES]), max_size=3, unique=True),
    st.integers(1, 12),
    st.integers(0, 40),
    st.lists(st.integers(0, 6), max_size=8),
    st.integers(0, 1 << 20),
)
def test_pages_under_growth_are_what_stood_when_the_first_was_asked(subjects, limit, newest, growth, seed):
    with tempfile.TemporaryDirectory() as name:
        index = sqlite_index(Path(name))
        index.open()
        index.add(make_blocks(range(1, newest + 1), seed))
        wanted = walk(index, subjects, 1_000)
        assert list(paged(index, subjects, limit, growth, newest, seed)) == wanted
        index.close()


def paged(index: Index, subjects: list[str], limit: int, growth: list[int], newest: int, seed: int):
    below, more = TOP, iter(growth)
    while True:
        page = index.events(subjects, below, limit)
        yield from page.events
        if page.next is None:
            return
        below = page.next
        grown = newest + next(more, 0)
        index.add(make_blocks(range(newest + 1, grown + 1), seed))
        newest = grown
