"""The way into the mempool: transactions are checked in batches on threads, then taken in on the event loop.

Checking verifies signatures, which lets go of the interpreter's lock, and reads the committed state. When a block is
committed while a batch is being checked, what it accepted is asked again before it is taken in.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, NamedTuple

from freehold.base.errors import InvalidInputError
from freehold.base.limits import MAX_TX_BYTES
from freehold.consensus.application import OK, Application, CheckKind, CheckTxRequest, CheckTxResponse
from freehold.consensus.errors import MempoolFullError
from freehold.consensus.mempool import Dropped, Mempool

BATCH_TXS: Final = 128
MAX_BATCHES: Final = 2  # at a time
MAX_QUEUED: Final = 4_096
RECHECK_TXS: Final = 1_000  # after each block; the rest waits for the next
MAX_ROUNDS: Final = 3


class _Waiting(NamedTuple):
    id: bytes
    tx: bytes
    answer: "asyncio.Future[CheckTxResponse]"


class Admission:
    """Checks transactions and fills the mempool."""

    def __init__(
        self,
        application: Application,
        mempool: Mempool,
        executor: Executor,
        *,
        height: Callable[[], int],
        dropped: Callable[[Dropped], None],
        added: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Bind the parts.

        Args:
            application: says whether a transaction may wait.
            mempool: where it waits.
            executor: runs the checks.
            height: of the newest committed block.
            dropped: told of each transaction that leaves the mempool.
            added: told when there is something new in it.
            failed: told when the application failed to answer.
        """
        self._app = application
        self._mempool = mempool
        self._executor = executor
        self._height = height
        self._dropped = dropped
        self._added = added
        self._failed = failed
        self._queue: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, tx_id: bytes, tx: bytes) -> CheckTxResponse:
        """Check one transaction and take it into the mempool when it is accepted.

        Returns:
            The application's answer; refused when its code is not `OK`.

        Raises:
            InvalidInputError: `oversized`.
            MempoolFullError: accepted, but there is no room for it now.
        """
        if len(tx) > MAX_TX_BYTES:
            raise InvalidInputError(
                f"a transaction has at most {MAX_TX_BYTES} bytes, this one {len(tx)}", code="oversized"
            )
        waiting = self._mempool.get(tx_id)
        if waiting is not None:
            return waiting.check
        if len(self._queue) >= MAX_QUEUED:
            raise MempoolFullError("too many transactions wait to be checked", code="busy", hint="try again later")
        answer: asyncio.Future[CheckTxResponse] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(tx_id, tx, answer))
        if sum(not task.done() for task in self._tasks) < MAX_BATCHES:  # one that has ended looks no more
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return await answer

    async def recheck(self) -> None:
        """Ask the application again about what waits, after a block."""
        height = self._height()
        entries = self._mempool.stale(height, RECHECK_TXS)
        if not entries:
            return
        answers = await self._ask([CheckTxRequest(entry.tx, CheckKind.RECHECK) for entry in entries])
        for entry, answer in zip(entries, answers, strict=True):
            dropped = self._mempool.recheck(entry.id, answer, height)
            if dropped is not None:
                self._dropped(dropped)

    async def close(self) -> None:
        """Stop; those who wait for an answer are cancelled."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._queue:
            self._queue.popleft().answer.cancel()

    async def _ask(self, requests: Sequence[CheckTxRequest]) -> list[CheckTxResponse]:
        check = self._app.check_tx
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: [check(request) for request in requests])

    async def _drain(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH_TXS, len(self._queue)))]
            try:
                height, answers = await self._check(batch)
            except BaseException:
                for waiting in batch:
                    waiting.answer.cancel()
                raise
            for waiting, answer in zip(batch, answers, strict=True):
                self._take(waiting, answer, height)
            self._added()

    async def _check(self, batch: Sequence[_Waiting]) -> tuple[int, list[CheckTxResponse]]:
        kind = CheckKind.NEW
        for _ in range(MAX_ROUNDS):
            height = self._height()
            answers = await self._ask([CheckTxRequest(waiting.tx, kind) for waiting in batch])
            if height == self._height():
                break
            kind = CheckKind.RECHECK if all(answer.code == OK for answer in answers) else CheckKind.NEW
        return height, answers

    def _take(self, waiting: _Waiting, answer: CheckTxResponse, height: int) -> None:
        # Whoever asked may have gone (the answer is cancelled); the transaction is taken in all the same.
        try:
            if answer.code == OK:
                for dropped in self._mempool.add(waiting.id, waiting.tx, answer, height):
                    self._dropped(dropped)
        except MempoolFullError as error:
            if not waiting.answer.done():
                waiting.answer.set_exception(error)
            return
        if not waiting.answer.done():
            waiting.answer.set_result(answer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)
