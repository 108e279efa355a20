"""The messages that exist only to be hashed or signed, by the field numbers of CometBFT v0.38.25.

Source: proto/tendermint/types/{canonical,params,validator}.proto, proto/tendermint/abci/types.proto.
"""

from typing import ClassVar

from freehold.base.limits import KIB, MAX_CHAIN_ID_BYTES
from freehold.light.types import ZERO_TIME, BlockID, PublicKey, SignedMsgType, Timestamp
from freehold.light.wire import Field, Kind, Message


class CanonicalVote(Message, frozen=True):
    """What a validator signs when it votes; `block_id` is None for a vote for nil."""

    type: int = SignedMsgType.UNKNOWN
    height: int = 0
    round: int = 0
    block_id: BlockID | None = None
    timestamp: Timestamp = ZERO_TIME
    chain_id: str = ""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "type", Kind.ENUM),
        Field(2, "height", Kind.SFIXED64),
        Field(3, "round", Kind.SFIXED64),
        Field(4, "block_id", Kind.OPTIONAL, BlockID),
        Field(5, "timestamp", Kind.MESSAGE, Timestamp),
        Field(6, "chain_id", Kind.STRING, limit=MAX_CHAIN_ID_BYTES),
    )


class SimpleValidator(Message, frozen=True):
    """What the validators hash commits to, of each validator."""

    pub_key: PublicKey
    voting_power: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "pub_key", Kind.MESSAGE, PublicKey),
        Field(2, "voting_power", Kind.INT64),
    )


class HashedParams(Message, frozen=True):
    """The consensus parameters that a header commits to."""

    block_max_bytes: int = 0
    block_max_gas: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "block_max_bytes", Kind.INT64),
        Field(2, "block_max_gas", Kind.INT64),
    )


class ExecTxResult(Message, frozen=True):
    """The deterministic part of a transaction's result."""

    code: int = 0
    data: bytes = b""
    gas_wanted: int = 0
    gas_used: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "code", Kind.UINT32),
        Field(2, "data", Kind.BYTES, limit=64 * KIB),
        Field(5, "gas_wanted", Kind.INT64),
        Field(6, "gas_used", Kind.INT64),
    )
