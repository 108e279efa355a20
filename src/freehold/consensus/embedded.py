"""The embedded engine: one validator in one process, making CometBFT's blocks.

`EmbeddedEngine` is the asyncio shell: it waits for the moment of the next block, hands the mempool's choice to
`Chain` on a thread, and tells waiters and subscribers once a block is durable. Anything that stops the chain (a full
disk, contradicting hashes, a broken invariant) halts the engine: nothing more is acknowledged, the status says why.
Spec: docs/spec/embedded-engine.md.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Final, Self, TypeVar

import msgspec

from freehold.base.errors import FreeholdError, UnreachableError
from freehold.base.limits import MAX_BLOCK_TXS
from freehold.consensus.admission import Admission
from freehold.consensus.application import OK, Application, CheckTxResponse, QueryRequest, QueryResponse
from freehold.consensus.block_store import BlockStore
from freehold.consensus.chain import Chain, ClockBehindError, CommittedBlock
from freehold.consensus.errors import EngineStoppedError, HeightUnavailableError
from freehold.consensus.folder import FolderLock
from freehold.consensus.mempool import Mempool
from freehold.consensus.recent import MAX_BLOCKS, CommittedTx, RecentBlocks
from freehold.consensus.signing import Signer, SignerState
from freehold.consensus.timing import Clock, Pace, wait_ms
from freehold.consensus.waiters import Subscribers, Subscription, TxWaiters
from freehold.light.genesis import TrustedGenesis
from freehold.light.types import LightBlock

CHECK_THREADS: Final = 2
CLOCK_RETRY_S: Final = 1.0
DEFAULT_WAIT_S: Final = 30.0

T = TypeVar("T")

log = logging.getLogger(__name__)


def _transaction_hash(tx: bytes) -> bytes:
    return sha256(tx).digest()


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back."""
        return time.monotonic_ns() // 1_000_000


class EngineState(StrEnum):
    """What the engine is doing."""

    RUNNING = "running"
    CLOCK_BEHIND = "clock_behind"  # makes no blocks until the clock is set; goes on by itself
    HALTED = "halted"  # must be started anew, once what the status says is mended
    STOPPED = "stopped"


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A moment of the engine.

    Attributes:
        state: what it is doing.
        height: of the newest block; 0 before the first.
        time_ms: of that block; genesis time before.
        block_hash: of that block; empty before.
        app_hash: after it.
        lowest_height: of the oldest block kept.
        mempool_txs: how many transactions wait.
        mempool_bytes: how large they are.
        code: why it is not running, as a stable word.
        message: the same for people, with the next step.
    """

    state: EngineState
    height: int
    time_ms: int
    block_hash: bytes
    app_hash: bytes
    lowest_height: int
    mempool_txs: int
    mempool_bytes: int
    code: str = ""
    message: str = ""


class StateRead(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one version, with what proves them.

    Attributes:
        light_block: its header's app hash is the root of all proofs.
        height: of the state, one below the header's.
        values: in the order of the keys.
    """

    light_block: LightBlock
    height: int
    values: tuple[QueryResponse, ...]


