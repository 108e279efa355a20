"""CometBFT's header, commit, validator set and light block, by the field numbers of v0.38.25.

Each is a frozen message of the strict codec in `freehold.light.wire`. Fields that gogoproto marks non-nullable are
written even when empty. Decoding also checks the lengths that CometBFT's ValidateBasic checks (hashes empty or 32
bytes, addresses 20, signatures at most 64 since every key is ed25519), never whether hashes or signatures are right:
that is `freehold.light.verify`. Source: proto/tendermint/types/{types,validator}.proto, types/block.go.
"""

from enum import IntEnum
from typing import ClassVar

from freehold.base.errors import CodecError
from freehold.base.limits import ID_BYTES, MAX_CHAIN_ID_BYTES, SIGNATURE_BYTES
from freehold.light.wire import Field, Kind, Message

HASH_BYTES = 32
ADDRESS_BYTES = 20
MAX_VALIDATORS = 1_024
MAX_APP_HASH_BYTES = 64  # CometBFT leaves the length to the application; ours is 32
BLOCK_PROTOCOL = 11
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799  # years 1 to 9999, as protobuf's Timestamp
NANOS = 1_000_000_000


class BlockIDFlag(IntEnum):
    """What a validator's entry in a commit says."""

    ABSENT = 1
    COMMIT = 2
    NIL = 3


class SignedMsgType(IntEnum):
    """What a signature is for."""

    UNKNOWN = 0
    PREVOTE = 1
    PRECOMMIT = 2
    PROPOSAL = 32


def _length(value: bytes, name: str, *allowed: int) -> None:
    if len(value) not in allowed:
        raise CodecError(f"{name} has {len(value)} bytes, not {allowed[-1]}", code="bad_length")


class Version(Message, frozen=True):
    """Version of the block format and of the application's rules."""

    block: int = 0
    app: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "block", Kind.UINT64), Field(2, "app", Kind.UINT64))


class Timestamp(Message, frozen=True):
    """A moment: seconds since the Unix epoch and nanoseconds within the second."""

    seconds: int = 0
    nanos: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "seconds", Kind.INT64), Field(2, "nanos", Kind.INT32))

    @classmethod
    def from_ms(cls, time_ms: int) -> "Timestamp":
        """The moment `time_ms` milliseconds after the Unix epoch."""
        seconds, ms = divmod(time_ms, 1000)
        return cls(seconds, ms * 1_000_000)

    @property
    def ms(self) -> int:
        """Whole milliseconds since the Unix epoch, rounded down."""
        return self.seconds * 1000 + self.nanos // 1_000_000

    @property
    def ns(self) -> int:
        """Nanoseconds since the Unix epoch, exactly."""
        return self.seconds * NANOS + self.nanos

    def validate(self) -> None:
        """Check the range of protobuf's Timestamp."""
        if not (MIN_SECONDS <= self.seconds <= MAX_SECONDS and 0 <= self.nanos < NANOS):
            raise CodecError("time is out of range", code="bad_time")


ZERO_TIME = Timestamp(MIN_SECONDS)  # Go's zero time, 0001-01-01T00:00:00Z, which stands for none


class PartSetHeader(Message, frozen=True):
    """How many 64 KiB parts a block has, and the Merkle root over them."""

    total: int = 0
    hash: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "total", Kind.UINT32),
        Field(2, "hash", Kind.BYTES, limit=HASH_BYTES),
    )

    def validate(self) -> None:
        """Check that the hash is empty or 32 bytes."""
        _length(self.hash, "part set hash", 0, HASH_BYTES)


class BlockID(Message, frozen=True):
    """What a vote is for: the header's hash and the block's parts; all empty for nil."""

    hash: bytes = b""
    part_set_header: PartSetHeader = PartSetHeader()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "hash", Kind.BYTES, limit=HASH_BYTES),
        Field(2, "part_set_header", Kind.MESSAGE, PartSetHeader),
    )

    @property
    def is_nil(self) -> bool:
        """Whether this is the id of no block."""
        return self == NIL_BLOCK_ID

    def validate(self) -> None:
        """Check that the hash is empty or 32 bytes."""
        _length(self.hash, "block hash", 0, HASH_BYTES)


NIL_BLOCK_ID = BlockID()


class Header(Message, frozen=True):
    """The fourteen fields of a block's header."""

    version: Version = Version(BLOCK_PROTOCOL)
    chain_id: str = ""
    height: int = 0
    time: Timestamp = ZERO_TIME
    last_block_id: BlockID = NIL_BLOCK_ID
    last_commit_hash: bytes = b""
    data_hash: bytes = b""
    validators_hash: bytes = b""
    next_validators_hash: bytes = b""
    consensus_hash: bytes = b""
    app_hash: bytes = b""
    last_results_hash: bytes = b""
    evidence_hash: bytes = b""
    proposer_address: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "version", Kind.MESSAGE, Version),
        Field(2, "chain_id", Kind.STRING, limit=MAX_CHAIN_ID_BYTES),
        Field(3, "height", Kind.INT64),
        Field(4, "time", Kind.MESSAGE, Timestamp),
        Field(5, "last_block_id", Kind.MESSAGE, BlockID),
        Field(6, "last_commit_hash", Kind.BYTES, limit=HASH_BYTES),
        Field(7, "data_hash", Kind.BYTES, limit=HASH_BYTES),
        Field(8, "validators_hash", Kind.BYTES, limit=HASH_BYTES),
        Field(9, "next_validators_hash", Kind.BYTES, limit=HASH_BYTES),
        Field(10, "consensus_hash", Kind.BYTES, limit=HASH_BYTES),
        Field(11, "app_hash", Kind.BYTES, limit=MAX_APP_HASH_BYTES),
        Field(12, "last_results_hash", Kind.BYTES, limit=HASH_BYTES),
        Field(13, "evidence_hash", Kind.BYTES, limit=HASH_BYTES),
        Field(14, "proposer_address", Kind.BYTES, limit=ADDRESS_BYTES),
    )

    def validate(self) -> None:
        """Check that the height is not negative, hashes are empty or 32 bytes, the address empty or 20."""
        if self.height < 0:
            raise CodecError("header has a negative height", code="bad_height")
        _length(self.last_commit_hash, "last commit hash", 0, HASH_BYTES)
        _length(self.data_hash, "data hash", 0, HASH_BYTES)
        _length(self.validators_hash, "validators hash", 0, HASH_BYTES)
        _length(self.next_validators_hash, "next validators hash", 0, HASH_BYTES)
        _length(self.consensus_hash, "consensus hash", 0, HASH_BYTES)
        _length(self.last_results_hash, "last results hash", 0, HASH_BYTES)
        _length(self.evidence_hash, "evidence hash", 0, HASH_BYTES)
        _length(self.proposer_address, "proposer address", 0, ADDRESS_BYTES)


