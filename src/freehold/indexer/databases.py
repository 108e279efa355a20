"""SQLite and PostgreSQL behind one small face: statements with `?`, rows as tuples, a transaction around a write.

Values are always bound, never written into a statement. SQLite: WAL, one writer, a reading connection beside it.
PostgreSQL needs the extra `freehold[postgres]`.
"""

import contextlib
import os
import socket
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from freehold.indexer.errors import IndexDamagedError, IndexUnavailableError
from freehold.indexer.schema import TABLES

READ_LIMIT_S: Final = 2
STEPS: Final = 10_000_000  # of SQLite's machine in one reading; a page takes a few thousand
BUSY_MS: Final = 5_000
CACHE_KIB: Final = 8_192
CONNECT_S: Final = 5
# A server whose machine went away without a word is noticed in about half a minute.
_ALIVE: Final[dict[str, Any]] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

Row = tuple[Any, ...]


class Transaction(Protocol):
    """Statements of one transaction."""

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        """Run one statement."""

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row."""

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Read."""


class Database(Protocol):
    """One index's database; `write` from one thread, `read` from any.

    Both raise IndexUnavailableError when it does not answer now, IndexDamagedError when it cannot be read.
    """

    @property
    def types(self) -> dict[str, str]:
        """How this database names `bytes` and `int`."""

    def write(self) -> contextlib.AbstractContextManager[Transaction]:
        """One transaction: all of it is durable at the end, or nothing after an error."""

    def read(self) -> contextlib.AbstractContextManager[Transaction]:
        """Statements that see one moment of the database."""

    def clear(self) -> None:
        """Remove everything, damaged or not."""

    def abandon_write(self) -> None:
        """Break off, from another thread, what a write waits for: it raises IndexUnavailableError soon."""

    def abandon_read(self) -> None:
        """Break off, from another thread, what a reading waits for: it raises IndexUnavailableError soon."""

    def close(self) -> None:
        """Let the connections go."""


class SqliteDatabase:
    """A file; opened at the first use, so that a damaged one can be cleared."""

    types: Final = {"bytes": "BLOB", "int": "INTEGER"}

    def __init__(self, path: Path) -> None:
        """Bind the file."""
        self._path = path
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._left = 0

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction."""
        with _sqlite_errors(self._path):
            if self._writer is None:
                self._writer = self._open()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield _Sqlite(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.rollback()
                raise

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """Statements that see one moment."""
        with self._reading, _sqlite_errors(self._path):
            if self._reader is None:
                if not self._path.exists():
                    raise IndexUnavailableError("the index is not open yet", code="index_opening", hint=_LATER)
                self._reader = self._open()
                self._reader.execute("PRAGMA query_only = ON")
                self._reader.set_progress_handler(self._spend, STEPS // 100)
            self._left = 100
            self._reader.execute("BEGIN")
            try:
                yield _Sqlite(self._reader)
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._reader.rollback()

    def abandon_write(self) -> None:
        """Interrupt a write; one that waits for a lock gives up by itself after `BUSY_MS`."""
        _interrupt(self._writer)

    def abandon_read(self) -> None:
        """Interrupt a reading; one that waits for a lock gives up by itself after `BUSY_MS`."""
        _interrupt(self._reader)

    def clear(self) -> None:
        """Remove the file; whoever comes to read meanwhile waits, and never opens what is being removed."""
        with self._reading:
            self._let_go()
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Let the connections go."""
        with self._reading:
            self._let_go()

    def _let_go(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_MS / 1_000, isolation_level=None, check_same_thread=False)
        try:
            # A lost tail after a power cut is read from the blocks again: no need to wait for the disk.
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"cache_size = -{CACHE_KIB}"):
                connection.execute(f"PRAGMA {pragma}")
            if self._writer is None:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise IndexDamagedError(f"{self._path}: {verdict}", code="index_damaged")
        except BaseException:
            connection.close()
            raise
        return connection

    def _spend(self) -> int:
        self._left -= 1
        return 1 if self._left < 0 else 0


def _interrupt(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):  # closed meanwhile
            connection.interrupt()


