"""ICS-23 `CommitmentProof`s of the state tree, written straight in their protobuf form.

Every leaf has the same leaf operation and every inner node one of two forms, so a proof is its key, its value and
constants around the sibling hashes. `freehold.light.ics23` reads them; tests hold both to one byte form.
Source: cosmos/ics23 proofs.proto; docs/spec/state-tree.md.
"""

from typing import Final

from freehold.base.errors import check
from freehold.consensus.records import record_key, record_value
from freehold.consensus.tree import Leaf, TreeView, bit, find, neighbour, siblings
from freehold.crypto.smt import hash_path
from freehold.light.wire import length_delimited

# LeafOp {hash: SHA256, prehash_key: SHA256, prehash_value: SHA256, length: NO_PREFIX, prefix: 0x00}, as field 3
_LEAF_OP: Final = bytes.fromhex("1a09 0801 1001 1801 2a0100")
# InnerOp {hash: SHA256, prefix: 0x01, suffix: sibling} and {hash: SHA256, prefix: 0x01 || sibling}, as field 4
_WE_ARE_LEFT: Final = bytes.fromhex("2227 0801 120101 1a20")
_WE_ARE_RIGHT: Final = bytes.fromhex("2225 0801 122101")


def prove(view: TreeView, key: bytes) -> tuple[bytes | None, bytes]:
    """Prove what a version of the map holds under a key.

    Args:
        view: the version.
        key: at least 1 byte.

    Returns:
        The value, or None, and the encoded `CommitmentProof` of its presence or absence. The empty map has no
        proof of absence in ICS-23: the second is then empty.
    """
    path = hash_path(key)
    leaf = find(view, path)
    if leaf is not None:
        return record_value(leaf.record), b"\x0a" + length_delimited(_existence(view, leaf))
    left = neighbour(view, path, right=False)
    right = neighbour(view, path, right=True)
    if left is None and right is None:
        return None, b""
    out = b"\x0a" + length_delimited(key)
    if left is not None:
        out += b"\x12" + length_delimited(_existence(view, left))
    if right is not None:
        out += b"\x1a" + length_delimited(_existence(view, right))
    return None, b"\x12" + length_delimited(out)


def _existence(view: TreeView, leaf: Leaf) -> bytes:
    key, value = record_key(leaf.record), record_value(leaf.record)
    check(hash_path(key) == leaf.path, "leaf_key_matches_path")
    parts = [b"\x0a", length_delimited(key), b"\x12", length_delimited(value), _LEAF_OP]
    beside = siblings(view, leaf.path)
    for depth in range(len(beside) - 1, -1, -1):
        parts += (_WE_ARE_RIGHT if bit(leaf.path, depth) else _WE_ARE_LEFT, beside[depth])
    return b"".join(parts)
