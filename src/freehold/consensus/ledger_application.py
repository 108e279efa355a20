"""The ledger behind the application interface: its pure rules over the authenticated state.

A transaction is decoded and its signatures are verified once: `check_tx` does so, on whatever thread it is called, and
what it found stands in `known_txs` until a block holds it.
Spec: docs/spec/embedded-engine.md, docs/spec/transactions.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from freehold.base.codec import encode
from freehold.base.errors import InvalidInputError, LocalProtocolError, check
from freehold.base.limits import MAX_TX_BYTES
from freehold.base.presets import Preset
from freehold.consensus import application as abci
from freehold.consensus.application import CheckTxResponse, Event, FinalizeBlockResponse, Lane, TxResult
from freehold.consensus.carried_genesis import continued_state, is_carried
from freehold.consensus.errors import StorageDamagedError
from freehold.consensus.known_txs import KnownTxs, VerifiedSignatures
from freehold.consensus.signing import Signer
from freehold.consensus.state_store import StateStore
from freehold.consensus.state_sync import NO_SNAPSHOTS, NO_STANDING, SnapshotPlan, SnapshotStanding, StateSync, recover
from freehold.crypto import ed25519
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger import keys
from freehold.ledger.beacons import check_extension, has_vrf, make_extension, vrf_beacon_tx
from freehold.ledger.bonds import validator_address
from freehold.ledger.codes import Code
from freehold.ledger.context import load_params
from freehold.ledger.execute import (
    BlockInput,
    BlockResult,
    beacon_tx,
    check_proposal,
    check_tx,
    execute_block,
    propose_block,
)
from freehold.ledger.genesis import initial_state, parse_preset
from freehold.ledger.records import ValidatorAddress
from freehold.ledger.rules import rules_at
from freehold.ledger.state import read
from freehold.ledger.transactions import Accept, Report, Verdict, beacon_signing_bytes
from freehold.ledger.validator_sets import known_sets
from freehold.ledger.votes import Misbehavior, Vote
from freehold.light.genesis import TrustedGenesis

APP_VERSION: Final = 1
_EMPTY_ROOT: Final = bytes(32)


class LedgerApplication:
    """The ledger as an `Application`.

    Attributes:
        state: the store; read it from any thread.
    """

    def __init__(
        self,
        state: StateStore,
        signer: Signer | None = None,
        *,
        keep_blocks: int = 0,
        vrf_key: PrivateKey | None = None,
        state_sync: StateSync | None = None,
    ) -> None:
        """Bind the store.

        Args:
            state: taken over, closed by `close`.
            signer: signs the beacon of blocks that this node proposes; None when it never proposes.
            keep_blocks: blocks that the engine must keep; 0 for all.
            vrf_key: makes this validator's part of the beacon where votes carry it.
            state_sync: takes and restores snapshots; None for an engine that has no peers.
        """
        self.state = state
        self._vrf_key = vrf_key
        self._signer = signer
        self._keep_blocks = keep_blocks
        self._state_sync = state_sync
        self._signatures = VerifiedSignatures()
        self._known = KnownTxs()
        self._chain_id = ""
        self._staged_height = 0
        self._staged_txs: list[bytes] = []
        self._base_height = 0  # of the state before the first block
        self._proposed: tuple[BlockInput, BlockResult] | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        genesis: TrustedGenesis,
        signer: Signer | None = None,
        *,
        keep_blocks: int = 0,
        vrf_key: PrivateKey | None = None,
        snapshots: SnapshotPlan = NO_SNAPSHOTS,
    ) -> "LedgerApplication":
        """Open the state under a data folder, keeping as many versions as genesis' preset says.

        Raises:
            InvalidInputError: genesis holds no preset of ours, or another VRF key of this validator.
            StorageError: the state cannot be opened.
            LocalProtocolError: the next height needs rules that this program does not know.
        """
        if signer is not None:
            _check_vrf_key(genesis, signer.public, vrf_key)
        path = folder / "state"
        recover(path)
        state = StateStore.open(path, genesis_preset(genesis).state_heights)
        try:
            if state.get(keys.PARAMS) is not None:
                rules_at(load_params(state)[0], state.height + 1)
        except LocalProtocolError:
            state.close()
            raise
        state_sync = StateSync(state, path, genesis.chain_id, snapshots)
        application = cls(state, signer, keep_blocks=keep_blocks, vrf_key=vrf_key, state_sync=state_sync)
        application._chain_id = genesis.chain_id
        application._base_height = genesis.initial_height - 1
        return application

    def snapshot_standing(self) -> SnapshotStanding:
        """What became of snapshots; from any thread."""
        return self._state_sync.standing() if self._state_sync is not None else NO_STANDING

    def close(self) -> None:
        """Close the state."""
        if self._state_sync is not None:
            self._state_sync.close()
        self.state.close()

    def info(self) -> abci.InfoResponse:
        """Tell what was last committed."""
        root = self.state.app_hash
        height = self.state.height if self.state.height > self._base_height else 0  # the engine knows no block yet
        return abci.InfoResponse(height, b"" if root == _EMPTY_ROOT else root, APP_VERSION)

    def init_chain(self, request: abci.InitChainRequest) -> abci.InitChainResponse:
        """Take over genesis; made durable at once, so that reads of height 0 work before the first block.

        Raises:
            InvalidInputError: the `app_state` cannot be started from.
            StorageDamagedError: another genesis was taken over before.
        """
        self._chain_id = request.chain_id
        validators = [(validator.public_key, validator.power) for validator in request.validators]
        self._base_height = request.initial_height - 1
        first = _first_state(request, validators)
        if self.state.app_hash == _EMPTY_ROOT:
            self.state.stage(self._base_height, dict(first), begins=True)
            self.state.commit()
        elif len(first) != len(self.state) or any(self.state.get(key) != value for key, value in first.items()):
            raise StorageDamagedError(
                "the state was begun from another genesis", code="other_genesis", hint="start in a new folder"
            )
        return abci.InitChainResponse(self.state.app_hash)

    def check_tx(self, request: abci.CheckTxRequest) -> CheckTxResponse:
        """Say whether a transaction may wait."""
        known, state = self._known, self.state
        result = check_tx(state, request.tx, state.height + 1, self._signatures.verify_new, known.find)
        code, tx = result.code, result.tx
        if code is not Code.OK or tx is None:
            return CheckTxResponse(code=code, log=code.name.lower())
        known.keep(request.tx, tx)
        lane = Lane(result.lane)
        match tx.body:
            case Report(epoch=epoch):
                replay_key = b"report" + epoch.to_bytes(8, "big")
            case Verdict(challenge=challenge):
                replay_key = b"verdict" + challenge
            case Accept(lease=lease):
                replay_key = b"accept" + lease
            case _:
                return CheckTxResponse(
                    code=code,
                    lane=lane,
                    sender=tx.sender,
                    nonce=tx.nonce,
                    next_nonce=result.next_nonce,
                    priority=tx.fee,
                    valid_until=tx.valid_until,
                )
        return CheckTxResponse(
            code=code, lane=lane, sender=tx.sender, replay_key=replay_key, valid_until=tx.valid_until
        )

    def prepare_proposal(self, request: abci.PrepareProposalRequest) -> abci.PrepareProposalResponse:
        """Put the beacon before what the mempool chose, and leave out what would be refused.

        Where too few votes came with a proof there is no beacon: such a block is refused by everyone, the proposer too,
        and the next proposer may have more.
        """
        if has_vrf(self.state):
            extensions = [(vote.validator, vote.extension) for vote in request.last_votes if vote.signed]
            first = vrf_beacon_tx(self.state, request.height, extensions)
            if check_proposal(self.state, _block(request, (first,)), ed25519.verify) is not Code.OK:
                return abci.PrepareProposalResponse((first,))
            return self._propose(request, first)
        signer = self._signer
        check(signer is not None and signer.public == request.proposer, "proposer_can_sign")
        if signer is None:  # for the type checker
            return abci.PrepareProposalResponse(request.txs)
        signature = signer.sign(beacon_signing_bytes(self._chain_id, request.height))
        return self._propose(request, beacon_tx(request.height, signature))

    def _propose(self, request: abci.PrepareProposalRequest, first: bytes) -> abci.PrepareProposalResponse:
        block = _block(request, [first, *request.txs])
        kept, result = propose_block(self.state, block, self._signatures.verify_decided, self._known.find)
        self._proposed = (_block(request, kept), result)
        return abci.PrepareProposalResponse(tuple(kept))

    def process_proposal(self, request: abci.ProcessProposalRequest) -> abci.ProcessProposalResponse:
        """Accept a block that begins with a valid beacon and holds no transaction that is too long."""
        if any(len(tx) > MAX_TX_BYTES for tx in request.txs[1:]):
            return abci.ProcessProposalResponse(False, "oversized")
        block = _block(request, request.txs)
        code = check_proposal(self.state, block, ed25519.verify)
        return abci.ProcessProposalResponse(code is Code.OK, "" if code is Code.OK else code.name.lower())

    def extend_vote(self, request: abci.ExtendVoteRequest) -> abci.ExtendVoteResponse:
        """Add this validator's VRF proof, where votes carry the beacon."""
        if not has_vrf(self.state) or self._signer is None or self._vrf_key is None:
            return abci.ExtendVoteResponse()
        extension = make_extension(self.state, request.height, self._signer.public, self._vrf_key)
        return abci.ExtendVoteResponse(extension)

    def verify_vote_extension(self, request: abci.VerifyVoteExtensionRequest) -> abci.VerifyVoteExtensionResponse:
        """Accept a valid VRF proof alone where votes carry the beacon, else only the empty extension."""
        if not has_vrf(self.state):
            return abci.VerifyVoteExtensionResponse(not request.extension)
        code = check_extension(self.state, request.height, request.validator, request.extension)
        return abci.VerifyVoteExtensionResponse(code is Code.OK)

    def finalize_block(self, request: abci.FinalizeBlockRequest) -> FinalizeBlockResponse:
        """Execute a decided block and stage what it changes."""
        block = _block(request, request.txs)
        proposed, self._proposed = self._proposed, None
        if proposed is not None and proposed[0] == block and self.state.height == block.height - 1:
            result = proposed[1]  # our own proposal, executed when it was composed
        else:
            result = execute_block(self.state, block, self._signatures.verify_decided, self._known.find)
        app_hash = self.state.stage(request.height, result.changes)
        self._staged_height, self._staged_txs = request.height, block.txs
        updates = tuple(abci.Validator(key, power) for key, power in result.validator_updates)
        return FinalizeBlockResponse(_results(result), app_hash, updates)

    def commit(self) -> abci.CommitResponse:
        """Make the staged version durable.

        Raises:
            StorageError: it is not; the version before stands.
        """
        self.state.commit()
        self._known.forget(self._staged_txs)
        self._staged_txs = []
        retain = max(self._staged_height - self._keep_blocks + 1, 0) if self._keep_blocks else 0
        if self._state_sync is not None:
            self._state_sync.committed()
            retain = self._state_sync.lowest_needed(retain)
        return abci.CommitResponse(retain)

    def list_snapshots(self) -> tuple[abci.Snapshot, ...]:
        """Give the snapshots that peers may have."""
        return self._state_sync.listed() if self._state_sync is not None else ()

    def load_snapshot_chunk(self, height: int, format_: int, index: int) -> bytes:
        """Give a chunk; empty when it is not there."""
        return self._state_sync.load(height, format_, index) if self._state_sync is not None else b""

    def offer_snapshot(self, snapshot: abci.Snapshot, app_hash: bytes) -> abci.OfferResult:
        """Say whether a peer's snapshot is restored.

        Raises:
            StorageError: the folder for it cannot be made.
        """
        return self._state_sync.offer(snapshot, app_hash) if self._state_sync is not None else abci.OfferResult.ABORT

    def apply_snapshot_chunk(self, index: int, chunk: bytes, sender: str) -> abci.ApplyChunkResponse:
        """Take a chunk of the accepted snapshot.

        Raises:
            StorageError: it cannot be written; the state stands as it was.
        """
        if self._state_sync is None:
            return abci.ApplyChunkResponse(abci.ChunkResult.ABORT)
        return self._state_sync.apply(index, chunk, sender)

    def find_validator(self, address: bytes) -> bytes | None:
        """Give the key behind an address: of the sets around the newest block, of genesis, or of a bond."""
        for members in known_sets(self.state):
            for key, _ in members:
                if validator_address(key) == address:
                    return key
        found = read(self.state, keys.validator_address_key(address), ValidatorAddress)
        return found.validator if found is not None else None

    def query(self, request: abci.QueryRequest) -> abci.QueryResponse:
        """Read a kept version.

        Raises:
            HeightUnavailableError: it is not kept, or not made yet.
        """
        if request.prove:
            value, proof = self.state.prove(request.key, request.height)
            return abci.QueryResponse(value, request.height, proof)
        return abci.QueryResponse(self.state.get_at(request.key, request.height), request.height)


