"""ICS-23 commitment proofs: messages, the three fixed specs, and how state proofs of our tree are built.

The spec of a tree is fixed by whoever verifies and never read from a proof. Batches and compressed batches are refused:
they are other fields of `CommitmentProof`, which the strict codec does not know. Verification stands in `ics23`.

Spec: docs/spec/state-proofs.md. Source: cosmos/ics23 proto/cosmos/ics23/v1/proofs.proto, go/proof.go (v0.11.0).
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar

import msgspec

from freehold.base.errors import CodecError, check
from freehold.base.limits import KIB
from freehold.crypto import smt
from freehold.light.wire import Field, Kind, Message

MAX_KEY_BYTES = 1 * KIB
MAX_VALUE_BYTES = 32 * KIB
MAX_PATH = 256
MAX_AFFIX_BYTES = 256  # of one step's prefix or suffix
MAX_PROOF_BYTES = 48 * KIB


class HashOp(IntEnum):
    """How a preimage is hashed."""

    NO_HASH = 0
    SHA256 = 1
    SHA512 = 2
    KECCAK256 = 3
    RIPEMD160 = 4
    BITCOIN = 5
    SHA512_256 = 6
    BLAKE2B_512 = 7
    BLAKE2S_256 = 8
    BLAKE3 = 9


class LengthOp(IntEnum):
    """What is put in front of a key or value, to frame it."""

    NO_PREFIX = 0
    VAR_PROTO = 1
    VAR_RLP = 2
    FIXED32_BIG = 3
    FIXED32_LITTLE = 4
    FIXED64_BIG = 5
    FIXED64_LITTLE = 6
    REQUIRE_32_BYTES = 7
    REQUIRE_64_BYTES = 8


class LeafOp(Message, frozen=True):
    """How key and value become the hash of a leaf."""

    hash: int = HashOp.NO_HASH
    prehash_key: int = HashOp.NO_HASH
    prehash_value: int = HashOp.NO_HASH
    length: int = LengthOp.NO_PREFIX
    prefix: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "hash", Kind.ENUM),
        Field(2, "prehash_key", Kind.ENUM),
        Field(3, "prehash_value", Kind.ENUM),
        Field(4, "length", Kind.ENUM),
        Field(5, "prefix", Kind.BYTES, limit=MAX_AFFIX_BYTES),
    )


class InnerOp(Message, frozen=True):
    """How the hash of a child becomes that of its parent: prefix and suffix hold the node's frame and the siblings."""

    hash: int = HashOp.NO_HASH
    prefix: bytes = b""
    suffix: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "hash", Kind.ENUM),
        Field(2, "prefix", Kind.BYTES, limit=MAX_AFFIX_BYTES),
        Field(3, "suffix", Kind.BYTES, limit=MAX_AFFIX_BYTES),
    )


class ExistenceProof(Message, frozen=True):
    """That key has value; the path goes from the leaf to the root."""

    key: bytes
    value: bytes
    leaf: LeafOp | None = None
    path: tuple[InnerOp, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "key", Kind.BYTES, limit=MAX_KEY_BYTES),
        Field(2, "value", Kind.BYTES, limit=MAX_VALUE_BYTES),
        Field(3, "leaf", Kind.OPTIONAL, LeafOp),
        Field(4, "path", Kind.REPEATED, InnerOp, limit=MAX_PATH),
    )

    def validate(self) -> None:
        """Check that there is a key and a value: ICS-23 proves nothing about empty ones."""
        if not self.key or not self.value:
            raise CodecError("an existence proof has an empty key or value", code="bad_proof")


class NonExistenceProof(Message, frozen=True):
    """That key has no value: its neighbours on both sides, or one at the tree's edge."""

    key: bytes
    left: ExistenceProof | None = None
    right: ExistenceProof | None = None

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "key", Kind.BYTES, limit=MAX_KEY_BYTES),
        Field(2, "left", Kind.OPTIONAL, ExistenceProof),
        Field(3, "right", Kind.OPTIONAL, ExistenceProof),
    )

    def validate(self) -> None:
        """Check that there is a key and a neighbour."""
        if not self.key or (self.left is None and self.right is None):
            raise CodecError("an absence proof has no key or no neighbour", code="bad_proof")


class CommitmentProof(Message, frozen=True):
    """A proof of existence or of absence, exactly one."""

    exist: ExistenceProof | None = None
    nonexist: NonExistenceProof | None = None

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "exist", Kind.OPTIONAL, ExistenceProof),
        Field(2, "nonexist", Kind.OPTIONAL, NonExistenceProof),
    )

    def validate(self) -> None:
        """Check that it is exactly one of the two."""
        if (self.exist is None) == (self.nonexist is None):
            raise CodecError("a commitment proof is not exactly one of exist and nonexist", code="bad_proof")


