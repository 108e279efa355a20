"""CometBFT's whole block, its evidence and its parts, by the field numbers of v0.38.25.

Needed to compute a block's part-set hash (over its encoded bytes in 64 KiB parts) and evidence hash.
Source: proto/tendermint/types/{block,evidence,types}.proto.
"""

from typing import ClassVar

from freehold.base.errors import CodecError
from freehold.base.limits import KIB, MAX_BLOCK_TXS, SIGNATURE_BYTES
from freehold.light.types import (
    ADDRESS_BYTES,
    MAX_VALIDATORS,
    NIL_BLOCK_ID,
    ZERO_TIME,
    BlockID,
    Commit,
    Header,
    LightBlock,
    SignedMsgType,
    Timestamp,
    Validator,
)
from freehold.light.wire import Field, Kind, Message

PART_BYTES = 64 * KIB
MAX_EVIDENCE = 64
MAX_DATA_TXS = MAX_BLOCK_TXS + 1  # the proposer's own transaction stands before the users'
MAX_VOTE_EXTENSION_BYTES = 4 * KIB


class Vote(Message, frozen=True):
    """A validator's signed prevote or precommit."""

    type: int = SignedMsgType.UNKNOWN
    height: int = 0
    round: int = 0
    block_id: BlockID = NIL_BLOCK_ID
    timestamp: Timestamp = ZERO_TIME
    validator_address: bytes = b""
    validator_index: int = 0
    signature: bytes = b""
    extension: bytes = b""
    extension_signature: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "type", Kind.ENUM),
        Field(2, "height", Kind.INT64),
        Field(3, "round", Kind.INT32),
        Field(4, "block_id", Kind.MESSAGE, BlockID),
        Field(5, "timestamp", Kind.MESSAGE, Timestamp),
        Field(6, "validator_address", Kind.BYTES, limit=ADDRESS_BYTES),
        Field(7, "validator_index", Kind.INT32),
        Field(8, "signature", Kind.BYTES, limit=SIGNATURE_BYTES),
        Field(9, "extension", Kind.BYTES, limit=MAX_VOTE_EXTENSION_BYTES),
        Field(10, "extension_signature", Kind.BYTES, limit=SIGNATURE_BYTES),
    )

    def validate(self) -> None:
        """Check that height, round and index are not negative."""
        if self.height < 0 or self.round < 0 or self.validator_index < 0:
            raise CodecError("vote has a negative height, round or index", code="bad_vote")


class DuplicateVoteEvidence(Message, frozen=True):
    """Two votes of one validator for different blocks in one round."""

    vote_a: Vote
    vote_b: Vote
    total_voting_power: int = 0
    validator_power: int = 0
    timestamp: Timestamp = ZERO_TIME

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "vote_a", Kind.MESSAGE, Vote),
        Field(2, "vote_b", Kind.MESSAGE, Vote),
        Field(3, "total_voting_power", Kind.INT64),
        Field(4, "validator_power", Kind.INT64),
        Field(5, "timestamp", Kind.MESSAGE, Timestamp),
    )


class LightClientAttackEvidence(Message, frozen=True):
    """A light block that conflicts with the chain, and who signed it."""

    conflicting_block: LightBlock
    common_height: int = 0
    byzantine_validators: tuple[Validator, ...] = ()
    total_voting_power: int = 0
    timestamp: Timestamp = ZERO_TIME

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "conflicting_block", Kind.MESSAGE, LightBlock),
        Field(2, "common_height", Kind.INT64),
        Field(3, "byzantine_validators", Kind.REPEATED, Validator, limit=MAX_VALIDATORS),
        Field(4, "total_voting_power", Kind.INT64),
        Field(5, "timestamp", Kind.MESSAGE, Timestamp),
    )


class Evidence(Message, frozen=True):
    """One piece of evidence, of exactly one kind."""

    duplicate_vote_evidence: DuplicateVoteEvidence | None = None
    light_client_attack_evidence: LightClientAttackEvidence | None = None

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "duplicate_vote_evidence", Kind.OPTIONAL, DuplicateVoteEvidence),
        Field(2, "light_client_attack_evidence", Kind.OPTIONAL, LightClientAttackEvidence),
    )

    def validate(self) -> None:
        """Check that exactly one kind is there."""
        if (self.duplicate_vote_evidence is None) == (self.light_client_attack_evidence is None):
            raise CodecError("evidence is not of exactly one kind", code="bad_evidence")


class EvidenceList(Message, frozen=True):
    """The evidence of a block."""

    evidence: tuple[Evidence, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "evidence", Kind.REPEATED, Evidence, limit=MAX_EVIDENCE),)


class Data(Message, frozen=True):
    """The transactions of a block, in order."""

    txs: tuple[bytes, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "txs", Kind.REPEATED_BYTES, limit=MAX_DATA_TXS),)


class Block(Message, frozen=True):
    """A block: header, transactions, evidence, and the commit for the block before."""

    header: Header
    data: Data = Data()
    evidence: EvidenceList = EvidenceList()
    last_commit: Commit | None = None

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "header", Kind.MESSAGE, Header),
        Field(2, "data", Kind.MESSAGE, Data),
        Field(3, "evidence", Kind.MESSAGE, EvidenceList),
        Field(4, "last_commit", Kind.OPTIONAL, Commit),
    )
