"""Several validators of one ledger with VRF keys, each an application of its own, driven as CometBFT drives them.

There is no engine here: a height is decided by whoever proposes, the test hands the votes around, and a vote whose
extension an application refuses is in nobody's commit, as with the engine when it comes in time.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from freehold.base.presets import MINIMAL
from freehold.consensus.abci import message_parts as parts
from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.commits import AbciValidator, CommitInfo, ExtendedCommitInfo, ExtendedVoteInfo, VoteInfo
from freehold.consensus.abci.service import AbciService
from freehold.consensus.ledger_application import LedgerApplication
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.ledger import keys
from freehold.ledger.genesis import app_state_document
from freehold.ledger.genesis_beacon import prove_possession
from freehold.ledger.records import BeaconRecord, Totals
from freehold.ledger.state import read
from freehold.light.genesis import ConsensusParams, TrustedGenesis, genesis_document, parse_genesis
from freehold.light.types import BlockIDFlag, PublicKey, Timestamp

GENESIS_MS = 1_790_000_000_000
CHAIN = "vrf-1"
Change = Callable[[int, int, bytes], bytes]  # height, number of the voter, its extension -> what it sends


def validator_key(number: int) -> PrivateKey:
    return PrivateKey.from_seed(sha256(b"validator %d" % number))


def vrf_key(number: int) -> PrivateKey:
    return PrivateKey.from_seed(sha256(b"vrf %d" % number))


def vrf_genesis(powers: Sequence[int], chain_id: str = CHAIN) -> TrustedGenesis:
    members = [prove_possession(vrf_key(n), validator_key(n).public) for n in range(len(powers))]
    return parse_genesis(
        genesis_document(
            chain_id=chain_id,
            genesis_time=Timestamp.from_ms(GENESIS_MS),
            validators=[(validator_key(n).public, power, f"v{n}") for n, power in enumerate(powers)],
            app_state=app_state_document(MINIMAL, [], [], vrf=members),
            params=ConsensusParams(vote_extensions_enable_height=1),
        )
    )


def time_at(height: int) -> Timestamp:
    return Timestamp.from_ms(GENESIS_MS + 1_000 * height)


class Validator:
    """An application behind its ABCI service."""

    def __init__(self, folder: Path, genesis: TrustedGenesis, number: int) -> None:
        folder.mkdir(exist_ok=True)
        key = validator_key(number)
        self.address = sha256(key.public)[:20]
        self.public = key.public
        self.app = LedgerApplication.open(folder, genesis, key, vrf_key=vrf_key(number))
        self.service = AbciService(self.app, genesis, self._last_time_ms)

    def _last_time_ms(self) -> int:
        totals = read(self.app.state, keys.TOTALS, Totals)
        assert totals is not None
        return totals.time_ms

    def prepare(self, height: int, votes: Sequence[ExtendedVoteInfo]) -> tuple[bytes, ...]:
        commit = ExtendedCommitInfo(tuple(votes))
        request = wire.RequestPrepareProposal(1_000_000, (), height, time_at(height), self.address, commit)
        answer = self.service.handle(request)
        assert isinstance(answer, wire.ResponsePrepareProposal)
        return answer.txs

    def accepts(self, height: int, txs: tuple[bytes, ...], proposer: "Validator", held: CommitInfo) -> bool:
        request = wire.RequestProcessProposal(txs, height, time_at(height), proposer.address, held)
        return self.service.handle(request) == wire.ResponseProcessProposal(wire.Status.ACCEPT)

    def extend(self, height: int) -> bytes:
        answer = self.service.handle(wire.RequestExtendVote(b"", height))
        assert isinstance(answer, wire.ResponseExtendVote)
        return answer.vote_extension

    def verifies(self, height: int, voter: "Validator", extension: bytes) -> bool:
        request = wire.RequestVerifyVoteExtension(b"", voter.address, height, extension)
        return self.service.handle(request) == wire.ResponseVerifyVoteExtension(wire.Status.ACCEPT)

    def finish(self, height: int, txs: tuple[bytes, ...], proposer: "Validator", held: CommitInfo) -> bytes:
        request = wire.RequestFinalizeBlock(txs, b"", height, time_at(height), proposer.address, held)
        answer = self.service.handle(request)
        assert isinstance(answer, wire.ResponseFinalizeBlock)
        self.service.handle(wire.RequestCommit())
        return answer.app_hash

    def beacon(self, height: int) -> bytes:
        record = read(self.app.state, keys.beacon_key(height), BeaconRecord)
        assert record is not None and record.height == height
        return record.value


class VrfChain:
    """Validators that propose in turn. `votes` are those of the newest height."""

    def __init__(self, folder: Path, powers: Sequence[int], chain_id: str = CHAIN) -> None:
        genesis = vrf_genesis(powers, chain_id)
        self.powers = list(powers)
        self.members = [Validator(folder / f"v{number}", genesis, number) for number in range(len(powers))]
        self.height = 0
        self.votes: list[ExtendedVoteInfo] = []
        self.change: Change = lambda height, number, extension: extension
        validators = tuple(
            parts.ValidatorUpdate(PublicKey(member.public), power)
            for member, power in zip(self.members, self.powers, strict=True)
        )
        state = genesis_state(genesis)
        for member in self.members:
            member.service.handle(wire.RequestInitChain(Timestamp.from_ms(GENESIS_MS), chain_id, validators, state, 1))

    def held(self, votes: Sequence[ExtendedVoteInfo] | None = None) -> CommitInfo:
        """The commit as a block holds it, without extensions."""
        chosen = self.votes if votes is None else votes
        return CommitInfo(tuple(VoteInfo(vote.validator, vote.block_id_flag) for vote in chosen))

    def vote(self, height: int) -> list[ExtendedVoteInfo]:
        """Everyone votes; whose extension is refused is absent."""
        found = []
        for number, member in enumerate(self.members):
            extension = self.change(height, number, member.extend(height))
            verdicts = {other.verifies(height, member, extension) for other in self.members}
            assert len(verdicts) == 1, "all judge alike"
            who = AbciValidator(member.address, self.powers[number])
            if verdicts == {True}:
                found.append(ExtendedVoteInfo(who, extension, BlockIDFlag.COMMIT))
            else:
                found.append(ExtendedVoteInfo(who, b"", BlockIDFlag.ABSENT))
        return found

    def step(self, proposer: int | None = None) -> set[bytes]:
        """Make the next block; gives the app hashes of all."""
        height = self.height + 1
        author = self.members[height % len(self.members) if proposer is None else proposer]
        txs, held = author.prepare(height, self.votes), self.held()
        assert all(member.accepts(height, txs, author, held) for member in self.members)
        votes = self.vote(height)
        hashes = {member.finish(height, txs, author, held) for member in self.members}
        self.height, self.votes = height, votes
        return hashes

    def close(self) -> None:
        for member in self.members:
            member.app.close()


def genesis_state(genesis: TrustedGenesis) -> bytes:
    return json.dumps(genesis.app_state).encode()
