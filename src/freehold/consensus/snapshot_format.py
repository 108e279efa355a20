"""A snapshot of the state, byte by byte: chunks of leaves in the order of their paths, and the metadata about them.

    chunk    = records, whole, joined; record = key length (2) | value length (4) | key | value   (big end first)
    metadata = canonical array of `SnapshotMetadata`

The metadata holds a hash of each chunk, and the nodes of the state's tree at depth 10, which hash up to the app hash.
So a forged list of chunks is found at the end of its first forged subtree, and never believed.
Nothing here reads or writes files. Spec: docs/spec/snapshots.md.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from msgspec import Meta

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import CodecError, RemoteProtocolError, check
from freehold.base.limits import KIB, MAX_CHAIN_ID_BYTES, MIB
from freehold.consensus.records import MAX_STATE_KEY_BYTES, MAX_STATE_VALUE_BYTES
from freehold.consensus.tree import (
    EMPTY_KIND,
    EMPTY_NODE,
    HASH_BYTES,
    INNER_KIND,
    LEAF_KIND,
    Node,
    bit,
    join,
    path_prefix,
)
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.crypto.smt import MAX_DEPTH

SNAPSHOT_FORMAT: Final = 1
DEPTH: Final = 10
NODES: Final = 1 << DEPTH
CHUNK_BYTES: Final = 4 * MIB  # 1 s at the engine's own 5 MB/s
MIN_CHUNK_BYTES: Final = 64 * KIB  # as an operator may choose it; a longer record has a chunk of its own
MAX_CHUNKS: Final = 65_536
MAX_METADATA_BYTES: Final = MAX_CHUNKS * (HASH_BYTES + 2) + NODES * (HASH_BYTES + 1) + 4 * KIB  # the engine takes 4 MB
_HEAD_BYTES: Final = 6

Hash = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]


class SnapshotMetadata(Record):
    """What a snapshot is of, and what it consists of.

    Attributes:
        format: 1.
        chain_id: of the ledger.
        height: the state is the one after this block.
        app_hash: root of the state; stands in the header at height + 1.
        leaves: how many keys.
        kinds: of the tree's nodes at depth 10, one byte each.
        node_hashes: of those that are not empty, joined.
        chunks: hash of each chunk, in order.
    """

    format: int
    chain_id: Annotated[str, Meta(min_length=1, max_length=MAX_CHAIN_ID_BYTES)]
    height: Annotated[int, Meta(ge=0)]
    app_hash: Hash
    leaves: Annotated[int, Meta(ge=0)]
    kinds: Annotated[bytes, Meta(min_length=NODES, max_length=NODES)]
    node_hashes: Annotated[bytes, Meta(max_length=NODES * HASH_BYTES)]
    chunks: Annotated[list[Hash], Meta(max_length=MAX_CHUNKS)]

    def nodes(self) -> list[Node]:
        """Give the nodes at depth 10, left to right.

        Raises:
            RemoteProtocolError: `bad_snapshot`: kinds and hashes do not fit, or do not hash up to the app hash.
        """
        nodes, at = [], 0
        for kind in self.kinds:
            if kind == EMPTY_KIND:
                nodes.append(EMPTY_NODE)
                continue
            nodes.append((kind, self.node_hashes[at : at + HASH_BYTES]))
            at += HASH_BYTES
        known = set(self.kinds) <= {EMPTY_KIND, LEAF_KIND, INNER_KIND}
        if not known or at != len(self.node_hashes) or root_of(nodes) != self.app_hash:
            raise bad_snapshot("its nodes do not hash to the app hash")
        return nodes


def root_of(nodes: Sequence[Node]) -> bytes:
    """Hash the nodes of one level, a power of two of them, up to the root."""
    level = list(nodes)
    while len(level) > 1:
        level = [join(level[at], level[at + 1]) for at in range(0, len(level), 2)]
    return level[0][1]


def describe(
    chain_id: str, height: int, app_hash: bytes, leaves: int, nodes: Sequence[Node], chunks: list[bytes]
) -> SnapshotMetadata:
    """Build the metadata of a snapshot that was written."""
    return SnapshotMetadata(
        format=SNAPSHOT_FORMAT,
        chain_id=chain_id,
        height=height,
        app_hash=app_hash,
        leaves=leaves,
        kinds=bytes([kind for kind, _ in nodes]),
        node_hashes=b"".join([value for kind, value in nodes if kind != EMPTY_KIND]),
        chunks=chunks,
    )


def encode_metadata(metadata: SnapshotMetadata) -> bytes:
    """Write metadata."""
    return encode(metadata)


def decode_metadata(data: bytes) -> SnapshotMetadata:
    """Read metadata; whether its nodes lead to the app hash is for `nodes` to say.

    Raises:
        CodecError: too long, malformed, or of another format.
    """
    metadata = decode(data, SnapshotMetadata, max_bytes=MAX_METADATA_BYTES)
    if metadata.format != SNAPSHOT_FORMAT:
        raise CodecError(f"snapshot format {metadata.format}", code="unknown_format")
    return metadata


def snapshot_hash(metadata: bytes) -> bytes:
    """Name a snapshot: two of one name are the same, byte for byte."""
    return tagged_hash(Purpose.SNAPSHOT, metadata)


def chunk_hash(chunk: bytes) -> bytes:
    """Hash a chunk, as the metadata names it."""
    return tagged_hash(Purpose.SNAPSHOT_CHUNK, chunk)


def encode_record(key: bytes, value: bytes) -> bytes:
    """Write one key and value of a chunk."""
    return len(key).to_bytes(2, "big") + len(value).to_bytes(4, "big") + key + value


def decode_chunk(chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read the keys and values of a chunk.

    Raises:
        RemoteProtocolError: `bad_snapshot`: it is longer than a chunk, a length is out of bounds, or a record is cut.
    """
    at, end = 0, len(chunk)
    if end > CHUNK_BYTES:
        raise bad_snapshot(f"a chunk of {end} bytes, at most {CHUNK_BYTES} allowed")
    while at < end:
        key_bytes = int.from_bytes(chunk[at : at + 2], "big")
        value_bytes = int.from_bytes(chunk[at + 2 : at + _HEAD_BYTES], "big")
        first = at + _HEAD_BYTES
        at = first + key_bytes + value_bytes
        in_bounds = 1 <= key_bytes <= MAX_STATE_KEY_BYTES and 1 <= value_bytes <= MAX_STATE_VALUE_BYTES
        if not in_bounds or at > end:
            raise bad_snapshot("a record of a chunk is malformed")
        yield chunk[first : first + key_bytes], chunk[first + key_bytes : at]


