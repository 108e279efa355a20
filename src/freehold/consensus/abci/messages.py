"""ABCI 2.0's messages by the field numbers of CometBFT v0.38.25; requests pass over fields that are not used here.

Counts of transactions are not bounded below what fits into a frame: a block that another validator proposed must be
read before it can be rejected. Source: proto/tendermint/abci/types.proto, proto/tendermint/crypto/proof.proto.
"""

from enum import IntEnum
from typing import ClassVar, Final

from freehold.base.limits import MAX_CHAIN_ID_BYTES, MIB
from freehold.consensus.abci.commits import (
    MAX_EXTENSION_BYTES,
    AbciMisbehavior,
    CommitInfo,
    ExtendedCommitInfo,
)
from freehold.consensus.abci.message_parts import (
    MAX_CHUNK_BYTES,
    MAX_COUNT,
    MAX_KEY_BYTES,
    MAX_REQUEST_BYTES,
    MAX_SNAPSHOT_BYTES,
    MAX_TEXT_BYTES,
    ExecTxResult,
    ProofOps,
    Snapshot,
    ValidatorUpdate,
)
from freehold.light.types import ADDRESS_BYTES, MAX_VALIDATORS, ZERO_TIME, Timestamp
from freehold.light.wire import Field, Kind, Message

_HASH_BYTES: Final = 64


class Request(Message, frozen=True):
    """Base of what the engine asks."""

    SKIPS_UNKNOWN: ClassVar[bool] = True


class Response(Message, frozen=True):
    """Base of what the application answers; read leniently only by tests that play the engine."""

    SKIPS_UNKNOWN: ClassVar[bool] = True


class CheckTxType(IntEnum):
    """Why a transaction is checked."""

    NEW = 0
    RECHECK = 1


class Status(IntEnum):
    """Of a proposal or a vote extension."""

    ACCEPT = 1
    REJECT = 2


# --- requests -------------------------------------------------------------------------------------------------------


class RequestEcho(Request, frozen=True):
    """Say this back."""

    message: str = ""

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "message", Kind.STRING, limit=MAX_TEXT_BYTES),)


class RequestFlush(Request, frozen=True):
    """Send what is answered so far."""


class RequestInfo(Request, frozen=True):
    """What was last committed?"""

    version: str = ""
    abci_version: str = ""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "version", Kind.STRING, limit=MAX_TEXT_BYTES),
        Field(4, "abci_version", Kind.STRING, limit=MAX_TEXT_BYTES),
    )


class RequestInitChain(Request, frozen=True):
    """Genesis; its consensus parameters are passed over, they are those of our own copy."""

    time: Timestamp = ZERO_TIME
    chain_id: str = ""
    validators: tuple[ValidatorUpdate, ...] = ()
    app_state_bytes: bytes = b""
    initial_height: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "time", Kind.MESSAGE, Timestamp),
        Field(2, "chain_id", Kind.STRING, limit=MAX_CHAIN_ID_BYTES),
        Field(4, "validators", Kind.REPEATED, ValidatorUpdate, limit=MAX_VALIDATORS),
        Field(5, "app_state_bytes", Kind.BYTES, limit=MAX_REQUEST_BYTES),
        Field(6, "initial_height", Kind.INT64),
    )


class RequestQuery(Request, frozen=True):
    """Read the state; `path` comes from strangers and need not be UTF-8."""

    data: bytes = b""
    path: bytes = b""
    height: int = 0
    prove: bool = False

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "data", Kind.BYTES, limit=MAX_REQUEST_BYTES),
        Field(2, "path", Kind.BYTES, limit=MAX_REQUEST_BYTES),
        Field(3, "height", Kind.INT64),
        Field(4, "prove", Kind.BOOL),
    )


class RequestCheckTx(Request, frozen=True):
    """May this transaction wait?"""

    tx: bytes = b""
    type: int = CheckTxType.NEW

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "tx", Kind.BYTES, limit=MAX_REQUEST_BYTES),
        Field(2, "type", Kind.ENUM),
    )


class RequestCommit(Request, frozen=True):
    """Persist what was finalized."""


class RequestListSnapshots(Request, frozen=True):
    """Which snapshots are there?"""


class RequestOfferSnapshot(Request, frozen=True):
    """Shall a peer's snapshot be restored? The app hash is that of the verified header after its height."""

    snapshot: Snapshot | None = None
    app_hash: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "snapshot", Kind.OPTIONAL, Snapshot),
        Field(2, "app_hash", Kind.BYTES, limit=_HASH_BYTES),
    )


class RequestLoadSnapshotChunk(Request, frozen=True):
    """Give a chunk of a snapshot."""

    height: int = 0
    format: int = 0
    chunk: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "height", Kind.UINT64),
        Field(2, "format", Kind.UINT32),
        Field(3, "chunk", Kind.UINT32),
    )


class RequestApplySnapshotChunk(Request, frozen=True):
    """Take in a chunk of a snapshot, from this peer."""

    index: int = 0
    chunk: bytes = b""
    sender: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "index", Kind.UINT32),
        Field(2, "chunk", Kind.BYTES, limit=MAX_CHUNK_BYTES),  # a peer chooses it, as its hash
        Field(3, "sender", Kind.BYTES, limit=MAX_TEXT_BYTES),
    )


