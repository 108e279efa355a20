"""What waits in the engine's queue, by the lanes, fees and nonces of the embedded engine's mempool.

CometBFT's queue takes whatever `CheckTx` accepts, first come, first served, and offers a proposer the oldest of it
alone. So the same transactions stand here in a `Mempool`: what that has no room for is refused, and a block is chosen
from all of it. The engine rechecks its whole queue after each block, before the next one is committed: what was not
rechecked is not in the queue any more.

What had to leave for another (replaced, evicted) stays in the queue until it is rechecked, and is refused then. The
queue has room for as many again as may wait, and how many each lane and each sender may make leave between two blocks
is bounded, so that nobody fills it by replacing; what finds free room is taken all the same.
Safe on any thread. Spec: docs/spec/comet-engine.md.
"""

from collections.abc import Iterable
from hashlib import sha256
from threading import Lock
from typing import Final

import msgspec

from freehold.base.limits import MAX_BLOCK_TXS, MAX_MEMPOOL_BYTES, MAX_MEMPOOL_TXS
from freehold.consensus.application import OK, CheckTxResponse, Lane
from freehold.consensus.errors import MempoolFullError
from freehold.consensus.mempool import Dropped, Mempool, Room

QUEUE: Final = Room(2 * MAX_MEMPOOL_TXS, 2 * MAX_MEMPOOL_BYTES)  # of the engine
LEAVING_PERMILL: Final = {Lane.REPORTS: 0, Lane.GOVERNANCE: 200, Lane.USERS: 600}  # of what may wait; reports drop none
LEAVING_PERMILL_OF_ONE: Final = 10  # the same for one sender
_NOTHING: Final = Room(0, 0)


class _Leaving(msgspec.Struct, frozen=True):
    """A transaction that the engine still holds; counted for lane and sender of the one that took its place."""

    dropped: Dropped
    lane: Lane
    sender: bytes
    height: int  # the newest block when it had to leave


class WaitingTxs:
    """See the module."""

    def __init__(
        self,
        *,
        max_txs: int = MAX_MEMPOOL_TXS,
        max_bytes: int = MAX_MEMPOOL_BYTES,
        permill_of_one: int = LEAVING_PERMILL_OF_ONE,
    ) -> None:
        self._lock = Lock()
        self._pool = Mempool(max_txs=max_txs, max_bytes=max_bytes)
        total = Room(max_txs, max_bytes)
        self._most = {lane: total.share(permill) for lane, permill in LEAVING_PERMILL.items()}
        self._most_of_one = total.share(permill_of_one)
        self._leaving: dict[bytes, _Leaving] = {}
        self._left: dict[Lane | bytes, Room] = {}  # by lane and by sender; where there is something

    def __len__(self) -> int:
        return len(self._pool)

    def holds(self, tx: bytes) -> bool:
        """Whether the engine is known to hold a transaction."""
        id_ = _id(tx)
        with self._lock:
            return id_ in self._pool or id_ in self._leaving

    def admit(self, tx: bytes, answer: CheckTxResponse, height: int) -> None:
        """Take a transaction that the application accepted.

        Args:
            tx: its bytes.
            answer: the application's, code `OK`.
            height: the newest block when it was asked.

        Raises:
            MempoolFullError: it may not wait; see `Mempool.add`.
        """
        with self._lock:
            self._admit(_id(tx), tx, answer, height)

    def let_go(self, tx: bytes) -> Dropped | None:
        """Give why a transaction had to leave, if it had to: the engine rechecks it now, and lets it go."""
        with self._lock:
            leaving = self._forget(_id(tx))
            return leaving.dropped if leaving is not None else None

    def recheck(self, tx: bytes, answer: CheckTxResponse, height: int) -> Dropped | None:
        """Take the application's answer of a later height, for a transaction that had not to leave.

        Returns:
            Why it may not wait any longer; None when it may.
        """
        id_ = _id(tx)
        with self._lock:
            if id_ in self._pool:
                return self._pool.recheck(id_, answer, height)
            if answer.code != OK:
                return Dropped(id_, "invalid", answer.log)
            try:
                self._admit(id_, tx, answer, height)
            except MempoolFullError as error:
                return Dropped(id_, error.code, error.message)
            return None

    def select(self, height: int, max_bytes: int) -> tuple[bytes, ...]:
        """Choose the transactions of a block.

        Args:
            height: of the block.
            max_bytes: of all that is chosen, each counted with its overhead.
        """
        with self._lock:
            chosen = self._pool.select(height, max_txs=MAX_BLOCK_TXS, max_bytes=max_bytes)
        return tuple(entry.tx for entry in chosen)

    def committed(self, txs: Iterable[bytes], height: int) -> None:
        """Take out what a durable block holds, and what the engine did not recheck after the one before it."""
        ids = [_id(tx) for tx in txs]
        with self._lock:
            for id_ in ids:
                self._forget(id_)
            self._pool.remove_committed(ids, height)
            self._pool.forget_unchecked(height - 1)
            for id_ in [id_ for id_, leaving in self._leaving.items() if leaving.height < height - 1]:
                self._forget(id_)

    def _admit(self, id_: bytes, tx: bytes, answer: CheckTxResponse, height: int) -> None:
        if id_ in self._leaving:
            raise MempoolFullError(
                "this transaction had to leave for another, and the engine still holds it",
                code="mempool_full",
                hint="try again after the next block",
            )
        lane, sender = answer.lane, answer.sender
        may_drop = self._left.get(lane, _NOTHING).is_within(self._most[lane])
        may_drop = may_drop and self._left.get(sender, _NOTHING).is_within(self._most_of_one)
        for gone in self._pool.add(id_, tx, answer, height, may_drop=may_drop):
            leaving = self._leaving[gone.id] = _Leaving(gone, lane, sender, height)
            self._count(leaving, 1)

    def _forget(self, id_: bytes) -> _Leaving | None:
        leaving = self._leaving.pop(id_, None)
        if leaving is not None:
            self._count(leaving, -1)
        return leaving

    def _count(self, leaving: _Leaving, sign: int) -> None:
        for key in (leaving.lane, leaving.sender):
            left = self._left.pop(key, _NOTHING)
            left = Room(left.txs + sign, left.bytes + sign * leaving.dropped.size)
            if left.txs:
                self._left[key] = left


def _id(tx: bytes) -> bytes:
    return sha256(tx).digest()
