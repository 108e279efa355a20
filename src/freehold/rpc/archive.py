"""History of all blocks over HTTP, from the index. What only the newest 1,000 blocks need is `history`'s, from memory.

One thread reads, so that a heavy question waits for another one and for nothing else; it is given up after a bounded
number of steps, or of seconds when the database does not answer. Few wait for their turn, and once a reading got no
answer the next ones are refused at once for a while, so that a database that hangs holds up no other route. Nothing
here is proven. Spec: docs/spec/history.md.
"""

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from freehold.base.errors import RefusedError
from freehold.base.ids import parse_id
from freehold.indexer.cursors import MAX_CURSOR_CHARS, Place, decode_cursor, encode_cursor
from freehold.indexer.databases import open_database
from freehold.indexer.errors import IndexDamagedError, IndexUnavailableError
from freehold.indexer.follower import IndexFollower, Report
from freehold.indexer.store import BlockLine, Index, TxLine, parse_block_name, unknown
from freehold.indexer.subjects import MAX_SUBJECTS, parse_subjects
from freehold.rpc.answers import MAX_HEIGHT, BlockRow, Limit, Request
from freehold.rpc.codenames import code_name
from freehold.rpc.config import DaemonHome
from freehold.rpc.desk import Desk

T = TypeVar("T")

READ_S: Final = 5.0  # above the databases' own limits: only one that hangs takes so long
PATIENCE_S: Final = 0.5  # of a question that can also be answered without history
SILENT_S: Final = 5.0  # for so long nothing is asked of a database that did not answer
MAX_WAITING: Final = 16

_ONE = "(?:G[A-Z2-7]{55}|[0-9a-f]{64})"
_LATER: Final = "try again in a few seconds; the ledger itself is not concerned"
BLOCK_PATTERN = "^(?:[1-9][0-9]{0,17}|[0-9a-f]{64})$"
Subjects = Annotated[str, Meta(pattern=f"^(?:{_ONE}(?:,{_ONE}){{0,{MAX_SUBJECTS - 1}}})?$")]
Cursor = Annotated[str, Meta(max_length=MAX_CURSOR_CHARS, pattern="^(?:[A-Za-z0-9_-]{18})?$")]


class HistoryQuery(Request, frozen=True):
    """Events of these subjects (all when empty), newest first, since a time, below a cursor."""

    subject: Subjects = ""
    since_ms: Annotated[int, Meta(ge=0, le=MAX_HEIGHT)] = 0
    cursor: Cursor = ""
    limit: Limit = 100


class HistoryBlocksQuery(Request, frozen=True):
    """Blocks, newest first, below a cursor."""

    cursor: Cursor = ""
    limit: Limit = 100


class HistoryEvent(msgspec.Struct):
    """Something that happened: `position` counts the events of its block."""

    height: int
    position: int
    time_ms: int
    tx_id: str
    kind: str
    attributes: dict[str, str]


class Span(msgspec.Struct):
    """Heights without a gap."""

    first: int
    last: int


class HistoryAnswer(msgspec.Struct):
    """A page of events, newest first; `next_cursor` continues, empty at the end; `indexed` heights are known."""

    events: list[HistoryEvent]
    next_cursor: str
    indexed: list[Span]


class HistoryBlocksAnswer(msgspec.Struct):
    """A page of blocks, newest first."""

    blocks: list[BlockRow]
    next_cursor: str
    indexed: list[Span]


class TxEvent(msgspec.Struct):
    """Something that a transaction did."""

    kind: str
    attributes: dict[str, str]


class HistoryTxAnswer(msgspec.Struct):
    """A transaction of any indexed block: what it did, and where it stands."""

    tx_id: str
    code: int
    code_name: str
    data: str
    height: int
    position: int
    time_ms: int
    block_hash: str
    events: list[TxEvent]


class BlockTxRow(msgspec.Struct):
    """A transaction in a block."""

    tx_id: str
    code: int
    code_name: str