class CommitSig(Message, frozen=True):
    """One validator's entry in a commit, at the validator's index in the set."""

    block_id_flag: int = BlockIDFlag.ABSENT
    validator_address: bytes = b""
    timestamp: Timestamp = ZERO_TIME
    signature: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "block_id_flag", Kind.ENUM),
        Field(2, "validator_address", Kind.BYTES, limit=ADDRESS_BYTES),
        Field(3, "timestamp", Kind.MESSAGE, Timestamp),
        Field(4, "signature", Kind.BYTES, limit=SIGNATURE_BYTES),
    )

    def validate(self) -> None:
        """Check that an absent entry is empty and any other has an address and a signature."""
        if self.block_id_flag == BlockIDFlag.ABSENT:
            if self.validator_address or self.signature or self.timestamp != ZERO_TIME:
                raise CodecError("an absent commit entry is not empty", code="bad_commit")
        elif self.block_id_flag in (BlockIDFlag.COMMIT, BlockIDFlag.NIL):
            _length(self.validator_address, "validator address", ADDRESS_BYTES)
            _length(self.signature, "signature", SIGNATURE_BYTES)
        else:
            raise CodecError("a commit entry has an unknown flag", code="bad_commit")


ABSENT_SIG = CommitSig()


class Commit(Message, frozen=True):
    """The precommits of one round, one entry for each validator of the set."""

    height: int = 0
    round: int = 0
    block_id: BlockID = NIL_BLOCK_ID
    signatures: tuple[CommitSig, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "height", Kind.INT64),
        Field(2, "round", Kind.INT32),
        Field(3, "block_id", Kind.MESSAGE, BlockID),
        Field(4, "signatures", Kind.REPEATED, CommitSig, limit=MAX_VALIDATORS),
    )

    def validate(self) -> None:
        """Check that height and round are not negative and a commit above height 0 is for a block."""
        if self.height < 0 or self.round < 0:
            raise CodecError("commit has a negative height or round", code="bad_commit")
        if self.height and (self.block_id.is_nil or not self.signatures):
            raise CodecError("commit is for no block or has no signatures", code="bad_commit")


EMPTY_COMMIT = Commit()  # the last commit of a chain's first block


class PublicKey(Message, frozen=True):
    """A validator's key; ed25519 is the only kind."""

    ed25519: bytes

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "ed25519", Kind.ONEOF_BYTES, limit=ID_BYTES),)

    def validate(self) -> None:
        """Check the length of the key."""
        _length(self.ed25519, "public key", ID_BYTES)


class Validator(Message, frozen=True):
    """A member of a validator set; the address is the first 20 bytes of the key's SHA-256."""

    address: bytes
    pub_key: PublicKey
    voting_power: int = 0
    proposer_priority: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "address", Kind.BYTES, limit=ADDRESS_BYTES),
        Field(2, "pub_key", Kind.MESSAGE, PublicKey),
        Field(3, "voting_power", Kind.INT64),
        Field(4, "proposer_priority", Kind.INT64),
    )

    def validate(self) -> None:
        """Check that the power is not negative."""
        if self.voting_power < 0:
            raise CodecError("a validator has negative voting power", code="bad_validator")


class ValidatorSet(Message, frozen=True):
    """Validators by power, highest first, then by address; the total is always written as 0, as CometBFT does."""

    validators: tuple[Validator, ...]
    proposer: Validator
    total_voting_power: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "validators", Kind.REPEATED, Validator, limit=MAX_VALIDATORS),
        Field(2, "proposer", Kind.MESSAGE, Validator),
        Field(3, "total_voting_power", Kind.INT64),
    )

    def validate(self) -> None:
        """Check that there is a validator and that no total is claimed."""
        if not self.validators:
            raise CodecError("validator set is empty", code="bad_validator")
        if self.total_voting_power:
            raise CodecError("validator set claims a total power", code="not_canonical")


class SignedHeader(Message, frozen=True):
    """A header with the commit for it."""

    header: Header
    commit: Commit

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "header", Kind.MESSAGE, Header),
        Field(2, "commit", Kind.MESSAGE, Commit),
    )


class LightBlock(Message, frozen=True):
    """All that a light client needs of one height."""

    signed_header: SignedHeader
    validator_set: ValidatorSet

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "signed_header", Kind.MESSAGE, SignedHeader),
        Field(2, "validator_set", Kind.MESSAGE, ValidatorSet),
    )

    @property
    def header(self) -> Header:
        """The header."""
        return self.signed_header.header
