"""The state tree against a model that builds every root from scratch."""

from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.base.errors import NotVerifiedError
from freehold.consensus.errors import HeightUnavailableError
from freehold.consensus.state_store import StateStore
from freehold.consensus.tree import LEAF_KIND, UpperTree, subtree
from freehold.light.ics23 import SMT, CommitmentProof, verify_absence, verify_existence

EMPTY = bytes(32)


def model_root(state: dict[bytes, bytes]) -> bytes:
    """The root by the definition, without buckets, heaps or batches."""
    leaves = sorted(
        (sha256(key).digest(), sha256(b"\x00" + sha256(key).digest() + sha256(value).digest()).digest())
        for key, value in state.items()
    )

    def root(part: list[tuple[bytes, bytes]], depth: int) -> bytes:
        if len(part) <= 1:
            return part[0][1] if part else EMPTY
        sides: tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]] = ([], [])
        for leaf in part:
            sides[leaf[0][depth // 8] >> (7 - depth % 8) & 1].append(leaf)
        return sha256(b"\x01" + root(sides[0], depth + 1) + root(sides[1], depth + 1)).digest()

    return root(leaves, 0)


def check_proof(store: StateStore, version: dict[bytes, bytes], key: bytes, height: int) -> None:
    """Value and proof of a version agree with the model, and the proof shows nothing else."""
    expected, root = version.get(key), model_root(version)
    assert store.get_at(key, height) == expected
    value, raw = store.prove(key, height)
    assert value == expected
    if not version:
        assert raw == b""
        return
    proof = CommitmentProof.decode(raw)
    assert proof.encode() == raw
    other = bytes([root[0] ^ 1]) + root[1:]
    if value is not None:
        verify_existence(SMT, root, key, value, proof)
        for bad_root, bad_key, bad_value in ((other, key, value), (root, key + b"x", value), (root, key, value + b"x")):
            with pytest.raises(NotVerifiedError):
                verify_existence(SMT, bad_root, bad_key, bad_value, proof)
        with pytest.raises(NotVerifiedError):
            verify_absence(SMT, root, key, proof)
        return
    verify_absence(SMT, root, key, proof)
    with pytest.raises(NotVerifiedError):
        verify_absence(SMT, other, key, proof)
    for present in list(version)[:3]:
        with pytest.raises(NotVerifiedError):
            verify_absence(SMT, root, present, proof)


keys = st.integers(0, 40).map(lambda n: b"k%d" % n)
batches = st.lists(
    st.dictionaries(keys, st.one_of(st.none(), st.binary(min_size=1, max_size=4)), max_size=12), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=30)
@given(batches=batches, split=st.integers(1, 5), keep=st.integers(1, 10))
def test_every_kept_version_reads_as_the_model(batches: list[dict[bytes, bytes | None]], split: int, keep: int) -> None:
    with TemporaryDirectory() as folder:
        store = StateStore.open(Path(folder) / "state", keep, split=split)
        model: dict[bytes, bytes] = {b"k7": b"genesis"}
        versions = [dict(model)]
        assert store.stage(0, dict(model)) == model_root(model)
        store.commit()
        for height, batch in enumerate(batches, start=1):
            for key, value in batch.items():
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value
            before = store.app_hash
            root = store.stage(height, batch, b"meta%d" % height)
            assert root == model_root(model)
            assert (store.height, store.app_hash) == (height - 1, before)
            assert store.commit() == root == store.app_hash
            versions.append(dict(model))
        assert dict(store.items()) == model
        newest = len(batches)
        for height, version in enumerate(versions):
            if height < newest - keep:
                with pytest.raises(HeightUnavailableError, match="not kept"):
                    store.get_at(b"k1", height)
                continue
            for n in range(height % 4, 41, 4):
                check_proof(store, version, b"k%d" % n, height)
        with pytest.raises(HeightUnavailableError, match="not committed"):
            store.prove(b"k1", newest + 1)
        root, meta = store.app_hash, store.meta
        store.close()
        with StateStore.open(Path(folder) / "state", keep) as again:
            assert (again.app_hash, again.height, again.meta) == (root, newest, meta)


@given(state=st.dictionaries(st.binary(min_size=1, max_size=3), st.binary(max_size=3), max_size=40), data=st.data())
def test_a_root_depends_on_keys_and_values_alone(state: dict[bytes, bytes], data: st.DataObject) -> None:
    split = data.draw(st.integers(1, 6))
    leaves = sorted(
        (sha256(key).digest(), sha256(b"\x00" + sha256(key).digest() + sha256(value).digest()).digest())
        for key, value in state.items()
    )
    tree = UpperTree(split)
    tree.rebuild(leaves)
    assert tree.root == model_root(state)
    # the same leaves, a few at a time, in an order that hypothesis chooses
    grown = UpperTree(split)
    present: dict[int, list[tuple[bytes, bytes]]] = {}
    for leaf in data.draw(st.permutations(leaves)):
        prefix = int.from_bytes(leaf[0][:4], "big") >> (32 - split)
        bucket = present.setdefault(prefix, [])
        bucket.append(leaf)
        nodes = [grown.node(index) for index in range(1, 2 << split)]
        if data.draw(st.booleans()):  # what was staged may be forgotten
            other = data.draw(st.integers(0, (1 << split) - 1))
            grown.stage({other: (LEAF_KIND, sha256(b"other").digest())})
        if data.draw(st.booleans()):
            grown.rollback()
            assert grown.staged_root == grown.root
        indices, kinds, hashes = grown.stage({prefix: subtree(sorted(bucket), split)})
        assert indices == sorted(set(indices)) and indices[0] == 1
        # readers see the version before until it is applied, and what is told of it is what it was
        assert [grown.node(index) for index in range(1, 2 << split)] == nodes
        told = [(kind, hashes[32 * at : 32 * at + 32]) for at, kind in enumerate(kinds)]
        assert told == [nodes[index - 1] for index in indices]
        grown.apply()
    assert grown.root == tree.root


def test_paths_that_share_many_bits_hash_against_empty_sides() -> None:
    first, second = b"\xab" * 32, b"\xab" * 31 + b"\xaa"
    kind, node = subtree([(second, b"2" * 32), (first, b"1" * 32)], 0)
    expected = sha256(b"\x01" + b"2" * 32 + b"1" * 32).digest()
    for depth in range(254, -1, -1):
        right = first[depth // 8] >> (7 - depth % 8) & 1
        expected = sha256(b"\x01" + (EMPTY + expected if right else expected + EMPTY)).digest()
    assert node == expected
    assert kind != LEAF_KIND
