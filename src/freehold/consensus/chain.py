"""One validator's chain, step by step and without an event loop: propose, sign, execute, persist.

A block is executed in memory, then come its durable steps, each of which may be the last one before a crash:
    1. the proposal, in the block store          -> after a restart this very block is used
    2. the signer's record                       -> after a restart this very vote is signed again
    3. the block's commit and results            -> the block is final
    4. the application's commit                  -> after a restart a missing one is made up by replay
Only then are waiters told. `trace` is called with the name of each step once it is done.
Spec: docs/spec/embedded-engine.md.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from freehold.base.errors import FreeholdError, InvalidInputError, LocalProtocolError, check
from freehold.base.limits import KIB
from freehold.consensus.application import (
    Application,
    FinalizeBlockRequest,
    FinalizeBlockResponse,
    InitChainRequest,
    PrepareProposalRequest,
    ProcessProposalRequest,
    TxResult,
    Validator,
)
from freehold.consensus.block_store import FORMAT, BlockRecord, BlockStore
from freehold.consensus.errors import StorageDamagedError
from freehold.consensus.signing import FORMAT as SIGNER_FORMAT
from freehold.consensus.signing import LastSigned, Signer, SignerState
from freehold.consensus.timing import block_time_ms, is_clock_behind
from freehold.crypto.merkle import EMPTY_HASH
from freehold.light.blocks import Block, Data, EvidenceList
from freehold.light.canonical import ExecTxResult
from freehold.light.genesis import TrustedGenesis
from freehold.light.headers import (
    block_id,
    commit_hash,
    data_hash,
    evidence_hash,
    header_hash,
    make_validator_set,
    precommit_sign_bytes,
    results_hash,
)
from freehold.light.types import (
    BLOCK_PROTOCOL,
    EMPTY_COMMIT,
    NIL_BLOCK_ID,
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    SignedHeader,
    Timestamp,
    ValidatorSet,
    Version,
)

HEADER_ROOM_BYTES: Final = 4 * KIB  # of a block: header, last commit, the application's own transaction


class ClockBehindError(FreeholdError):
    """The wall clock is so far behind the newest block that no block may be made."""


class CommittedBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A final block, and what executing it gave.

    Attributes:
        header: its header.
        hash: of the header.
        txs: its transactions, in order.
        results: theirs.
        app_hash: after it; stands in the next header.
        mempool_txs: how many transactions came from the mempool.
    """

    header: Header
    hash: bytes
    txs: tuple[bytes, ...]
    results: tuple[TxResult, ...]
    app_hash: bytes
    mempool_txs: int

    @property
    def height(self) -> int:
        """Its height."""
        return self.header.height


