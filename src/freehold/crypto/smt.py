"""The hashing of a sparse Merkle tree in the form of ICS-23's `SmtSpec`, shared by the tree and its verifiers.

A key's place is the path `sha256(key)`, 256 bits read from the highest; a subtree with one key is that key's leaf.
    leaf  = sha256(0x00 || sha256(key) || sha256(value))
    inner = sha256(0x01 || left || right), an empty side being 32 zero bytes
Spec: docs/spec/hashes.md. Source: cosmos/ics23 `SmtSpec` (prehash key and value SHA-256, no length prefix,
prehash_key_before_comparison, child size 32, prefix of one byte, depth <= 256).
"""

from hashlib import sha256
from typing import Final

PATH_BYTES: Final = 32
MAX_DEPTH: Final = 256
LEAF_PREFIX: Final = b"\x00"
INNER_PREFIX: Final = b"\x01"
EMPTY: Final = bytes(32)  # the hash of an empty subtree, and the root of an empty tree


def hash_path(key: bytes) -> bytes:
    """Give the path of a key: 32 bytes."""
    return sha256(key).digest()


def hash_value(value: bytes) -> bytes:
    """Give the hash of a value as it goes into its leaf: 32 bytes."""
    return sha256(value).digest()


def hash_leaf(path: bytes, value_hash: bytes) -> bytes:
    """Hash a leaf.

    Args:
        path: `hash_path(key)`.
        value_hash: `hash_value(value)`.
    """
    return sha256(LEAF_PREFIX + path + value_hash).digest()


def hash_inner(left: bytes, right: bytes) -> bytes:
    """Hash an inner node of two 32-byte children, of which an empty one is `EMPTY`."""
    return sha256(INNER_PREFIX + left + right).digest()
