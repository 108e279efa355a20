"""A chain whose validator set changes from height to height, for tests of verification by hops."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import msgspec
from light_chain import CHAIN_ID, EMPTY, GENESIS_MS

from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.light.bisection import Bisection
from freehold.light.genesis import ConsensusParams, TrustedGenesis, genesis_document, parse_genesis
from freehold.light.headers import (
    address_of,
    header_hash,
    make_validator,
    make_validator_set,
    precommit_sign_bytes,
    validators_hash,
)
from freehold.light.skipping import TrustBounds, TrustedState
from freehold.light.trust import PinnedTrust, trust_genesis, trust_pinned
from freehold.light.types import (
    ABSENT_SIG,
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    SignedHeader,
    Timestamp,
    ValidatorSet,
)

Powers = Mapping[int, int]  # power of each key, by the key's number
BLOCK_MS = 1_000
DAY_MS = 86_400_000
BOUNDS = TrustBounds(trust_period_ms=14 * DAY_MS, clock_drift_ms=1_000)


@cache
def key(number: int) -> PrivateKey:
    return PrivateKey.from_seed(sha256(number.to_bytes(8, "big")))


@cache
def _address(number: int) -> bytes:
    return address_of(key(number).public)


def make_set(powers: Powers) -> ValidatorSet:
    return make_validator_set(make_validator(key(number).public, power) for number, power in powers.items())


class History:
    """`sets[i]` signs height i + 1; the last one signs all that follow."""

    def __init__(self, sets: Sequence[Powers], *, fork: bytes = b"", chain_id: str = CHAIN_ID) -> None:
        self.sets = sets
        self.fork = fork
        self.chain_id = chain_id

    def powers(self, height: int) -> Powers:
        return self.sets[min(height, len(self.sets)) - 1]

    @property
    def genesis(self) -> TrustedGenesis:
        return parse_genesis(
            genesis_document(
                chain_id=self.chain_id,
                genesis_time=Timestamp.from_ms(GENESIS_MS),
                validators=[(key(n).public, power, f"v{n}") for n, power in self.powers(1).items()],
                app_state={},
            )
        )

    def header(self, height: int, **changes: object) -> Header:
        own = make_set(self.powers(height))
        header = Header(
            chain_id=self.chain_id,
            height=height,
            time=Timestamp.from_ms(GENESIS_MS + height * BLOCK_MS),
            last_block_id=BlockID(sha256(b"last"), PartSetHeader(1, sha256(b"parts"))),
            last_commit_hash=sha256(b"commit"),
            data_hash=EMPTY,
            validators_hash=validators_hash(own.validators),
            next_validators_hash=validators_hash(make_set(self.powers(height + 1)).validators),
            consensus_hash=ConsensusParams().hash,
            app_hash=sha256(self.fork + height.to_bytes(8, "big")),
            last_results_hash=EMPTY,
            evidence_hash=EMPTY,
            proposer_address=own.validators[0].address,
        )
        return msgspec.structs.replace(header, **changes)

    def block(
        self, height: int, signers: Iterable[int] | None = None, *, round_: int = 0, **changes: object
    ) -> LightBlock:
        return sign(self.header(height, **changes), self.powers(height), signers, round_=round_)


def sign(header: Header, powers: Powers, signers: Iterable[int] | None = None, *, round_: int = 0) -> LightBlock:
    """A light block of a set, signed by some of its keys (all when None)."""
    numbers = {_address(number): number for number in powers}
    chosen = set(powers if signers is None else signers)
    members = make_set(powers)
    block_id = BlockID(header_hash(header), PartSetHeader(1, sha256(b"block")))
    entries = []
    for member in members.validators:
        if numbers[member.address] not in chosen:
            entries.append(ABSENT_SIG)
            continue
        message = precommit_sign_bytes(header.chain_id, header.height, round_, block_id, header.time)
        signature = key(numbers[member.address]).sign(message)
        entries.append(CommitSig(BlockIDFlag.COMMIT, member.address, header.time, signature))
    return LightBlock(SignedHeader(header, Commit(header.height, round_, block_id, tuple(entries))), members)


def now_at(height: int) -> int:
    """A clock a little after a height's block."""
    return GENESIS_MS + height * BLOCK_MS + 500


def pinned(history: History, height: int, bounds: TrustBounds = BOUNDS) -> TrustedState:
    block = history.block(height)
    pin = PinnedTrust(height, header_hash(block.header))
    return trust_pinned(pin, block, history.chain_id, bounds, now_at(height))


def genesis_state(history: History) -> TrustedState:
    return trust_genesis(history.genesis)


def run(bisection: Bisection, history: History) -> list[int]:
    """Answer all questions; gives the heights that were asked for."""
    asked = []
    while (height := bisection.wanted) is not None:
        asked.append(height)
        bisection.feed(history.block(height))
    return asked
