"""Who voted for the block before, and who misbehaved, as ABCI's requests say it (field numbers of v0.38.25).

Source: proto/tendermint/abci/types.proto.
"""

from typing import ClassVar, Final

from freehold.base.limits import MIB
from freehold.light.types import ADDRESS_BYTES, MAX_VALIDATORS, ZERO_TIME, Timestamp
from freehold.light.wire import Field, Kind, Message

MAX_EXTENSION_BYTES: Final = 1 * MIB


class AbciValidator(Message, frozen=True):
    """A validator as votes and evidence name it."""

    address: bytes = b""
    power: int = 0

    SKIPS_UNKNOWN: ClassVar[bool] = True
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "address", Kind.BYTES, limit=ADDRESS_BYTES),
        Field(3, "power", Kind.INT64),
    )


class VoteInfo(Message, frozen=True):
    """A validator's entry in the last commit; `block_id_flag` is `freehold.light.types.BlockIDFlag`."""

    validator: AbciValidator = AbciValidator()
    block_id_flag: int = 0

    SKIPS_UNKNOWN: ClassVar[bool] = True
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "validator", Kind.MESSAGE, AbciValidator),
        Field(3, "block_id_flag", Kind.ENUM),
    )


class CommitInfo(Message, frozen=True):
    """The last commit that a block holds."""

    votes: tuple[VoteInfo, ...] = ()

    SKIPS_UNKNOWN: ClassVar[bool] = True
    FIELDS: ClassVar[tuple[Field, ...]] = (Field(2, "votes", Kind.REPEATED, VoteInfo, limit=MAX_VALIDATORS),)


class ExtendedVoteInfo(Message, frozen=True):
    """A validator's entry in the proposer's own last commit, with its vote's extension."""

    validator: AbciValidator = AbciValidator()
    vote_extension: bytes = b""
    block_id_flag: int = 0

    SKIPS_UNKNOWN: ClassVar[bool] = True
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "validator", Kind.MESSAGE, AbciValidator),
        Field(3, "vote_extension", Kind.BYTES, limit=MAX_EXTENSION_BYTES),
        Field(5, "block_id_flag", Kind.ENUM),
    )


class ExtendedCommitInfo(Message, frozen=True):
    """The proposer's own last commit."""

    votes: tuple[ExtendedVoteInfo, ...] = ()

    SKIPS_UNKNOWN: ClassVar[bool] = True
    FIELDS: ClassVar[tuple[Field, ...]] = (Field(2, "votes", Kind.REPEATED, ExtendedVoteInfo, limit=MAX_VALIDATORS),)


class AbciMisbehavior(Message, frozen=True):
    """Evidence that the engine verified."""

    type: int = 0
    validator: AbciValidator = AbciValidator()
    height: int = 0
    time: Timestamp = ZERO_TIME
    total_voting_power: int = 0

    SKIPS_UNKNOWN: ClassVar[bool] = True
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "type", Kind.ENUM),
        Field(2, "validator", Kind.MESSAGE, AbciValidator),
        Field(3, "height", Kind.INT64),
        Field(4, "time", Kind.MESSAGE, Timestamp),
        Field(5, "total_voting_power", Kind.INT64),
    )
