"""The index on SQLite: what goes in comes out, in one order, once; the same suite on PostgreSQL runs with `long`."""

import sqlite3
import threading
from pathlib import Path

import pytest
from index_kit import ACCOUNTS, LEASES, T0_MS, database, expected, make_blocks, sqlite_index, walk

from freehold.base.errors import InvalidInputError, InvariantError
from freehold.crypto.hashing import sha256
from freehold.indexer import schema
from freehold.indexer.cursors import MAX_CURSOR_CHARS, TOP, Place, decode_cursor, encode_cursor
from freehold.indexer.errors import IndexDamagedError, IndexNewerError, IndexUnavailableError
from freehold.indexer.records import BlockEvent, BlockRecord, BlockTx
from freehold.indexer.store import Index, parse_block_name
from freehold.indexer.subjects import MAX_SUBJECTS, parse_subjects


@pytest.fixture
def index(tmp_path):
    index = sqlite_index(tmp_path)
    assert index.open() == 0
    yield index
    index.close()


def check_whole(index: Index) -> None:
    """What any database must do; also called by the tests on PostgreSQL."""
    blocks = make_blocks(range(1, 61))
    index.add(blocks[:40])
    index.add(blocks[40:])
    assert index.open() == 60 and index.spans() == [(1, 60)]
    for subjects in ([], [ACCOUNTS[1]], [LEASES[0]], [ACCOUNTS[0], ACCOUNTS[2], LEASES[3]], ["f" * 64]):
        for limit in (1, 7, 1_000):
            assert walk(index, subjects, limit) == expected(blocks, subjects)
    since = T0_MS + 31_000
    assert walk(index, [], 5, since) == expected(blocks[30:])
    assert index.events([], TOP, 5, since_ms=T0_MS + 61_000).events == []
    found = index.block(7)
    assert found is not None and index.block(found[0].hash) == found
    assert found[1] == [(tx.id, tx.code) for tx in blocks[6].txs]
    assert index.block(61) is None and index.block(bytes(32)) is None
    assert [line.height for line in index.blocks(11, 3)] == [10, 9, 8]
    for block in blocks:
        for position, tx in enumerate(block.txs):
            if tx.id == sha256(b"again"):
                continue
            line = index.tx(tx.id)
            assert line is not None
            assert (line.height, line.position, line.code, line.data) == (block.height, position, tx.code, tx.data)
            assert line.events == [(event.kind, event.attributes) for event in tx.events]
    assert index.tx(bytes(32)) is None


def test_what_goes_in_comes_out(index):
    check_whole(index)


def test_bytes_that_stand_twice_did_what_they_did_when_they_succeeded(index):
    for height, code in ((1, 9), (2, 0), (3, 9)):
        index.add([BlockRecord(height, height, bytes([height]) * 32, [BlockTx(b"x" * 32, code, b"", [])])])
    line = index.tx(b"x" * 32)
    assert line is not None and (line.height, line.code) == (2, 0)


def test_a_batch_goes_in_whole_or_not_at_all(index):
    index.add(make_blocks(range(1, 4)))
    good, again = make_blocks([4]), make_blocks([3])
    with pytest.raises(InvariantError, match="index_grows_upwards"):
        index.add(good + again)
    assert index.spans() == [(1, 3)] and index.block(4) is None
    index.add(good)
    assert walk(index, [], 9) == expected(make_blocks(range(1, 5)))


def test_gaps_are_told(index):
    for heights in (range(5, 8), range(8, 9), range(20, 22)):
        index.add(make_blocks(heights))
    assert index.spans() == [(5, 8), (20, 21)]


def test_an_index_of_another_chain_or_a_later_form_is_not_added_to(tmp_path):
    first = sqlite_index(tmp_path)
    first.open()
    first.close()
    with pytest.raises(IndexDamagedError, match="another chain"):
        sqlite_index(tmp_path, "other 11").open()
    with sqlite3.connect(tmp_path / "history.sqlite") as raw:
        raw.execute("UPDATE meta SET value = '999' WHERE name = 'schema_version'")
    raw.close()
    with pytest.raises(IndexNewerError, match="form 999"):
        sqlite_index(tmp_path).open()


