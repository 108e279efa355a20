"""The sparse Merkle map: how leaves hash up to one root, and how a root is walked to prove a key.

The map is split at a fixed depth. Above it stands a heap of nodes in memory (`UpperTree`: node 1 is the root, node i
has children 2i and 2i+1); below each heap leaf lies a *bucket*, the few leaves whose paths share that prefix, hashed
anew whenever one of them changes. A node is (kind, hash); a subtree with one leaf *is* that leaf, so the root depends
on keys and values alone, neither on their order nor on the split.

Nothing here reads or writes: leaves come in as sorted lists. Spec: docs/spec/state-tree.md.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from freehold.base.errors import check
from freehold.crypto.smt import EMPTY, INNER_PREFIX, MAX_DEPTH, PATH_BYTES, hash_inner

EMPTY_KIND: Final = 0
LEAF_KIND: Final = 1
INNER_KIND: Final = 2

Node = tuple[int, bytes]
EMPTY_NODE: Final[Node] = (EMPTY_KIND, EMPTY)
MAX_SPLIT: Final = 24
HASH_BYTES: Final = 32
_LOWEST: Final = bytes(PATH_BYTES - 3)
_HIGHEST: Final = b"\xff" * (PATH_BYTES - 3)


class Leaf(NamedTuple):
    """A leaf as trees see it.

    Attributes:
        path: `hash_path(key)`, 32 bytes.
        hash: `hash_leaf(path, hash_value(value))`, 32 bytes.
        record: the stored record (see `freehold.consensus.records`).
    """

    path: bytes
    hash: bytes
    record: bytes


class Overwritten(NamedTuple):
    """Nodes as they were before a change.

    Attributes:
        indices: heap indices, ascending.
        kinds: one byte each.
        hashes: 32 bytes each, joined.
    """

    indices: list[int]
    kinds: bytes
    hashes: bytes


class _Level(NamedTuple):
    """Nodes of one level as they were before a change, by ascending heap index."""

    indices: list[int]
    kinds: bytes
    hashes: list[bytes]


class TreeView(Protocol):
    """One version of the map: what a walk needs."""

    @property
    def split(self) -> int:
        """Depth at which buckets hang."""

    def node(self, index: int) -> Node:
        """The node at a heap index, 1 <= index < 2^(split+1)."""

    def bucket(self, prefix: int) -> list[Leaf]:
        """The leaves whose paths begin with `split` bits of prefix, sorted by path."""


def join(left: Node, right: Node) -> Node:
    """Give the parent of two nodes."""
    kinds = left[0] + right[0]
    if kinds >= INNER_KIND:
        return INNER_KIND, hash_inner(left[1], right[1])
    if kinds:
        return left if left[0] else right
    return EMPTY_NODE


def bit(path: bytes, depth: int) -> int:
    """The bit that chooses the child at depth: 0 left, 1 right."""
    return path[depth >> 3] >> (7 - (depth & 7)) & 1


def subtree(leaves: Sequence[tuple[bytes, bytes]], depth: int) -> Node:
    """Hash the subtree of leaves below one node.

    Args:
        leaves: (path, leaf hash), sorted by path, distinct, all sharing their first `depth` bits.
        depth: 0 <= depth <= 256.
    """
    count = len(leaves)
    if count == 0:
        return EMPTY_NODE
    if count == 1:
        return LEAF_KIND, leaves[0][1]
    check(depth < MAX_DEPTH, "tree_paths_distinct", depth=depth)
    middle = _first_right(leaves, depth)
    if count == 2 and middle == 1:
        return INNER_KIND, hash_inner(leaves[0][1], leaves[1][1])
    return join(subtree(leaves[:middle], depth + 1), subtree(leaves[middle:], depth + 1))


def _first_right(leaves: Sequence[tuple[bytes, ...]], depth: int) -> int:
    byte, mask = depth >> 3, 0x80 >> (depth & 7)
    for at, leaf in enumerate(leaves):
        if leaf[0][byte] & mask:
            return at
    return len(leaves)


class UpperTree:
    """The nodes above the buckets, in memory: a list of hashes and an array of kinds, both by heap index.

    `stage` writes the next version in place and keeps what it overwrites: until `apply`, readers see that. A reader may
    not look while `stage` runs.

    Attributes:
        split: depth at which buckets hang, 1 <= split <= 24; there are `2^(split+1)` nodes.
    """

    __slots__ = ("_before", "_hashes", "_kinds", "split")

    def __init__(self, split: int) -> None:
        check(1 <= split <= MAX_SPLIT, "tree_split_in_range", split=split)
        self.split = split
        self._hashes = [EMPTY] * (2 << split)
        self._kinds = bytearray(2 << split)
        self._before: list[_Level] = []  # what `stage` overwrote, the highest level first

    @property
    def root(self) -> bytes:
        """The root hash, 32 bytes; `EMPTY` for the empty map."""
        return self.node(1)[1]

    @property
    def staged_root(self) -> bytes:
        """The root hash that the last `stage` led to."""
        return self._hashes[1]

    def node(self, index: int) -> Node:
        """The node at a heap index."""
        if self._before:
            level = self._before[index.bit_length() - 1]
            at = bisect_left(level.indices, index)
            if at < len(level.indices) and level.indices[at] == index:
                return level.kinds[at], level.hashes[at]
        return self._kinds[index], self._hashes[index]

    def rebuild(self, leaves: Iterable[tuple[bytes, bytes]]) -> None:
        """Fill the empty tree from all leaves, sorted by path."""
        buckets: dict[int, Node] = {}
        pending: list[tuple[bytes, bytes]] = []
        current = -1
        for leaf in leaves:
            prefix = path_prefix(leaf[0], self.split)
            if prefix != current:
                if pending:
                    buckets[current] = subtree(pending, self.split)
                pending, current = [], prefix
            pending.append(leaf)
        if pending:
            buckets[current] = subtree(pending, self.split)
        self.stage(buckets)
        self.apply()

    def stage(self, buckets: Mapping[int, Node]) -> Overwritten:
        """Compute the tree that changed buckets lead to; forgets what was staged before.

        Args:
            buckets: the new node of each touched bucket, by prefix.

        Returns:
            All nodes that may differ, as they were.
        """
        self.rollback()
        before = self._before
        try:
            self._fill(buckets, before)
        except BaseException:
            self.rollback()
            raise
        before.reverse()
        # the heap numbers its levels from the top, so this is ascending
        return Overwritten(
            [index for level in before for index in level.indices],
            b"".join([level.kinds for level in before]),
            b"".join([piece for level in before for piece in level.hashes]),
        )

    def _fill(self, buckets: Mapping[int, Node], before: "list[_Level]") -> None:
        hashes, kinds, first = self._hashes, self._kinds, 1 << self.split
        level = sorted([first + prefix for prefix in buckets])
        before.append(_Level(level, bytes([kinds[index] for index in level]), [hashes[index] for index in level]))
        for index in level:
            kinds[index], hashes[index] = buckets[index - first]
        for _ in range(self.split):
            level = list(dict.fromkeys([index >> 1 for index in level]))
            before.append(_Level(level, bytes([kinds[index] for index in level]), [hashes[index] for index in level]))
            # `join`, written out: this loop runs ten times for each changed leaf
            for index in level:
                child = 2 * index
                count = kinds[child] + kinds[child + 1]
                if count >= INNER_KIND:
                    kinds[index] = INNER_KIND
                    hashes[index] = sha256(INNER_PREFIX + hashes[child] + hashes[child + 1]).digest()
                else:
                    kinds[index] = count
                    hashes[index] = hashes[child] if kinds[child] else hashes[child + 1]

    def apply(self) -> None:
        """Become what `stage` computed."""
        self._before = []

    def rollback(self) -> None:
        """Forget what `stage` computed."""
        for level in self._before:
            for index, kind, node_hash in zip(level.indices, level.kinds, level.hashes, strict=True):
                self._kinds[index], self._hashes[index] = kind, node_hash
        self._before = []


def path_prefix(path: bytes, split: int) -> int:
    """The first `split` (at most 24) bits of a path, as a number."""
    return int.from_bytes(path[:3], "big") >> (24 - split)


def bucket_bounds(prefix: int, split: int) -> tuple[bytes, bytes]:
    """The lowest and highest path of a bucket, both included."""
    low = prefix << 24 - split
    return low.to_bytes(3, "big") + _LOWEST, (low | (1 << 24 - split) - 1).to_bytes(3, "big") + _HIGHEST


def find(view: TreeView, path: bytes) -> Leaf | None:
    """The leaf at a path, if the map holds it."""
    for leaf in view.bucket(path_prefix(path, view.split)):
        if leaf.path == path:
            return leaf
    return None


def siblings(view: TreeView, path: bytes) -> list[bytes]:
    """The hashes beside the way from the root to the leaf at path, root's child first.

    The path must be in the map. The length of the list is the depth of the leaf; empty subtrees are `EMPTY`.
    """
    out: list[bytes] = []
    split = view.split
    prefix = path_prefix(path, split)
    index = 1
    for depth in range(split):
        if view.node(index)[0] != INNER_KIND:
            return out
        index = 2 * index + (prefix >> (split - 1 - depth) & 1)
        out.append(view.node(index ^ 1)[1])
    below: Sequence[Leaf] = view.bucket(prefix)
    depth = split
    while len(below) > 1:
        middle = _first_right(below, depth)
        left, right = below[:middle], below[middle:]
        if bit(path, depth):
            left, right = right, left
        depth += 1
        out.append(subtree([(leaf.path, leaf.hash) for leaf in right], depth)[1])
        below = left
    check(len(below) == 1 and below[0].path == path, "tree_siblings_of_present_path")
    return out


def neighbour(view: TreeView, path: bytes, *, right: bool) -> Leaf | None:
    """The nearest leaf on one side of a path that is not in the map, or None at the edge."""
    split = view.split
    prefix = path_prefix(path, split)
    bucket = view.bucket(prefix)
    beside = [leaf for leaf in bucket if (leaf.path > path if right else leaf.path < path)]
    if beside:
        return beside[0 if right else -1]
    index = (1 << split) + prefix
    while index > 1:
        if index & 1 != right and view.node(index ^ 1)[0] != EMPTY_KIND:
            return _edge(view, index ^ 1, leftmost=right)
        index >>= 1
    return None


def _edge(view: TreeView, index: int, *, leftmost: bool) -> Leaf:
    first = 1 << view.split
    while index < first:
        near = 2 * index + (0 if leftmost else 1)
        index = near if view.node(near)[0] != EMPTY_KIND else near ^ 1
    bucket = view.bucket(index - first)
    check(bool(bucket), "tree_nonempty_node_has_leaves", index=index)
    return bucket[0 if leftmost else -1]
