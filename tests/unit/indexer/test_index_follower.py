"""The follower: live blocks, missed ones, pruned ones, damage, another ledger; the queue never grows without bound."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import pytest
from index_kit import Blocks, expected, make_block, make_blocks, sqlite_index, walk

from freehold.base.errors import FreeholdError
from freehold.indexer import follower as module
from freehold.indexer.errors import IndexUnavailableError
from freehold.indexer.follower import QUEUE_BLOCKS, IndexFollower


class Run:
    """A follower over a source; `until` polls what a test waits for."""

    def __init__(self, folder, source: Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "RETRY_S", (0.01,))
        self.index = sqlite_index(folder)
        self.source = source
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.follower = IndexFollower(self.index, source, lambda event, fields: self.told.append((event, fields)))

    async def __aenter__(self) -> "Run":
        self.follower.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.follower.stop()

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not wanted():  # noqa: ASYNC110
                await asyncio.sleep(0.002)

    def make(self, *heights: int) -> None:
        for height in heights:
            self.source.newest = max(self.source.newest, height)
            self.follower.receive(make_block(height))


@pytest.fixture
def run(tmp_path, monkeypatch):
    return lambda source, folder=tmp_path: Run(folder, source, monkeypatch)


def test_blocks_are_read_back_then_followed(run):
    async def work() -> None:
        async with run(Blocks(300)) as it:
            await it.until(lambda: it.follower.indexed == 300)
            for height in range(301, 330):
                it.make(height)
            await it.until(lambda: it.follower.indexed == 329)
            assert it.source.read == list(range(1, 301))
            assert walk(it.index, [], 50) == expected(make_blocks(range(1, 330)))
            assert it.index.spans() == [(1, 329)] and it.told == []

    asyncio.run(work())


def test_a_restart_goes_on_and_reads_nothing_twice(run):
    async def work() -> None:
        async with run(Blocks(100)) as it:
            await it.until(lambda: it.follower.indexed == 100)
        async with run(Blocks(150)) as it:
            for block in make_blocks(range(60, 151)):
                it.follower.receive(block)
            await it.until(lambda: it.follower.indexed == 150)
            assert it.source.read == [100]  # to see that it is the same ledger
            assert it.index.spans() == [(1, 150)]

    asyncio.run(work())


def test_the_queue_is_bounded_and_what_it_forgot_is_read_back(run):
    async def work() -> None:
        it = run(Blocks())
        it.make(*range(1, 1_001))
        assert len(it.follower._queue) == QUEUE_BLOCKS
        async with it:
            await it.until(lambda: it.follower.indexed == 1_000)
            assert it.source.read == list(range(1, 1_001 - QUEUE_BLOCKS))
            assert it.index.spans() == [(1, 1_000)]

    asyncio.run(work())


def test_pruned_blocks_leave_a_gap_that_is_told(run):
    async def work() -> None:
        async with run(Blocks(20)) as it:
            await it.until(lambda: it.follower.indexed == 20)
        source = Blocks(90)
        source.lowest = 80
        async with run(source) as it:
            await it.until(lambda: it.follower.indexed == 90)
            assert it.index.spans() == [(1, 20), (80, 90)]

    asyncio.run(work())


def test_a_damaged_file_is_made_anew_from_the_blocks(run, tmp_path):
    async def work() -> None:
        async with run(Blocks(50)) as it:
            await it.until(lambda: it.follower.indexed == 50)
        (tmp_path / "history.sqlite").write_bytes(b"damaged" * 5_000)
        async with run(Blocks(60)) as it:
            await it.until(lambda: it.follower.indexed == 60)
            assert [event for event, _ in it.told] == ["index_rebuilding"]
            assert walk(it.index, [], 99) == expected(make_blocks(range(1, 61)))

    asyncio.run(work())


@pytest.mark.parametrize(("newest", "seed"), [(40, 0), (60, 1)])
def test_an_index_of_other_blocks_is_made_anew(run, newest, seed):
    """The ledger's data was put back to an older copy, or went another way."""

    async def work() -> None:
        async with run(Blocks(50)) as it:
            await it.until(lambda: it.follower.indexed == 50)
        async with run(Blocks(newest, seed)) as it:
            await it.until(lambda: it.follower.indexed == newest)
            assert it.told[0][1]["code"] == "index_forked"
            assert walk(it.index, [], 99) == expected(make_blocks(range(1, newest + 1), seed))

    asyncio.run(work())


