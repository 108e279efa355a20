"""Snapshots of random states: the round trip, every version, and what a lying peer can do to chunks."""

import random
import tracemalloc
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_state_tree import batches, model_root

from freehold.base.errors import CodecError, RemoteProtocolError
from freehold.consensus.snapshot_format import (
    CHUNK_BYTES,
    DEPTH,
    NodeFold,
    SnapshotMetadata,
    chunk_hash,
    decode_chunk,
    decode_metadata,
    encode_metadata,
    encode_record,
)
from freehold.consensus.snapshot_restore import Restore, Verdict
from freehold.consensus.snapshot_store import SnapshotFolder
from freehold.consensus.snapshot_writer import take_snapshot
from freehold.consensus.state_store import StateStore
from freehold.consensus.tree import Node, path_prefix, subtree

SMALL = 600  # bytes a chunk, so that these states have several


def fill(folder: Path, state: dict[bytes, bytes]) -> bytes:
    with StateStore.open(folder / "state", 4, split=3) as store:
        store.stage(0, dict(state))
        return store.commit()


def load_all(folder: SnapshotFolder, metadata: SnapshotMetadata) -> list[bytes]:
    chunks = [folder.load(metadata.height, metadata.format, index) for index in range(len(metadata.chunks))]
    assert None not in chunks
    return [chunk for chunk in chunks if chunk is not None]


def restored(folder: Path, metadata: SnapshotMetadata, chunks: list[bytes]) -> dict[bytes, bytes]:
    restore = Restore(folder / "state", metadata)
    verdicts = [restore.apply(index, chunk).verdict for index, chunk in enumerate(chunks)]
    assert verdicts == [Verdict.NEXT] * (len(chunks) - 1) + [Verdict.DONE]
    with StateStore.open(folder / "state", 4) as store:
        store.replace(restore.folder)
        assert (store.height, store.app_hash) == (metadata.height, metadata.app_hash)
        return dict(store.items())


@settings(deadline=None, max_examples=20)
@given(batches=batches, split=st.integers(1, 5), keep=st.integers(1, 10))
def test_each_kept_version_comes_back_as_it_was(
    batches: list[dict[bytes, bytes | None]], split: int, keep: int
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = {b"k7": b"genesis"}
        versions = [dict(model)]
        with StateStore.open(folder / "state", keep, split=split) as store:
            store.stage(0, dict(model))
            store.commit()
            for height, batch in enumerate(batches, start=1):
                for key, value in batch.items():
                    if value is None:
                        model.pop(key, None)
                    else:
                        model[key] = value
                store.stage(height, batch)
                store.commit()
                versions.append(dict(model))
        for height in range(max(0, len(batches) - keep), len(versions)):
            if not versions[height]:
                continue
            snapshots = SnapshotFolder(folder / "snapshots")
            metadata = take_snapshot(folder / "state", snapshots, "chain", height=height, keep=2, chunk_bytes=SMALL)
            assert metadata.app_hash == model_root(versions[height])
            assert metadata.leaves == len(versions[height])
            again = decode_metadata(encode_metadata(metadata))
            other = folder / f"other{height}"
            assert restored(other, again, load_all(snapshots, metadata)) == versions[height]
            assert snapshots.heights()[:1] == [height]
            assert len(snapshots.heights()) <= 4  # two are kept, and two more are being fetched


def folded(leaves: list[tuple[bytes, bytes]]) -> dict[int, Node]:
    fold = NodeFold()
    done = [*[fold.add(path, leaf) for path, leaf in leaves], fold.finish()]
    assert (fold.leaves, fold.finish()) == (len(leaves), None)
    nodes = [entry for entry in done if entry is not None]
    assert len(dict(nodes)) == len(nodes)
    return dict(nodes)


@settings(deadline=None, max_examples=200)
@given(paths=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 240), st.integers(0, 255)), max_size=60))
def test_leaves_fold_into_the_nodes_of_the_tree_however_long_their_paths_agree(
    paths: set[tuple[int, int, int]],
) -> None:
    numbers = {(prefix << 254) ^ (tail << shift) for prefix, shift, tail in paths}
    leaves = [(path, sha256(path).digest()) for path in sorted(number.to_bytes(32, "big") for number in numbers)]
    leaves = [(path, leaf) for path, leaf in leaves if any(path)]  # no key has the path of zeros
    below: dict[int, list[tuple[bytes, bytes]]] = {}
    for path, leaf in leaves:
        below.setdefault(path_prefix(path, DEPTH), []).append((path, leaf))
    assert folded(leaves) == {prefix: subtree(group, DEPTH) for prefix, group in below.items()}


def test_any_number_of_leaves_below_one_node_is_folded_in_little_memory() -> None:
    """A liar chooses how many: each true node has 1/1024 of the state, a forged one may have all chunks."""
    rng = random.Random(7)
    paths = sorted(b"\x00\x01" + rng.randbytes(30) for _ in range(6_000))
    fold = NodeFold()
    tracemalloc.start()
    try:
        for path in paths:
            assert fold.add(path, bytes(32)) is None
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 64 * 1024
    assert fold.finish() == (0, subtree([(path, bytes(32)) for path in paths], DEPTH))