class _Sqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        self._connection.execute(sql, values)

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()


_LATER: Final = "try again in a few seconds; the ledger itself is not concerned"
# What SQLite says of a disk or a lock, as against a file that it cannot make sense of.
_PASSING: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_REFUSED: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_INTERRUPT)


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if kind in _PASSING or kind in _REFUSED:
            raise IndexUnavailableError(f"{path}: {error}", code="index_unavailable", hint=_LATER) from None
        raise IndexDamagedError(f"{path}: {error}", code="index_damaged") from None


class PostgresDatabase:
    """A PostgreSQL database named by a connection string, in its `search_path`; needs the rights to make tables."""

    types: Final = {"bytes": "BYTEA", "int": "BIGINT"}

    def __init__(self, url: str) -> None:
        """Bind the connection string.

        Raises:
            IndexUnavailableError: `psycopg` is not installed.
        """
        try:
            import psycopg  # an optional extra: only who names a PostgreSQL needs it
        except ImportError:
            raise IndexUnavailableError(
                "an index in PostgreSQL needs psycopg", code="no_psycopg", hint="install freehold[postgres]"
            ) from None
        self._psycopg = psycopg
        self._url = url
        self._writer: Any = None
        self._reader: Any = None
        self._reading = threading.Lock()

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction."""
        with self._errors():
            if self._writer is None or self._writer.closed:
                self._writer = self._connect("")
            with self._writer.transaction():
                yield _Postgres(self._writer)

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """Statements that see one moment."""
        with self._reading, self._errors():
            if self._reader is None or self._reader.closed:
                self._reader = self._connect(
                    f"-c statement_timeout={READ_LIMIT_S}s -c default_transaction_isolation=repeatable\\ read "
                    "-c default_transaction_read_only=on"
                )
            with self._reader.transaction():
                yield _Postgres(self._reader)

    def abandon_write(self) -> None:
        """Cut the write's connection: a server that is stopped or gone would hold it for ever."""
        self._cut(self._writer)

    def abandon_read(self) -> None:
        """Cut the reading's connection, which the server's own limit has not ended."""
        self._cut(self._reader)

    def clear(self) -> None:
        """Drop the tables."""
        with self.write() as transaction:
            for table in TABLES:
                transaction.run(f"DROP TABLE IF EXISTS {table}")

    def close(self) -> None:
        """Let the connections go."""
        with self._reading:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None

    def _connect(self, options: str) -> Any:
        return self._psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_S, options=options, **_ALIVE)

    def _cut(self, connection: Any) -> None:
        """Shut the socket down under whoever waits for it; a request to cancel would need a server that answers."""
        if connection is None:
            return
        with (
            contextlib.suppress(self._psycopg.Error, OSError),
            socket.socket(fileno=os.dup(connection.fileno())) as wire,
        ):
            wire.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        damaged = (self._psycopg.errors.DataCorrupted, self._psycopg.errors.IndexCorrupted)
        missing = (self._psycopg.errors.UndefinedTable, self._psycopg.errors.UndefinedColumn)
        try:
            yield
        except (*damaged, *missing, self._psycopg.IntegrityError) as error:
            raise IndexDamagedError(f"PostgreSQL: {_line(error)}", code="index_damaged") from None
        except self._psycopg.Error as error:  # its text names host and database, never the password
            raise IndexUnavailableError(f"PostgreSQL: {_line(error)}", code="index_unavailable", hint=_LATER) from None


class _Postgres:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def run(self, sql: str, values: Sequence[Any] = ()) -> None:
        self._connection.execute(sql.replace("?", "%s"), values)

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(sql.replace("?", "%s"), rows)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        found: list[Row] = self._connection.execute(sql.replace("?", "%s"), values).fetchall()
        return found


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def open_database(where: str, folder: Path) -> Database:
    """Choose the database by its setting.

    Args:
        where: `sqlite`, or a connection string of PostgreSQL.
        folder: for the file of `sqlite`.
    """
    return SqliteDatabase(folder / "history.sqlite") if where == "sqlite" else PostgresDatabase(where)