def decode_proof(data: bytes) -> CommitmentProof:
    """Read a commitment proof of at most `MAX_PROOF_BYTES`.

    Raises:
        CodecError: not the one byte form of an existence or absence proof.
    """
    return CommitmentProof.decode(data, max_bytes=MAX_PROOF_BYTES)


class InnerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How the inner nodes of a tree are hashed, and in which order their children stand."""

    child_order: tuple[int, ...] = ()
    child_size: int = 0
    min_prefix_length: int = 0
    max_prefix_length: int = 0
    empty_child: bytes = b""
    hash: int = HashOp.NO_HASH


class ProofSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What every proof of a tree must look like.

    Attributes:
        leaf_spec: of every leaf; a proof's own leaf prefix may extend `leaf_spec.prefix` unless `exact`.
        inner_spec: of every inner node.
        max_depth: most steps of a path; 0 stands for 128.
        min_depth: fewest steps.
        prehash_key_before_comparison: whether keys are ordered by their hash.
        exact: our own tightening: the leaf's prefix equals the spec's, and each step has room for its siblings only.
    """

    leaf_spec: LeafOp = LeafOp()
    inner_spec: InnerSpec = InnerSpec()
    max_depth: int = 0
    min_depth: int = 0
    prehash_key_before_comparison: bool = False
    exact: bool = False


SMT_LEAF = LeafOp(HashOp.SHA256, HashOp.SHA256, HashOp.SHA256, LengthOp.NO_PREFIX, smt.LEAF_PREFIX)
_PLAIN_LEAF = LeafOp(HashOp.SHA256, HashOp.NO_HASH, HashOp.SHA256, LengthOp.VAR_PROTO, b"\x00")

SMT = ProofSpec(  # ours: the state's tree
    leaf_spec=SMT_LEAF,
    inner_spec=InnerSpec(
        child_order=(0, 1),
        child_size=32,
        min_prefix_length=1,
        max_prefix_length=1,
        empty_child=smt.EMPTY,
        hash=HashOp.SHA256,
    ),
    max_depth=smt.MAX_DEPTH,
    prehash_key_before_comparison=True,
    exact=True,
)
TENDERMINT = ProofSpec(
    leaf_spec=_PLAIN_LEAF,
    inner_spec=InnerSpec(
        child_order=(0, 1), child_size=32, min_prefix_length=1, max_prefix_length=1, hash=HashOp.SHA256
    ),
    exact=True,
)
IAVL = ProofSpec(
    leaf_spec=_PLAIN_LEAF,
    inner_spec=InnerSpec(
        child_order=(0, 1), child_size=33, min_prefix_length=4, max_prefix_length=12, hash=HashOp.SHA256
    ),
)


def smt_existence(key: bytes, value: bytes, siblings: Sequence[bytes]) -> ExistenceProof:
    """Build the proof that a key has a value in a sparse Merkle tree of ours.

    Args:
        key: 1 to `MAX_KEY_BYTES` bytes.
        value: 1 to `MAX_VALUE_BYTES` bytes.
        siblings: the 32-byte hash beside the path at each level, the leaf's own first, the root's child last.
    """
    check(0 < len(key) <= MAX_KEY_BYTES and 0 < len(value) <= MAX_VALUE_BYTES, "smt_proof_lengths", key=key)
    depth = len(siblings)
    check(depth <= smt.MAX_DEPTH, "smt_proof_depth", depth=depth)
    bits = int.from_bytes(smt.hash_path(key), "big") >> (smt.MAX_DEPTH - depth)  # the lowest bit is the leaf's side
    path = []
    for level, sibling in enumerate(siblings):
        if bits >> level & 1:
            path.append(InnerOp(HashOp.SHA256, smt.INNER_PREFIX + sibling, b""))
        else:
            path.append(InnerOp(HashOp.SHA256, smt.INNER_PREFIX, sibling))
    return ExistenceProof(key, value, SMT_LEAF, tuple(path))


def existence(proof: ExistenceProof) -> CommitmentProof:
    """Wrap a proof of existence."""
    return CommitmentProof(exist=proof)


def absence(key: bytes, left: ExistenceProof | None, right: ExistenceProof | None) -> CommitmentProof:
    """Build the proof that a key is absent.

    Args:
        key: the absent key itself, not its hash.
        left: proof of the neighbour with the next lower path, None when there is none.
        right: proof of the neighbour with the next higher path, None when there is none.
    """
    check(left is not None or right is not None, "absence_has_neighbour", key=key)
    return CommitmentProof(nonexist=NonExistenceProof(key, left, right))
