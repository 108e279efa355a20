"""Keeps an index up with its ledger: takes blocks as they come, and reads those that it missed from the block store.

The ledger only ever puts a block into a bounded queue, which forgets its oldest when it is full; writing happens on a
thread of its own, and while it catches up it rests as long as it worked. Whatever goes wrong here is told, tried again,
or ends the index; never the ledger. A database that is merely slow is told and waited for: what it is doing is broken
off only when the daemon stops. Spec: docs/spec/history.md.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, Final, TypeVar

from freehold.base.errors import FreeholdError
from freehold.indexer.errors import IndexDamagedError, IndexNewerError, IndexUnavailableError
from freehold.indexer.records import BlockRecord, BlockSource
from freehold.indexer.store import Index

T = TypeVar("T")
Report = Callable[[str, dict[str, Any]], None]

QUEUE_BLOCKS: Final = 256
QUEUE_ROWS: Final = 50_000
BATCH_BLOCKS: Final = 64
BATCH_ROWS: Final = 10_000
RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0)  # the first are for an engine that is starting
STARTING_TRIES: Final = 4
ENGINE_AWAY: Final = "engine_unreachable"
SLOW_S: Final = 10.0
STOP_S: Final = 2.0
STOP_TRIES: Final = 5  # then the ledger is closed without it


class IndexFollower:
    """See the module; lives in the event loop of the desk.

    Attributes:
        indexed: the newest height that is in the index; -1 before it is open.
        failed: why the index is not kept up now; None while it is.
        missing: how many heights between those that it holds it does not hold.
    """

    def __init__(self, index: Index, source: BlockSource, report: Report) -> None:
        """Bind the parts.

        Args:
            index: written by this follower alone.
            source: reads blocks of the past.
            report: told what went wrong and what is done about it.
        """
        self.indexed = -1
        self.failed: FreeholdError | None = None
        self.missing = 0
        self._index = index
        self._source = source
        self._report = report
        self._queue: deque[BlockRecord] = deque()
        self._rows = 0
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "index")
        self._task: asyncio.Task[None] | None = None
        self._tries = 0
        self._suspect: IndexDamagedError | None = None

    def receive(self, block: BlockRecord) -> None:
        """Take in a durable block: a few microseconds, whatever the index does."""
        self._queue.append(block)
        self._rows += _rows_of(block)
        while len(self._queue) > QUEUE_BLOCKS or (self._rows > QUEUE_ROWS and len(self._queue) > 1):
            self._rows -= _rows_of(self._queue.popleft())
        self._wake.set()

    def suspect(self, error: IndexDamagedError) -> None:
        """Take in that a reader met damage: the index is made anew."""
        if self.indexed >= 0:
            self._suspect = error
            self._wake.set()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish the batch being written, or break it off when that takes too long, and close the index."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)
        ended = asyncio.create_task(asyncio.to_thread(self._thread.shutdown))
        for _ in range(STOP_TRIES):
            if (await asyncio.wait({ended}, timeout=STOP_S))[0]:
                break
            self._index.abandon_write()
        self._index.abandon_read()
        if ended.done():
            await asyncio.to_thread(self._index.close)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except IndexNewerError as error:
                self._tell("index_refused", error)
                return
            except IndexDamagedError as error:
                self._tell("index_rebuilding", error)
                await self._rebuild()
            except FreeholdError as error:
                if error.code != ENGINE_AWAY or self._tries >= STARTING_TRIES:
                    self._tell("index_waiting", error)
            except OSError as error:
                self._tell("index_waiting", IndexUnavailableError(str(error), code="index_unavailable"))
            self.indexed = -1
            delay_s = RETRY_S[min(self._tries, len(RETRY_S) - 1)]
            self._tries += 1
            await asyncio.sleep(delay_s)

    async def _rebuild(self) -> None:
        self.indexed = -1
        try:
            await self._on_thread(self._index.clear)
        except (FreeholdError, OSError) as error:
            self._report("index_waiting", {"message": f"the old index cannot be removed: {error}"})

    async def _follow(self) -> None:
        newest = await self._on_thread(self._index.open)
        await self._check_same_blocks(newest)
        self.missing = _holes(await self._on_thread(self._index.spans))
        self.indexed, self._suspect = newest, None
        while True:
            self._wake.clear()
            if self._suspect is not None:
                raise self._suspect
            batch = self._take_queued() or await self._read_back()
            if not batch:
                self.failed, self._tries = None, 0
                await self._wake.wait()
                continue
            await self._on_thread(partial(self._index.add, batch))
            self.indexed = batch[-1].height

    async def _check_same_blocks(self, newest: int) -> None:
        """The index must end in a block of this ledger: its data may have been put back to an older copy."""
        if not newest:
            return
        lowest, highest = await self._source.block_range()
        known = await self._on_thread(lambda: self._index.block(newest))
        is_same = known is not None and newest <= highest
        if is_same and known is not None and newest >= lowest:
            is_same = (await self._source.block_record(newest)).hash == known[0].hash
        if not is_same:
            raise IndexDamagedError(
                f"the index ends at block {newest}, which is none of this ledger's {highest}", code="index_forked"
            )

    def _take_queued(self) -> list[BlockRecord]:
        """Blocks of the queue that follow what is indexed; none when the first of them is still missing."""
        batch: list[BlockRecord] = []
        rows, wanted = 0, self.indexed + 1
        while self._queue and len(batch) < BATCH_BLOCKS and rows < BATCH_ROWS:
            height = self._queue[0].height
            if height > wanted:
                break
            block = self._queue.popleft()
            size = _rows_of(block)
            self._rows -= size
            if height == wanted:
                batch.append(block)
                rows += size
                wanted += 1
        return batch

    async def _read_back(self) -> list[BlockRecord]:
        """Blocks between what is indexed and the queue, from the block store; none when it has none of them."""
        lowest, newest = await self._source.block_range()
        if self._queue:
            lowest = min(lowest, self._queue[0].height)  # a block may be here still that was pruned there
        if lowest > self.indexed + 1:
            self._leave_out(self.indexed + 1, lowest - 1)
            if batch := self._take_queued():
                return batch
        first = self.indexed + 1
        last = min(newest, first + BATCH_BLOCKS - 1, self._queue[0].height - 1 if self._queue else newest)
        batch, rows = [], 0
        began = time.monotonic()
        for height in range(first, last + 1):
            batch.append(await self._source.block_record(height))
            rows += _rows_of(batch[-1])
            if rows >= BATCH_ROWS:
                break
        if batch:
            await asyncio.sleep(time.monotonic() - began)  # the ledger's own work comes first
        return batch

    def _leave_out(self, first: int, last: int) -> None:
        """Go on above blocks that are kept nowhere: a new span begins, and whoever asks or watches is told."""
        message = f"history lacks the blocks {first} to {last}: this server does not keep them (any more)"
        self._report("index_gap", {"first": first, "last": last, "message": message})
        if self.indexed > 0:
            self.missing += last - first + 1
        self.indexed = last

    def _tell(self, event: str, error: FreeholdError) -> None:
        self.failed = error
        self._report(event, {"code": error.code, "message": error.message, "hint": error.hint})

    async def _on_thread(self, work: Callable[[], T]) -> T:
        """Run on the index's thread; tell when that takes long."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody asks after a stop
        done, _ = await asyncio.wait({future}, timeout=SLOW_S)
        if not done:
            message = f"the index's database has not answered for {SLOW_S:.0f} s"
            hint = "blocks go on; see that the database runs, and that nothing else holds its lock"
            self._tell("index_waiting", IndexUnavailableError(message, code="index_slow", hint=hint))
        return await future


def _rows_of(block: BlockRecord) -> int:
    return 1 + sum(1 + len(tx.events) for tx in block.txs)


def _holes(spans: Sequence[tuple[int, int]]) -> int:
    """How many heights lie between spans."""
    return sum(after[0] - before[1] - 1 for before, after in pairwise(spans))
