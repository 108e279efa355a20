"""The same suite on a real PostgreSQL, started for the test from Debian's packages; runs with `long`."""

import threading
from collections.abc import Callable, Iterator

import pytest
from index_kit import CHAIN, expected, make_blocks, walk
from postgres_server import PostgresServer
from test_index_store import check_whole

from freehold.indexer.databases import PostgresDatabase
from freehold.indexer.errors import IndexDamagedError, IndexUnavailableError
from freehold.indexer.store import Index

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def index(server):
    index = Index(PostgresDatabase(server.url), CHAIN)
    index.clear()
    assert index.open() == 0
    yield index
    index.close()


def test_what_goes_in_comes_out(index):
    check_whole(index)


def test_another_chain_is_refused(server, index):
    index.add(make_blocks(range(1, 4)))
    other = Index(PostgresDatabase(server.url), "other 11")
    with pytest.raises(IndexDamagedError, match="another chain"):
        other.open()
    other.close()
    second = Index(PostgresDatabase(server.url), CHAIN)
    assert second.open() == 3
    index.add(make_blocks([4]))
    assert second.open() == 4
    second.close()


def test_a_dropped_table_is_damage(index):
    with index._database.write() as transaction:
        transaction.run("DROP TABLE events")
    with pytest.raises(IndexDamagedError):
        walk(index, [], 10)
    index.clear()
    assert index.open() == 0


def test_a_reading_that_takes_too_long_is_given_up(index):
    with pytest.raises(IndexUnavailableError, match="statement timeout"), index._database.read() as reading:
        reading.rows("SELECT pg_sleep(10)")
    assert index.spans() == []


def test_a_server_that_dies_loses_nothing_and_is_found_again(server, index):
    index.add(make_blocks(range(1, 30)))
    server.stop()
    with pytest.raises(IndexUnavailableError):
        index.add(make_blocks([30]))
    server.start()
    assert index.open() == 29
    index.add(make_blocks([30]))
    assert walk(index, [], 7) == expected(make_blocks(range(1, 31)))


@pytest.mark.parametrize("is_write", [True, False])
def test_what_waits_for_a_server_that_is_stopped_can_be_broken_off(server, index, is_write):
    index.add(make_blocks(range(1, 30)))
    assert index.spans() == [(1, 29)]  # both connections are there
    work: Callable[[], object] = (lambda: index.add(make_blocks([30]))) if is_write else index.spans
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            work()
        except IndexUnavailableError as error:
            errors.append(error)

    with server.stopped():
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(3)
        assert waiting.is_alive()  # the server's own limit on statements does not help
        (index.abandon_write if is_write else index.abandon_read)()
        waiting.join(5)
        assert not waiting.is_alive() and len(errors) == 1
    assert index.open() == 29
    index.add(make_blocks([30]))
    assert walk(index, [], 7) == expected(make_blocks(range(1, 31)))
