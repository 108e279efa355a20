"""RFC 6962 Merkle trees exactly as CometBFT builds them: header fields, transactions, validators, results, parts.

    leaf = sha256(0x00 || item); inner = sha256(0x01 || left || right); no items: sha256("")
The left subtree of n items holds the largest power of two below n, which is the same as pairing from the left, level
by level, and passing an odd last node up unchanged (never doubled).
Spec: docs/spec/hashes.md. Source: RFC 6962 section 2.1; CometBFT crypto/merkle.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from freehold.base.codec import Record
from freehold.base.errors import check

MAX_AUNTS: Final = 64
EMPTY_HASH: Final = sha256(b"").digest()


class Proof(Record, frozen=True):
    """That an item stands at an index of a tree.

    Attributes:
        total: number of items in the tree, at least 1.
        index: place of the item, from 0.
        leaf_hash: 32 bytes.
        aunts: the siblings on the way to the root, the leaf's own first; 32 bytes each.
    """

    total: int
    index: int
    leaf_hash: bytes
    aunts: tuple[bytes, ...]


def hash_leaf(item: bytes) -> bytes:
    """Hash an item as a leaf."""
    return sha256(b"\x00" + item).digest()


def hash_inner(left: bytes, right: bytes) -> bytes:
    """Hash two 32-byte children."""
    return sha256(b"\x01" + left + right).digest()


def hash_from_byte_slices(items: Sequence[bytes]) -> bytes:
    """Give the 32-byte root over items, in order."""
    level = [hash_leaf(item) for item in items]
    while len(level) > 1:
        level = _parents(level)
    return level[0] if level else EMPTY_HASH


def prove(items: Sequence[bytes], index: int) -> Proof:
    """Build the proof of one item.

    Args:
        items: all items, at least one.
        index: which of them.

    Raises:
        InvariantError: there is no such item.
    """
    check(0 <= index < len(items), "merkle_index_in_range", index=index, total=len(items))
    level = [hash_leaf(item) for item in items]
    leaf_hash, place = level[index], index
    aunts: list[bytes] = []
    while len(level) > 1:
        sibling = place ^ 1
        if sibling < len(level):
            aunts.append(level[sibling])
        level, place = _parents(level), place >> 1
    return Proof(len(items), index, leaf_hash, tuple(aunts))


def verify(root: bytes, proof: Proof, item: bytes) -> bool:
    """Whether a proof shows that item stands at `proof.index` among `proof.total` items under root."""
    if not 0 <= proof.index < proof.total or len(proof.aunts) > MAX_AUNTS:
        return False
    if any(len(aunt) != len(root) for aunt in proof.aunts) or proof.leaf_hash != hash_leaf(item):
        return False
    node, place, width = proof.leaf_hash, proof.index, proof.total
    aunts = iter(proof.aunts)
    while width > 1:
        if place ^ 1 < width:
            aunt = next(aunts, None)
            if aunt is None:
                return False
            node = hash_inner(aunt, node) if place & 1 else hash_inner(node, aunt)
        place, width = place >> 1, (width + 1) >> 1
    return next(aunts, None) is None and node == root


def _parents(level: list[bytes]) -> list[bytes]:
    pairs = [hash_inner(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    return pairs + level[-1:] if len(level) & 1 else pairs
