"""A ledger's chain in the hands of its validators' keys, and ways to lie about it: `BLOCK_LIES`, `VALUE_LIES`.

The state is the ledger's own genesis state, proven by the same tree; blocks are signed by real keys, so that a
minority, exactly two thirds, or a vote counted twice is as truly signed as it can be. `hostile_rpc.py` serves it.
"""

import base64
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "light"))

from light_chain import Tree
from light_history import key, make_set, sign

from freehold.base.amounts import TOKEN
from freehold.base.codec import encode
from freehold.base.presets import MINIMAL
from freehold.ledger import keys
from freehold.ledger.elections import CANDIDATES_VERSION
from freehold.ledger.genesis import GenesisFarm, GenesisNode, app_state_document, initial_state
from freehold.ledger.records import Candidates, ValidatorBond
from freehold.ledger.transactions import Offer, Resources
from freehold.light.genesis import genesis_document, parse_genesis
from freehold.light.headers import (
    address_of,
    data_hash,
    header_hash,
    make_validator_set,
    precommit_sign_bytes,
    validators_hash,
)
from freehold.light.types import (
    BlockID,
    BlockIDFlag,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    SignedHeader,
    Timestamp,
)

CHAIN = "told-chain"
TOP = 12
AGE_MS = 3_600_000
OWNERS = [key(70 + number).public for number in range(2)]
STRANGERS = {90: 10, 91: 10, 92: 10}
Powers = Mapping[int, int]


@dataclass
class ToldChain:
    """`sets[n]` signs height n + 1, the last one all that follow; `owners` bonded the validators of the same place."""

    sets: list[Powers]
    owners: Mapping[int, bytes] = field(default_factory=dict)
    chain_id: str = CHAIN
    genesis_ms: int = 0
    fork: bytes = b""
    step_ms: int = 1_000  # from block to block

    def __post_init__(self) -> None:
        self.genesis_ms = self.genesis_ms or time.time_ns() // 1_000_000 - AGE_MS
        farms = [GenesisFarm(owner, f"farm-{n}", "BE", "Ghent") for n, owner in enumerate(OWNERS)]
        offer, size = Offer(100_000, 50_000, 1_000), Resources(4_000, 8_192, 65_536)
        nodes = [
            GenesisNode(key(80 + n).public, bytes([n + 1]) * 32, OWNERS[n], [f"10.0.0.{n + 1}:4700"], size, offer)
            for n in range(2)
        ]
        members = [(key(number).public, power, f"v{number}") for number, power in self.sets[0].items()]
        self.document = genesis_document(
            chain_id=self.chain_id,
            genesis_time=Timestamp.from_ms(self.genesis_ms),
            validators=members,
            app_state=app_state_document(MINIMAL, farms, nodes, accounts={OWNERS[0]: 5_000 * TOKEN}),
        )
        self.trusted = parse_genesis(self.document)
        state = dict(
            initial_state(
                self.trusted.app_state, self.chain_id, self.genesis_ms, [(name, power) for name, power, _ in members]
            )
        )
        for number, owner in self.owners.items():
            bond = ValidatorBond(1, owner, b"", 100 * TOKEN, TOKEN, 1, 10, True, False, [], bytes(16), 0, [])
            state[keys.bond_key(key(number).public)] = encode(bond)
        rows = [(100 * TOKEN, key(number).public, owner) for number, owner in sorted(self.owners.items())]
        if rows:
            state[keys.CANDIDATES] = encode(Candidates(CANDIDATES_VERSION, rows))
        if self.fork:
            state[keys.account_key(OWNERS[1])] = state[keys.account_key(OWNERS[0])]  # somebody became rich
        self.tree = Tree(state)

    def powers(self, height: int) -> Powers:
        return self.sets[min(height, len(self.sets)) - 1]

    def header(self, height: int) -> Header:
        own = make_set(self.powers(height))
        return Header(
            chain_id=self.chain_id,
            height=height,
            time=Timestamp.from_ms(self.genesis_ms + height * self.step_ms),
            last_block_id=BlockID(bytes(32), PartSetHeader(1, bytes(32))),
            last_commit_hash=bytes(32),
            data_hash=data_hash([]),
            validators_hash=validators_hash(own.validators),
            next_validators_hash=validators_hash(make_set(self.powers(height + 1)).validators),
            consensus_hash=self.trusted.params.hash,
            app_hash=self.tree.root,
            last_results_hash=data_hash([]),
            evidence_hash=data_hash([]),
            proposer_address=own.validators[0].address,
        )

    def block(self, height: int) -> LightBlock:
        return sign(self.header(height), self.powers(height))

    def value(self, name: bytes) -> dict[str, Any]:
        value, proof = self.tree.values.get(name), self.tree.prove(name)
        return {
            "key": name.hex(),
            "value": None if value is None else value.hex(),
            "proof": base64.b64encode(proof.encode()).decode(),
        }


