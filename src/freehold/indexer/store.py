"""The index: blocks in, one transaction for each batch together with how far it got; pages out.

Invariants: a block's rows and the span that counts it become durable together, so that a crash neither loses nor
doubles one; heights come in order; a database of another chain, or of another form, is never added to.
"""

import json
from collections.abc import Sequence
from typing import Final

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import InvalidInputError, RefusedError, check
from freehold.indexer import schema
from freehold.indexer.cursors import Place
from freehold.indexer.databases import Database, Row, Transaction
from freehold.indexer.errors import IndexDamagedError, IndexNewerError
from freehold.indexer.records import BlockRecord
from freehold.indexer.subjects import subjects_of

MAX_PAGE: Final = 1_000
MAX_SPANS: Final = 1_000
_VERSION: Final = "schema_version"
_CHAIN: Final = "chain"


class EventLine(msgspec.Struct, frozen=True):
    """An event with where it stands."""

    place: Place
    time_ms: int
    tx_id: bytes
    kind: str
    attributes: dict[str, str]


class BlockLine(msgspec.Struct, frozen=True):
    """A block without its transactions."""

    height: int
    time_ms: int
    hash: bytes
    txs: int
    failed: int


class TxLine(msgspec.Struct, frozen=True):
    """A transaction, what it did, and the block that holds it."""

    id: bytes
    code: int
    data: bytes
    height: int
    position: int
    time_ms: int
    block_hash: bytes
    events: list[tuple[str, dict[str, str]]]


class Page(msgspec.Struct, frozen=True):
    """Events, newest first, with the place to go on below: None at the end."""

    events: list[EventLine]
    next: Place | None


class Index:
    """See the module. `open`, `add`, `clear` from one thread; reading from any."""

    def __init__(self, database: Database, chain: str) -> None:
        """Bind the parts.

        Args:
            database: of this chain alone.
            chain: names the chain and its genesis.
        """
        self._database = database
        self._chain = chain

    def open(self) -> int:
        """Make the tables, or bring them to this release's form.

        Returns:
            The newest indexed height; 0 when nothing is.

        Raises:
            IndexNewerError: a later release wrote it.
            IndexDamagedError: it cannot be read, or follows another chain.
            IndexUnavailableError: it does not answer.
        """
        with self._database.write() as transaction:
            transaction.run(schema.CREATE_META)
            version = _number(_meta(transaction, _VERSION) or "0")
            if version > schema.VERSION:
                raise IndexNewerError(
                    f"the index has form {version}, this release knows up to {schema.VERSION}",
                    code="index_newer",
                    hint="install the later release again, or let `freehold ledger reindex` make it anew",
                )
            chain = _meta(transaction, _CHAIN)
            if chain not in (None, self._chain):
                raise IndexDamagedError("the index is of another chain", code="index_of_other_chain")
            for statements in schema.MIGRATIONS[version:]:
                for statement in statements:
                    transaction.run(statement.format_map(self._database.types))
            for name, value in ((_VERSION, str(schema.VERSION)), (_CHAIN, self._chain)):
                transaction.run(schema.WRITE_META, (name, value, value))
            return _newest(transaction)

    def add(self, blocks: Sequence[BlockRecord]) -> None:
        """Add blocks above all that stand: all of them, or after an error none.

        Args:
            blocks: in order. A gap, before or between them, begins a new span.
        """
        with self._database.write() as transaction:
            newest = _newest(transaction)
            for block in blocks:
                check(block.height > newest, "index_grows_upwards", height=block.height, newest=newest)
                self._add_rows(transaction, block)
                self._add_span(transaction, block.height, newest)
                newest = block.height

    def _add_rows(self, transaction: Transaction, block: BlockRecord) -> None:
        height = block.height
        failed = sum(1 for tx in block.txs if tx.code)
        transaction.run(schema.ADD_BLOCK, (height, block.time_ms, block.hash, len(block.txs), failed))
        transaction.run_many(
            schema.ADD_TX, [(height, position, tx.id, tx.code, tx.data) for position, tx in enumerate(block.txs)]
        )
        events = [(tx_position, event) for tx_position, tx in enumerate(block.txs) for event in tx.events]
        rows = [
            (height, position, tx_position, event.kind, json.dumps(event.attributes, separators=(",", ":")))
            for position, (tx_position, event) in enumerate(events)
        ]
        subjects = [
            (subject, height, position) for position, (_, event) in enumerate(events) for subject in subjects_of(event)
        ]
        if rows:
            transaction.run_many(schema.ADD_EVENT, rows)
        if subjects:
            transaction.run_many(schema.ADD_SUBJECT, subjects)

    def _add_span(self, transaction: Transaction, height: int, newest: int) -> None:
        if newest and height == newest + 1:
            transaction.run(schema.GROW_SPAN, (height, newest))
        else:
            transaction.run(schema.ADD_SPAN, (height, height))

    def clear(self) -> None:
        """Remove everything; `open` makes it anew."""
        self._database.clear()

    def abandon_write(self) -> None:
        """Break off, from another thread, whatever writes."""
        self._database.abandon_write()

    def abandon_read(self) -> None:
        """Break off, from another thread, whatever reads."""
        self._database.abandon_read()

    def close(self) -> None:
        """Let the connections go."""
        self._database.close()

    def spans(self) -> list[tuple[int, int]]:
        """The heights that are indexed: first and last of each run without a gap, in order."""
        with self._database.read() as reading:
            return [(int(first), int(last)) for first, last in reading.rows(schema.SPANS)[:MAX_SPANS]]

    def events(self, subjects: Sequence[str], below: Place, limit: int, *, since_ms: int = 0) -> Page:
        """A page of events, newest first.

        Args:
            subjects: only events that concern one of them; all events when there is none.
            below: only rows below this place.
            limit: at most so many, up to `MAX_PAGE`.
            since_ms: only of blocks of this time or later.
        """
        limit = min(limit, MAX_PAGE)
        with self._database.read() as reading:
            lowest = 0
            if since_ms:
                ((found,),) = reading.rows(schema.FIRST_SINCE, (since_ms,))
                if found is None:
                    return Page([], None)
                lowest = int(found)
            bounds = (below.height, below.position, lowest, limit + 1)
            if subjects:
                rows = [row for one in subjects for row in reading.rows(schema.PLACES_OF_SUBJECT, (one, *bounds))]
            else:
                rows = reading.rows(schema.PLACES_BELOW, bounds)
            places = sorted({Place(int(height), int(position)) for height, position in rows}, reverse=True)
            lines = [_event_line(place, reading) for place in places[:limit]]
            return Page(lines, places[limit - 1] if len(places) > limit else None)

    def tx(self, id_: bytes) -> TxLine | None:
        """A transaction by its id."""
        with self._database.read() as reading:
            found = reading.rows(schema.TX_BY_ID, (id_,))
            if not found:
                return None
            height, position, code, data, time_ms, block_hash = found[0]
            events = reading.rows(schema.EVENTS_OF_TX, (height, position))
            told = [(str(kind), _attributes(text)) for kind, text in events]
            return TxLine(
                id_, int(code), bytes(data), int(height), int(position), int(time_ms), bytes(block_hash), told
            )

    def block(self, wanted: int | bytes) -> tuple[BlockLine, list[tuple[bytes, int]]] | None:
        """A block by height or hash, with the ids and codes of its transactions."""
        by_hash = isinstance(wanted, bytes)
        with self._database.read() as reading:
            found = reading.rows(schema.BLOCK_BY_HASH if by_hash else schema.BLOCK_BY_HEIGHT, (wanted,))
            if not found:
                return None
            line = _block_line(found[0])
            txs = reading.rows(schema.TXS_OF_BLOCK, (line.height,))
            return line, [(bytes(id_), int(code)) for id_, code in txs]

    def blocks(self, below: int, limit: int) -> list[BlockLine]:
        """Blocks below a height, newest first."""
        with self._database.read() as reading:
            return [_block_line(row) for row in reading.rows(schema.BLOCKS_BELOW, (below, min(limit, MAX_PAGE)))]


