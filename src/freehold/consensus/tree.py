"""The sparse Merkle map: how leaves hash up to one root, and how a root is walked to prove a key.

The map is split at a fixed depth. Above it stands a heap of nodes in memory (`UpperTree`: node 1 is the root, node i
has children 2i and 2i+1); below each heap leaf lies a *bucket*, the few leaves whose paths share that prefix, hashed
anew whenever one of them changes. A node is (kind, hash); a subtree with one leaf *is* that leaf, so the root depends
on keys and values alone, neither on their order nor on the split.

Nothing here reads or writes: leaves come in as sorted lists. Spec: docs/spec/state-tree.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from freehold.base.errors import check
from freehold.crypto.smt import EMPTY, MAX_DEPTH, PATH_BYTES, hash_inner

EMPTY_KIND: Final = 0
LEAF_KIND: Final = 1
INNER_KIND: Final = 2

Node = tuple[int, bytes]
EMPTY_NODE: Final[Node] = (EMPTY_KIND, EMPTY)
MAX_SPLIT: Final = 24


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
    """The nodes above the buckets, in memory.

    Attributes:
        split: depth at which buckets hang, 1 <= split <= 24; `2^(split+1)` nodes are held.
    """

    __slots__ = ("_nodes", "split")

    def __init__(self, split: int) -> None:
        check(1 <= split <= MAX_SPLIT, "tree_split_in_range", split=split)
        self.split = split
        self._nodes: list[Node] = [EMPTY_NODE] * (2 << split)

    @property
    def root(self) -> bytes:
        """The root hash, 32 bytes; `EMPTY` for the empty map."""
        return self._nodes[1][1]

    def node(self, index: int) -> Node:
        """The node at a heap index."""
        return self._nodes[index]

    def nodes(self, indices: Iterable[int]) -> dict[int, Node]:
        """The nodes at some heap indices."""
        nodes = self._nodes
        return {index: nodes[index] for index in indices}

    def rebuild(self, leaves: Iterable[tuple[bytes, bytes]]) -> None:
        """Fill the tree from all leaves, sorted by path."""
        nodes: list[Node] = [EMPTY_NODE] * (2 << self.split)
        first = 1 << self.split
        pending: list[tuple[bytes, bytes]] = []
        current = -1
        for leaf in leaves:
            prefix = path_prefix(leaf[0], self.split)
            if prefix != current:
                if pending:
                    nodes[first + current] = subtree(pending, self.split)
                pending, current = [], prefix
            pending.append(leaf)
        if pending:
            nodes[first + current] = subtree(pending, self.split)
        for index in range(first - 1, 0, -1):
            nodes[index] = join(nodes[2 * index], nodes[2 * index + 1])
        self._nodes = nodes

    def stage(self, buckets: Mapping[int, Node]) -> dict[int, Node]:
        """Compute all nodes that change when buckets do, without changing the tree.

        Args:
            buckets: the new node of each touched bucket, by prefix.

        Returns:
            The new nodes by heap index; each touched node was hashed once.
        """
        nodes, first = self._nodes, 1 << self.split
        staged = {first + prefix: node for prefix, node in buckets.items() if node != nodes[first + prefix]}
        level = sorted(staged)
        touched = staged.get
        for _ in range(self.split):
            parents: list[int] = []
            last = 0
            # `join`, written out: this loop runs ten times for each changed leaf
            for index in level:
                parent = index >> 1
                if parent == last:
                    continue
                last = parent
                parents.append(parent)
                near = staged[index]
                far = touched(index ^ 1) or nodes[index ^ 1]
                if near[0] + far[0] >= INNER_KIND:
                    left, right = (far, near) if index & 1 else (near, far)
                    staged[parent] = (INNER_KIND, hash_inner(left[1], right[1]))
                else:
                    staged[parent] = near if near[0] else far
            level = parents
        return staged

    def apply(self, staged: Mapping[int, Node]) -> None:
        """Take over nodes that `stage` gave."""
        nodes = self._nodes
        for index, node in staged.items():
            nodes[index] = node


def path_prefix(path: bytes, split: int) -> int:
    """The first `split` (at most 24) bits of a path, as a number."""
    return int.from_bytes(path[:3], "big") >> (24 - split)


def bucket_bounds(prefix: int, split: int) -> tuple[bytes, bytes]:
    """The lowest and highest path of a bucket, both included."""
    shift = 8 * PATH_BYTES - split
    low = prefix << shift
    return low.to_bytes(PATH_BYTES, "big"), (low | ((1 << shift) - 1)).to_bytes(PATH_BYTES, "big")


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
