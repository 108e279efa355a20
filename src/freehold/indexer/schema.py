"""The tables, by version: what is added later is a migration, and a database of any older version is brought up.

Written once for SQLite and PostgreSQL: `?` stands for a value, `{bytes}` for the type of bytes, `{int}` of 64 bits.
"""

from typing import Final

# One entry for each version; never change one that was released, append.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE spans (first {int} PRIMARY KEY, last {int} NOT NULL)",
        "CREATE TABLE blocks (height {int} PRIMARY KEY, time_ms {int} NOT NULL, hash {bytes} NOT NULL, "
        "txs {int} NOT NULL, failed {int} NOT NULL)",
        "CREATE TABLE txs (height {int} NOT NULL, position {int} NOT NULL, id {bytes} NOT NULL, code {int} NOT NULL, "
        "data {bytes} NOT NULL, PRIMARY KEY (height, position))",
        "CREATE TABLE events (height {int} NOT NULL, position {int} NOT NULL, tx_position {int} NOT NULL, "
        "kind TEXT NOT NULL, attributes TEXT NOT NULL, PRIMARY KEY (height, position))",
        "CREATE TABLE subjects (subject TEXT NOT NULL, height {int} NOT NULL, position {int} NOT NULL, "
        "PRIMARY KEY (subject, height, position))",
        "CREATE INDEX txs_by_id ON txs (id, height)",
    ),
    (
        "CREATE INDEX blocks_by_time ON blocks (time_ms)",
        "CREATE INDEX blocks_by_hash ON blocks (hash)",
    ),
)
VERSION: Final = len(MIGRATIONS)
TABLES: Final = ("meta", "spans", "blocks", "txs", "events", "subjects")

CREATE_META: Final = "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
READ_META: Final = "SELECT value FROM meta WHERE name = ?"
WRITE_META: Final = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = ?"

ADD_BLOCK: Final = "INSERT INTO blocks (height, time_ms, hash, txs, failed) VALUES (?, ?, ?, ?, ?)"
ADD_TX: Final = "INSERT INTO txs (height, position, id, code, data) VALUES (?, ?, ?, ?, ?)"
ADD_EVENT: Final = "INSERT INTO events (height, position, tx_position, kind, attributes) VALUES (?, ?, ?, ?, ?)"
ADD_SUBJECT: Final = "INSERT INTO subjects (subject, height, position) VALUES (?, ?, ?)"
ADD_SPAN: Final = "INSERT INTO spans (first, last) VALUES (?, ?)"
GROW_SPAN: Final = "UPDATE spans SET last = ? WHERE last = ?"

SPANS: Final = "SELECT first, last FROM spans ORDER BY first"
NEWEST_HEIGHT: Final = "SELECT max(last) FROM spans"
BLOCK_COLUMNS: Final = "SELECT height, time_ms, hash, txs, failed FROM blocks "
BLOCK_BY_HEIGHT: Final = BLOCK_COLUMNS + "WHERE height = ?"
BLOCK_BY_HASH: Final = BLOCK_COLUMNS + "WHERE hash = ?"
BLOCKS_BELOW: Final = BLOCK_COLUMNS + "WHERE height < ? ORDER BY height DESC LIMIT ?"
FIRST_SINCE: Final = "SELECT min(height) FROM blocks WHERE time_ms >= ?"
# The same bytes may stand twice; what they did is what they did when they succeeded, else the first time.
TX_BY_ID: Final = (
    "SELECT t.height, t.position, t.code, t.data, b.time_ms, b.hash FROM txs t JOIN blocks b ON b.height = t.height "
    "WHERE t.id = ? ORDER BY CASE WHEN t.code = 0 THEN 0 ELSE 1 END, t.height, t.position LIMIT 1"
)
TXS_OF_BLOCK: Final = "SELECT id, code FROM txs WHERE height = ? ORDER BY position"
EVENTS_OF_TX: Final = "SELECT kind, attributes FROM events WHERE height = ? AND tx_position = ? ORDER BY position"
PLACES_BELOW: Final = (
    "SELECT height, position FROM events WHERE (height, position) < (?, ?) AND height >= ? "
    "ORDER BY height DESC, position DESC LIMIT ?"
)
PLACES_OF_SUBJECT: Final = (
    "SELECT height, position FROM subjects WHERE subject = ? AND (height, position) < (?, ?) AND height >= ? "
    "ORDER BY height DESC, position DESC LIMIT ?"
)
EVENT_AT: Final = (
    "SELECT b.time_ms, t.id, e.kind, e.attributes FROM events e JOIN blocks b ON b.height = e.height "
    "JOIN txs t ON t.height = e.height AND t.position = e.tx_position WHERE e.height = ? AND e.position = ?"
)
