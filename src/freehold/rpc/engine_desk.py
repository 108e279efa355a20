"""The desk over the embedded engine: its blocks as records, its state by direct reads, its waits by height."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from freehold.base.errors import RefusedError
from freehold.consensus.application import Application, QueryRequest
from freehold.consensus.chain import CommittedBlock
from freehold.consensus.embedded import EmbeddedEngine, EngineState
from freehold.consensus.errors import EngineStoppedError
from freehold.ledger.transactions import tx_id
from freehold.rpc.desk import BlockRecord, BlockTx, Halted, Standing, TxOutcome
from freehold.rpc.eventtext import event_text
from freehold.rpc.height_waiters import HeightWaiters

ENGINE: Final = "embedded"
KEPT_LIGHT_BLOCKS: Final = 16
COMMIT_WAIT_S: Final = 60.0  # callers have limits of their own below this


class EngineDesk:
    """See the module; `start` after the engine's."""

    def __init__(self, engine: EmbeddedEngine, application: Application, genesis: bytes, keep_heights: int) -> None:
        """Bind the parts.

        Args:
            engine: opened.
            application: the engine's own, for reads.
            genesis: the document's bytes.
            keep_heights: how many versions of the state before the newest the application keeps.
        """
        self.genesis = genesis
        self._engine = engine
        self._app = application
        self._keep_heights = keep_heights
        self._light_blocks: OrderedDict[int, bytes] = OrderedDict()
        self._receivers: list[Callable[[BlockRecord], None]] = []
        self._waiters = HeightWaiters()
        self._told = 0  # height of the newest block that receivers know
        self._ended: EngineStoppedError | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Tell receivers of the recent blocks, then of each new one.

        Returns:
            What does so: it ends with the engine, and fails only by a defect.
        """
        self._task = asyncio.create_task(self._follow())
        return self._task

    async def stop(self) -> None:
        """Stop telling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def standing(self) -> Standing:
        """Where the engine stands."""
        status = self._engine.status()
        oldest = max(status.lowest_height, status.height - self._keep_heights + 1, min(status.height, 1))
        return Standing(
            height=status.height,
            time_ms=status.time_ms,
            app_hash=status.app_hash,
            oldest_height=oldest,
            engine=ENGINE,
            validators=1,
            proposing=status.state is EngineState.RUNNING,
            halted=Halted(status.code, status.message, "") if status.code else None,
            mempool_txs=status.mempool_txs,
            mempool_bytes=status.mempool_bytes,
        )

    async def light_block(self, height: int) -> bytes:
        """The encoded light block of a height."""
        known = self._light_blocks.get(height)
        if known is None:
            known = (await self._engine.light_block(height)).encode()
            self._light_blocks[height] = known
            if len(self._light_blocks) > KEPT_LIGHT_BLOCKS:
                self._light_blocks.popitem(last=False)
        return known

    def prove(self, key: bytes, height: int) -> tuple[bytes | None, bytes]:
        """The value and proof under the header of a height."""
        answer = self._app.query(QueryRequest(key, height - 1, prove=True))
        return answer.value, answer.proof

    def get(self, key: bytes, height: int) -> bytes | None:
        """The value after the block of a height."""
        return self._app.query(QueryRequest(key, height)).value

    async def submit(self, tx: bytes) -> TxOutcome:
        """Check a transaction and let it wait; one that is in a recent block already says so."""
        known = self._engine.find_tx(tx_id(tx))
        if known is not None and not known.result.code:
            return TxOutcome(known.result.code, known.height, known.result.data)
        return TxOutcome((await self._engine.submit(tx)).code)

    async def wait_committed(self, tx_id: bytes) -> TxOutcome:
        """Wait for the durable block that holds a transaction."""
        found = await self._engine.wait_committed(tx_id, COMMIT_WAIT_S)
        return TxOutcome(found.result.code, found.height, found.result.data)

    async def wait_height(self, height: int) -> None:
        """Wait until the block of a height is durable."""
        if self._engine.status().height >= height:
            return
        if self._ended is not None:
            raise self._ended
        await self._waiters.wait(height)

    async def relay(self, request: bytes) -> bytes:
        """Refuse: nobody restores from an engine that has no peers."""
        raise RefusedError("this ledger has one validator, and no peers to sync from", code="no_engine_rpc")

    def subscribe(self, receive: Callable[[BlockRecord], None]) -> None:
        """Call `receive` after each durable block; before `start`, so that it gets the recent ones too."""
        self._receivers.append(receive)

    async def block_range(self) -> tuple[int, int]:
        """The heights of the blocks on disk."""
        status = self._engine.status()
        return status.lowest_height, status.height

    async def block_record(self, height: int) -> BlockRecord:
        """The durable block of a height, from disk."""
        return record_of(await self._engine.block(height))

    async def _follow(self) -> None:
        while True:
            try:
                stream = self._engine.subscribe()
                for block in reversed(self._engine.recent_blocks()):
                    self._tell(block)
                async for block in stream:
                    self._tell(block)
                return
            except EngineStoppedError as error:
                self._end(error)
                return
            except RefusedError:
                # This stream was read too slowly: the next one begins with the recent blocks.
                await asyncio.sleep(0)

    def _tell(self, block: CommittedBlock) -> None:
        if block.height <= self._told:
            return
        self._told = block.height
        record = record_of(block)
        for receive in self._receivers:
            receive(record)
        self._waiters.reached(block.height)

    def _end(self, error: EngineStoppedError) -> None:
        self._ended = error
        self._waiters.fail(error)


def record_of(block: CommittedBlock) -> BlockRecord:
    """A block as history keeps it."""
    txs = []
    for tx, result in zip(block.txs, block.results, strict=True):
        events = [event_text(event.kind, event.data) for event in result.events]
        txs.append(BlockTx(tx_id(tx), result.code, result.data, events))
    return BlockRecord(block.height, block.header.time.ms, block.hash, txs)