def three(genesis_ms: int = 0) -> ToldChain:
    """Three validators of equal power."""
    return ToldChain([{number: 10 for number in range(3)}], genesis_ms=genesis_ms)


def pin(chain: ToldChain, height: int = 1) -> str:
    return f"{height}:{header_hash(chain.header(height)).hex()}"


def with_commit(block: LightBlock, **changes: Any) -> LightBlock:
    commit = replace(block.signed_header.commit, **changes)
    return replace(block, signed_header=replace(block.signed_header, commit=commit))


def with_entry(block: LightBlock, at: int, entry: CommitSig) -> LightBlock:
    entries = list(block.signed_header.commit.signatures)
    entries[at] = entry
    return with_commit(block, signatures=tuple(entries))


# -- lies about blocks: each takes the honest chain and its block, and gives what is told instead ------------------


def other_genesis(chain: ToldChain, block: LightBlock) -> LightBlock:
    """The chain of another genesis, whole and well signed."""
    other = replace(block.header, chain_id="another-chain")
    return sign(other, chain.powers(block.header.height))


def forged_set(_: ToldChain, block: LightBlock) -> LightBlock:
    """Strangers sign, and the header names them."""
    names = validators_hash(make_set(STRANGERS).validators)
    proposer = make_set(STRANGERS).validators[0].address
    forged = replace(block.header, validators_hash=names, next_validators_hash=names, proposer_address=proposer)
    return sign(forged, STRANGERS)


def double_vote(_: ToldChain, block: LightBlock) -> LightBlock:
    """The first validator's vote stands in the second's place too."""
    return with_entry(block, 1, block.signed_header.commit.signatures[0])


def two_thirds(chain: ToldChain, block: LightBlock) -> LightBlock:
    """Two of three sign: exactly two thirds of the power."""
    members = sorted(chain.powers(block.header.height))
    return sign(block.header, chain.powers(block.header.height), members[:2])