class HistoryBlockAnswer(msgspec.Struct):
    """A block with its transactions, in order."""

    height: int
    time_ms: int
    hash: str
    failed: int
    txs: list[BlockTxRow]


class IndexStanding(msgspec.Struct, frozen=True):
    """Where an index stands.

    Attributes:
        height: the newest that it holds; -1 while it is not open.
        missing: heights between those that it holds that it does not hold.
        failed: the code of what keeps it from following now; empty while nothing does.
    """

    height: int
    missing: int
    failed: str


class Archive:
    """The answers that need the index."""

    def __init__(self, index: Index | None, follower: IndexFollower | None) -> None:
        """Bind the parts; without them every question is refused."""
        self._index = index
        self._follower = follower
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="rpc-history")
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._silent_until_s = 0.0  # of the event loop's clock

    def start(self) -> None:
        """Keep the index up, once the ledger's blocks are told."""
        if self._follower is not None:
            self._follower.start()

    async def stop(self) -> None:
        """Close the index."""
        if self._follower is not None:
            await self._follower.stop()

    @property
    def is_kept(self) -> bool:
        """Whether there is an index that is open now."""
        return self._follower is not None and self._follower.indexed >= 0

    def standing(self) -> IndexStanding | None:
        """How far the index is; None when none is kept."""
        follower = self._follower
        if follower is None:
            return None
        why = follower.failed
        return IndexStanding(follower.indexed, follower.missing, "" if why is None else why.code)

    def close(self) -> None:
        """Let the reading thread go."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    async def events(self, query: HistoryQuery) -> HistoryAnswer:
        """A page of events."""
        subjects, below = parse_subjects(query.subject), decode_cursor(query.cursor)

        def read(index: Index) -> HistoryAnswer:
            page = index.events(subjects, below, query.limit, since_ms=query.since_ms)
            rows = [
                HistoryEvent(
                    line.place.height,
                    line.place.position,
                    line.time_ms,
                    line.tx_id.hex(),
                    line.kind,
                    line.attributes,
                )
                for line in page.events
            ]
            return HistoryAnswer(rows, encode_cursor(page.next) if page.next else "", _spans(index))

        return await self._read(read)

    async def blocks(self, query: HistoryBlocksQuery) -> HistoryBlocksAnswer:
        """A page of blocks."""
        below = decode_cursor(query.cursor).height

        def read(index: Index) -> HistoryBlocksAnswer:
            lines = index.blocks(below, query.limit)
            more = len(lines) == query.limit
            cursor = encode_cursor(Place(lines[-1].height, 0)) if more else ""
            return HistoryBlocksAnswer([_block_row(line) for line in lines], cursor, _spans(index))

        return await self._read(read)

    async def tx(self, id_hex: str) -> HistoryTxAnswer:
        """A transaction of any indexed block."""
        found = await self.find_tx(parse_id(id_hex))
        events = [TxEvent(kind, attributes) for kind, attributes in found.events]
        return HistoryTxAnswer(
            id_hex,
            found.code,
            code_name(found.code),
            base64.b64encode(found.data).decode(),
            found.height,
            found.position,
            found.time_ms,
            found.block_hash.hex(),
            events,
        )

    async def find_tx(self, id_: bytes) -> TxLine:
        """A transaction as the index has it.

        Raises:
            RefusedError: no indexed block holds it.
            IndexUnavailableError: the index cannot be asked now.
        """
        return await self._read(self._finding(id_))

    async def find_tx_soon(self, id_: bytes) -> TxLine:
        """The same for who does not wait for history: `index_slow` after `PATIENCE_S`."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._read(self._finding(id_))
        except TimeoutError:
            raise _slow() from None

    def _finding(self, id_: bytes) -> Callable[[Index], TxLine]:

        def read(index: Index) -> TxLine:
            found = index.tx(id_)
            if found is None:
                raise unknown("tx", index.spans())
            return found

        return read

    async def block(self, name: str) -> HistoryBlockAnswer:
        """A block by height or hash."""
        wanted = parse_block_name(name)

        def read(index: Index) -> HistoryBlockAnswer:
            found = index.block(wanted)
            if found is None:
                raise unknown("block", index.spans())
            line, txs = found
            rows = [BlockTxRow(id_.hex(), code, code_name(code)) for id_, code in txs]
            return HistoryBlockAnswer(line.height, line.time_ms, line.hash.hex(), line.failed, rows)

        return await self._read(read)

    async def _read(self, work: Callable[[Index], T]) -> T:
        index, follower = self._index, self._follower
        if index is None or follower is None:
            raise RefusedError(
                "this server keeps no history",
                code="no_history",
                hint="ask another server, or set `index` in ledger.toml",
            )
        if follower.indexed < 0:
            why = follower.failed
            raise IndexUnavailableError(
                f"history is not open{f': {why.code}' if why else ' yet'}",
                code="index_opening",
                hint=_LATER,
            )
        self._check_answers()
        if self._waiting >= MAX_WAITING:
            raise IndexUnavailableError("too many wait for history", code="index_busy", hint=_LATER)
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        try:
            self._check_answers()  # it may have fallen silent while this one waited
        except IndexUnavailableError:
            self._turn.release()
            raise
        try:
            return await self._read_now(index, work)
        except IndexDamagedError as error:
            follower.suspect(error)
            raise IndexUnavailableError(
                "history is damaged and is being made anew from the blocks",
                code="index_rebuilding",
                hint="try again later; the ledger itself is not concerned",
            ) from None

    def _check_answers(self) -> None:
        if asyncio.get_running_loop().time() < self._silent_until_s:
            raise _slow()

    async def _read_now(self, index: Index, work: Callable[[Index], T]) -> T:
        """Read in one's turn, which ends with the thread's work, whatever becomes of who asked."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._reader, work, index)
        limit = loop.call_later(READ_S, self._give_up, index)
        future.add_done_callback(lambda done: self._end_turn(done, limit))
        done, _ = await asyncio.wait({future}, timeout=READ_S)
        if not done:
            raise _slow()
        return await future

    def _give_up(self, index: Index) -> None:
        """Break off a reading that got no answer, and ask nothing more for a while."""
        self._silent_until_s = asyncio.get_running_loop().time() + SILENT_S
        index.abandon_read()

    def _end_turn(self, future: asyncio.Future[T], limit: asyncio.TimerHandle) -> None:
        limit.cancel()
        self._turn.release()
        if not future.cancelled():
            future.exception()  # asked for, also when nobody waits any more


def _slow() -> IndexUnavailableError:
    return IndexUnavailableError("history's database does not answer", code="index_slow", hint=_LATER)


def open_archive(home: DaemonHome, desk: Desk, report: Report) -> Archive:
    """Make the archive that a home's settings ask for; what is wrong with it is told, and leaves the ledger alone.

    Args:
        home: names the database.
        desk: tells of blocks, and reads old ones.
        report: told what goes wrong with the index.
    """
    if home.settings.index == "off":
        return Archive(None, None)
    try:
        index = open_index(home)
    except IndexUnavailableError as error:
        report("index_refused", {"code": error.code, "message": error.message, "hint": error.hint})
        return Archive(None, None)
    follower = IndexFollower(index, desk, report)
    desk.subscribe(follower.receive)
    return Archive(index, follower)


def open_index(home: DaemonHome) -> Index:
    """Bind a home's index; it is opened by who writes it.

    Raises:
        IndexUnavailableError: what its database needs is not installed.
    """
    chain = f"{home.genesis.chain_id} {home.genesis.digest.hex()}"
    return Index(open_database(home.settings.index, home.index_folder), chain)


def _spans(index: Index) -> list[Span]:
    return [Span(first, last) for first, last in index.spans()]


def _block_row(line: BlockLine) -> BlockRow:
    return BlockRow(line.height, line.time_ms, line.hash.hex(), line.txs, line.failed)
