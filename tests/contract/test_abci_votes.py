"""What the engine says of votes and evidence reaches the application by key, and its updates reach the engine."""

from pathlib import Path

import pytest
from abci_peer import init_chain
from engine_fixtures import GENESIS_MS, VALIDATOR, make_genesis
from kv_application import KvApplication

from freehold.consensus import application as abci
from freehold.consensus.abci import message_parts as parts
from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.commits import (
    AbciMisbehavior,
    AbciValidator,
    CommitInfo,
    ExtendedCommitInfo,
    ExtendedVoteInfo,
    VoteInfo,
)
from freehold.consensus.abci.service import AbciService
from freehold.crypto.hashing import sha256
from freehold.light.types import PublicKey, Timestamp

MEMBER = AbciValidator(sha256(VALIDATOR.public)[:20], 10)
STRANGER = AbciValidator(bytes(20), 5)
TIME = Timestamp.from_ms(GENESIS_MS + 5)


class Recording(KvApplication):
    """Keeps what it was asked, and asks for a change of the validator set."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[abci.PrepareProposalRequest | abci.ProcessProposalRequest | abci.FinalizeBlockRequest] = []

    def prepare_proposal(self, request: abci.PrepareProposalRequest) -> abci.PrepareProposalResponse:
        self.asked.append(request)
        return super().prepare_proposal(request)

    def process_proposal(self, request: abci.ProcessProposalRequest) -> abci.ProcessProposalResponse:
        self.asked.append(request)
        return super().process_proposal(request)

    def extend_vote(self, request: abci.ExtendVoteRequest) -> abci.ExtendVoteResponse:
        return abci.ExtendVoteResponse(request.height.to_bytes(1, "big") + request.block_hash)

    def finalize_block(self, request: abci.FinalizeBlockRequest) -> abci.FinalizeBlockResponse:
        self.asked.append(request)
        answer = super().finalize_block(request)
        updates = (abci.Validator(VALIDATOR.public, 7), abci.Validator(bytes(32), 0))
        return abci.FinalizeBlockResponse(answer.tx_results, answer.app_hash, updates)


@pytest.mark.parametrize(("flag", "signed"), [(1, False), (2, True), (3, False), (0, False)])
def test_votes_evidence_and_updates_pass_through(tmp_path: Path, flag: int, signed: bool) -> None:
    app = Recording(tmp_path)
    service = AbciService(app, make_genesis(), lambda: 0)
    service.handle(init_chain())
    shown = ExtendedCommitInfo((ExtendedVoteInfo(MEMBER, b"ext", flag), ExtendedVoteInfo(STRANGER, b"no", 2)))
    held = CommitInfo((VoteInfo(MEMBER, flag), VoteInfo(STRANGER, 2)))
    faults = (AbciMisbehavior(1, MEMBER, 3, TIME, 15), AbciMisbehavior(2, STRANGER, 3, TIME, 15))
    address = MEMBER.address
    mark = (b"!proposer 1",)
    service.handle(wire.RequestPrepareProposal(1_000, (), 1, TIME, address, shown, faults))
    service.handle(wire.RequestProcessProposal(mark, 1, TIME, address, held, faults))
    final = service.handle(wire.RequestFinalizeBlock(mark, b"", 1, TIME, address, held, faults))
    vote = abci.VoteInfo(validator=VALIDATOR.public, power=10, signed=signed)
    extended = abci.VoteInfo(validator=VALIDATOR.public, power=10, signed=signed, extension=b"ext")
    fault = abci.Misbehavior(validator=VALIDATOR.public, power=10, height=3, time_ms=TIME.ms, kind=1, total_power=15)
    assert [request.last_votes for request in app.asked] == [(extended,), (vote,), (vote,)]
    assert [request.misbehavior for request in app.asked] == [(fault,)] * 3
    assert isinstance(final, wire.ResponseFinalizeBlock)
    assert final.validator_updates == (
        parts.ValidatorUpdate(PublicKey(VALIDATOR.public), 7),
        parts.ValidatorUpdate(PublicKey(bytes(32)), 0),
    )
    assert service.handle(wire.RequestExtendVote(b"hash", 4)) == wire.ResponseExtendVote(b"\x04hash")
    app.close()
