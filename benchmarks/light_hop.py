"""`light.hop`: decoding and verifying a light block, as every reader of the ledger does, beside its bare signatures."""

from collections.abc import Iterator

from nacl.bindings import crypto_sign_open

from benchmarks.rows import Row, Spent, by_cpu, measured, one_core, row
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.light.genesis import genesis_document, parse_genesis
from freehold.light.headers import address_of, data_hash, header_hash, make_validator_set, precommit_sign_bytes
from freehold.light.skipping import verify_hop
from freehold.light.trust import GENESIS_TRUST, trust_bounds, trust_genesis
from freehold.light.types import (
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    SignedHeader,
    Timestamp,
)

CHAIN = "freehold-bench"
GENESIS_MS = 1_700_000_000_000
SIZES = (4, 100)
SIGNATURES = 4_000  # verified for each size


class Chain:
    """Validators of equal power, who sign headers."""

    def __init__(self, validators: int) -> None:
        keys = [PrivateKey.from_seed(sha256(index.to_bytes(4, "big"))) for index in range(validators)]
        self._keys = {address_of(key.public): key for key in keys}
        members = [(key.public, 10, f"v{index}") for index, key in enumerate(keys)]
        document = genesis_document(
            chain_id=CHAIN, genesis_time=Timestamp.from_ms(GENESIS_MS), validators=members, app_state={"rules": 1}
        )
        self.trusted = parse_genesis(document)
        self.root = trust_genesis(self.trusted)
        self.bounds = trust_bounds(GENESIS_TRUST, self.trusted)

    def light_block(self, height: int) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Give an encoded light block, and (public key, signature and message) of each vote in it."""
        members = self.trusted.validators.validators
        header = self._header(height, members[0].address)
        voted = BlockID(header_hash(header), PartSetHeader(1, sha256(b"block")))
        message = precommit_sign_bytes(CHAIN, height, 0, voted, header.time)
        entries, votes = [], []
        for member in members:
            signature = self._keys[member.address].sign(message)
            entries.append(CommitSig(BlockIDFlag.COMMIT, member.address, header.time, signature))
            votes.append((member.pub_key.ed25519, signature + message))
        commit = Commit(height, 0, voted, tuple(entries))
        validators = make_validator_set(members, members[0].address)
        return LightBlock(SignedHeader(header, commit), validators).encode(), votes

    def _header(self, height: int, proposer: bytes) -> Header:
        none = data_hash([])
        return Header(
            chain_id=CHAIN,
            height=height,
            time=Timestamp.from_ms(GENESIS_MS + height * 1_000),
            last_block_id=BlockID(sha256(b"last"), PartSetHeader(1, sha256(b"parts"))),
            last_commit_hash=sha256(b"commit"),
            data_hash=none,
            validators_hash=self.trusted.validators_hash,
            next_validators_hash=self.trusted.validators_hash,
            consensus_hash=sha256(b"consensus"),
            app_hash=sha256(b"state"),
            last_results_hash=none,
            evidence_hash=none,
            proposer_address=proposer,
        )


def run(sizes: tuple[int, ...] = SIZES, signatures: int = SIGNATURES) -> Iterator[Row]:
    """For each number of validators: skips from genesis to distinct heights, the first one adjacent."""
    for size in sizes:
        chain, count = Chain(size), signatures // size
        blocks = [chain.light_block(height) for height in range(1, count + 1)]
        with one_core():
            bare, spent = Spent(), Spent()
            for encoded, votes in blocks:
                with measured(bare):
                    for public, signed in votes:
                        crypto_sign_open(signed, public)
                with measured(spent):
                    verify_hop(chain.root, LightBlock.decode(encoded), chain.bounds, None)
            yield row(
                "light.hop",
                spent.wall_s / count * 1e3,
                "ms a hop",
                f"ms of PyNaCl's bare verifications of its {size} signatures",
                bare.wall_s / count * 1e3,
                f"{count} light blocks of distinct heights, {size} validators, all signed, decoded and verified "
                f"from genesis, one core; {by_cpu(count, spent, bare)}",
                spent.cpu_s,
            )
