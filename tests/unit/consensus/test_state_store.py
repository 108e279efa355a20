"""The state store against full disks, damage, growth and two-step commits."""

import os
import random
import stat
import subprocess
import threading
from pathlib import Path

import lmdb
import pytest

from freehold.base.errors import InvalidInputError, InvariantError
from freehold.consensus.errors import HeightUnavailableError, StorageDamagedError, StorageError, StorageFullError
from freehold.consensus.state_store import StateStore
from freehold.consensus.storage import Storage, write_file
from freehold.light.ics23 import SMT, CommitmentProof, verify_existence

MIB = 1 << 20


def fill(store: StateStore, height: int, size: int = 200, count: int = 500) -> None:
    store.stage(height, {b"k%d-%d" % (height, n): b"v" * size for n in range(count)})
    store.commit()


def test_what_is_staged_is_seen_only_after_commit(tmp_path: Path) -> None:
    with StateStore.open(tmp_path / "s", 2) as store:
        store.stage(0, {b"a": b"1"})
        assert store.get(b"a") is None
        store.commit()
        first = store.stage(1, {b"a": b"2"})
        second = store.stage(1, {b"a": b"3"}, b"note")  # forgets the first
        assert first != second
        assert (store.get(b"a"), store.height) == (b"1", 0)
        assert store.commit() == second
        assert (store.get(b"a"), store.height, store.meta) == (b"3", 1, b"note")
        with pytest.raises(InvariantError, match="commit_after_stage"):
            store.commit()
        with pytest.raises(InvariantError, match="stage_next_height"):
            store.stage(3, {})


def test_a_deleted_key_is_gone_and_provably_so(tmp_path: Path) -> None:
    with StateStore.open(tmp_path / "s", 2) as store:
        store.stage(0, {b"a": b"1", b"b": b"1"})
        root = store.commit()
        store.stage(1, {b"a": None, b"never": None, b"b": b"1"})
        store.commit()
        assert store.get(b"a") is None
        assert len(store) == 1
        assert store.prove(b"a", 1)[0] is None
        assert store.prove(b"a", 0)[0] == b"1"
        store.stage(2, {b"a": b"1"})
        assert store.commit() == root
        with pytest.raises(InvalidInputError):
            store.prove(b"", 2)


def test_values_and_keys_have_bounds(tmp_path: Path) -> None:
    with StateStore.open(tmp_path / "s", 2) as store:
        for key, value in ((b"", b"v"), (b"k" * 257, b"v"), (b"k", b""), (b"k", bytes(MIB + 1))):
            with pytest.raises(InvariantError):
                store.stage(0, {key: value})


def test_the_map_grows_and_readers_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freehold.consensus.storage.INITIAL_MAP_BYTES", MIB)
    with StateStore.open(tmp_path / "s", 3) as store:
        for height in range(12):
            fill(store, height)
            assert store.get(b"k0-1") == b"v" * 200
        root = store.app_hash
        assert store._storage.map_bytes > MIB
    with StateStore.open(tmp_path / "s", 3) as store:
        assert store.app_hash == root
        assert len(store) == 6_000


def test_a_full_map_is_told_and_the_version_before_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freehold.consensus.storage.INITIAL_MAP_BYTES", MIB)
    with StateStore.open(tmp_path / "s", 3, max_map_bytes=2 * MIB) as store:
        height = 0
        with pytest.raises(StorageFullError) as error:
            while height < 100:
                root = store.app_hash
                fill(store, height)
                height += 1
        assert error.value.code == "disk_full"
        assert (store.height, store.app_hash) == (height - 1, root)
        assert store.get(b"k%d-1" % height) is None
        assert store.get(b"k%d-1" % (height - 1)) is not None
    with StateStore.open(tmp_path / "s", 3) as store:
        assert (store.height, store.app_hash) == (height - 1, root)
        fill(store, height)  # room was made


