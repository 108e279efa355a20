"""The same suite on a real PostgreSQL, started for the test from Debian's packages; runs with `long`."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from index_kit import CHAIN, expected, make_blocks, walk
from test_index_store import check_whole

from freehold.indexer.databases import PostgresDatabase
from freehold.indexer.errors import IndexDamagedError, IndexUnavailableError
from freehold.indexer.store import Index

pytestmark = pytest.mark.long
PROGRAMS = Path("/usr/lib/postgresql")


def program(name: str) -> str:
    found = sorted(PROGRAMS.glob(f"*/bin/{name}"))
    assert found, f"no {name} under {PROGRAMS}: apt-get install postgresql"
    return str(found[-1])


def run(*command: str) -> None:
    """As the user `postgres` when we are root: the server refuses root."""
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*user, *command], check=True, capture_output=True, cwd="/", timeout=60)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Path]]:
    folder = Path(tempfile.mkdtemp(prefix="freehold-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        data = folder / "data"
        run(program("initdb"), "--auth=trust", "--username=freehold", "--no-sync", "-D", str(data))
        start(data, folder)
        try:
            yield f"postgresql://freehold@/postgres?host={folder}", data
        finally:
            with contextlib.suppress(subprocess.CalledProcessError):
                run(program("pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def start(data: Path, folder: Path) -> None:
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    run(program("pg_ctl"), "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "start")


@pytest.fixture
def index(server):
    index = Index(PostgresDatabase(server[0]), CHAIN)
    index.clear()
    assert index.open() == 0
    yield index
    index.close()


def test_what_goes_in_comes_out(index):
    check_whole(index)


def test_another_chain_is_refused(server, index):
    index.add(make_blocks(range(1, 4)))
    other = Index(PostgresDatabase(server[0]), "other 11")
    with pytest.raises(IndexDamagedError, match="another chain"):
        other.open()
    other.close()
    second = Index(PostgresDatabase(server[0]), CHAIN)
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
    data = server[1]
    index.add(make_blocks(range(1, 30)))
    run(program("pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
    with pytest.raises(IndexUnavailableError):
        index.add(make_blocks([30]))
    start(data, data.parent)
    assert index.open() == 29
    index.add(make_blocks([30]))
    assert walk(index, [], 7) == expected(make_blocks(range(1, 31)))