def test_every_flipped_byte_of_a_chunk_is_refused(tmp_path: Path) -> None:
    state = {b"key%d" % n: bytes([n]) * (n % 40 + 1) for n in range(60)}
    fill(tmp_path, state)
    snapshots = SnapshotFolder(tmp_path / "snapshots")
    metadata = take_snapshot(tmp_path / "state", snapshots, "chain", keep=1, chunk_bytes=SMALL)
    chunks = load_all(snapshots, metadata)
    assert len(chunks) >= 3
    restore = Restore(tmp_path / "other" / "state", metadata)
    for index, chunk in enumerate(chunks):
        for at in range(len(chunk)):
            poisoned = chunk[:at] + bytes([chunk[at] ^ 1]) + chunk[at + 1 :]
            assert restore.apply(index, poisoned).verdict is Verdict.BAD_CHUNK
        assert restore.apply(index, chunk[:-1]).verdict is Verdict.BAD_CHUNK
        step = restore.apply(index, chunk)
    assert step.verdict is Verdict.DONE


def test_chunks_out_of_order_missing_or_doubled(tmp_path: Path) -> None:
    fill(tmp_path, {b"key%d" % n: b"v" * 30 for n in range(80)})
    snapshots = SnapshotFolder(tmp_path / "snapshots")
    metadata = take_snapshot(tmp_path / "state", snapshots, "chain", keep=1, chunk_bytes=SMALL)
    chunks = load_all(snapshots, metadata)
    restore = Restore(tmp_path / "other" / "state", metadata)
    assert restore.apply(1, chunks[1]) == (Verdict.NOT_NEXT, 0, "")
    assert restore.apply(0, chunks[1]).verdict is Verdict.BAD_CHUNK
    assert restore.apply(0, chunks[0]).verdict is Verdict.NEXT
    assert restore.apply(0, chunks[0]) == (Verdict.NEXT, 1, "")  # once more: nothing happens
    assert restore.apply(2, chunks[2]) == (Verdict.NOT_NEXT, 1, "")
    verdicts = [restore.apply(index, chunks[index]).verdict for index in range(1, len(chunks))]
    assert verdicts[-1] is Verdict.DONE


def forge(metadata: SnapshotMetadata, chunks: list[bytes]) -> SnapshotMetadata:
    """What a liar offers: its own chunks under the true app hash."""
    return msgspec.structs.replace(metadata, chunks=[chunk_hash(chunk) for chunk in chunks])


@pytest.mark.parametrize("seed", range(20))
def test_forged_chunks_with_hashes_of_their_own_never_reach_the_end(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    fill(tmp_path, {b"key%d" % n: rng.randbytes(30) for n in range(80)})
    snapshots = SnapshotFolder(tmp_path / "snapshots")
    metadata = take_snapshot(tmp_path / "state", snapshots, "chain", keep=1, chunk_bytes=SMALL)
    items = [item for chunk in load_all(snapshots, metadata) for item in decode_chunk(chunk)]
    at, key = rng.randrange(len(items)), b"forged%d" % seed
    match rng.choice(["value", "drop", "add", "swap", "double", "cut", "empty"]):
        case "value":
            items[at] = (items[at][0], items[at][1] + b"x")
        case "drop":
            del items[at]
        case "add":
            items = sorted([*items, (key, b"v")], key=lambda item: sha256(item[0]).digest())
        case "swap":
            items[at - 1], items[at] = items[at], items[at - 1]
        case "double":
            items.insert(at, items[at])
        case "cut":
            items = items[:at]
        case "empty":
            items[at] = (items[at][0], b"")
    records = [encode_record(key, value) for key, value in items]
    chunks = [b"".join(records[start : start + 9]) for start in range(0, len(records), 9)] or [b""]
    restore = Restore(tmp_path / "other" / "state", forge(metadata, chunks))
    for index, chunk in enumerate(chunks):
        step = restore.apply(index, chunk)
        if step.verdict is Verdict.BAD_SNAPSHOT:
            break
    assert step.verdict is Verdict.BAD_SNAPSHOT, seed
    assert list((tmp_path / "other").iterdir()) == []


def test_a_chunk_that_is_too_long_is_refused_before_its_records_are_held(tmp_path: Path) -> None:
    fill(tmp_path, {b"a": b"1"})
    metadata = take_snapshot(tmp_path / "state", SnapshotFolder(tmp_path / "snapshots"), "c", keep=1)
    record = encode_record(b"a", bytes(60_000))
    long = record * (CHUNK_BYTES // len(record) + 1)
    restore = Restore(tmp_path / "other" / "state", forge(metadata, [long]))
    step = restore.apply(0, long)
    assert step.verdict is Verdict.BAD_SNAPSHOT and "allowed" in step.why


def test_nodes_that_do_not_lead_to_the_app_hash_are_refused_before_a_byte_is_fetched(tmp_path: Path) -> None:
    fill(tmp_path, {b"key%d" % n: b"v" for n in range(80)})
    snapshots = SnapshotFolder(tmp_path / "snapshots")
    metadata = take_snapshot(tmp_path / "state", snapshots, "chain", keep=1)
    for at in range(0, len(metadata.node_hashes), 7):
        hashes = bytearray(metadata.node_hashes)
        hashes[at] ^= 1
        forged = msgspec.structs.replace(metadata, node_hashes=bytes(hashes))
        with pytest.raises(RemoteProtocolError, match="nodes"):
            Restore(tmp_path / "other" / "state", forged)
    for at, kind in enumerate(metadata.kinds):
        kinds = bytearray(metadata.kinds)
        kinds[at] = 3 if kind else 1
        with pytest.raises(RemoteProtocolError, match="nodes"):
            Restore(tmp_path / "other" / "state", msgspec.structs.replace(metadata, kinds=bytes(kinds)))


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=400))
def test_noise_as_a_chunk_or_metadata_is_an_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises((RemoteProtocolError, CodecError)):
        decode_metadata(data)
    try:
        items = list(decode_chunk(data))
    except RemoteProtocolError:
        return
    assert b"".join(encode_record(key, value) for key, value in items) == data
