"""ICS-23 commitment proofs, verified against a spec that the verifier fixes and never reads from the proof.

The messages and specs stand in `ics23_messages`, the hash operations in `ics23_ops`; what callers need is found here.

`check_leaf`, `check_against_spec` and the neighbour rules follow cosmos/ics23 v0.11.0 and pass its tables. Proofs of
specs with `exact` must also fit the tree's node format byte for byte: no longer leaf prefix, no step whose prefix and
suffix are not exactly one child short of a node. Whoever reads a proof learns nothing from it but what is returned.

Spec: docs/spec/state-proofs.md. Source: cosmos/ics23 go/ops.go, go/proof.go.
"""

from collections.abc import Sequence

from freehold.light.ics23_messages import (
    IAVL,
    MAX_KEY_BYTES,
    SMT,
    TENDERMINT,
    CommitmentProof,
    ExistenceProof,
    HashOp,
    InnerOp,
    InnerSpec,
    LeafOp,
    NonExistenceProof,
    ProofSpec,
    absence,
    decode_proof,
    existence,
    smt_existence,
)
from freehold.light.ics23_ops import apply_inner, apply_leaf, prehashed, refuse

__all__ = [
    "IAVL",
    "MAX_KEY_BYTES",
    "SMT",
    "TENDERMINT",
    "CommitmentProof",
    "ExistenceProof",
    "InnerOp",
    "InnerSpec",
    "LeafOp",
    "NonExistenceProof",
    "ProofSpec",
    "absence",
    "calculate_root",
    "check_against_spec",
    "check_leaf",
    "decode_proof",
    "existence",
    "is_left_neighbour",
    "is_leftmost",
    "is_rightmost",
    "left_branches_are_empty",
    "right_branches_are_empty",
    "smt_existence",
    "verify_absence",
    "verify_existence",
]

_DEFAULT_MAX_DEPTH = 128
_IAVL_SIBLING_BYTES = (1, 34)  # behind an inner prefix's varints: a length byte, or a framed left child and one more


def verify_existence(spec: ProofSpec, root: bytes, key: bytes, value: bytes, proof: CommitmentProof) -> None:
    """Check that key has value under root.

    Args:
        spec: the tree's, fixed by the caller.
        root: 32 bytes.
        key: not empty.
        value: not empty.
        proof: of existence.

    Raises:
        NotVerifiedError: `proof_kind`, `proof_spec`, `proof_key`, `proof_value` or `proof_root`.
    """
    if proof.exist is None:
        refuse("kind", "the proof shows absence, not a value")
    _verify_exist(spec, root, key, value, proof.exist)


def verify_absence(spec: ProofSpec, root: bytes, key: bytes, proof: CommitmentProof) -> None:
    """Check that key has no value under root. Says nothing about an empty tree, which ICS-23 cannot prove.

    Args:
        spec: the tree's, fixed by the caller.
        root: 32 bytes.
        key: not empty.
        proof: of absence. Its own `key` field is not looked at, as elsewhere: trees differ in what they write there.

    Raises:
        NotVerifiedError: `proof_kind`, `proof_spec`, `proof_root` or `proof_neighbours`.
    """
    if proof.nonexist is None:
        refuse("kind", "the proof shows a value, not absence")
    _verify_nonexist(spec, root, key, proof.nonexist)


def _verify_exist(spec: ProofSpec, root: bytes, key: bytes, value: bytes, proof: ExistenceProof) -> None:
    check_against_spec(proof, spec)
    if spec.exact:
        _check_exact(proof, spec)
    if proof.key != key:
        refuse("key", "the proof is for another key")
    if proof.value != value:
        refuse("value", "the proof is for another value")
    if calculate_root(proof, spec) != root:
        refuse("root", "the proof leads to another root")