class EmbeddedEngine:
    """One validator's engine on one data folder; see the module. Used from one event loop."""

    def __init__(
        self,
        folder: Path,
        genesis: TrustedGenesis,
        signer: Signer,
        make_application: Callable[[Path], Application],
        pace: Pace,
        *,
        clock: Clock | None = None,
        identify: Callable[[bytes], bytes] = _transaction_hash,
        trace: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open the folder and bring everything in it to one height; `start` makes it run.

        Args:
            folder: held by this engine alone until it is closed.
            genesis: the chain.
            signer: the validator's key, the only one in genesis.
            make_application: opens the application under a folder, once the lock is held.
            pace: the gaps between blocks.
            clock: the machine's, unless a test brings its own.
            identify: the name of a transaction; SHA-256, as CometBFT's, unless the application has its own.
            trace: told of each durable step.

        Raises:
            FolderInUseError: another engine runs on the folder.
            StorageError: the folder cannot be used, or contradicts itself.
            InvalidInputError: genesis is not for this key, or promises another app hash.
        """
        self._pace = pace
        self._clock: Clock = clock or SystemClock()
        self._identify = identify
        self._recent = RecentBlocks(identify)
        with contextlib.ExitStack() as stack:
            stack.enter_context(FolderLock(folder))
            blocks = stack.enter_context(BlockStore(folder / "blocks"))
            self._app = make_application(folder)
            stack.callback(self._app.close)
            signer_state = SignerState(folder / "last_signed")
            self._chain = Chain(genesis, self._app, blocks, signer, signer_state, trace=trace)
            self._chain.start()
            self._recent.fill(self._chain.committed, blocks.height)
            self._resources = stack.pop_all()
        self._mempool = Mempool()
        self._waiters = TxWaiters()
        self._subscribers = Subscribers()
        self._chain_thread = ThreadPoolExecutor(1, "chain")
        self._check_threads = ThreadPoolExecutor(CHECK_THREADS, "check")
        self._admission = Admission(
            self._app,
            self._mempool,
            self._check_threads,
            height=lambda: self._chain.height,
            dropped=self._waiters.dropped,
            added=lambda: self._wake.set(),
            failed=self._halt,
        )
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._state = EngineState.STOPPED
        self._reason: FreeholdError | None = None
        self._ended = asyncio.Event()
        self._made_at_ms = self._clock.monotonic_ms() - pace.tick_ms

    async def start(self) -> None:
        """Begin to make blocks."""
        self._state = EngineState.RUNNING
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish the block being made, then close everything. May be called twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._state is not EngineState.HALTED:
            self._end(EngineState.STOPPED, EngineStoppedError("the engine is stopping", code="engine_stopped"))
        await self._admission.close()
        await asyncio.to_thread(self._chain_thread.shutdown)
        await asyncio.to_thread(self._check_threads.shutdown)
        self._resources.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def wait_ended(self) -> EngineStatus:
        """Wait until the engine halts or is stopped; a supervisor's view."""
        await self._ended.wait()
        return self.status()

    def status(self) -> EngineStatus:
        """What the engine is doing now."""
        newest, reason = self._chain.newest, self._reason
        return EngineStatus(
            state=self._state,
            height=self._chain.height,
            time_ms=self._chain.time_ms,
            block_hash=newest.hash if newest else b"",
            app_hash=self._chain.app_hash,
            lowest_height=self._chain.lowest_height,
            mempool_txs=len(self._mempool),
            mempool_bytes=self._mempool.total_bytes,
            code=reason.code if reason else "",
            message=" ".join(filter(None, (reason.message, reason.hint))) if reason else "",
        )

    async def submit(self, tx: bytes) -> CheckTxResponse:
        """Offer a transaction; accepted (code `OK`) means that it waits, not that it is final.

        Offering the same bytes again is harmless: while they wait, and after they have succeeded, the answer is `OK`.

        Raises:
            InvalidInputError: too long.
            MempoolFullError: no room for it now.
            EngineStoppedError: the engine does not run.
        """
        self._check_alive()
        tx_id = self._identify(tx)
        known = self._recent.find(tx_id)
        if known is not None and known.result.code == OK:
            return CheckTxResponse(code=OK, log=f"already in block {known.height}")
        return await self._admission.submit(tx_id, tx)

    async def wait_committed(self, tx_id: bytes, timeout_s: float = DEFAULT_WAIT_S) -> CommittedTx:
        """Wait until a transaction is in a durable block, executed and persisted.

        Args:
            tx_id: its name, by `identify`.
            timeout_s: how long to wait.

        Raises:
            RefusedError: it left the mempool: `tx_replaced`, `tx_evicted`, `tx_expired`, `tx_invalid`.
            UnreachableError: `commit_timeout`; it may still get into a block.
            EngineStoppedError: the engine stopped first; what became of it is seen after the next start.
        """
        known = self._recent.find(tx_id)
        if known is not None and (known.result.code == OK or tx_id not in self._mempool):
            return known
        self._check_alive()
        if tx_id not in self._mempool and (dropped := self._waiters.why_dropped(tx_id)) is not None:
            raise dropped
        try:
            return await self._waiters.wait(tx_id, timeout_s)
        except TimeoutError:
            raise UnreachableError(
                "the transaction is not in a block yet",
                code="commit_timeout",
                hint="ask again; it may still be included until its valid_until height",
            ) from None

    def subscribe(self) -> Subscription:
        """Open a stream of final blocks with their results, from the next one on."""
        return self._subscribers.subscribe()

    def recent_blocks(self, count: int = MAX_BLOCKS) -> Sequence[CommittedBlock]:
        """At most `count` of the newest blocks, the newest first, from memory."""
        return self._recent.newest(count)

    def find_tx(self, tx_id: bytes) -> CommittedTx | None:
        """Where a transaction stands, if in one of the recent blocks."""
        return self._recent.find(tx_id)

    def is_waiting(self, tx_id: bytes) -> bool:
        """Whether a transaction waits in the mempool."""
        return tx_id in self._mempool

    async def block(self, height: int) -> CommittedBlock:
        """A final block with its results, from disk.

        Raises:
            HeightUnavailableError: pruned, or not made yet.
        """
        return self._found(await self._on_thread(lambda: self._chain.committed(height)), height)

    async def light_block(self, height: int | None = None) -> LightBlock:
        """What a light client needs of a final block, the newest by default.

        Raises:
            HeightUnavailableError: pruned, or not made yet.
        """
        wanted = self._chain.height if height is None else height
        return self._found(await self._on_thread(lambda: self._chain.light_block(wanted)), wanted)

    async def read(self, keys: Sequence[bytes], *, height: int | None = None, prove: bool = True) -> StateRead:
        """Read keys of one version that a header already commits to.

        Args:
            keys: of the state.
            height: of that header, the newest by default; the state is the one after the block before.
            prove: whether to give ICS-23 proofs.

        Raises:
            HeightUnavailableError: that header or version is not kept, or not made yet.
        """
        wanted = self._chain.height if height is None else height

        def run() -> StateRead:
            light_block = self._found(self._chain.light_block(wanted), wanted)
            values = tuple(self._app.query(QueryRequest(key, wanted - 1, prove)) for key in keys)
            return StateRead(light_block=light_block, height=wanted - 1, values=values)

        return await self._on_thread(run)

    async def query(self, request: QueryRequest) -> QueryResponse:
        """Ask the application about any kept version, the newest included (which no header commits to yet)."""
        return await self._on_thread(lambda: self._app.query(request))

    async def _on_thread(self, run: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._check_threads, run)

    def _found(self, found: T | None, height: int) -> T:
        if found is not None:
            return found
        newest, lowest = self._chain.height, self._chain.lowest_height
        if height > newest or newest == 0:
            raise HeightUnavailableError(
                f"block {height} is not made yet, the newest is {newest}",
                code="height_unknown",
                hint="ask again after the next block",
            )
        raise HeightUnavailableError(
            f"block {height} is not kept any more", code="height_pruned", hint=f"blocks from {lowest} on are kept"
        )

    async def _run(self) -> None:
        try:
            while True:
                await self._until_due()
                await self._make_block()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._halt(error)
            raise

    async def _until_due(self) -> None:
        while True:
            self._wake.clear()
            wanted = self._chain.is_block_due or self._mempool.has_ready(self._chain.height + 1)
            since = self._clock.monotonic_ms() - self._made_at_ms
            wait = wait_ms(self._pace, since_last_ms=since, is_wanted=wanted)
            if wait == 0:
                return
            # not `wait_for`: in Python 3.11 it loses a cancellation that meets the event
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait / 1000):
                    await self._wake.wait()

    async def _make_block(self) -> None:
        entries = self._mempool.select(
            self._chain.height + 1, max_txs=MAX_BLOCK_TXS, max_bytes=self._chain.max_tx_bytes
        )
        txs = [entry.tx for entry in entries]
        started = self._clock.monotonic_ms()
        making = asyncio.get_running_loop().run_in_executor(
            self._chain_thread, self._chain.make_block, self._clock.wall_ms(), txs
        )
        try:
            # A block that was begun is finished and told of, also while the engine is being stopped.
            block = await asyncio.shield(making)
        except asyncio.CancelledError:
            self._tell(await making)
            raise
        except ClockBehindError as error:
            if self._state is not EngineState.CLOCK_BEHIND:
                log.warning("no blocks are made: %s", error.message)
            self._state, self._reason = EngineState.CLOCK_BEHIND, error
            await asyncio.sleep(CLOCK_RETRY_S)
            return
        self._state, self._reason = EngineState.RUNNING, None
        self._made_at_ms = started
        self._tell(block)
        await self._admission.recheck()

    def _tell(self, block: CommittedBlock) -> None:
        ids = self._recent.add(block)
        for dropped in self._mempool.remove_committed(ids, block.height):
            self._waiters.dropped(dropped)
        for index, tx_id in enumerate(ids):
            self._waiters.done(CommittedTx(tx_id, block.height, index, block.results[index]))
        self._subscribers.publish(block)

    def _halt(self, error: BaseException) -> None:
        if self._state is EngineState.HALTED:
            return
        known = error if isinstance(error, FreeholdError) else None
        reason = known or EngineStoppedError(
            f"the engine halted: {type(error).__name__}: {error}",
            code="engine_halted",
            hint="keep the data folder and the log, they show what is broken",
        )
        log.error("halted at height %d: %s", self._chain.height, reason.message, exc_info=error)
        self._end(EngineState.HALTED, reason)
        if self._task is not None and not self._task.done() and self._task is not asyncio.current_task():
            self._task.cancel()

    def _end(self, state: EngineState, reason: FreeholdError) -> None:
        self._state, self._reason = state, reason
        stopped = EngineStoppedError(reason.message, code=reason.code, hint=reason.hint)
        self._waiters.fail_all(stopped)
        self._subscribers.end_all(stopped)
        self._ended.set()

    def _check_alive(self) -> None:
        if self._state in (EngineState.HALTED, EngineState.STOPPED):
            reason = self._reason
            raise EngineStoppedError(
                f"nothing is accepted: {reason.message if reason else 'the engine is not started'}",
                code=reason.code if reason else "engine_stopped",
                hint=reason.hint if reason else "start it first",
            )