class NodeFold:
    """Folds leaves, given in the order of their paths, into the nodes at depth 10.

    What it holds does not grow with the leaves, for a liar may put any number of them below one node: the last leaf,
    and at each depth at most one finished left sibling.

    Attributes:
        leaves: how many were given.
    """

    def __init__(self) -> None:
        self._left: list[tuple[int, Node]] = []  # depth of the parent, left child; the deepest last
        self._last = b""
        self._leaf: Node = EMPTY_NODE  # at the path `_last`
        self.leaves = 0

    def add(self, path: bytes, leaf_hash: bytes) -> tuple[int, Node] | None:
        """Take the next leaf.

        Returns:
            Index and node of a subtree that this leaf shows to be whole, if it does.

        Raises:
            RemoteProtocolError: `bad_snapshot`: it does not come after the one before.
        """
        if path <= self._last:
            raise bad_snapshot("its keys are not in order, or one stands twice")
        done = None
        if self._leaf[0]:
            fork = _first_difference(self._last, path)
            if fork < DEPTH:
                done = self.finish()
            else:
                self._left.append((fork, self._close(fork + 1)))
        self._last, self._leaf = path, (LEAF_KIND, leaf_hash)
        self.leaves += 1
        return done

    def finish(self) -> tuple[int, Node] | None:
        """Give the subtree of the leaves since the last one that was given, if there are any."""
        if not self._leaf[0]:
            return None
        node = self._close(DEPTH)
        check(not self._left, "fold_one_prefix")
        self._leaf = EMPTY_NODE
        return path_prefix(self._last, DEPTH), node

    def _close(self, depth: int) -> Node:
        """Give the node at a depth above the last leaf: nothing further right is below it."""
        node, at = self._leaf, MAX_DEPTH
        while self._left and self._left[-1][0] >= depth:
            parent, left = self._left.pop()
            node, at = join(left, _raise(node, self._last, at, parent + 1)), parent
        return _raise(node, self._last, at, depth)


def _first_difference(one: bytes, two: bytes) -> int:
    """The depth at which two different paths part."""
    return MAX_DEPTH - (int.from_bytes(one, "big") ^ int.from_bytes(two, "big")).bit_length()


def _raise(node: Node, path: bytes, start: int, end: int) -> Node:
    """Give the node at a depth `end` above one at a depth `start` whose siblings on the way are empty."""
    if node[0] == LEAF_KIND:
        return node
    for depth in range(start - 1, end - 1, -1):
        node = join(EMPTY_NODE, node) if bit(path, depth) else join(node, EMPTY_NODE)
    return node


def bad_snapshot(why: str) -> RemoteProtocolError:
    """Build the error of a snapshot that is not what it says."""
    return RemoteProtocolError(
        f"the snapshot is refused: {why}", code="bad_snapshot", hint="nothing was kept of it; another one is tried"
    )
