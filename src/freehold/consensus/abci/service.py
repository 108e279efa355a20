"""What ABCI's messages mean for an `Application`.

Two things the engine does not say as the application wants them are made here, the same on every validator:
    validators: the engine names their addresses, the application wants their keys: those of genesis, and those that the
        ledger knows of elections.
    time: the engine's block times grow by nanoseconds, the application's by whole milliseconds. A block's time is its
        header's, rounded down, or 1 ms after the block before it where that is later. While less than a third of the
        power lies, the median of the votes' times grows by 1 ms at least, and the two are the same.

Threads: `check` and `query` may be called from any thread; the rest by one at a time.
Spec: docs/spec/comet-engine.md.
"""

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from freehold.base.errors import InvalidInputError, LocalProtocolError, RefusedError
from freehold.base.limits import KIB, MAX_TX_BYTES
from freehold.consensus import application as abci
from freehold.consensus.abci import message_parts as parts
from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.commits import AbciMisbehavior, CommitInfo, ExtendedCommitInfo, ExtendedVoteInfo
from freehold.consensus.abci.following import Clock, FinalBlock, Follower, NoFollower
from freehold.consensus.abci.waiting import WaitingTxs
from freehold.consensus.application import Application, CheckKind, CheckTxRequest
from freehold.consensus.errors import HeightUnavailableError, MempoolFullError
from freehold.light.genesis import TrustedGenesis
from freehold.light.types import BlockIDFlag, PublicKey

OWN_TX_ROOM_BYTES: Final = 256  # of a block, for the transaction that the application itself puts first
EXTENSION_ROOM_BYTES: Final = 96  # of a block, for what an application makes of one vote's extension
CODESPACE: Final = "freehold"
EVENT_KEY: Final = "data"  # the attribute that holds an event's record, in hex
STORE_PATH: Final = b"/store"
ABSENT: Final = "absent"  # the log of a query for a key without a value
PROOF_TYPE: Final = "ics23:smt"
MAX_STATE_KEY_BYTES: Final = 1 * KIB
NO_ROOM: Final = 1 << 16  # outside the ledger's codes: acceptable, but without room; the log says why in three lines
QUERY_REFUSED: Final = 1  # a code outside the ledger's: the query itself could not be answered


