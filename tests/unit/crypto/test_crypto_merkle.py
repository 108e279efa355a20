"""RFC 6962 trees: the recursive definition, proofs, and forged proofs."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.codec import decode, encode
from freehold.base.errors import InvariantError
from freehold.crypto import merkle
from freehold.crypto.merkle import Proof, hash_from_byte_slices, prove, verify


def model(items: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word by word."""
    if not items:
        return hashlib.sha256(b"").digest()
    if len(items) == 1:
        return hashlib.sha256(b"\x00" + items[0]).digest()
    split = 1 << (len(items) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + model(items[:split]) + model(items[split:])).digest()


@pytest.mark.parametrize("count", [*range(35), 64, 100, 127, 128, 129])
def test_roots_and_proofs_of_every_size(count: int) -> None:
    items = [bytes([number]) * (number % 5) for number in range(count)]
    root = hash_from_byte_slices(items)
    assert root == model(items)
    for index, item in enumerate(items):
        proof = prove(items, index)
        assert verify(root, proof, item)
        assert decode(encode(proof), Proof) == proof
        assert not verify(root, proof, item + b"x")
        for total in range(index + 1, count + 3):
            other = Proof(total, index, proof.leaf_hash, proof.aunts)
            # a path of one shape shows the same place in trees of several sizes, as in CometBFT; never another index
            assert not verify(root, other, item) or len(prove([b""] * total, index).aunts) == len(proof.aunts)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40, unique=True), st.data())
def test_a_changed_proof_is_refused(items: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(items) - 1))
    root, proof = hash_from_byte_slices(items), prove(items, index)
    wrong = data.draw(st.integers(-2, len(items) + 2))
    if wrong != index:
        moved = Proof(proof.total, wrong, proof.leaf_hash, proof.aunts)
        assert not verify(root, moved, items[index])
    extra = data.draw(st.binary(min_size=32, max_size=32))
    for aunts in (proof.aunts[:-1] if proof.aunts else (extra,), (*proof.aunts, extra), (extra, *proof.aunts)):
        assert not verify(root, Proof(proof.total, index, proof.leaf_hash, aunts), items[index])


def test_an_inner_node_is_no_item() -> None:
    items = [b"a", b"b", b"c", b"d"]
    root = hash_from_byte_slices(items)
    left = merkle.hash_leaf(b"a") + merkle.hash_leaf(b"b")
    aunt = hash_from_byte_slices(items[2:])
    assert not verify(root, Proof(2, 0, merkle.hash_inner(left[:32], left[32:]), (aunt,)), left)
    assert hash_from_byte_slices([left, merkle.hash_leaf(b"c") + merkle.hash_leaf(b"d")]) != root


def test_an_odd_leaf_is_not_doubled() -> None:
    assert hash_from_byte_slices([b"a", b"b", b"c"]) != hash_from_byte_slices([b"a", b"b", b"c", b"c"])


def test_odd_shapes_are_refused() -> None:
    root = hash_from_byte_slices([b"a"])
    good = prove([b"a"], 0)
    assert verify(root, good, b"a")
    for total, index in ((0, 0), (-1, 0), (1, 1), (1, -1), (1 << 80, 0)):
        assert not verify(root, Proof(total, index, good.leaf_hash, ()), b"a")
    assert not verify(root, Proof(1 << 70, 0, good.leaf_hash, (bytes(32),) * 70), b"a")
    assert not verify(root, Proof(2, 0, good.leaf_hash, (b"short",)), b"a")
    with pytest.raises(InvariantError):
        prove([b"a"], 1)
    with pytest.raises(InvariantError):
        prove([], 0)
