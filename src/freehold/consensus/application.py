"""What an engine asks of the ledger's application: ABCI 2.0 (CometBFT v0.38), as a Protocol and frozen structs.

The same application stands behind the embedded engine and, later, behind CometBFT's socket, so names, order and
meaning follow ABCI: `finalize_block` computes, `commit` alone persists, `info` tells what was last committed, and the
app hash of a height goes into the header of the next.

Threads: `check_tx`, `query`, `list_snapshots` and `load_snapshot_chunk` may be called from any thread at any time;
everything else is called by one at a time.
"""

from enum import IntEnum
from typing import Any, Protocol

import msgspec

OK = 0  # the code of success, in every response


class Lane(IntEnum):
    """Which share of a block a transaction competes for."""

    REPORTS = 0  # reports, verdicts, acceptances: free, no nonce
    GOVERNANCE = 1
    USERS = 2


class CheckKind(IntEnum):
    """Why a transaction is checked."""

    NEW = 0
    RECHECK = 1  # it waits in the mempool, and a block was committed meanwhile


class Validator(msgspec.Struct, frozen=True):
    """A validator: its ed25519 key and voting power."""

    public_key: bytes
    power: int


class VoteInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a validator did in the commit of the block before.

    Attributes:
        validator: its public key.
        power: at that height.
        signed: whether the commit holds its vote for that block.
        extension: of its vote; the proposer alone is shown it.
    """

    validator: bytes
    power: int
    signed: bool
    extension: bytes = b""


class Misbehavior(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that the engine verified: what a validator did at a height.

    Attributes:
        validator: its public key.
        power: at that height.
        height: at which it misbehaved.
        time_ms: of that height's block.
        kind: ABCI's `MisbehaviorType`: 1 voted twice, 2 voted for a chain that is not ours.
        total_power: of the whole set at that height.
    """

    validator: bytes
    power: int
    height: int
    time_ms: int
    kind: int
    total_power: int


class InfoResponse(msgspec.Struct, frozen=True):
    """What was last committed: height 0 before the first block, with an empty app hash before genesis."""

    height: int
    app_hash: bytes
    app_version: int


class InitChainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Genesis. Asked again while `info` says height 0; the answer is the same."""

    chain_id: str
    time_ms: int
    initial_height: int
    validators: tuple[Validator, ...]
    app_state: dict[str, Any]


class InitChainResponse(msgspec.Struct, frozen=True):
    """The app hash of the first header."""

    app_hash: bytes


class CheckTxRequest(msgspec.Struct, frozen=True):
    """May this transaction wait in the mempool?"""

    tx: bytes
    kind: CheckKind = CheckKind.NEW


class CheckTxResponse(msgspec.Struct, frozen=True, kw_only=True):
    """Whether, and where, a transaction waits.

    Attributes:
        code: `OK`, else the application's stable code.
        lane: which share of a block it competes for.
        sender: whose order of nonces it belongs to.
        nonce: its place in that order; None where there is no order (then `replay_key` tells it from others).
        next_nonce: the sender's next nonce in the committed state.
        replay_key: what may stand in the mempool once only; empty for (sender, nonce).
        priority: more goes first within a lane; the fee.
        valid_until: the last height that may include it.
        log: for people; never in consensus.
    """

    code: int
    lane: Lane = Lane.USERS
    sender: bytes = b""
    nonce: int | None = None
    next_nonce: int = 0
    replay_key: bytes = b""
    priority: int = 0
    valid_until: int = (1 << 63) - 1
    log: str = ""


class PrepareProposalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The proposer asks what goes into the block, given what its mempool chose."""

    height: int
    time_ms: int
    proposer: bytes  # public key
    txs: tuple[bytes, ...]
    max_tx_bytes: int
    last_votes: tuple[VoteInfo, ...] = ()
    misbehavior: tuple[Misbehavior, ...] = ()


class PrepareProposalResponse(msgspec.Struct, frozen=True):
    """The block's transactions, in order."""

    txs: tuple[bytes, ...]


class ProcessProposalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A validator asks whether it may vote for a block."""

    height: int
    time_ms: int
    proposer: bytes
    txs: tuple[bytes, ...]
    last_votes: tuple[VoteInfo, ...] = ()
    misbehavior: tuple[Misbehavior, ...] = ()


class ProcessProposalResponse(msgspec.Struct, frozen=True):
    """Whether the block may be voted for; `log` is for people."""

    accept: bool
    log: str = ""


class ExtendVoteRequest(msgspec.Struct, frozen=True):
    """What the application adds to this validator's precommit for a block."""

    height: int
    block_hash: bytes = b""


class ExtendVoteResponse(msgspec.Struct, frozen=True):
    """The extension; empty when there is none."""

    extension: bytes = b""


class VerifyVoteExtensionRequest(msgspec.Struct, frozen=True):
    """Is another validator's extension in order?"""

    height: int
    validator: bytes
    extension: bytes


class VerifyVoteExtensionResponse(msgspec.Struct, frozen=True):
    """Whether the extension is in order."""

    accept: bool


class FinalizeBlockRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A decided block, to be executed; its votes come without extensions."""

    height: int
    time_ms: int
    proposer: bytes
    txs: tuple[bytes, ...]
    last_votes: tuple[VoteInfo, ...] = ()
    misbehavior: tuple[Misbehavior, ...] = ()


class Event(msgspec.Struct, frozen=True, array_like=True):
    """Something that happened, for indexers and pages; outside consensus.

    Attributes:
        kind: the application's word for it.
        data: the application's own record of it, encoded.
    """

    kind: str
    data: bytes = b""


class TxResult(msgspec.Struct, frozen=True, array_like=True):
    """What a transaction did. Code and data are consensus (`last_results_hash`), events are not."""

    code: int
    data: bytes = b""
    events: tuple[Event, ...] = ()


class FinalizeBlockResponse(msgspec.Struct, frozen=True):
    """The results in the order of the block's transactions, and the app hash that they lead to.

    `validator_updates` change the set that votes from two heights on; power 0 removes.
    """

    tx_results: tuple[TxResult, ...]
    app_hash: bytes
    validator_updates: tuple[Validator, ...] = ()


class CommitResponse(msgspec.Struct, frozen=True):
    """Durable; blocks below `retain_height` are no longer needed (0: all are)."""

    retain_height: int = 0


class QueryRequest(msgspec.Struct, frozen=True):
    """A key of the state after a height, with its proof if asked."""

    key: bytes
    height: int
    prove: bool = False


class QueryResponse(msgspec.Struct, frozen=True):
    """The value, or None, after `height`, and the ICS-23 `CommitmentProof` against the app hash of the next header."""

    value: bytes | None
    height: int
    proof: bytes = b""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot as peers tell each other of it.

    Attributes:
        height: the state is the one after this block.
        format: of the snapshot; whoever does not know it cannot restore it.
        chunks: how many.
        hash: equal only if all of it is equal.
        metadata: the application's own.
    """

    height: int
    format: int
    chunks: int
    hash: bytes
    metadata: bytes


class OfferResult(IntEnum):
    """What becomes of a snapshot that a peer has; ABCI's numbers."""

    ACCEPT = 1
    ABORT = 2
    REJECT = 3
    REJECT_FORMAT = 4
    REJECT_SENDER = 5


class ChunkResult(IntEnum):
    """What comes after a chunk; ABCI's numbers."""

    ACCEPT = 1
    ABORT = 2
    RETRY = 3
    REJECT_SNAPSHOT = 5


class ApplyChunkResponse(msgspec.Struct, frozen=True):
    """What comes after a chunk, which ones are to be fetched again, and from whom nothing more is taken."""

    result: ChunkResult
    refetch_chunks: tuple[int, ...] = ()
    reject_senders: tuple[str, ...] = ()


class Application(Protocol):
    """The calls; see the module."""

    def info(self) -> InfoResponse:
        """Tell what was last committed."""

    def init_chain(self, request: InitChainRequest) -> InitChainResponse:
        """Take over genesis."""

    def check_tx(self, request: CheckTxRequest) -> CheckTxResponse:
        """Say whether a transaction may wait in the mempool; signatures are verified here, once."""

    def prepare_proposal(self, request: PrepareProposalRequest) -> PrepareProposalResponse:
        """Build the transactions of the proposer's block."""

    def process_proposal(self, request: ProcessProposalRequest) -> ProcessProposalResponse:
        """Say whether a block may be voted for."""

    def extend_vote(self, request: ExtendVoteRequest) -> ExtendVoteResponse:
        """Give what goes with a precommit."""

    def verify_vote_extension(self, request: VerifyVoteExtensionRequest) -> VerifyVoteExtensionResponse:
        """Judge what came with another's precommit."""

    def finalize_block(self, request: FinalizeBlockRequest) -> FinalizeBlockResponse:
        """Execute a decided block; nothing is persisted."""

    def commit(self) -> CommitResponse:
        """Persist what `finalize_block` computed."""

    def find_validator(self, address: bytes) -> bytes | None:
        """Give the public key behind an address of 20 bytes, by which an engine names validators.

        It is one of the sets around the newest block, of genesis, or has a bond; None for a stranger.
        """

    def query(self, request: QueryRequest) -> QueryResponse:
        """Read the committed state.

        Raises:
            HeightUnavailableError: that version is not kept, or not made yet.
        """

    def list_snapshots(self) -> tuple[Snapshot, ...]:
        """Give the snapshots that peers may have."""

    def load_snapshot_chunk(self, height: int, format_: int, index: int) -> bytes:
        """Give a chunk; empty when it is not there."""

    def offer_snapshot(self, snapshot: Snapshot, app_hash: bytes) -> OfferResult:
        """Say whether a peer's snapshot is restored; `app_hash` is that of its height, verified by the engine."""

    def apply_snapshot_chunk(self, index: int, chunk: bytes, sender: str) -> ApplyChunkResponse:
        """Take a chunk of the accepted snapshot; after the last one `info` tells of its height."""

    def close(self) -> None:
        """Let go of files; nothing else is called afterwards."""
