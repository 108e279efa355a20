"""What each route does: questions in, answers out, over a desk; knows nothing of HTTP.

Reads of the state that may take long run in two threads, so that neither blocks nor other requests wait for them.
"""

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from freehold.base.errors import InvalidInputError, RefusedError
from freehold.base.ids import parse_id
from freehold.base.limits import MAX_TX_BYTES
from freehold.crypto.strkey import decode_account
from freehold.indexer.errors import IndexUnavailableError
from freehold.ledger.codes import Code
from freehold.ledger.transactions import tx_id
from freehold.light.genesis import parse_genesis
from freehold.rpc.answers import (
    BlocksAnswer,
    EngineRequest,
    EventsAnswer,
    EventsQuery,
    FaucetRequest,
    GridAnswer,
    HaltedAnswer,
    LightBlockAnswer,
    LightBlockQuery,
    ListQuery,
    MempoolAnswer,
    PaymentsAnswer,
    StateAnswer,
    StateRequest,
    StateValue,
    StatusAnswer,
    TxAnswer,
    TxRequest,
)
from freehold.rpc.archive import Archive
from freehold.rpc.codenames import code_name
from freehold.rpc.desk import Desk, TxOutcome
from freehold.rpc.faucet import Faucet
from freehold.rpc.gridview import view_grid
from freehold.rpc.history import History

T = TypeVar("T")

WAIT_S: Final = 20.0  # below the clients' own limit, so that they get an answer
INLINE_KEYS: Final = 8  # of the newest version: cheaper than a change of threads
READER_THREADS: Final = 2
KEY_POINTS: Final = 0.1  # 40 us, where a point is a light request of 400 us; measured with 1,000 accounts
AGE_POINTS: Final = 0.02  # 8 us for each block since
MAX_AGE: Final = 1_024
NOT_YET: Final = "it is not in a block yet and may still get there: ask GET /v1/tx/{id}, never sign it anew"


