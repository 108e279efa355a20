"""The desk over a validator on CometBFT: state straight from the application, blocks as the application executed them.

The engine is asked for light blocks and given transactions; what became of a transaction is learnt from the blocks
themselves, so that its index is not needed. After a start, the newest blocks are read back from the engine before those
that follow are told: bytes that an earlier run acknowledged are known again. Spec: docs/spec/comet-engine.md.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

import msgspec

from freehold.base.errors import FreeholdError, InvalidInputError, RefusedError, UnreachableError
from freehold.consensus.abci.following import FinalBlock
from freehold.consensus.abci.service import NO_ROOM
from freehold.consensus.application import OK
from freehold.consensus.comet.client import CometClient, EngineStatus, RpcError
from freehold.consensus.errors import EngineStoppedError, HeightUnavailableError, MempoolFullError
from freehold.consensus.mempool import Dropped
from freehold.consensus.recent import CommittedTx
from freehold.consensus.state_store import StateStore
from freehold.consensus.state_sync import NO_STANDING, SnapshotStanding
from freehold.consensus.waiters import TxWaiters
from freehold.ledger import keys
from freehold.ledger.records import Totals
from freehold.ledger.state import read
from freehold.ledger.transactions import tx_id
from freehold.ledger.validator_sets import set_at
from freehold.light.genesis import TrustedGenesis
from freehold.rpc.desk import BlockRecord, BlockTx, Halted, Standing, TxOutcome
from freehold.rpc.eventtext import event_text
from freehold.rpc.height_waiters import HeightWaiters

ENGINE: Final = "cometbft"
KEPT_LIGHT_BLOCKS: Final = 64
KEPT_OUTCOMES: Final = 100_000
READ_BACK_BLOCKS: Final = 200
COMMIT_WAIT_S: Final = 60.0  # callers have limits of their own below this
RESTORE_WAIT_S: Final = 15.0
POLL_S: Final = 1.0
AWAY: Final = "a third or more of the validators' power is away, or cut off from this one: see their status"
ALONE: Final = (
    "see that the addresses in validator.toml are reached, that the others run, and that everyone's genesis.json is "
    "the same document: engines of different chains refuse each other"
)
STALL_TICKS: Final = 10  # without a block for so long: the others are away


class CometDesk:
    """See the module; a `Follower` of the application, on whatever thread it is told."""

    def __init__(
        self,
        client: CometClient,
        genesis: TrustedGenesis,
        document: bytes,
        *,
        keep_heights: int,
        tick_ms: int,
        explain: Callable[[], FreeholdError | None] = lambda: None,
        notice: Callable[[], FreeholdError | None] = lambda: None,
    ) -> None:
        """Bind the parts; `open` must follow once the application is.

        Args:
            client: of the engine.
            genesis: parsed.
            document: its bytes.
            keep_heights: how many versions of the state before the newest the application keeps.
            tick_ms: the longest gap between blocks while all is well.
            explain: gives the reason when blocks have stopped, where the engine's words name it.
            notice: gives what its operator should mend though blocks are made.
        """
        self.genesis = document
        self._trusted = genesis
        self._client = client
        self._keep_heights = keep_heights
        self._explain = explain
        self._notice = notice
        self._stall_s = STALL_TICKS * tick_ms / 1_000
        self._state: StateStore | None = None
        self._snapshots: Callable[[], SnapshotStanding] = lambda: NO_STANDING
        self._loop = asyncio.get_running_loop()
        self._newest = (0, genesis.genesis_time_ms, b"")
        self._begun_at = 0
        self._made_at = time.monotonic()
        self._engine = EngineStatus(0, 0, b"", catching_up=True, peers=0)
        self._validators = len(genesis.validators.validators)
        self._faults = 0
        self._silent: UnreachableError | None = None
        self._ended: EngineStoppedError | None = None
        self._receivers: list[Callable[[BlockRecord], None]] = []
        self._outcomes: OrderedDict[bytes, CommittedTx] = OrderedDict()
        self._backlog: deque[FinalBlock] | None = deque()
        self._is_reading_back = False
        self._restored = asyncio.Event()
        self._txs = TxWaiters()
        self._heights = HeightWaiters()
        self._light_blocks: OrderedDict[int, bytes] = OrderedDict()

    def open(self, state: StateStore, snapshots: Callable[[], SnapshotStanding] = lambda: NO_STANDING) -> None:
        """Take the application's state, before the engine runs.

        Args:
            state: of the application.
            snapshots: what became of its snapshots; called from the event loop.
        """
        self._snapshots = snapshots
        totals = read(state, keys.TOTALS, Totals)
        self._state = state
        if totals is not None and state.height >= self._trusted.initial_height:
            self._newest = (state.height, totals.time_ms, state.app_hash)
        self._made_at = time.monotonic()
        self._begun_at = self._newest[0]

    async def follow(self) -> None:
        """Read the newest blocks back, then ask the engine how it is, until cancelled."""
        while True:
            try:
                self._engine = await self._client.status()
                if self._backlog is not None:
                    await self._read_back(self._begun_at)
                self._validators = self._count_validators()
                self._silent = None
            except UnreachableError as error:
                self._silent = error if self._restored.is_set() else None  # at first it is merely starting
            await asyncio.sleep(POLL_S if self._backlog is None else POLL_S / 10)

    def end(self, error: EngineStoppedError) -> None:
        """Tell everyone who waits that nothing will come any more."""
        self._ended = error
        self._restored.set()
        self._txs.fail_all(error)
        self._heights.fail(error)

    def committed(self, block: FinalBlock) -> None:
        """Take in a durable block, on the application's thread."""
        self._loop.call_soon_threadsafe(self._committed, block)

    def left(self, tx: bytes, dropped: Dropped) -> None:
        """Take in that a waiting transaction may not wait any longer, on the application's thread."""
        named = msgspec.structs.replace(dropped, id=tx_id(tx))
        self._loop.call_soon_threadsafe(self._txs.dropped, named)

    def standing(self) -> Standing:
        """Where the engine stands."""
        height, time_ms, app_hash = self._newest
        halted, notice, snapshots = self._halted(), self._notice(), self._snapshots()
        return Standing(
            height=height,
            time_ms=time_ms,
            app_hash=app_hash,
            oldest_height=max(self._engine.lowest_height, height - self._keep_heights + 1, min(height, 1)),
            engine=ENGINE,
            validators=self._validators,
            proposing=halted is None and not self._engine.catching_up,
            halted=halted,
            notice=None if notice is None else Halted(notice.code, notice.message, notice.hint),
            mempool_txs=self._engine.waiting_txs,
            mempool_bytes=self._engine.waiting_bytes,
            snapshot_height=snapshots.height,
            snapshots_failed=snapshots.failed,
            faults=self._faults,
        )

    async def light_block(self, height: int) -> bytes:
        """The encoded light block of a height."""
        known = self._light_blocks.get(height)
        if known is None:
            newest = self._newest[0]
            if height > newest:
                raise HeightUnavailableError(
                    f"block {height} is not made yet, the newest is {newest}",
                    code="height_unknown",
                    hint="ask again after the next block",
                )
            try:
                known = (await self._client.light_block(height, self._trusted)).encode()
            except RpcError as error:
                raise HeightUnavailableError(
                    f"block {height} is not kept any more: {error.message}", code="height_pruned"
                ) from None
            self._light_blocks[height] = known
            if len(self._light_blocks) > KEPT_LIGHT_BLOCKS:
                self._light_blocks.popitem(last=False)
        return known

    def prove(self, key: bytes, height: int) -> tuple[bytes | None, bytes]:
        """The value and proof under the header of a height."""
        return self._opened().prove(key, height - 1)

    def get(self, key: bytes, height: int) -> bytes | None:
        """The value after the block of a height."""
        return self._opened().get_at(key, height)

    def newest(self, key: bytes) -> bytes | None:
        """The value after the newest block; None also while that cannot be read: at the start, and in a restore."""
        height = self._newest[0]
        if self._state is None or not height:
            return None
        try:
            return self._state.get_at(key, height)
        except HeightUnavailableError:
            return None

    async def submit(self, tx: bytes) -> TxOutcome:
        """Hand a transaction to the engine; one that is in a recent block already says so."""
        await self._until_restored()
        if self._ended is not None:
            raise self._ended
        id_ = tx_id(tx)
        known = self._outcomes.get(id_)
        if known is not None and known.result.code == OK:
            return TxOutcome(known.result.code, known.height, known.result.data)
        # It is offered again and may wait now: why it left the queue, or failed in a block, is not its last word.
        self._outcomes.pop(id_, None)
        self._txs.offered(id_)
        try:
            code, log = await self._client.submit(tx)
        except RpcError as error:
            if "already exists in cache" in error.message:  # it waits, or has just got into a block
                return TxOutcome(OK)
            raise _refused(error) from None
        if code == NO_ROOM:
            raise _no_room(log)
        return TxOutcome(code)

    async def wait_committed(self, tx_id: bytes) -> TxOutcome:
        """Wait for the durable block that holds a transaction."""
        found = self._outcomes.get(tx_id)
        if found is None:
            if self._ended is not None:
                raise self._ended
            if (dropped := self._txs.why_dropped(tx_id)) is not None:
                raise dropped
            found = await self._txs.wait(tx_id, COMMIT_WAIT_S)
        return TxOutcome(found.result.code, found.height, found.result.data)

    async def wait_height(self, height: int) -> None:
        """Wait until the block of a height is durable."""
        if self._newest[0] >= height:
            return
        if self._ended is not None:
            raise self._ended
        await self._heights.wait(height)

    async def relay(self, request: bytes) -> bytes:
        """Hand a JSON-RPC request to the engine, and give its answer."""
        return await self._client.relay(request)

    def subscribe(self, receive: Callable[[BlockRecord], None]) -> None:
        """Call `receive` after each durable block; before `follow`, so that it gets those read back too."""
        self._receivers.append(receive)

    async def block_range(self) -> tuple[int, int]:
        """The heights of the blocks that the engine keeps."""
        status = await self._client.status()
        return status.lowest_height, min(status.height, self._newest[0])

    async def block_record(self, height: int) -> BlockRecord:
        """The durable block of a height, from the engine."""
        try:
            return record_of(await self._client.final_block(height))
        except RpcError as error:
            raise HeightUnavailableError(
                f"block {height} is not kept any more: {error.message}", code="height_pruned"
            ) from None

    def _opened(self) -> StateStore:
        if self._state is None:
            raise UnreachableError("the validator is starting", code="busy", hint="try again in a few seconds")
        return self._state

    def _halted(self) -> Halted | None:
        if self._ended is not None:
            return Halted(self._ended.code, self._ended.message, self._ended.hint)
        if self._silent is not None:
            return Halted(self._silent.code, self._silent.message, self._silent.hint)
        idle_s = time.monotonic() - self._made_at
        if idle_s > self._stall_s and (not self._engine.catching_up or not self._newest[0]):
            if (reason := self._explain()) is not None:
                return Halted(reason.code, reason.message, reason.hint)
            if self._engine.catching_up:
                return None
            return Halted(
                "no_quorum",
                f"no block for {idle_s:.0f} s; connected peers: {self._engine.peers}",
                AWAY if self._engine.peers else ALONE,
            )
        return None

    def _count_validators(self) -> int:
        """How many sign the newest block: the set changes by elections, two blocks after they are decided."""
        if self._state is None or not self._newest[0]:
            return self._validators
        return len(set_at(self._state, self._newest[0]))

    async def _read_back(self, newest: int) -> None:
        """Tell the blocks before the first one of this run, then those that came meanwhile."""
        lowest = max(self._engine.lowest_height, newest - READ_BACK_BLOCKS + 1, 1)
        self._is_reading_back = True
        try:
            for height in range(lowest, newest + 1):
                self._tell(await self._client.final_block(height))
        except RpcError as error:
            raise UnreachableError(error.message, code="engine_unreachable", hint="it is starting") from None
        finally:
            self._is_reading_back = False
        backlog, self._backlog = self._backlog or (), None
        for block in backlog:
            self._tell(block)
        self._restored.set()

    async def _until_restored(self) -> None:
        """What an earlier run acknowledged must be known before anything is judged."""
        if self._restored.is_set():
            return
        try:
            async with asyncio.timeout(RESTORE_WAIT_S):
                await self._restored.wait()
        except TimeoutError:
            raise UnreachableError(
                "the validator is starting", code="busy", hint="try again in a few seconds"
            ) from None

    def _committed(self, block: FinalBlock) -> None:
        self._newest = (block.height, block.time_ms, block.app_hash)
        self._made_at = time.monotonic()
        self._faults += block.faults
        if self._backlog is not None:
            self._backlog.append(block)
            if len(self._backlog) > READ_BACK_BLOCKS and not self._is_reading_back:
                # an engine that replays its blocks answers only afterwards: they are read back as those before them
                self._begun_at = self._backlog.popleft().height
        else:
            self._tell(block)
        self._heights.reached(block.height)

    def _tell(self, block: FinalBlock) -> None:
        record = record_of(block)
        for index, (tx, result) in enumerate(zip(record.txs, block.results, strict=True)):
            done = CommittedTx(tx.id, block.height, index, result)
            known = self._outcomes.get(done.id)
            if known is None or known.result.code != OK:  # once it has succeeded, later copies can only fail
                self._outcomes[done.id] = done
            self._txs.done(done)
        while len(self._outcomes) > KEPT_OUTCOMES:
            self._outcomes.popitem(last=False)
        for receive in self._receivers:
            receive(record)


def record_of(block: FinalBlock) -> BlockRecord:
    """A block as history keeps it."""
    txs = []
    for tx, result in zip(block.txs, block.results, strict=True):
        events = [event_text(event.kind, event.data) for event in result.events]
        txs.append(BlockTx(tx_id(tx), result.code, result.data, events))
    return BlockRecord(block.height, block.time_ms, block.hash, txs)


def _no_room(log: str) -> MempoolFullError:
    code, message, hint = log.split("\n")
    return MempoolFullError(message, code=code, hint=hint)


def _refused(error: RpcError) -> FreeholdError:
    if "mempool is full" in error.message:
        return MempoolFullError("no room for this transaction now", code="mempool_full", hint="try again in a second")
    if "too large" in error.message:
        return InvalidInputError(error.message, code="oversized")
    return RefusedError(f"the engine refused: {error.message}", code="engine_refused")
