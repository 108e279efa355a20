"""What ABCI's messages are made of: validators, results with their events, proofs, snapshots.

Source: CometBFT v0.38.25 proto/tendermint/abci/types.proto, proto/tendermint/crypto/proof.proto.
"""

from typing import ClassVar, Final

from freehold.base.limits import KIB, MIB
from freehold.light.types import PublicKey
from freehold.light.wire import Field, Kind, Message

MAX_REQUEST_BYTES: Final = 8 * MIB  # genesis' app_state is the longest; a block has at most 1 MiB by default
MAX_SNAPSHOT_BYTES: Final = 4 * MIB  # the engine takes no longer offer of a peer
MAX_CHUNK_BYTES: Final = 16 * MIB  # nor a longer chunk of one
MAX_TEXT_BYTES: Final = 4 * KIB
MAX_KEY_BYTES: Final = 4 * KIB
MAX_COUNT: Final = MAX_REQUEST_BYTES  # what is repeated is bounded by its bytes


class ValidatorUpdate(Message, frozen=True):
    """A validator's key and power."""

    pub_key: PublicKey
    power: int = 0

    SKIPS_UNKNOWN: ClassVar[bool] = True
    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "pub_key", Kind.MESSAGE, PublicKey), Field(2, "power", Kind.INT64))


class EventAttribute(Message, frozen=True):
    """One attribute of an event."""

    key: str = ""
    value: str = ""
    index: bool = False

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "key", Kind.STRING, limit=MAX_TEXT_BYTES),
        Field(2, "value", Kind.STRING, limit=MIB),
        Field(3, "index", Kind.BOOL),
    )


class AbciEvent(Message, frozen=True):
    """An event of a transaction; outside consensus."""

    type: str = ""
    attributes: tuple[EventAttribute, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "type", Kind.STRING, limit=MAX_TEXT_BYTES),
        Field(2, "attributes", Kind.REPEATED, EventAttribute, limit=MAX_TEXT_BYTES),
    )


class ExecTxResult(Message, frozen=True):
    """What a transaction did; of these fields only code and data are consensus (gas stays 0)."""

    code: int = 0
    data: bytes = b""
    events: tuple[AbciEvent, ...] = ()

    SKIPS_UNKNOWN: ClassVar[bool] = True
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "code", Kind.UINT32),
        Field(2, "data", Kind.BYTES, limit=MIB),
        Field(7, "events", Kind.REPEATED, AbciEvent, limit=MAX_COUNT),
    )


class ProofOp(Message, frozen=True):
    """One step of a proof from value to root."""

    type: str = ""
    key: bytes = b""
    data: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "type", Kind.STRING, limit=MAX_TEXT_BYTES),
        Field(2, "key", Kind.BYTES, limit=MAX_KEY_BYTES),
        Field(3, "data", Kind.BYTES, limit=MIB),
    )


class ProofOps(Message, frozen=True):
    """The steps of a proof."""

    ops: tuple[ProofOp, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "ops", Kind.REPEATED, ProofOp, limit=8),)


class Snapshot(Message, frozen=True):
    """A snapshot as peers tell each other of it."""

    height: int = 0
    format: int = 0
    chunks: int = 0
    hash: bytes = b""
    metadata: bytes = b""

    SKIPS_UNKNOWN: ClassVar[bool] = True
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "height", Kind.UINT64),
        Field(2, "format", Kind.UINT32),
        Field(3, "chunks", Kind.UINT32),
        Field(4, "hash", Kind.BYTES, limit=MAX_SNAPSHOT_BYTES),  # a peer chooses it: what is odd is refused later
        Field(5, "metadata", Kind.BYTES, limit=MAX_SNAPSHOT_BYTES),
    )
