"""Who waits for what: futures for single transactions, queues for all blocks. Used from one event loop."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

from freehold.base.errors import FreeholdError, RefusedError
from freehold.consensus.chain import CommittedBlock
from freehold.consensus.errors import EngineStoppedError
from freehold.consensus.mempool import Dropped
from freehold.consensus.recent import CommittedTx

MAX_SUBSCRIBERS: Final = 256
MAX_WAITERS: Final = 50_000
MAX_DROPS: Final = 4_096  # remembered for those who ask a moment too late
QUEUE_BLOCKS: Final = 64  # a subscriber further behind than this is let go


class TxWaiters:
    """Futures of transactions that are not in a block yet."""

    def __init__(self) -> None:
        self._futures: dict[bytes, list[asyncio.Future[CommittedTx]]] = {}
        self._count = 0
        self._drops: OrderedDict[bytes, RefusedError] = OrderedDict()

    def why_dropped(self, tx_id: bytes) -> RefusedError | None:
        """Why a transaction left the mempool, if that was lately."""
        return self._drops.get(tx_id)

    def offered(self, tx_id: bytes) -> None:
        """Forget why a transaction left the mempool: it is offered again, and may wait now."""
        self._drops.pop(tx_id, None)

    async def wait(self, tx_id: bytes, timeout_s: float) -> CommittedTx:
        """Wait until a transaction is in a final block.

        Raises:
            RefusedError: it left the mempool without one, or too many wait.
            TimeoutError: not in time.
            EngineStoppedError: the engine stopped first.
        """
        if self._count >= MAX_WAITERS:
            raise RefusedError("too many wait for transactions", code="busy", hint="try again later")
        future: asyncio.Future[CommittedTx] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(tx_id, []).append(future)
        self._count += 1
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            self._count -= 1
            futures = self._futures.get(tx_id, [])
            if future in futures:
                futures.remove(future)
                if not futures:
                    del self._futures[tx_id]

    def done(self, tx: CommittedTx) -> None:
        """Tell those who wait for a transaction that it is final."""
        for future in self._futures.pop(tx.id, ()):
            if not future.done():
                future.set_result(tx)

    def dropped(self, dropped: Dropped) -> None:
        """Tell those who wait for a transaction that it left the mempool."""
        error = RefusedError(f"the transaction left the mempool: {dropped.message}", code=f"tx_{dropped.code}")
        self._drops[dropped.id] = error
        if len(self._drops) > MAX_DROPS:
            self._drops.popitem(last=False)
        self._fail(self._futures.pop(dropped.id, []), error)

    def fail_all(self, error: FreeholdError) -> None:
        """Tell everyone that nothing will come any more."""
        for futures in list(self._futures.values()):
            self._fail(futures, error)
        self._futures.clear()

    @staticmethod
    def _fail(futures: list[asyncio.Future[CommittedTx]], error: FreeholdError) -> None:
        for future in futures:
            if not future.done():
                future.set_exception(error)


class Subscription:
    """A stream of final blocks, in order and without gaps; iterate it, then `close`."""

    def __init__(self, owner: "Subscribers") -> None:
        self._owner = owner
        self._queue: asyncio.Queue[CommittedBlock | None] = asyncio.Queue(QUEUE_BLOCKS + 1)
        self._error: FreeholdError | None = None

    def __aiter__(self) -> AsyncIterator[CommittedBlock]:
        return self

    async def __anext__(self) -> CommittedBlock:
        if self._error is not None and self._queue.empty():
            raise self._error
        block = await self._queue.get()
        if block is not None:
            return block
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def close(self) -> None:
        """End the stream."""
        self._owner.remove(self)
        self.end(None)

    def push(self, block: CommittedBlock) -> bool:
        """Hand over a block; False when the reader is too far behind."""
        if self._queue.qsize() >= QUEUE_BLOCKS:
            return False
        self._queue.put_nowait(block)
        return True

    def end(self, error: FreeholdError | None) -> None:
        """End the stream after what is queued, with an error or without."""
        self._error = error
        if not self._queue.full():
            self._queue.put_nowait(None)


class Subscribers:
    """All streams of blocks."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._stopped: EngineStoppedError | None = None

    def subscribe(self) -> Subscription:
        """Open a stream that begins with the next block.

        Raises:
            RefusedError: there are too many.
            EngineStoppedError: the engine has stopped.
        """
        if self._stopped is not None:
            raise self._stopped
        if len(self._subscriptions) >= MAX_SUBSCRIBERS:
            raise RefusedError("too many subscribers", code="busy", hint="try again later")
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget a stream."""
        self._subscriptions.discard(subscription)

    def publish(self, block: CommittedBlock) -> None:
        """Hand a block to everyone; readers that are too far behind are let go."""
        for subscription in list(self._subscriptions):
            if not subscription.push(block):
                self.remove(subscription)
                subscription.end(
                    RefusedError("read too slowly", code="subscriber_behind", hint="subscribe again and catch up")
                )

    def end_all(self, error: EngineStoppedError) -> None:
        """End every stream, now and later."""
        self._stopped = error
        for subscription in list(self._subscriptions):
            self.remove(subscription)
            subscription.end(error)