class Chain:
    """The chain of one validator over its stores and application.

    Attributes:
        height: of the newest final block that the application has committed.
        app_hash: after it.
        time_ms: its block time; that of genesis before the first.
        newest: that block, None before the first.
    """

    def __init__(
        self,
        genesis: TrustedGenesis,
        application: Application,
        blocks: BlockStore,
        signer: Signer,
        signer_state: SignerState,
        *,
        trace: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Bind the parts; `start` must follow.

        Args:
            genesis: the chain.
            application: what executes.
            blocks: the blocks.
            signer: the validator's key.
            signer_state: what it signed last.
            trace: called after each step with its name; what it raises stops the chain there.

        Raises:
            InvalidInputError: `not_sole_validator`, or genesis starts above height 1.
        """
        members = genesis.validators.validators
        if len(members) != 1 or members[0].pub_key.ed25519 != signer.public:
            raise InvalidInputError(
                "the embedded engine needs a genesis whose one validator is this node's key",
                code="not_sole_validator",
                hint="start with the validator key that genesis names, or use the CometBFT engine",
            )
        if genesis.initial_height != 1:
            raise InvalidInputError("the embedded engine starts at height 1", code="bad_genesis")
        self._genesis = genesis
        self._app = application
        self._blocks = blocks
        self._signer = signer
        self._signer_state = signer_state
        self._trace = trace
        self.validators: ValidatorSet = make_validator_set(members)
        self.height = 0
        self.app_hash = b""
        self.time_ms = genesis.genesis_time_ms
        self.newest: CommittedBlock | None = None
        self._last_id: BlockID = NIL_BLOCK_ID
        self._last_commit: Commit = EMPTY_COMMIT
        self._results_hash = EMPTY_HASH
        self._retain_height = 0
        self._resumes = False

    @property
    def is_block_due(self) -> bool:
        """Whether the next block should not wait for its tick.

        So it is when the newest one carried transactions, whose app hash must get into a header, and after a restart
        when a proposal is stored.
        """
        return (self.newest is not None and self.newest.mempool_txs > 0) or self._resumes

    def start(self) -> None:
        """Bring application, blocks and signer's record to one height, replaying blocks that the application lacks.

        Raises:
            StorageDamagedError: they contradict each other, or the application's hashes differ from those on record.
        """
        self._blocks.bind_genesis(self._genesis.digest)
        info = self._app.info()
        stored = self._blocks.height
        if info.height > stored:
            raise _damaged(f"the state is at height {info.height}, the newest block is {stored}", "blocks_missing")
        self._check_signer_state(stored)
        app_hash = info.app_hash
        if info.height == 0:
            app_hash = self._init_chain()
        for height in range(info.height + 1, stored + 1):
            app_hash = self._replay(height, app_hash)
        expected = app_hash if stored == 0 else self._record(stored).app_hash
        self._check_app_hash(stored, expected, app_hash)
        self.app_hash = app_hash
        if stored:
            self._load(stored)
        self.height = stored
        self._resumes = self._blocks.pending() is not None

    def make_block(self, wall_ms: int, txs: Sequence[bytes]) -> CommittedBlock:
        """Make the next block: the stored proposal if there is one, else a new one.

        Args:
            wall_ms: the wall clock.
            txs: what the mempool chose, at most `max_tx_bytes` in all.

        Raises:
            ClockBehindError: no block may be made at this time.
            StorageError: a step could not be made durable; the chain must be started anew.
            LocalProtocolError: signing it would contradict an earlier signature.
        """
        block = self._blocks.pending()
        mempool_txs = self._blocks.pending_mempool_txs()
        is_new = block is None
        if block is None:
            block = self._compose(wall_ms, txs)
            chosen = set(txs)
            mempool_txs = sum(tx in chosen for tx in block.data.txs)
        self._check_proposal(block)
        # Executed in memory first: a block that the application cannot execute never becomes durable or signed.
        record = _record_of(self._finalize(block), mempool_txs)
        self._trace("executed")
        if is_new:
            self._blocks.save_proposal(block, mempool_txs)
        self._trace("proposal_saved")
        commit = self._sign(block, wall_ms)
        self._blocks.save_final(commit, record, prune_below=self._retain_height)
        self._trace("block_final")
        self._retain_height = self._app.commit().retain_height
        self._trace("application_committed")
        return self._advance(block, commit, record)

    @property
    def max_tx_bytes(self) -> int:
        """Room for the mempool's transactions in a block, each counted with its overhead."""
        return self._genesis.params.max_block_bytes - HEADER_ROOM_BYTES

    def light_block(self, height: int) -> LightBlock | None:
        """What a light client needs of a final block."""
        block, commit = self._blocks.block(height), self._blocks.commit(height)
        if block is None or commit is None:
            return None
        return LightBlock(SignedHeader(block.header, commit), self.validators)

    def committed(self, height: int) -> CommittedBlock | None:
        """A final block, if it is kept."""
        return read_committed(self._blocks, height)

    @property
    def lowest_height(self) -> int:
        """Of the oldest block that is kept."""
        return self._blocks.lowest

    def _compose(self, wall_ms: int, txs: Sequence[bytes]) -> Block:
        if is_clock_behind(self.time_ms, wall_ms):
            raise ClockBehindError(
                f"this machine's clock is {self.time_ms - wall_ms} ms behind the newest block: no blocks are made",
                code="clock_behind",
                hint="set the clock; blocks go on by themselves",
            )
        height, time_ms = self.height + 1, block_time_ms(self.time_ms, wall_ms)
        prepared = self._app.prepare_proposal(
            PrepareProposalRequest(
                height=height,
                time_ms=time_ms,
                proposer=self._signer.public,
                txs=tuple(txs),
                max_tx_bytes=self._genesis.params.max_block_bytes - HEADER_ROOM_BYTES // 2,
            )
        )
        evidence = EvidenceList()
        header = Header(
            version=Version(BLOCK_PROTOCOL, self._genesis.params.app_version),
            chain_id=self._genesis.chain_id,
            height=height,
            time=Timestamp.from_ms(time_ms),
            last_block_id=self._last_id,
            last_commit_hash=commit_hash(self._last_commit),
            data_hash=data_hash(prepared.txs),
            validators_hash=self._genesis.validators_hash,
            next_validators_hash=self._genesis.validators_hash,
            consensus_hash=self._genesis.params.hash,
            app_hash=self.app_hash,
            last_results_hash=self._results_hash,
            evidence_hash=evidence_hash(evidence),
            proposer_address=self.validators.proposer.address,
        )
        block = Block(header, Data(prepared.txs), evidence, self._last_commit)
        size = len(block.encode())
        check(size <= self._genesis.params.max_block_bytes, "block_within_limit", size=size)
        return block

    def _check_proposal(self, block: Block) -> None:
        header = block.header
        check(header.last_block_id == self._last_id, "proposal_follows_newest", height=header.height)
        self._check_app_hash(header.height - 1, header.app_hash, self.app_hash)
        answer = self._app.process_proposal(
            ProcessProposalRequest(
                height=header.height, time_ms=header.time.ms, proposer=self._signer.public, txs=block.data.txs
            )
        )
        if not answer.accept:
            raise LocalProtocolError(
                f"the application refuses our own block {header.height}: {answer.log}", code="own_block_refused"
            )

    def _sign(self, block: Block, wall_ms: int) -> Commit:
        height, voted = block.header.height, block_id(block)
        last = self._signer_state.last
        if last is not None and last.height == height and last.block_hash == voted.hash:
            vote_ms = last.time_ms  # the vote on record is the only one that may be signed
        else:
            vote_ms = max(wall_ms, block.header.time.ms + 1)
        time = Timestamp.from_ms(vote_ms)
        message = precommit_sign_bytes(self._genesis.chain_id, height, 0, voted, time)
        self._signer_state.record(LastSigned(SIGNER_FORMAT, height, 0, voted.hash, vote_ms, message))
        self._trace("vote_recorded")
        signature = self._signer.sign(message)
        self._trace("vote_signed")
        address = self.validators.proposer.address
        return Commit(height, 0, voted, (CommitSig(BlockIDFlag.COMMIT, address, time, signature),))

    def _finalize(self, block: Block) -> FinalizeBlockResponse:
        response = self._app.finalize_block(
            FinalizeBlockRequest(
                height=block.header.height,
                time_ms=block.header.time.ms,
                proposer=self._signer.public,
                txs=block.data.txs,
            )
        )
        check(len(response.tx_results) == len(block.data.txs), "one_result_per_transaction")
        if response.validator_updates:
            raise LocalProtocolError(
                f"block {block.header.height} elects validators, and the embedded engine has one fixed validator",
                code="validators_fixed",
                hint="elections need a ledger on CometBFT",
            )
        return response

    def _advance(self, block: Block, commit: Commit, record: BlockRecord) -> CommittedBlock:
        self.height = block.header.height
        self.time_ms = block.header.time.ms
        self.app_hash = record.app_hash
        self.newest = _committed(block, record)
        self._resumes = False
        self._last_id = commit.block_id
        self._last_commit = commit
        self._results_hash = record.results_hash
        return self.newest

    def _init_chain(self) -> bytes:
        genesis = self._genesis
        response = self._app.init_chain(
            InitChainRequest(
                chain_id=genesis.chain_id,
                time_ms=genesis.genesis_time_ms,
                initial_height=genesis.initial_height,
                validators=tuple(
                    Validator(member.pub_key.ed25519, member.voting_power) for member in genesis.validators.validators
                ),
                app_state=genesis.app_state,
            )
        )
        if genesis.app_hash and genesis.app_hash != response.app_hash:
            raise InvalidInputError(
                f"genesis promises app hash {genesis.app_hash.hex()[:16]}, its app_state gives"
                f" {response.app_hash.hex()[:16]}",
                code="app_hash_mismatch",
                hint="the genesis file was edited, or made by another version: fetch it again from its maker",
            )
        return response.app_hash

    def _replay(self, height: int, app_hash: bytes) -> bytes:
        block = self._blocks.block(height)
        if block is None:
            raise _damaged(f"block {height} is needed to rebuild the state, and is pruned", "blocks_missing")
        record = self._record(height)
        self._check_app_hash(height - 1, block.header.app_hash, app_hash)
        response = self._finalize(block)
        self._check_app_hash(height, record.app_hash, response.app_hash)
        if _record_of(response, record.mempool_txs).results_hash != record.results_hash:
            raise _damaged(f"block {height} gives other results than on record", "results_mismatch")
        self._app.commit()
        self._trace("replayed")
        return response.app_hash

    def _load(self, height: int) -> None:
        block, commit = self._blocks.block(height), self._blocks.commit(height)
        if block is None or commit is None:
            raise _damaged(f"block {height} is missing", "blocks_missing")
        self._advance(block, commit, self._record(height))

    def _record(self, height: int) -> BlockRecord:
        record = self._blocks.record(height)
        if record is None:
            raise _damaged(f"the results of block {height} are missing", "blocks_missing")
        return record

    def _check_signer_state(self, stored: int) -> None:
        last, pending = self._signer_state.last, self._blocks.pending()
        if stored and (last is None or last.height < stored):
            raise _damaged(f"blocks up to {stored} are signed, the signer's record lacks them", "signer_record_missing")
        signed = last.height if last is not None else 0
        if signed > stored and (signed > stored + 1 or pending is None):
            raise _damaged(f"block {signed} was signed, the newest one kept is {stored}", "blocks_missing")

    def _check_app_hash(self, height: int, expected: bytes, actual: bytes) -> None:
        if expected != actual:
            raise _damaged(
                f"the app hash after block {height} is {actual.hex()[:16]}, on record is {expected.hex()[:16]}",
                "app_hash_mismatch",
            )


def _record_of(response: FinalizeBlockResponse, mempool_txs: int) -> BlockRecord:
    results = list(response.tx_results)
    digest = results_hash([ExecTxResult(code=result.code, data=result.data) for result in results])
    return BlockRecord(FORMAT, response.app_hash, digest, mempool_txs, results)


def read_committed(blocks: BlockStore, height: int) -> CommittedBlock | None:
    """A final block with what it gave, from a block store; None when it is not kept."""
    block, record = blocks.block(height), blocks.record(height)
    return None if block is None or record is None else _committed(block, record)


def _committed(block: Block, record: BlockRecord) -> CommittedBlock:
    return CommittedBlock(
        header=block.header,
        hash=header_hash(block.header),
        txs=block.data.txs,
        results=tuple(record.results),
        app_hash=record.app_hash,
        mempool_txs=record.mempool_txs,
    )


def _damaged(why: str, code: str) -> StorageDamagedError:
    return StorageDamagedError(
        f"the data folder contradicts itself: {why}",
        code=code,
        hint="restore the folder from one copy of one moment; never start a validator from an older one",
    )