class AbciService:
    """Answers the engine's requests for an application; see the module."""

    def __init__(
        self,
        application: Application,
        genesis: TrustedGenesis,
        last_time_ms: Callable[[], int],
        follower: Follower | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Bind an application.

        Args:
            application: the ledger.
            genesis: the chain that this node was set up for.
            last_time_ms: the time of the newest committed block, as the application was told it.
            follower: is told of each durable block, and of transactions that are refused when checked again.
            clock: is told of each round in which this node votes, and of each decided block.
        """
        self._app = application
        self._follower: Follower = follower or NoFollower()
        self._clock = clock
        self._final: FinalBlock | None = None
        self._genesis = genesis
        self._last_time_ms = last_time_ms
        self._height = application.info().height
        self._keys = {member.address: member.pub_key.ed25519 for member in genesis.validators.validators}
        self._waiting = WaitingTxs()
        self._handlers: dict[type[wire.Request], Callable[[Any], wire.Response]] = {
            wire.RequestEcho: lambda request: wire.ResponseEcho(request.message),
            wire.RequestFlush: lambda _: wire.ResponseFlush(),
            wire.RequestInfo: self._info,
            wire.RequestInitChain: self._init_chain,
            wire.RequestQuery: self.query,
            wire.RequestCheckTx: self.check,
            wire.RequestCommit: self._commit,
            wire.RequestListSnapshots: self._list_snapshots,
            wire.RequestOfferSnapshot: self._offer_snapshot,
            wire.RequestLoadSnapshotChunk: self._load_snapshot_chunk,
            wire.RequestApplySnapshotChunk: self._apply_snapshot_chunk,
            wire.RequestPrepareProposal: self._prepare_proposal,
            wire.RequestProcessProposal: self._process_proposal,
            wire.RequestExtendVote: self._extend_vote,
            wire.RequestVerifyVoteExtension: self._verify_vote_extension,
            wire.RequestFinalizeBlock: self._finalize_block,
        }

    @property
    def height(self) -> int:
        """Of the newest committed block."""
        return self._height

    def handle(self, request: wire.Request) -> wire.Response:
        """Answer a request; whatever is raised means that the application cannot go on.

        Raises:
            FreeholdError: it says why, and what to do.
            InvariantError: a broken invariant.
        """
        return self._handlers[type(request)](request)

    def check(self, request: wire.RequestCheckTx) -> wire.ResponseCheckTx:
        """Say whether a transaction may wait."""
        height, tx = self._height, request.tx
        if request.type == wire.CheckTxType.RECHECK:
            return self._recheck(tx, height)
        answer = self._app.check_tx(CheckTxRequest(tx, CheckKind.NEW))
        if answer.code:
            return wire.ResponseCheckTx(code=answer.code, log=answer.log, codespace=CODESPACE)
        try:
            self._waiting.admit(tx, answer, height)
        except MempoolFullError as error:
            why = "\n".join((error.code, error.message, error.hint))
            return wire.ResponseCheckTx(code=NO_ROOM, log=why, codespace=CODESPACE)
        return wire.ResponseCheckTx()

    def _recheck(self, tx: bytes, height: int) -> wire.ResponseCheckTx:
        code, gone = NO_ROOM, self._waiting.let_go(tx)
        if gone is None:
            answer = self._app.check_tx(CheckTxRequest(tx, CheckKind.RECHECK))
            code, gone = answer.code or NO_ROOM, self._waiting.recheck(tx, answer, height)
        if gone is None:
            return wire.ResponseCheckTx()
        self._follower.left(tx, gone)
        return wire.ResponseCheckTx(code=code, log=gone.message, codespace=CODESPACE)

    def query(self, request: wire.RequestQuery) -> wire.ResponseQuery:
        """Read a key (`data`) of the state after `height` (0: the newest), with its proof; the path is `/store`."""
        if request.path != STORE_PATH or not 1 <= len(request.data) <= MAX_STATE_KEY_BYTES or request.height < 0:
            return _refused("ask path /store for a key of 1 to 1024 bytes at a height that is not negative")
        try:
            answer = self._app.query(abci.QueryRequest(request.data, request.height or self._height, request.prove))
        except (HeightUnavailableError, InvalidInputError, RefusedError) as error:
            return _refused(error.message)
        proof = None
        if request.prove:
            proof = parts.ProofOps((parts.ProofOp(PROOF_TYPE, request.data, answer.proof),))
        return wire.ResponseQuery(
            key=request.data,
            value=answer.value or b"",
            proof_ops=proof,
            height=answer.height,
            log="" if answer.value is not None else ABSENT,
        )

    def _info(self, _: wire.RequestInfo) -> wire.ResponseInfo:
        info = self._app.info()
        self._height = info.height
        return wire.ResponseInfo(
            data="freehold",
            app_version=info.app_version,
            last_block_height=info.height,
            last_block_app_hash=info.app_hash,
        )

    def _init_chain(self, request: wire.RequestInitChain) -> wire.ResponseInitChain:
        self._check_genesis(request)
        answer = self._app.init_chain(
            abci.InitChainRequest(
                chain_id=request.chain_id,
                time_ms=request.time.ms,
                initial_height=request.initial_height,
                validators=tuple(
                    abci.Validator(validator.pub_key.ed25519, validator.power) for validator in request.validators
                ),
                app_state=self._genesis.app_state,
            )
        )
        promised = self._genesis.app_hash
        if promised and promised != answer.app_hash:
            raise InvalidInputError(
                f"genesis promises app hash {promised.hex()[:16]}, its app_state gives {answer.app_hash.hex()[:16]}",
                code="app_hash_mismatch",
                hint="the genesis file was edited, or made by another version: fetch it again from its maker",
            )
        return wire.ResponseInitChain(answer.app_hash)

    def _check_genesis(self, request: wire.RequestInitChain) -> None:
        """Refuse an engine that was set up from another document than this node's own."""
        genesis = self._genesis
        try:
            app_state = json.loads(request.app_state_bytes)
        except (ValueError, RecursionError):
            app_state = None
        members = sorted((member.pub_key.ed25519, member.voting_power) for member in genesis.validators.validators)
        theirs = {
            "chain_id": request.chain_id == genesis.chain_id,
            "genesis_time": request.time == genesis.genesis_time,
            "initial_height": request.initial_height == genesis.initial_height,
            "validators": sorted((one.pub_key.ed25519, one.power) for one in request.validators) == members,
            "app_state": app_state == genesis.app_state,
        }
        wrong = [name for name, same in theirs.items() if not same]
        if wrong:
            raise InvalidInputError(
                f"the engine begins from another genesis: {', '.join(wrong)} differ",
                code="other_genesis",
                hint="give the engine's config/genesis.json and this home the same document, in a new folder",
            )

    def _prepare_proposal(self, request: wire.RequestPrepareProposal) -> wire.ResponsePrepareProposal:
        own = OWN_TX_ROOM_BYTES + EXTENSION_ROOM_BYTES * len(request.local_last_commit.votes)
        self._learn(request.txs)
        answer = self._app.prepare_proposal(
            abci.PrepareProposalRequest(
                height=request.height,
                time_ms=self._time_ms(request),
                proposer=self._proposer(request.proposer_address),
                txs=self._waiting.select(request.height, request.max_tx_bytes - own),
                max_tx_bytes=request.max_tx_bytes,
                last_votes=self._votes(request.local_last_commit),
                misbehavior=self._misbehavior(request.misbehavior),
            )
        )
        return wire.ResponsePrepareProposal(answer.txs)

    def _learn(self, txs: Sequence[bytes]) -> None:
        """Take in what the engine holds, should it be unknown here."""
        for tx in txs:
            if len(tx) > MAX_TX_BYTES or self._waiting.holds(tx):
                continue
            answer = self._app.check_tx(CheckTxRequest(tx, CheckKind.RECHECK))
            if answer.code == abci.OK:
                with contextlib.suppress(MempoolFullError):
                    self._waiting.admit(tx, answer, self._height)

    def _process_proposal(self, request: wire.RequestProcessProposal) -> wire.ResponseProcessProposal:
        if self._clock is not None:
            self._clock.voting(request.height)
        proposer = self._key(request.proposer_address)
        if proposer is None:
            return wire.ResponseProcessProposal(wire.Status.REJECT)
        answer = self._app.process_proposal(
            abci.ProcessProposalRequest(
                height=request.height,
                time_ms=self._time_ms(request),
                proposer=proposer,
                txs=request.txs,
                last_votes=self._votes(request.proposed_last_commit),
                misbehavior=self._misbehavior(request.misbehavior),
            )
        )
        return wire.ResponseProcessProposal(wire.Status.ACCEPT if answer.accept else wire.Status.REJECT)

    def _extend_vote(self, request: wire.RequestExtendVote) -> wire.ResponseExtendVote:
        answer = self._app.extend_vote(abci.ExtendVoteRequest(request.height, request.hash))
        return wire.ResponseExtendVote(answer.extension)

    def _verify_vote_extension(self, request: wire.RequestVerifyVoteExtension) -> wire.ResponseVerifyVoteExtension:
        validator = self._key(request.validator_address)
        accept = (
            validator is not None
            and self._app.verify_vote_extension(
                abci.VerifyVoteExtensionRequest(request.height, validator, request.vote_extension)
            ).accept
        )
        return wire.ResponseVerifyVoteExtension(wire.Status.ACCEPT if accept else wire.Status.REJECT)

    def _finalize_block(self, request: wire.RequestFinalizeBlock) -> wire.ResponseFinalizeBlock:
        time_ms = self._time_ms(request)
        if self._clock is not None:
            signers = [
                vote.validator.address
                for vote in request.decided_last_commit.votes
                if vote.block_id_flag == BlockIDFlag.COMMIT
            ]
            self._clock.decided(request.height, request.time.ms, signers)
        answer = self._app.finalize_block(
            abci.FinalizeBlockRequest(
                height=request.height,
                time_ms=time_ms,
                proposer=self._proposer(request.proposer_address),
                txs=request.txs,
                last_votes=self._votes(request.decided_last_commit),
                misbehavior=self._misbehavior(request.misbehavior),
            )
        )
        self._final = FinalBlock(
            height=request.height,
            time_ms=time_ms,
            hash=request.hash,
            txs=request.txs,
            results=answer.tx_results,
            app_hash=answer.app_hash,
            faults=len(request.misbehavior),
        )
        return wire.ResponseFinalizeBlock(
            tuple(_result(result) for result in answer.tx_results),
            answer.app_hash,
            tuple(
                parts.ValidatorUpdate(PublicKey(member.public_key), member.power) for member in answer.validator_updates
            ),
        )

    def _commit(self, _: wire.RequestCommit) -> wire.ResponseCommit:
        answer = self._app.commit()
        self._height = self._app.info().height
        if self._final is not None:
            self._waiting.committed(self._final.txs, self._height)
            self._follower.committed(self._final)
            self._final = None
        return wire.ResponseCommit(answer.retain_height)

    def _list_snapshots(self, _: wire.RequestListSnapshots) -> wire.ResponseListSnapshots:
        return wire.ResponseListSnapshots(
            tuple(
                parts.Snapshot(one.height, one.format, one.chunks, one.hash, one.metadata)
                for one in self._app.list_snapshots()
            )
        )

    def _offer_snapshot(self, request: wire.RequestOfferSnapshot) -> wire.ResponseOfferSnapshot:
        offered = request.snapshot or parts.Snapshot()
        snapshot = abci.Snapshot(
            height=offered.height,
            format=offered.format,
            chunks=offered.chunks,
            hash=offered.hash,
            metadata=offered.metadata,
        )
        return wire.ResponseOfferSnapshot(self._app.offer_snapshot(snapshot, request.app_hash))

    def _load_snapshot_chunk(self, request: wire.RequestLoadSnapshotChunk) -> wire.ResponseLoadSnapshotChunk:
        chunk = self._app.load_snapshot_chunk(request.height, request.format, request.chunk)
        return wire.ResponseLoadSnapshotChunk(chunk)

    def _apply_snapshot_chunk(self, request: wire.RequestApplySnapshotChunk) -> wire.ResponseApplySnapshotChunk:
        answer = self._app.apply_snapshot_chunk(request.index, request.chunk, request.sender.decode(errors="replace"))
        senders = tuple(sender.encode() for sender in answer.reject_senders)
        return wire.ResponseApplySnapshotChunk(answer.result, answer.refetch_chunks, senders)

    def _votes(self, commit: CommitInfo | ExtendedCommitInfo) -> tuple[abci.VoteInfo, ...]:
        """Name the validators by key; the engine lists the set of the height before, whoever is unknown is left out."""
        return tuple(
            abci.VoteInfo(
                validator=key,
                power=vote.validator.power,
                signed=vote.block_id_flag == BlockIDFlag.COMMIT,
                extension=vote.vote_extension if isinstance(vote, ExtendedVoteInfo) else b"",
            )
            for vote in commit.votes
            if (key := self._key(vote.validator.address)) is not None
        )

    def _misbehavior(self, evidence: tuple[AbciMisbehavior, ...]) -> tuple[abci.Misbehavior, ...]:
        """Name by key who misbehaved; whoever is unknown has nothing here to lose."""
        return tuple(
            abci.Misbehavior(
                validator=key,
                power=fault.validator.power,
                height=fault.height,
                time_ms=fault.time.ms,
                kind=fault.type,
                total_power=fault.total_voting_power,
            )
            for fault in evidence
            if (key := self._key(fault.validator.address)) is not None
        )

    def _key(self, address: bytes) -> bytes | None:
        """The key behind an address; it is a hash of the key, so what was found once holds for ever."""
        known = self._keys.get(address)
        if known is None and (known := self._app.find_validator(address)) is not None:
            self._keys[address] = known
        return known

    def _proposer(self, address: bytes) -> bytes:
        key = self._key(address)
        if key is None:
            raise LocalProtocolError(
                f"the engine decided a block of {address.hex()}, who is no validator of this ledger",
                code="unknown_proposer",
                hint="give the engine's config/genesis.json and this home the same document",
            )
        return key

    def _time_ms(
        self, request: wire.RequestPrepareProposal | wire.RequestProcessProposal | wire.RequestFinalizeBlock
    ) -> int:
        return max(request.time.ms, self._last_time_ms() + 1)


def _result(result: abci.TxResult) -> parts.ExecTxResult:
    events = tuple(
        parts.AbciEvent(event.kind, (parts.EventAttribute(EVENT_KEY, event.data.hex()),)) for event in result.events
    )
    return parts.ExecTxResult(result.code, result.data, events)


def _refused(why: str) -> wire.ResponseQuery:
    return wire.ResponseQuery(code=QUERY_REFUSED, log=why, codespace=CODESPACE)