@pytest.mark.parametrize("version", range(1, schema.VERSION))
def test_every_older_form_is_brought_up(tmp_path, version, monkeypatch):
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:version])
    monkeypatch.setattr(schema, "VERSION", version)
    old = sqlite_index(tmp_path)
    old.open()
    old.add(make_blocks(range(1, 9)))
    old.close()
    monkeypatch.undo()
    index = sqlite_index(tmp_path)
    assert index.open() == 8
    with database(tmp_path).read() as reading:
        names = {name for (name,) in reading.rows("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {"blocks_by_time", "blocks_by_hash", "txs_by_id"} <= names
    index.add(make_blocks([9]))
    assert walk(index, [], 100) == expected(make_blocks(range(1, 10)))
    index.close()


@pytest.mark.parametrize("damage", [b"", b"not a database" * 400, b"\0" * 8192])
def test_a_damaged_file_is_known_as_such_and_can_be_made_anew(tmp_path, damage):
    index = sqlite_index(tmp_path)
    index.open()
    index.add(make_blocks(range(1, 40)))
    index.close()
    path = tmp_path / "history.sqlite"
    whole = path.read_bytes()
    # an emptied file is a new database to SQLite; any other is told
    path.write_bytes(damage and damage + whole[len(damage) :])
    index = sqlite_index(tmp_path)
    if damage:
        with pytest.raises(IndexDamagedError):
            index.open()
        index.clear()
    assert index.open() == 0
    index.add(make_blocks(range(1, 4)))
    assert index.spans() == [(1, 3)]
    index.close()


def test_who_reads_while_an_index_is_cleared_does_not_keep_the_old_one(index, monkeypatch):
    """A connection to the removed file would tell of the old blocks for as long as the process lives."""
    index.add(make_blocks([1, 2, 3]))
    unlink, told = Path.unlink, []

    def read() -> None:
        try:
            told.append(index.spans())
        except IndexUnavailableError as error:
            told.append(error.code)

    reader = threading.Thread(target=read)

    def unlink_beside_a_reader(path: Path, missing_ok: bool = False) -> None:
        if reader.ident is None:
            reader.start()
            reader.join(0.2)  # it must not come in before all is removed
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_beside_a_reader)
    index.clear()
    reader.join(20)
    assert told == ["index_opening"]
    assert index.open() == 0 and index.spans() == []


def test_a_folder_that_cannot_be_used_is_no_damage(tmp_path):
    (tmp_path / "history.sqlite").mkdir()
    with pytest.raises(IndexUnavailableError):
        sqlite_index(tmp_path).open()


def test_a_reading_is_given_up_after_so_many_steps(index, monkeypatch):
    index.add(make_blocks(range(1, 4)))
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(IndexUnavailableError, match="interrupted"), index._database.read() as reading:
        reading.rows(endless)
    assert index.spans() == [(1, 3)]


def test_cursors_are_one_text_for_one_place():
    for place in (TOP, Place(1, 0), Place(10**12, 99)):
        text = encode_cursor(place)
        assert decode_cursor(text) == place and len(text) == MAX_CURSOR_CHARS
    assert decode_cursor("") == TOP


@pytest.mark.parametrize(
    "text", ["x", "A" * 17, "A" * 18, "=" * 18, "_" * 18, "AQAAAAAAAAABAAAAAB", "' OR 1=1 --      "]
)
def test_other_texts_are_no_cursors(text):
    with pytest.raises(InvalidInputError):
        decode_cursor(text)


@pytest.mark.parametrize(
    "text", ["x", "'; DROP TABLE blocks; --", "G" * 56 + "'", ",", f"{'a' * 64},", "A" * 64, "a" * 63]
)
def test_other_texts_are_no_subjects(text):
    with pytest.raises(InvalidInputError):
        parse_subjects(text)


def test_subjects_are_bounded():
    many = [f"{n:064x}" for n in range(MAX_SUBJECTS + 1)]
    assert parse_subjects(",".join(many[1:])) == many[1:]
    with pytest.raises(InvalidInputError):
        parse_subjects(",".join(many))


@pytest.mark.parametrize("text", ["", "0", "01", "-1", "1" * 19, "g" * 64, "A" * 64, "1 OR 1=1"])
def test_other_texts_name_no_block(text):
    with pytest.raises(InvalidInputError):
        parse_block_name(text)
    assert parse_block_name("12") == 12 and parse_block_name("1" * 64) == b"\x11" * 32


def test_hostile_text_in_a_block_stays_text(index):
    name = "'); DROP TABLE events; --\0\n\U0001f4a9"
    tx = BlockTx(b"t" * 32, 0, b"", [BlockEvent("farm", {"farm": ACCOUNTS[0], "name": name})])
    index.add([BlockRecord(1, 1, b"h" * 32, [tx])])
    assert index.events([ACCOUNTS[0]], TOP, 5).events[0].attributes["name"] == name