def parse_block_name(text: str) -> int | bytes:
    """Read what names a block: its height in decimal, or its hash in lower-case hex.

    Raises:
        InvalidInputError: it is neither.
    """
    if text.isascii() and text.isdigit() and len(text) <= 18 and not text.startswith("0"):
        return int(text)
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or digest.hex() != text:
        raise InvalidInputError("a block is named by its height, or by its hash: 64 hex digits", code="bad_id")
    return digest


def unknown(what: str, spans: Sequence[tuple[int, int]]) -> RefusedError:
    """The error of something that the index does not hold, saying which heights it holds."""
    held = ", ".join(f"{first} to {last}" for first, last in spans[-3:]) or "none yet"
    return RefusedError(
        f"this server's history holds no such {what}", code=f"unknown_{what}", hint=f"it holds the blocks {held}"
    )


def _meta(transaction: Transaction, name: str) -> str | None:
    found = transaction.rows(schema.READ_META, (name,))
    return str(found[0][0]) if found else None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise IndexDamagedError("the index's form is no number", code="index_damaged")
    return int(text)


def _newest(transaction: Transaction) -> int:
    ((newest,),) = transaction.rows(schema.NEWEST_HEIGHT)
    return int(newest or 0)


def _event_line(place: Place, reading: Transaction) -> EventLine:
    found = reading.rows(schema.EVENT_AT, (place.height, place.position))
    if len(found) != 1:
        raise IndexDamagedError(f"an event of block {place.height} is missing", code="index_damaged")
    time_ms, tx_id, kind, text = found[0]
    return EventLine(place, int(time_ms), bytes(tx_id), str(kind), _attributes(text))


def _attributes(text: str) -> dict[str, str]:
    try:
        return decode_json(text, dict[str, str])
    except msgspec.MsgspecError:
        raise IndexDamagedError("an event's attributes are damaged", code="index_damaged") from None


def _block_line(row: Row) -> BlockLine:
    height, time_ms, digest, txs, failed = row
    return BlockLine(int(height), int(time_ms), bytes(digest), int(txs), int(failed))
