"""What the state keeps per leaf and per height, byte by byte (docs/spec/state-tree.md).

Leaf record: leaf hash (32) | key length (2, big-endian) | key | value.
Undo record of height h, from which the version before h can be read while the newest stays in place:
    format (4) | n: nodes (4) | m: leaves (4) | n heap indices (4 each), ascending | n kinds (1 each)
    | n hashes (32 each) | m paths (32 each), ascending | m+1 offsets (4 each) | old leaf records, empty for none
Integers of an undo record are in the machine's own order, as all of LMDB's files are.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from freehold.base.errors import check
from freehold.consensus.tree import HASH_BYTES, Leaf, Node
from freehold.crypto.smt import PATH_BYTES, hash_leaf, hash_value

MAX_STATE_KEY_BYTES: Final = 256
MAX_STATE_VALUE_BYTES: Final = 1 << 20
_HEAD = HASH_BYTES + 2
_UNDO_FORMAT: Final = 1


def encode_leaf(path: bytes, key: bytes, value: bytes) -> bytes:
    """Build the record of a key and value; it begins with the leaf's hash.

    Args:
        path: `hash_path(key)`.
        key: 1 to 256 bytes.
        value: 1 byte to 1 MiB; ICS-23 proves nothing about an empty one.
    """
    in_bounds = 0 < len(key) <= MAX_STATE_KEY_BYTES and 0 < len(value) <= MAX_STATE_VALUE_BYTES
    check(in_bounds, "state_key_and_value_lengths")
    return hash_leaf(path, hash_value(value)) + len(key).to_bytes(2, "big") + key + value


def leaf_of(path: bytes, record: bytes) -> Leaf:
    """Read a stored record back."""
    return Leaf(path, record[:HASH_BYTES], record)


def record_key(record: bytes) -> bytes:
    """The key in a record."""
    return record[_HEAD : _HEAD + int.from_bytes(record[HASH_BYTES:_HEAD], "big")]


def record_value(record: bytes | memoryview) -> bytes:
    """The value in a record."""
    return bytes(record[_HEAD + int.from_bytes(record[HASH_BYTES:_HEAD], "big") :])


def encode_undo(indices: Sequence[int], kinds: bytes, hashes: bytes, leaves: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Build the undo record of one height.

    Args:
        indices: heap indices of all nodes that it changed, ascending.
        kinds: theirs before that height.
        hashes: theirs before that height, joined.
        leaves: path and record before that height (empty when there was none) of all that it changed, sorted.
    """
    offsets = array("I", [0])
    end = 0
    for _, record in leaves:
        end += len(record)
        offsets.append(end)
    return b"".join(
        (
            array("I", (_UNDO_FORMAT, len(indices), len(leaves))).tobytes(),
            array("I", indices).tobytes(),
            kinds,
            hashes,
            *[path for path, _ in leaves],
            offsets.tobytes(),
            *[record for _, record in leaves],
        )
    )


class Undo:
    """An undo record, read in place."""

    __slots__ = ("_hashes", "_indices", "_kinds", "_offsets", "_paths", "_records", "leaf_count")

    def __init__(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        form, nodes, leaves = view[:12].cast("I")
        check(form == _UNDO_FORMAT, "undo_format_known", form=form)
        self.leaf_count = leaves
        at = 12
        self._indices = view[at : at + 4 * nodes].cast("I")
        at += 4 * nodes
        self._kinds = view[at : at + nodes]
        at += nodes
        self._hashes = view[at : at + HASH_BYTES * nodes]
        at += HASH_BYTES * nodes
        self._paths = view[at : at + PATH_BYTES * leaves]
        at += PATH_BYTES * leaves
        self._offsets = view[at : at + 4 * leaves + 4].cast("I")
        self._records = view[at + 4 * leaves + 4 :]

    def node(self, index: int) -> Node | None:
        """The node before this height, if this height changed it."""
        at = bisect_left(self._indices, index)
        if at == len(self._indices) or self._indices[at] != index:
            return None
        return self._kinds[at], bytes(self._hashes[HASH_BYTES * at : HASH_BYTES * at + HASH_BYTES])

    def leaves(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Path and record before this height (empty: none) of what it changed, low <= path <= high."""
        at = bisect_left(range(self.leaf_count), low, key=self._path)
        while at < self.leaf_count and (path := self._path(at)) <= high:
            yield path, bytes(self._records[self._offsets[at] : self._offsets[at + 1]])
            at += 1

    def _path(self, at: int) -> bytes:
        return bytes(self._paths[PATH_BYTES * at : PATH_BYTES * at + PATH_BYTES])