class Service:
    """The answers of one ledger."""

    def __init__(
        self, desk: Desk, *, faucet: Faucet | None = None, archive: Archive | None = None, wait_s: float = WAIT_S
    ) -> None:
        self.desk = desk
        self.history = History()  # the newest blocks, from memory: what the status page and waiting clients need
        self.archive = archive or Archive(None, None)  # all blocks, from the index
        self._genesis = parse_genesis(desk.genesis)
        self._faucet = faucet
        self._wait_s = wait_s
        self._readers = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="rpc-read")
        self._grid: GridAnswer | None = None
        self._grid_turn = asyncio.Lock()
        desk.subscribe(self.history.add)

    def close(self) -> None:
        """Let the reading threads go."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self.archive.close()

    async def status(self) -> StatusAnswer:
        """Where the ledger stands."""
        standing = self.desk.standing()
        halted, notice = standing.halted, standing.notice
        return StatusAnswer(
            self._genesis.chain_id,
            standing.height,
            standing.time_ms,
            standing.app_hash.hex(),
            standing.oldest_height,
            standing.engine,
            standing.validators,
            standing.proposing,
            None if halted is None else HaltedAnswer(halted.code, halted.message, halted.hint),
            MempoolAnswer(standing.mempool_txs, standing.mempool_bytes),
            None if notice is None else HaltedAnswer(notice.code, notice.message, notice.hint),
        )

    async def light_block(self, query: LightBlockQuery) -> LightBlockAnswer:
        """A light block."""
        height = self._height(query.height)
        return LightBlockAnswer(height, _base64(await self.desk.light_block(height)))

    async def engine(self, request: EngineRequest) -> msgspec.Raw:
        """A call of the engine's, passed on."""
        return msgspec.Raw(await self.desk.relay(msgspec.json.encode(request)))

    def state_points(self, request: StateRequest) -> float:
        """What reading the state costs: a key of an old version is walked to through all versions after it."""
        newest = self.desk.standing().height
        age = min(max(0, newest - (request.height or newest)), MAX_AGE)
        return len(request.keys) * (KEY_POINTS + AGE_POINTS * age)

    async def state(self, request: StateRequest) -> StateAnswer:
        """Values with proofs, all of one version."""
        keys = [_unhex(key) for key in request.keys]
        height = self._height(request.height)
        block = _base64(await self.desk.light_block(height))
        if len(keys) <= INLINE_KEYS and height == self.desk.standing().height:
            return StateAnswer(height, block, self._prove(keys, height))
        return StateAnswer(height, block, await self._in_thread(lambda: self._prove(keys, height)))

    def _prove(self, keys: list[bytes], height: int) -> list[StateValue]:
        values = []
        for key in keys:
            value, proof = self.desk.prove(key, height)
            values.append(StateValue(key.hex(), None if value is None else value.hex(), _base64(proof)))
        return values

    async def submit(self, request: TxRequest) -> TxAnswer:
        """Take a transaction, and wait for its block when asked."""
        tx = _unbase64(request.tx)
        if len(tx) > MAX_TX_BYTES:
            raise InvalidInputError(
                f"the transaction has {len(tx)} bytes, at most {MAX_TX_BYTES} allowed", code="oversized"
            )
        id_ = tx_id(tx)
        outcome = await self.desk.submit(tx)
        if outcome.code != Code.OK:
            return _tx_answer(id_, outcome)
        if request.wait == "checked":
            return _tx_answer(id_, outcome, hint="" if outcome.height else NOT_YET)
        try:
            async with asyncio.timeout(self._wait_s):
                outcome = await self.desk.wait_committed(id_)
                if request.wait == "proven":
                    await self.desk.wait_height(outcome.height + 1)
        except TimeoutError:
            return _tx_answer(id_, outcome, hint="" if outcome.height else NOT_YET)
        return _tx_answer(id_, outcome)

    async def tx(self, id_hex: str) -> TxAnswer:
        """What a transaction did: of a recent block from memory, of an older one from the index where there is one."""
        id_ = parse_id(id_hex)
        outcome, silent = self.history.outcome(id_), ""
        if outcome is None and self.archive.is_kept:
            try:
                found = await self.archive.find_tx_soon(id_)
                outcome = TxOutcome(found.code, found.height, found.data)
            except IndexUnavailableError:  # who waits for a new transaction needs no history
                silent = " (history of older ones does not answer now)"
        if outcome is None:
            raise RefusedError(
                "no recent block holds this transaction",
                code="unknown_tx",
                hint=f"blocks from height {self.history.oldest_height} on are searched{silent}; it may still wait",
            )
        return _tx_answer(id_, outcome)

    async def blocks(self, query: ListQuery) -> BlocksAnswer:
        """The newest blocks."""
        return BlocksAnswer(self.history.blocks(query.limit))

    async def events(self, query: EventsQuery) -> EventsAnswer:
        """Events of recent blocks."""
        rows, reached = self.history.events(query.after_height, query.limit)
        return EventsAnswer(rows, reached, self.history.oldest_height)

    async def payments(self, query: ListQuery) -> PaymentsAnswer:
        """Payments of recent blocks."""
        return PaymentsAnswer(self.history.payments(query.limit), self.history.oldest_height)

    async def grid(self) -> GridAnswer:
        """The grid after the newest block, read at most once for each block."""
        async with self._grid_turn:
            height = self.desk.standing().height
            if self._grid is None or self._grid.height != height:
                self._grid = await self._in_thread(lambda: view_grid(lambda key: self.desk.get(key, height), height))
            if self._grid is None:
                raise RefusedError("there is no block yet", code="height_unknown", hint="ask again in a second")
            return self._grid

    async def faucet(self, request: FaucetRequest) -> TxAnswer:
        """The faucet's transfer."""
        account = decode_account(request.account)
        if self._faucet is None:
            raise RefusedError(
                "this server has no faucet", code="no_faucet", hint="ask somebody who holds tokens for a transfer"
            )
        id_, outcome = await self._faucet.give(account)
        return _tx_answer(id_, outcome)

    def _height(self, asked: int | None) -> int:
        newest = self.desk.standing().height
        if newest < self._genesis.initial_height:
            raise RefusedError("there is no block yet", code="height_unknown", hint="ask again in a second")
        return newest if asked is None else asked

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)


def _tx_answer(id_: bytes, outcome: TxOutcome, *, hint: str = "") -> TxAnswer:
    return TxAnswer(id_.hex(), outcome.code, code_name(outcome.code), outcome.height, _base64(outcome.data), hint)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise InvalidInputError("the transaction is not base64 in its one form", code="bad_request")
    return data


def _unhex(text: str) -> bytes:
    data = bytes.fromhex(text)
    if data.hex() != text:
        raise InvalidInputError("a key is not lower-case hex", code="bad_request")
    return data
