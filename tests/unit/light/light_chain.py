"""A small chain for tests: validators with fixed seeds, signed light blocks, and a sparse Merkle tree in memory."""

from collections.abc import Iterable

from freehold.crypto import smt
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.light.genesis import ConsensusParams, TrustedGenesis, genesis_document, parse_genesis
from freehold.light.headers import address_of, data_hash, header_hash, make_validator_set, precommit_sign_bytes
from freehold.light.ics23 import CommitmentProof, ExistenceProof, absence, existence, smt_existence
from freehold.light.proof_file import Statement
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

CHAIN_ID = "test-chain"
GENESIS_MS = 1_767_225_600_000
EMPTY = data_hash([])


class Chain:
    """Validators of a chain and its genesis."""

    def __init__(self, powers: Iterable[int] = (10,), chain_id: str = CHAIN_ID, initial_height: int = 1) -> None:
        keys = [PrivateKey.from_seed(bytes([index + 1]) * 32) for index, _ in enumerate(powers)]
        self.keys = {address_of(key.public): key for key in keys}
        self.document = genesis_document(
            chain_id=chain_id,
            genesis_time=Timestamp.from_ms(GENESIS_MS),
            validators=[(key.public, power, f"v{n}") for n, (key, power) in enumerate(zip(keys, powers, strict=True))],
            app_state={"rules": 1},
            initial_height=initial_height,
        )
        self.trusted: TrustedGenesis = parse_genesis(self.document)

    @property
    def validators(self) -> ValidatorSet:
        return self.trusted.validators

    def header(self, height: int, app_hash: bytes = bytes(32)) -> Header:
        return Header(
            chain_id=self.trusted.chain_id,
            height=height,
            time=Timestamp.from_ms(GENESIS_MS + height * 1000),
            last_block_id=BlockID(sha256(b"last"), PartSetHeader(1, sha256(b"parts"))),
            last_commit_hash=sha256(b"commit"),
            data_hash=EMPTY,
            validators_hash=self.trusted.validators_hash,
            next_validators_hash=self.trusted.validators_hash,
            consensus_hash=ConsensusParams().hash,
            app_hash=app_hash,
            last_results_hash=EMPTY,
            evidence_hash=EMPTY,
            proposer_address=self.validators.validators[0].address,
        )

    def entry(self, index: int, header: Header, block_id: BlockID, *, nil: bool = False) -> CommitSig:
        member = self.validators.validators[index]
        voted = None if nil else block_id
        message = precommit_sign_bytes(self.trusted.chain_id, header.height, 0, voted, header.time)
        flag = BlockIDFlag.NIL if nil else BlockIDFlag.COMMIT
        return CommitSig(flag, member.address, header.time, self.keys[member.address].sign(message))

    def commit(self, header: Header, signers: Iterable[int] | None = None) -> Commit:
        block_id = BlockID(header_hash(header), PartSetHeader(1, sha256(b"block")))
        count = len(self.validators.validators)
        chosen = set(range(count) if signers is None else signers)
        entries = (self.entry(n, header, block_id) if n in chosen else ABSENT_SIG for n in range(count))
        return Commit(header.height, 0, block_id, tuple(entries))

    def sign(self, header: Header, signers: Iterable[int] | None = None) -> LightBlock:
        validators = make_validator_set(self.validators.validators, header.proposer_address)
        return LightBlock(SignedHeader(header, self.commit(header, signers)), validators)

    def light_block(self, height: int, app_hash: bytes = bytes(32)) -> LightBlock:
        return self.sign(self.header(height, app_hash))


def side(path: bytes, depth: int) -> int:
    return path[depth // 8] >> (7 - depth % 8) & 1


class Tree:
    """The slow and plain form of the state's tree."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.values = values
        self.keys = sorted(values, key=smt.hash_path)
        self.root = self.node(self.keys, 0)

    def node(self, keys: list[bytes], depth: int) -> bytes:
        if not keys:
            return smt.EMPTY
        if len(keys) == 1:
            return smt.hash_leaf(smt.hash_path(keys[0]), smt.hash_value(self.values[keys[0]]))
        halves = [[key for key in keys if side(smt.hash_path(key), depth) == bit] for bit in (0, 1)]
        return smt.hash_inner(self.node(halves[0], depth + 1), self.node(halves[1], depth + 1))

    def exist(self, key: bytes) -> ExistenceProof:
        path, keys, siblings = smt.hash_path(key), self.keys, []
        while len(keys) > 1:
            depth = len(siblings)
            bit = side(path, depth)
            siblings.append(self.node([k for k in keys if side(smt.hash_path(k), depth) != bit], depth + 1))
            keys = [k for k in keys if side(smt.hash_path(k), depth) == bit]
        return smt_existence(key, self.values[key], siblings[::-1])

    def prove(self, key: bytes) -> CommitmentProof:
        if key in self.values:
            return existence(self.exist(key))
        path = smt.hash_path(key)
        lower = [k for k in self.keys if smt.hash_path(k) < path]
        higher = [k for k in self.keys if smt.hash_path(k) > path]
        left = self.exist(lower[-1]) if lower else None
        return absence(key, left, self.exist(higher[0]) if higher else None)

    def statement(self, height: int, key: bytes) -> Statement:
        return Statement(height, key, self.values.get(key), self.prove(key))