class RequestPrepareProposal(Request, frozen=True):
    """Which transactions go into the block that this validator proposes?"""

    max_tx_bytes: int = 0
    txs: tuple[bytes, ...] = ()
    height: int = 0
    time: Timestamp = ZERO_TIME
    proposer_address: bytes = b""
    local_last_commit: ExtendedCommitInfo = ExtendedCommitInfo()
    misbehavior: tuple[AbciMisbehavior, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "max_tx_bytes", Kind.INT64),
        Field(2, "txs", Kind.REPEATED_BYTES, limit=MAX_COUNT),
        Field(3, "local_last_commit", Kind.MESSAGE, ExtendedCommitInfo),
        Field(4, "misbehavior", Kind.REPEATED, AbciMisbehavior, limit=MAX_COUNT),
        Field(5, "height", Kind.INT64),
        Field(6, "time", Kind.MESSAGE, Timestamp),
        Field(8, "proposer_address", Kind.BYTES, limit=ADDRESS_BYTES),
    )


class RequestProcessProposal(Request, frozen=True):
    """May this validator vote for a proposed block?"""

    txs: tuple[bytes, ...] = ()
    height: int = 0
    time: Timestamp = ZERO_TIME
    proposer_address: bytes = b""
    proposed_last_commit: CommitInfo = CommitInfo()
    misbehavior: tuple[AbciMisbehavior, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "txs", Kind.REPEATED_BYTES, limit=MAX_COUNT),
        Field(2, "proposed_last_commit", Kind.MESSAGE, CommitInfo),
        Field(3, "misbehavior", Kind.REPEATED, AbciMisbehavior, limit=MAX_COUNT),
        Field(5, "height", Kind.INT64),
        Field(6, "time", Kind.MESSAGE, Timestamp),
        Field(8, "proposer_address", Kind.BYTES, limit=ADDRESS_BYTES),
    )


class RequestExtendVote(Request, frozen=True):
    """What goes with this validator's precommit?"""

    hash: bytes = b""
    height: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "hash", Kind.BYTES, limit=_HASH_BYTES),
        Field(2, "height", Kind.INT64),
    )


class RequestVerifyVoteExtension(Request, frozen=True):
    """Is what came with another's precommit in order?"""

    hash: bytes = b""
    validator_address: bytes = b""
    height: int = 0
    vote_extension: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "hash", Kind.BYTES, limit=_HASH_BYTES),
        Field(2, "validator_address", Kind.BYTES, limit=ADDRESS_BYTES),
        Field(3, "height", Kind.INT64),
        Field(4, "vote_extension", Kind.BYTES, limit=MAX_EXTENSION_BYTES),
    )


class RequestFinalizeBlock(Request, frozen=True):
    """Execute a decided block."""

    txs: tuple[bytes, ...] = ()
    hash: bytes = b""
    height: int = 0
    time: Timestamp = ZERO_TIME
    proposer_address: bytes = b""
    decided_last_commit: CommitInfo = CommitInfo()
    misbehavior: tuple[AbciMisbehavior, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "txs", Kind.REPEATED_BYTES, limit=MAX_COUNT),
        Field(2, "decided_last_commit", Kind.MESSAGE, CommitInfo),
        Field(3, "misbehavior", Kind.REPEATED, AbciMisbehavior, limit=MAX_COUNT),
        Field(4, "hash", Kind.BYTES, limit=MAX_SNAPSHOT_BYTES),  # a peer chooses it: what is odd is refused later
        Field(5, "height", Kind.INT64),
        Field(6, "time", Kind.MESSAGE, Timestamp),
        Field(8, "proposer_address", Kind.BYTES, limit=ADDRESS_BYTES),
    )


# --- responses ------------------------------------------------------------------------------------------------------


class ResponseException(Response, frozen=True):
    """The application cannot go on."""

    error: str = ""

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "error", Kind.STRING, limit=MAX_TEXT_BYTES),)


class ResponseEcho(Response, frozen=True):
    """What was said."""

    message: str = ""

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "message", Kind.STRING, limit=MAX_TEXT_BYTES),)


class ResponseFlush(Response, frozen=True):
    """All earlier responses are sent."""


class ResponseInfo(Response, frozen=True):
    """What was last committed."""

    data: str = ""
    version: str = ""
    app_version: int = 0
    last_block_height: int = 0
    last_block_app_hash: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "data", Kind.STRING, limit=MAX_TEXT_BYTES),
        Field(2, "version", Kind.STRING, limit=MAX_TEXT_BYTES),
        Field(3, "app_version", Kind.UINT64),
        Field(4, "last_block_height", Kind.INT64),
        Field(5, "last_block_app_hash", Kind.BYTES, limit=_HASH_BYTES),
    )


class ResponseInitChain(Response, frozen=True):
    """The app hash of the first header; validators and parameters stay those of genesis."""

    app_hash: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(3, "app_hash", Kind.BYTES, limit=_HASH_BYTES),)