def _verify_nonexist(spec: ProofSpec, root: bytes, key: bytes, proof: NonExistenceProof) -> None:
    left, right = proof.left, proof.right
    place = _place(spec, key)
    if left is not None:
        _verify_exist(spec, root, left.key, left.value, left)
        if place <= _place(spec, left.key):
            refuse("neighbours", "the key is not right of its left neighbour")
    if right is not None:
        _verify_exist(spec, root, right.key, right.value, right)
        if place >= _place(spec, right.key):
            refuse("neighbours", "the key is not left of its right neighbour")
    inner = spec.inner_spec
    if left is not None and right is not None:
        good = is_left_neighbour(inner, left.path, right.path)
    elif right is not None:
        good = is_leftmost(inner, right.path)
    elif left is not None:
        good = is_rightmost(inner, left.path)
    else:
        good = False
    if not good:
        refuse("neighbours", "the proof leaves room for the key between its neighbours")


def check_against_spec(proof: ExistenceProof, spec: ProofSpec) -> None:
    """Check that leaf and steps have the form of a spec.

    Raises:
        NotVerifiedError: `proof_spec`.
    """
    if proof.leaf is None:
        refuse("spec", "the proof has no leaf operation")
    check_leaf(proof.leaf, spec)
    if not spec.min_depth <= len(proof.path) <= (spec.max_depth or _DEFAULT_MAX_DEPTH):
        refuse("spec", f"a path of {len(proof.path)} steps is too short or too long")
    for layer, step in enumerate(proof.path, 1):
        _check_inner(step, spec, layer)


def check_leaf(op: LeafOp, spec: ProofSpec) -> None:
    """Check that a leaf operation has the form of a spec.

    Raises:
        NotVerifiedError: `proof_spec`.
    """
    wanted = spec.leaf_spec
    if _is_iavl(spec):
        _check_iavl(op.prefix, op.hash, 0)
    same = (op.hash, op.prehash_key, op.prehash_value, op.length) == (
        wanted.hash,
        wanted.prehash_key,
        wanted.prehash_value,
        wanted.length,
    )
    if not same or not op.prefix.startswith(wanted.prefix):
        refuse("spec", "the leaf operation is not the tree's")


def _check_inner(op: InnerOp, spec: ProofSpec, layer: int) -> None:
    inner = spec.inner_spec
    if op.hash != inner.hash:
        refuse("spec", "a step uses another hash than the tree")
    if _is_iavl(spec):
        _check_iavl(op.prefix, op.hash, layer)
    if op.prefix.startswith(spec.leaf_spec.prefix):
        refuse("spec", "a step looks like a leaf")
    longest = inner.max_prefix_length + (len(inner.child_order) - 1) * inner.child_size
    if not inner.min_prefix_length <= len(op.prefix) <= longest:
        refuse("spec", "a step's prefix is too short or too long")
    if inner.child_size <= 0 or len(op.suffix) % inner.child_size:
        refuse("spec", "a step's suffix is not made of whole children")


def _check_exact(proof: ExistenceProof, spec: ProofSpec) -> None:
    if proof.leaf is not None and proof.leaf.prefix != spec.leaf_spec.prefix:
        refuse("spec", "the leaf's prefix is not the tree's")
    for step in proof.path:
        if _branch(spec.inner_spec, step) is None:
            refuse("spec", "a step does not have the size of a node")


def _is_iavl(spec: ProofSpec) -> bool:
    return _shape(spec) == _shape(IAVL)


def _shape(spec: ProofSpec) -> tuple[int, ...]:
    leaf, inner = spec.leaf_spec, spec.inner_spec
    return (
        leaf.hash,
        leaf.prehash_key,
        leaf.prehash_value,
        leaf.length,
        inner.hash,
        inner.min_prefix_length,
        inner.max_prefix_length,
        inner.child_size,
        len(inner.child_order),
    )


def _check_iavl(prefix: bytes, hash_op: int, layer: int) -> None:
    """An IAVL prefix is height, size and version as zigzag varints; an inner one goes on with framed siblings."""
    values = []
    offset = 0
    for _ in range(3):
        raw = shift = 0
        while True:
            if offset >= len(prefix) or shift > 63:
                refuse("spec", "an IAVL prefix is cut short")
            byte = prefix[offset]
            offset += 1
            raw |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if raw & 1 or raw >> 64:
            refuse("spec", "an IAVL prefix holds a negative number")
        values.append(raw >> 1)
    rest = len(prefix) - offset
    good = rest == 0 if layer == 0 else rest in _IAVL_SIBLING_BYTES and hash_op == HashOp.SHA256
    if values[0] < layer or not good:
        refuse("spec", "an IAVL prefix has another form")