def _first_state(request: abci.InitChainRequest, validators: list[tuple[bytes, int]]) -> dict[bytes, bytes]:
    if is_carried(request.app_state):
        return continued_state(
            request.app_state,
            request.chain_id,
            initial_height=request.initial_height,
            genesis_time_ms=request.time_ms,
            validators=validators,
        )
    if request.initial_height != 1:
        raise InvalidInputError(
            f"genesis begins at height {request.initial_height} and carries no state",
            code="bad_genesis",
            hint="a new ledger begins at height 1",
        )
    return initial_state(request.app_state, request.chain_id, request.time_ms, validators)


def genesis_preset(genesis: TrustedGenesis) -> Preset:
    """The preset that a genesis document freezes, read without building its state.

    Raises:
        InvalidInputError: it is not one of ours.
    """
    name, values = genesis.app_state.get("preset"), genesis.app_state.get("values")
    if not isinstance(name, str) or not isinstance(values, dict):
        raise InvalidInputError(
            "the app_state of genesis names no preset and values",
            code="bad_genesis",
            hint="use the genesis file of a Freehold grid",
        )
    if any(type(value) is not int for value in values.values()):
        raise InvalidInputError("a preset value of genesis is not a whole number", code="bad_genesis")
    return parse_preset(name, values)