class ResponseQuery(Response, frozen=True):
    """A value of the state after a height, with its proof."""

    code: int = 0
    log: str = ""
    key: bytes = b""
    value: bytes = b""
    proof_ops: ProofOps | None = None
    height: int = 0
    codespace: str = ""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "code", Kind.UINT32),
        Field(3, "log", Kind.STRING, limit=MAX_TEXT_BYTES),
        Field(6, "key", Kind.BYTES, limit=MAX_KEY_BYTES),
        Field(7, "value", Kind.BYTES, limit=MIB),
        Field(8, "proof_ops", Kind.OPTIONAL, ProofOps),
        Field(9, "height", Kind.INT64),
        Field(10, "codespace", Kind.STRING, limit=MAX_TEXT_BYTES),
    )


class ResponseCheckTx(Response, frozen=True):
    """Whether a transaction may wait."""

    code: int = 0
    log: str = ""
    codespace: str = ""

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "code", Kind.UINT32),
        Field(3, "log", Kind.STRING, limit=MAX_TEXT_BYTES),
        Field(8, "codespace", Kind.STRING, limit=MAX_TEXT_BYTES),
    )


class ResponseCommit(Response, frozen=True):
    """It is durable; blocks below `retain_height` may go."""

    retain_height: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(3, "retain_height", Kind.INT64),)


class ResponseListSnapshots(Response, frozen=True):
    """The snapshots that peers may have."""

    snapshots: tuple[Snapshot, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "snapshots", Kind.REPEATED, Snapshot, limit=MAX_COUNT),)


class ResponseOfferSnapshot(Response, frozen=True):
    """Whether an offered snapshot is restored."""

    result: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "result", Kind.ENUM),)


class ResponseLoadSnapshotChunk(Response, frozen=True):
    """A chunk; empty when it is not there."""

    chunk: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "chunk", Kind.BYTES, limit=MAX_REQUEST_BYTES),)


class ResponseApplySnapshotChunk(Response, frozen=True):
    """What comes after a chunk, which ones are fetched again, from whom nothing more is taken."""

    result: int = 0
    refetch_chunks: tuple[int, ...] = ()
    reject_senders: tuple[bytes, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "result", Kind.ENUM),
        Field(2, "refetch_chunks", Kind.REPEATED_INT32, limit=MAX_COUNT),
        Field(3, "reject_senders", Kind.REPEATED_BYTES, limit=MAX_COUNT),
    )


class ResponsePrepareProposal(Response, frozen=True):
    """The block's transactions."""

    txs: tuple[bytes, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "txs", Kind.REPEATED_BYTES, limit=MAX_COUNT),)


class ResponseProcessProposal(Response, frozen=True):
    """Whether the block may be voted for."""

    status: int = Status.REJECT

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "status", Kind.ENUM),)


class ResponseExtendVote(Response, frozen=True):
    """What goes with the precommit."""

    vote_extension: bytes = b""

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "vote_extension", Kind.BYTES, limit=MAX_EXTENSION_BYTES),)


class ResponseVerifyVoteExtension(Response, frozen=True):
    """Whether another's extension is in order."""

    status: int = Status.REJECT

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "status", Kind.ENUM),)


class ResponseFinalizeBlock(Response, frozen=True):
    """The results, and the app hash that they lead to."""

    tx_results: tuple[ExecTxResult, ...] = ()
    app_hash: bytes = b""
    validator_updates: tuple[ValidatorUpdate, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(2, "tx_results", Kind.REPEATED, ExecTxResult, limit=MAX_COUNT),
        Field(3, "validator_updates", Kind.REPEATED, ValidatorUpdate, limit=MAX_VALIDATORS),
        Field(5, "app_hash", Kind.BYTES, limit=_HASH_BYTES),
    )


REQUESTS: Final[dict[int, type[Request]]] = {
    1: RequestEcho,
    2: RequestFlush,
    3: RequestInfo,
    5: RequestInitChain,
    6: RequestQuery,
    8: RequestCheckTx,
    11: RequestCommit,
    12: RequestListSnapshots,
    13: RequestOfferSnapshot,
    14: RequestLoadSnapshotChunk,
    15: RequestApplySnapshotChunk,
    16: RequestPrepareProposal,
    17: RequestProcessProposal,
    18: RequestExtendVote,
    19: RequestVerifyVoteExtension,
    20: RequestFinalizeBlock,
}
RESPONSES: Final[dict[int, type[Response]]] = {
    1: ResponseException,
    2: ResponseEcho,
    3: ResponseFlush,
    4: ResponseInfo,
    6: ResponseInitChain,
    7: ResponseQuery,
    9: ResponseCheckTx,
    12: ResponseCommit,
    13: ResponseListSnapshots,
    14: ResponseOfferSnapshot,
    15: ResponseLoadSnapshotChunk,
    16: ResponseApplySnapshotChunk,
    17: ResponsePrepareProposal,
    18: ResponseProcessProposal,
    19: ResponseExtendVote,
    20: ResponseVerifyVoteExtension,
    21: ResponseFinalizeBlock,
}
