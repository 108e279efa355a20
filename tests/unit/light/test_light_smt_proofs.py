"""State proofs over a plain sparse Merkle tree: what is there is shown, what is not is shown absent, nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from light_chain import Tree

from freehold.base.errors import InvariantError, NotVerifiedError
from freehold.light.ics23 import (
    SMT,
    CommitmentProof,
    ExistenceProof,
    InnerOp,
    LeafOp,
    NonExistenceProof,
    absence,
    decode_proof,
    existence,
    is_left_neighbour,
    smt_existence,
    verify_absence,
    verify_existence,
)

keys = st.binary(min_size=1, max_size=4)
maps = st.dictionaries(keys, st.binary(min_size=1, max_size=8), min_size=1, max_size=24)


def refused(code: str, root: bytes, key: bytes, value: bytes | None, proof: CommitmentProof) -> None:
    with pytest.raises(NotVerifiedError) as caught:
        if value is None:
            verify_absence(SMT, root, key, proof)
        else:
            verify_existence(SMT, root, key, value, proof)
    assert caught.value.code == code


@settings(deadline=None, max_examples=60)
@given(values=maps, key=keys)
def test_each_key_has_exactly_one_story(values: dict[bytes, bytes], key: bytes) -> None:
    tree = Tree(values)
    proof = decode_proof(tree.prove(key).encode())
    if key in values:
        verify_existence(SMT, tree.root, key, values[key], proof)
        refused("proof_value", tree.root, key, values[key] + b"x", proof)
        refused("proof_kind", tree.root, key, None, proof)
    else:
        verify_absence(SMT, tree.root, key, proof)
        refused("proof_kind", tree.root, key, b"x", proof)
    refused("proof_root", bytes(32), key, values.get(key), proof)


@settings(deadline=None, max_examples=60)
@given(values=maps, data=st.data())
def test_no_pair_of_proofs_hides_a_key_that_is_there(values: dict[bytes, bytes], data: st.DataObject) -> None:
    tree = Tree(values)
    sides = st.none() | st.sampled_from(tree.keys).map(tree.exist)
    key, left, right = data.draw(st.sampled_from(tree.keys)), data.draw(sides), data.draw(sides)
    if left is not None or right is not None:
        with pytest.raises(NotVerifiedError):
            verify_absence(SMT, tree.root, key, absence(key, left, right))


TREE = Tree({bytes([n]): b"value" for n in range(40)})
KEY = bytes([7])
PROOF = TREE.exist(KEY)


def test_a_tree_of_one_key() -> None:
    tree = Tree({b"only": b"one"})
    assert tree.exist(b"only").path == ()
    verify_existence(SMT, tree.root, b"only", b"one", tree.prove(b"only"))
    verify_absence(SMT, tree.root, b"other", tree.prove(b"other"))
    refused("proof_neighbours", tree.root, b"only", None, absence(b"only", tree.exist(b"only"), None))


def test_operations_that_are_not_the_trees_are_refused() -> None:
    leaf, path = PROOF.leaf, PROOF.path
    assert leaf is not None
    first = path[0]
    wrong: list[ExistenceProof] = [
        ExistenceProof(KEY, b"value", None, path),
        ExistenceProof(KEY, b"value", LeafOp(2, 1, 1, 0, b"\x00"), path),
        ExistenceProof(KEY, b"value", LeafOp(1, 0, 1, 0, b"\x00"), path),
        ExistenceProof(KEY, b"value", LeafOp(1, 1, 1, 1, b"\x00"), path),
        ExistenceProof(KEY, b"value", LeafOp(1, 1, 1, 0, b"\x00\x00"), path),
        ExistenceProof(KEY, b"value", LeafOp(1, 1, 1, 0, b""), path),
        ExistenceProof(KEY, b"value", leaf, (InnerOp(2, first.prefix, first.suffix), *path[1:])),
        ExistenceProof(KEY, b"value", leaf, (InnerOp(1, b"\x00" + first.prefix[1:], first.suffix), *path[1:])),
        ExistenceProof(KEY, b"value", leaf, (InnerOp(1, b"\x01", b""), *path[1:])),
        ExistenceProof(KEY, b"value", leaf, (InnerOp(1, b"\x01", bytes(64)), *path[1:])),
        ExistenceProof(KEY, b"value", leaf, (InnerOp(1, b"\x01" * 33, bytes(32)), *path[1:])),
        ExistenceProof(KEY, b"value", leaf, path * 64),
    ]
    for proof in wrong:
        refused("proof_spec", TREE.root, KEY, b"value", existence(proof))


def test_neighbours_must_touch() -> None:
    places = TREE.keys
    middle = places[20]
    between = Tree({key: b"value" for key in places if key != middle})
    left, right = between.exist(places[19]), between.exist(places[21])
    verify_absence(SMT, between.root, middle, absence(middle, left, right))
    for pair in (
        (between.exist(places[18]), right),
        (left, between.exist(places[22])),
        (right, left),
        (left, left),
        (left, None),
        (None, right),
    ):
        refused("proof_neighbours", between.root, middle, None, absence(middle, *pair))
    refused("proof_root", between.root, middle, None, absence(middle, TREE.exist(places[19]), right))
    assert not is_left_neighbour(SMT.inner_spec, left.path, left.path)
    assert not is_left_neighbour(SMT.inner_spec, (), ())
    assert is_left_neighbour(SMT.inner_spec, left.path, right.path)
    assert not is_left_neighbour(SMT.inner_spec, right.path, left.path)
    left_step = InnerOp(1, b"\x01", bytes(32))
    assert not is_left_neighbour(SMT.inner_spec, (left_step,), (InnerOp(1, b"\x01", bytes([1]) * 32),))


def test_an_absence_proof_without_neighbours_is_refused() -> None:
    empty = CommitmentProof(nonexist=NonExistenceProof(KEY))
    refused("proof_neighbours", TREE.root, KEY, None, empty)
    with pytest.raises(InvariantError):
        absence(KEY, None, None)
    with pytest.raises(InvariantError):
        smt_existence(b"", b"v", [])
    with pytest.raises(InvariantError):
        smt_existence(b"k", b"v", [bytes(32)] * 257)