def _check_vrf_key(genesis: TrustedGenesis, validator: bytes, vrf_key: PrivateKey | None) -> None:
    """Refuse to vote with another VRF key than genesis names: every such vote would be refused by the others."""
    entries = genesis.app_state.get("vrf")
    if entries is None:
        return
    if genesis.params.vote_extensions_enable_height != 1:
        raise InvalidInputError(
            "genesis has VRF keys, and its votes carry no extensions",
            code="bad_genesis",
            hint="set consensus_params.abci.vote_extensions_enable_height to 1; the embedded engine cannot run it",
        )
    named = {str(entry.get("validator")): entry.get("vrf_key") for entry in entries if isinstance(entry, dict)}
    wanted = named.get(validator.hex())
    if wanted is not None and (vrf_key is None or wanted != vrf_key.public.hex()):
        raise InvalidInputError(
            f"genesis names VRF key {str(wanted)[:16]} for this validator, the home has "
            f"{'none' if vrf_key is None else vrf_key.public.hex()[:16]}",
            code="other_vrf_key",
            hint="restore vrf.key from its backup",
        )


def _block(
    request: abci.PrepareProposalRequest | abci.ProcessProposalRequest | abci.FinalizeBlockRequest,
    txs: Sequence[bytes],
) -> BlockInput:
    return BlockInput(
        request.height,
        request.time_ms,
        request.proposer,
        list(txs),
        [Vote(vote.validator, vote.power, vote.signed) for vote in request.last_votes],
        [
            Misbehavior(fault.validator, fault.power, fault.height, fault.time_ms, fault.kind, fault.total_power)
            for fault in request.misbehavior
        ],
    )


def _results(result: BlockResult) -> tuple[TxResult, ...]:
    return tuple(
        TxResult(
            int(item.code),
            item.data,
            tuple(Event(str(event.__struct_config__.tag), encode(event)) for event in item.events),
        )
        for item in result.results
    )