@pytest.mark.root
def test_a_full_disk_is_told_and_the_version_before_stands(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=True)
    try:
        with StateStore.open(disk / "s", 3) as store:
            height = 0
            with pytest.raises(StorageFullError):
                while height < 100:
                    root = store.app_hash
                    fill(store, height)
                    height += 1
            with pytest.raises(StorageFullError):
                write_file(disk / "big", bytes(4 * MIB))
            assert store.app_hash == root
        subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)
        with StateStore.open(disk / "s", 3) as store:
            assert (store.height, store.app_hash) == (height - 1, root)
            fill(store, height)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_damage_is_found_at_start(tmp_path: Path) -> None:
    with StateStore.open(tmp_path / "s", 3) as store:
        fill(store, 0)
    env = lmdb.open(str(tmp_path / "s"), max_dbs=3)
    leaves = env.open_db(b"leaves")
    with env.begin(write=True) as txn, txn.cursor(leaves) as cursor:
        cursor.first()
        cursor.delete()
    env.close()
    with pytest.raises(StorageDamagedError, match="do not hash to its root"):
        StateStore.open(tmp_path / "s", 3)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="failed"):
        Storage(tmp_path / "file", ("x",))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "data.mdb").write_bytes(b"no database" * 1_000)
    with pytest.raises(StorageError, match="failed"):
        Storage(tmp_path / "s", ("x",))


def test_a_file_is_synced_before_it_is_renamed_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def logging_fsync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def logging_rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr("os.fsync", logging_fsync)
    monkeypatch.setattr(Path, "replace", logging_rename)
    write_file(tmp_path / "f", b"new")
    assert done == ["file", "rename", "folder"]


def test_readers_see_whole_versions_while_blocks_are_committed(tmp_path: Path) -> None:
    roots: dict[int, bytes] = {}
    failures: list[BaseException] = []
    seen: set[int] = set()
    keys = [b"k%d" % n for n in range(64)]

    def read(dice: random.Random) -> None:
        try:
            while len(roots) < 120:
                height = max(0, store.height - dice.randrange(3))
                key = dice.choice(keys)
                value, raw = store.prove(key, height)
                assert value is not None
                verify_existence(SMT, roots[height], key, value, CommitmentProof.decode(raw))
                assert int(value.split()[0]) <= height
                assert int((store.get(key) or b"").split()[0]) >= int(value.split()[0])
                seen.add(height)
        except BaseException as error:
            failures.append(error)

    with StateStore.open(tmp_path / "s", 200, split=3) as store:
        roots[0] = store.stage(0, dict.fromkeys(keys, b"0 x"))
        store.commit()
        threads = [threading.Thread(target=read, args=(random.Random(seed),)) for seed in range(3)]
        for thread in threads:
            thread.start()
        dice = random.Random(7)
        for height in range(1, 120):
            batch: dict[bytes, bytes | None] = {key: b"%d x" % height for key in dice.sample(keys, 20)}
            roots[height] = store.stage(height, batch)
            store.commit()
        for thread in threads:
            thread.join()
    assert not failures, failures
    assert len(seen) > 10


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_file(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageFullError):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_rollback_is_the_version_before_and_may_be_made_again_until_none_is_kept(tmp_path: Path) -> None:
    batches: list[dict[bytes, bytes | None]] = [
        {b"a": b"0", b"b": b"0", b"c": b"0"},
        {b"a": b"1", b"d": b"1"},
        {b"b": None, b"d": b"2"},
        {},
        {b"b": b"4", b"c": None},
    ]
    with StateStore.open(tmp_path / "s", 3, split=3) as store:
        versions = []
        for height, batch in enumerate(batches):
            store.stage(height, batch)
            versions.append((store.commit(), dict(store.items())))
        for height in (3, 2, 1):
            assert store.rollback() == height
            assert (store.app_hash, dict(store.items())) == versions[height]
        with pytest.raises(HeightUnavailableError, match="not kept"):
            store.rollback()
        for height in (2, 3, 4):
            store.stage(height, batches[height])
            assert store.commit() == versions[height][0]
            value, proof = store.prove(b"a", height)
            assert value == b"1"
            verify_existence(SMT, store.app_hash, b"a", b"1", CommitmentProof.decode(proof))
    with StateStore.open(tmp_path / "s", 3) as again:
        assert (again.height, again.app_hash) == (4, versions[4][0])