def calculate_root(proof: ExistenceProof, spec: ProofSpec | None = None) -> bytes:
    """Compute the root that a proof leads to.

    Raises:
        NotVerifiedError: `proof_spec`: the proof's operations cannot be carried out.
    """
    if proof.leaf is None:
        refuse("spec", "the proof has no leaf operation")
    node = apply_leaf(proof.leaf, proof.key, proof.value)
    for step in proof.path:
        node = apply_inner(step, node)
        if spec is not None and len(node) > spec.inner_spec.child_size >= 32:
            refuse("spec", "a step's hash is longer than a child")
    return node


# --- order ----------------------------------------------------------------------------------------------------------


def _place(spec: ProofSpec, key: bytes) -> bytes:
    return prehashed(spec.leaf_spec.prehash_key, key) if spec.prehash_key_before_comparison else key


def is_leftmost(spec: InnerSpec, path: Sequence[InnerOp]) -> bool:
    """Whether nothing stands left of a path, empty children aside."""
    return all(_branch(spec, step) == 0 or left_branches_are_empty(spec, step) for step in path)


def is_rightmost(spec: InnerSpec, path: Sequence[InnerOp]) -> bool:
    """Whether nothing stands right of a path, empty children aside."""
    last = len(spec.child_order) - 1
    return all(_branch(spec, step) == last or right_branches_are_empty(spec, step) for step in path)


def is_left_neighbour(spec: InnerSpec, left: Sequence[InnerOp], right: Sequence[InnerOp]) -> bool:
    """Whether nothing stands between two paths of one tree: they part once, from there rightmost and leftmost."""
    left_end, right_end = len(left) - 1, len(right) - 1
    while left_end >= 0 and right_end >= 0:
        a, b = left[left_end], right[right_end]
        if (a.prefix, a.suffix) != (b.prefix, b.suffix):
            left_branch, right_branch = _branch(spec, a), _branch(spec, b)
            return (
                left_branch is not None
                and right_branch is not None
                and right_branch == left_branch + 1
                and is_rightmost(spec, left[:left_end])
                and is_leftmost(spec, right[:right_end])
            )
        left_end, right_end = left_end - 1, right_end - 1
    return False


def left_branches_are_empty(spec: InnerSpec, op: InnerOp) -> bool:
    """Whether a step has children to its left and all are empty."""
    branch = _branch(spec, op)
    if not branch:
        return False
    start = len(op.prefix) - branch * spec.child_size
    return start >= 0 and all(
        _child(op.prefix, start, spec, position) == spec.empty_child for position in _positions(spec, range(branch))
    )


def right_branches_are_empty(spec: InnerSpec, op: InnerOp) -> bool:
    """Whether a step has children to its right and all are empty."""
    branch = _branch(spec, op)
    if branch is None:
        return False
    count = len(spec.child_order) - 1 - branch
    if count == 0 or len(op.suffix) != count * spec.child_size:
        return False
    return all(_child(op.suffix, 0, spec, position) == spec.empty_child for position in _positions(spec, range(count)))


def _child(data: bytes, start: int, spec: InnerSpec, position: int) -> bytes:
    at = start + position * spec.child_size
    return data[at : at + spec.child_size]


def _positions(spec: InnerSpec, branches: Sequence[int]) -> list[int]:
    return [spec.child_order.index(branch) for branch in branches]


def _branch(spec: InnerSpec, op: InnerOp) -> int | None:
    """Which child of its node a step continues, by the room that prefix and suffix leave; None when none fits."""
    for branch in range(len(spec.child_order)):
        position = spec.child_order.index(branch)
        extra = len(op.prefix) - position * spec.child_size
        suffix = (len(spec.child_order) - 1 - position) * spec.child_size
        if spec.min_prefix_length <= extra <= spec.max_prefix_length and len(op.suffix) == suffix:
            return branch
    return None
