"""Hashes and sign bytes of CometBFT's structures, exactly as v0.38.25 computes them.

Source: types/block.go (Header.Hash, Commit.Hash), types/validator_set.go, types/tx.go, types/results.go,
types/params.go, types/part_set.go, types/vote.go; the Merkle trees are RFC 6962's.
"""

from collections.abc import Iterable, Sequence

from freehold.crypto import merkle
from freehold.crypto.hashing import sha256
from freehold.light.blocks import PART_BYTES, Block, EvidenceList
from freehold.light.canonical import CanonicalVote, ExecTxResult, HashedParams, SimpleValidator
from freehold.light.types import (
    ADDRESS_BYTES,
    BlockID,
    Commit,
    Header,
    PartSetHeader,
    PublicKey,
    SignedMsgType,
    Timestamp,
    Validator,
    ValidatorSet,
)
from freehold.light.wire import encode_varint, length_delimited

_BYTES_VALUE = b"\x0a"  # tag of the one field of google.protobuf.BytesValue and StringValue
_INT64_VALUE = b"\x08"


def _wrapped(value: bytes) -> bytes:
    return _BYTES_VALUE + length_delimited(value) if value else b""


def header_hash(header: Header) -> bytes:
    """The hash of a header: RFC 6962 over its fourteen encoded fields; empty when it names no validators.

    Source: types/block.go `Header.Hash`, types/encoding_helper.go `cdcEncode`.
    """
    if not header.validators_hash:
        return b""
    return merkle.hash_from_byte_slices(
        [
            header.version.encode(),
            _wrapped(header.chain_id.encode()),
            _INT64_VALUE + encode_varint(header.height) if header.height else b"",
            header.time.encode(),
            header.last_block_id.encode(),
            _wrapped(header.last_commit_hash),
            _wrapped(header.data_hash),
            _wrapped(header.validators_hash),
            _wrapped(header.next_validators_hash),
            _wrapped(header.consensus_hash),
            _wrapped(header.app_hash),
            _wrapped(header.last_results_hash),
            _wrapped(header.evidence_hash),
            _wrapped(header.proposer_address),
        ]
    )


def address_of(public_key: bytes) -> bytes:
    """The 20-byte address of a validator's ed25519 key."""
    return sha256(public_key)[:ADDRESS_BYTES]


def make_validator(public_key: bytes, voting_power: int) -> Validator:
    """A validator with its address computed and no priority.

    Args:
        public_key: 32 bytes.
        voting_power: above 0.
    """
    return Validator(address_of(public_key), PublicKey(public_key), voting_power)


def sort_validators(validators: Iterable[Validator]) -> tuple[Validator, ...]:
    """Validators in the order of a set: power descending, then address."""
    return tuple(sorted(validators, key=lambda validator: (-validator.voting_power, validator.address)))


def make_validator_set(validators: Iterable[Validator], proposer_address: bytes = b"") -> ValidatorSet:
    """The set in its normal form: sorted, priorities 0, the proposer by address (else the first)."""
    members = sort_validators(make_validator(v.pub_key.ed25519, v.voting_power) for v in validators)
    proposer = next((member for member in members if member.address == proposer_address), members[0])
    return ValidatorSet(members, proposer)


def validators_hash(validators: Iterable[Validator]) -> bytes:
    """The hash of a validator set, over keys and powers in the set's order."""
    return merkle.hash_from_byte_slices([SimpleValidator(v.pub_key, v.voting_power).encode() for v in validators])


def data_hash(txs: Sequence[bytes]) -> bytes:
    """The hash of a block's transactions; each leaf is the SHA-256 of one."""
    return merkle.hash_from_byte_slices([sha256(tx) for tx in txs])


def commit_hash(commit: Commit) -> bytes:
    """The hash of a commit, over its entries; that of the block before stands in `last_commit_hash`."""
    return merkle.hash_from_byte_slices([entry.encode() for entry in commit.signatures])


def evidence_hash(evidence: EvidenceList) -> bytes:
    """The hash of a block's evidence, each leaf without the wrapper that tells its kind."""
    kinds = ((item.duplicate_vote_evidence, item.light_client_attack_evidence) for item in evidence.evidence)
    return merkle.hash_from_byte_slices([piece.encode() for pair in kinds for piece in pair if piece is not None])


def results_hash(results: Sequence[ExecTxResult]) -> bytes:
    """The hash of a block's results (code, data, gas); it stands in the next header."""
    return merkle.hash_from_byte_slices([result.encode() for result in results])


def consensus_hash(max_block_bytes: int, max_block_gas: int) -> bytes:
    """The hash of the consensus parameters; only these two count."""
    return sha256(HashedParams(max_block_bytes, max_block_gas).encode())


def part_set_header(block_bytes: bytes) -> PartSetHeader:
    """Count and root of the 64 KiB parts of an encoded block."""
    parts = [block_bytes[start : start + PART_BYTES] for start in range(0, len(block_bytes), PART_BYTES)]
    return PartSetHeader(len(parts), merkle.hash_from_byte_slices(parts))


def block_id(block: Block) -> BlockID:
    """The id of a block: its header's hash and its part set."""
    return BlockID(header_hash(block.header), part_set_header(block.encode()))


def vote_sign_bytes(
    chain_id: str, kind: int, height: int, round_: int, block_id: BlockID | None, timestamp: Timestamp
) -> bytes:
    """The bytes that a validator signs: CanonicalVote behind its length.

    Args:
        chain_id: the chain.
        kind: a `SignedMsgType`.
        height: of the block.
        round_: of the vote.
        block_id: None or the nil id for a vote for nil.
        timestamp: of the vote.

    Source: types/vote.go `VoteSignBytes`, types/canonical.go `CanonicalizeVote`.
    """
    voted = None if block_id is None or block_id.is_nil else block_id
    return length_delimited(CanonicalVote(kind, height, round_, voted, timestamp, chain_id).encode())


def precommit_sign_bytes(chain_id: str, height: int, round_: int, block_id: BlockID | None, time: Timestamp) -> bytes:
    """The bytes that a validator signs to commit a block."""
    return vote_sign_bytes(chain_id, SignedMsgType.PRECOMMIT, height, round_, block_id, time)