def from_the_future(chain: ToldChain, block: LightBlock) -> LightBlock:
    later = Timestamp.from_ms(time.time_ns() // 1_000_000 + 60_000)
    return sign(replace(block.header, time=later), chain.powers(block.header.height))


def other_height(_: ToldChain, block: LightBlock) -> LightBlock:
    """A commit that says it is of another height."""
    return with_commit(block, height=block.header.height + 1)


def other_round(_: ToldChain, block: LightBlock) -> LightBlock:
    """The votes of round 0 passed off as those of round 1."""
    return with_commit(block, round=1)


def other_block(chain: ToldChain, block: LightBlock) -> LightBlock:
    """The votes for one block under the header of another."""
    changed = replace(block.header, app_hash=bytes(32))
    return replace(block, signed_header=SignedHeader(changed, block.signed_header.commit))


def unknown_validator(_: ToldChain, block: LightBlock) -> LightBlock:
    """A true signature, by a key that is in no set."""
    commit, header = block.signed_header.commit, block.header
    message = precommit_sign_bytes(header.chain_id, header.height, 0, commit.block_id, header.time)
    stranger = key(90)
    entry = CommitSig(BlockIDFlag.COMMIT, address_of(stranger.public), header.time, stranger.sign(message))
    return with_entry(block, 2, entry)


def other_set(_: ToldChain, block: LightBlock) -> LightBlock:
    """The true header with a set that it does not name."""
    return replace(block, validator_set=make_validator_set(make_set(STRANGERS).validators))


def zero_power(_: ToldChain, block: LightBlock) -> LightBlock:
    """A validator without power stands in the set."""
    members = block.validator_set.validators
    spoilt = (*members[:2], replace(members[2], voting_power=0))
    return replace(block, validator_set=replace(block.validator_set, validators=spoilt))


def overflowing_power(_: ToldChain, block: LightBlock) -> LightBlock:
    """Powers whose sum passes 64 bits."""
    members = tuple(replace(member, voting_power=(1 << 63) - 1) for member in block.validator_set.validators)
    return replace(block, validator_set=replace(block.validator_set, validators=members, proposer=members[0]))


BlockLie = Callable[[ToldChain, LightBlock], LightBlock]
BLOCK_LIES: dict[str, tuple[BlockLie, str, str]] = {
    "genesis of another chain": (other_genesis, "wrong_chain", "is of chain 'another-chain', not of 'told-chain'"),
    "forged validator set": (forged_set, "validator_set_mismatch", "names other validators for the next height"),
    "double-counted vote": (double_vote, "double_vote", "stands twice in the commit"),
    "exactly 2/3": (two_thirds, "not_enough_power", "20 of 30 power signed, more than two thirds are needed"),
    "header from the future": (from_the_future, "header_from_future", "ahead of this machine's clock"),
    "commit of another height": (other_height, "wrong_commit", "the commit of height 13 is not for header 12"),
    "commit of another round": (other_round, "bad_signature", "the signature of validator"),
    "commit for another block": (other_block, "bad_header_hash", "is not for the header of height 12"),
    "unknown validator": (unknown_validator, "wrong_signer", "names another"),
    "set that the header does not name": (
        other_set,
        "validator_set_mismatch",
        "names other validators than came with it",
    ),
    "validator without power": (zero_power, "bad_validator_set", "powers out of range"),
    "powers beyond 64 bits": (overflowing_power, "bad_validator_set", "powers out of range"),
}


# -- lies about values -------------------------------------------------------------------------------------------------


def tampered_path(_: ToldChain, row: dict[str, Any]) -> dict[str, Any]:
    proof = bytearray(base64.b64decode(row["proof"]))
    proof[-1] ^= 1
    return {**row, "proof": base64.b64encode(proof).decode()}


def other_key(chain: ToldChain, row: dict[str, Any]) -> dict[str, Any]:
    """Another account's true value and proof, under the name that was asked for."""
    return {**chain.value(keys.account_key(OWNERS[0])), "key": row["key"]}


def wrong_neighbour(chain: ToldChain, row: dict[str, Any]) -> dict[str, Any]:
    """The absence of another key, whose neighbours leave room for the one that was asked for."""
    asked = bytes.fromhex(row["key"])
    others = (b"?%d" % number for number in range(64))
    wrong = next(
        proof
        for other in others
        if (proof := chain.value(other))["value"] is None and proof["proof"] != chain.value(asked)["proof"]
    )
    return {**wrong, "key": row["key"]}


ValueLie = Callable[[ToldChain, dict[str, Any]], dict[str, Any]]
VALUE_LIES: dict[str, tuple[ValueLie, str, str]] = {
    "tampered path": (tampered_path, "proof_root", "the proof leads to another root"),
    "proof of another key": (other_key, "proof_key", "the proof is for another key"),
    "absence with wrong neighbours": (wrong_neighbour, "proof_neighbours", "neighbour"),
}


def absent_key() -> bytes:
    """A key that the state provably lacks."""
    return keys.account_key(key(99).public)