def test_a_database_that_is_away_is_waited_for_and_nothing_is_lost(run):
    async def work() -> None:
        it = run(Blocks(10))
        add, failures = it.index.add, iter(range(3))

        def away(blocks: Any) -> None:
            if next(failures, None) is not None:
                raise IndexUnavailableError("the disk is full", code="index_unavailable")
            add(blocks)

        it.index.add = away
        async with it:
            it.make(11)
            await it.until(lambda: it.follower.indexed == 11)
            assert [event for event, _ in it.told] == ["index_waiting"] * 3
            await it.until(lambda: it.follower.failed is None)
            assert walk(it.index, [], 99) == expected(make_blocks(range(1, 12)))

    asyncio.run(work())


def test_a_source_that_fails_is_asked_again(run):
    async def work() -> None:
        it = run(Blocks(10))
        ask, failures = it.source.block_record, iter(range(2))

        async def sometimes(height: int) -> Any:
            if height == 5 and next(failures, None) is not None:
                raise FreeholdError("the engine is away", code="engine_unreachable")
            return await ask(height)

        it.source.block_record = sometimes
        async with it:
            await it.until(lambda: it.follower.indexed == 10)
            assert it.index.spans() == [(1, 10)]

    asyncio.run(work())


class Held:
    """Another process' hold on the file, as SQLite sees it."""

    def __init__(self, folder) -> None:
        self._other = sqlite3.connect(folder / "history.sqlite", isolation_level=None)
        self._other.execute("BEGIN IMMEDIATE")

    def let_go(self) -> None:
        self._other.rollback()
        self._other.close()


def test_a_locked_file_is_told_and_waited_for_while_the_queue_stays_bounded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLOW_S", 0.05)

    async def work() -> None:
        async with run(Blocks(10)) as it:
            await it.until(lambda: it.follower.indexed == 10)
            held = Held(tmp_path)
            for height in range(11, 1_001):
                it.make(height)  # the ledger goes on
            await it.until(lambda: it.follower.failed is not None)
            assert it.told[0][0] == "index_waiting" and it.told[0][1]["code"] == "index_slow", it.told
            assert len(it.follower._queue) <= QUEUE_BLOCKS and it.follower.indexed == 10
            held.let_go()
            await it.until(lambda: it.follower.indexed == 1_000 and it.follower.failed is None)
            assert it.index.spans() == [(1, 1_000)] and it.follower.missing == 0
            assert walk(it.index, [], 1_000) == expected(make_blocks(range(1, 1_001)))

    asyncio.run(work())


@pytest.mark.parametrize(("lowest", "last"), [(400, 399), (900, 744)])
def test_blocks_pruned_while_the_file_was_locked_are_told_as_missing(run, tmp_path, monkeypatch, lowest, last):
    """Those still in the queue are taken from there, though the block store has let them go."""
    monkeypatch.setattr(module, "SLOW_S", 0.05)

    async def work() -> None:
        async with run(Blocks(10)) as it:
            await it.until(lambda: it.follower.indexed == 10)
            held = Held(tmp_path)
            it.make(11)
            await it.until(lambda: it.follower.failed is not None)
            it.make(*range(12, 1_001))
            it.source.lowest = lowest
            held.let_go()
            await it.until(lambda: it.follower.indexed == 1_000 and it.follower.failed is None)
            # 11 was being written all the while
            assert it.index.spans() == [(1, 11), (last + 1, 1_000)]
            assert it.follower.missing == last - 11
            (gap,) = [fields for event, fields in it.told if event == "index_gap"]
            assert (gap["first"], gap["last"]) == (12, last) and "lacks the blocks" in gap["message"]
        async with run(it.source) as again:
            await again.until(lambda: again.follower.indexed == 1_000)
            assert again.follower.missing == last - 11  # known also after a restart

    asyncio.run(work())


def test_a_stop_does_not_wait_for_a_database_that_hangs(run, monkeypatch):
    monkeypatch.setattr(module, "STOP_S", 0.02)

    async def work() -> None:
        it = run(Blocks(10))
        broken, begun = threading.Event(), threading.Event()

        def hang(blocks: Any) -> None:
            begun.set()
            assert broken.wait(20)
            raise IndexUnavailableError("broken off", code="index_unavailable")

        it.index.add, it.index.abandon_write = hang, broken.set
        async with asyncio.timeout(10):
            async with it:
                await it.until(begun.is_set)
        assert broken.is_set() and it.follower.indexed == 0

    asyncio.run(work())
