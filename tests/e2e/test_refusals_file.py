"""Forged proof files, truly signed by the test's validators, given to the shipped command: refused in its own words.

The proof is of a service on a whole ledger in memory; its blocks are signed by the validators' real keys.
"""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1] / "property"))

from proof_grid import ProofGrid, SignedChain

from freehold.ledger import keys
from freehold.light.genesis import parse_genesis
from freehold.light.headers import address_of, header_hash, make_validator_set, precommit_sign_bytes
from freehold.light.ics23 import absence, decode_proof
from freehold.light.proof_file import parse_proof_file
from freehold.light.trust import GENESIS_TRUST, trust_signed
from freehold.light.types import BlockIDFlag, CommitSig, LightBlock, Timestamp
from freehold.lightclient.trust_store import TrustStore

ISSUE = (
    "genesis of another chain",
    "forged validator set",
    "double-counted vote",
    "exactly 2/3",
    "expired trust",
    "tampered path",
)
Change = Callable[[ProofGrid, LightBlock], LightBlock]


@cache
def exported() -> tuple[bytes, ProofGrid]:
    """A proof signed by three validators of equal power, and its grid."""
    grid = ProofGrid(powers=(10, 10, 10))
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    grid.next_epoch()
    return grid.export(lease), grid


def dump(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def block_of(data: bytes) -> LightBlock:
    return parse_proof_file(data).light_blocks[0]


def with_block(change: Change) -> bytes:
    """The file with another light block."""
    data, grid = exported()
    changed = change(grid, block_of(data)).encode()
    return dump(json.loads(data) | {"light_blocks": [base64.b64encode(changed).decode()]})


def with_proof(change: Callable[[list[dict[str, Any]]], None]) -> bytes:
    """The file with other proofs."""
    document = json.loads(exported()[0])
    change(document["proofs"])
    return dump(document)


def entries(block: LightBlock, *signatures: CommitSig) -> LightBlock:
    return commit(block, signatures=signatures)


def commit(block: LightBlock, **changes: Any) -> LightBlock:
    changed = replace(block.signed_header.commit, **changes)
    return replace(block, signed_header=replace(block.signed_header, commit=changed))


def doubled(_: ProofGrid, block: LightBlock) -> LightBlock:
    first, _second, third = block.signed_header.commit.signatures
    return entries(block, first, first, third)


def stranger(grid: ProofGrid, block: LightBlock) -> LightBlock:
    key = list(SignedChain(grid.preset, (10,) * 9).keys.values())[-1]
    first, second, _third = block.signed_header.commit.signatures
    header, voted = block.header, block.signed_header.commit.block_id
    message = precommit_sign_bytes(header.chain_id, header.height, 0, voted, header.time)
    entry = CommitSig(BlockIDFlag.COMMIT, address_of(key.public), header.time, key.sign(message))
    return entries(block, first, second, entry)


def strangers(grid: ProofGrid, block: LightBlock) -> LightBlock:
    members = SignedChain(grid.preset, (10,) * 9).validators.validators[:3]
    return replace(block, validator_set=make_validator_set(members, members[0].address))


def future(grid: ProofGrid, block: LightBlock) -> LightBlock:
    later = Timestamp.from_ms(time.time_ns() // 1_000_000 + 3_600_000)
    return grid.chain.sign(replace(block.header, time=later))


def other_block(_: ProofGrid, block: LightBlock) -> LightBlock:
    header = replace(block.header, app_hash=bytes(32))
    return replace(block, signed_header=replace(block.signed_header, header=header))


def tamper(proofs: list[dict[str, Any]]) -> None:
    path = bytearray(base64.b64decode(proofs[0]["commitment_proof"]))
    path[-1] ^= 1
    proofs[0]["commitment_proof"] = base64.b64encode(path).decode()


def swap(proofs: list[dict[str, Any]]) -> None:
    """Another key's true proof and value."""
    proofs[0] |= {name: proofs[1][name] for name in ("commitment_proof", "value")}


def wrong_neighbours() -> bytes:
    """A report that the ledger lacks, "proven" absent by the neighbours of another one that it lacks too."""
    grid = exported()[1]
    lease = next(key for key in grid.state if key[:1] == keys.lease_key(b""))
    reports = [keys.report_key(node.public, 50, grid.preset.report_epochs) for node in grid.nodes]
    document = json.loads(grid.file_of([keys.PARAMS, keys.TOTALS, lease, *reports]))
    rows = [row for row in document["proofs"] if not row["value"]]
    first = decode_proof(base64.b64decode(rows[0]["commitment_proof"])).nonexist
    others = [decode_proof(base64.b64decode(row["commitment_proof"])).nonexist for row in rows[1:]]
    other = next(found for found in others if found and first and found.left != first.left)
    forged = absence(bytes.fromhex(rows[0]["key"]), other.left, other.right)
    rows[0]["commitment_proof"] = base64.b64encode(forged.encode()).decode()
    return dump(document)


@dataclass
class Forgery:
    """What is given to the command, and what it must say."""

    data: Callable[[], bytes]
    code: str
    words: str
    genesis: Callable[[], bytes] = lambda: exported()[1].chain.document
    options: Callable[[], tuple[str, ...]] = tuple


def pin() -> tuple[str, ...]:
    header = block_of(exported()[0]).header
    return ("--trust", f"{header.height}:{header_hash(header).hex()}")


FORGERIES = {
    "genesis of another chain": Forgery(
        lambda: exported()[0],
        "wrong_chain",
        "the proof is of chain 'freehold-test', genesis of 'another'",
        genesis=lambda: dump(json.loads(exported()[1].chain.document) | {"chain_id": "another"}),
    ),
    "genesis with other validators": Forgery(
        lambda: exported()[0],
        "not_enough_trust",
        "30 of 90 power that is trusted signed block",
        genesis=lambda: SignedChain(exported()[1].preset, (10,) * 9).document,
    ),
    "forged validator set": Forgery(
        lambda: with_block(strangers), "validator_set_mismatch", "names other validators than came with it"
    ),
    "double-counted vote": Forgery(lambda: with_block(doubled), "double_vote", "stands twice in the commit"),
    "exactly 2/3": Forgery(
        lambda: with_block(lambda grid, block: grid.chain.sign(block.header, [0, 2])),
        "not_enough_power",
        "20 of 30 power signed, more than two thirds are needed",
    ),
    "expired trust": Forgery(
        lambda: exported()[0], "trust_expired", "is older than the trust period of 2400 s", options=pin
    ),
    "tampered path": Forgery(lambda: with_proof(tamper), "proof_root", "the proof leads to another root"),
    "header from the future": Forgery(
        lambda: with_block(future), "header_from_future", "ahead of this machine's clock"
    ),
    "commit of another height": Forgery(
        lambda: with_block(lambda _, block: commit(block, height=block.header.height + 1)),
        "wrong_commit",
        "is not for header",
    ),
    "commit of another round": Forgery(
        lambda: with_block(lambda _, block: commit(block, round=1)), "bad_signature", "the signature of validator"
    ),
    "commit for another block": Forgery(
        lambda: with_block(other_block), "bad_header_hash", "is not for the header of height"
    ),
    "unknown validator": Forgery(lambda: with_block(stranger), "wrong_signer", "names another"),
    "proof of another key": Forgery(lambda: with_proof(swap), "proof_key", "the proof is for another key"),
    "absence with wrong neighbours": Forgery(wrong_neighbours, "proof_neighbours", "neighbour"),
    "another block than the trusted": Forgery(
        lambda: exported()[0],
        "trust_root_mismatch",
        "not the trusted",
        options=lambda: ("--trust", pin()[1][:-4] + "0000"),
    ),
}


def verify(folder: Path, forgery: Forgery, *options: str) -> subprocess.CompletedProcess[str]:
    """The shipped command, in a home of nobody, with nothing that it could ask."""
    (folder / "web.proof").write_bytes(forgery.data())
    (folder / "genesis.json").write_bytes(forgery.genesis())
    command = [sys.executable, "-P", "-m", "freehold.cli.main", "verify", "web.proof", "--genesis", "genesis.json"]
    environment = {"PATH": os.environ["PATH"], "FREEHOLD_HOME": str(folder), "FREEHOLD_RPC": "http://127.0.0.1:9"}
    return subprocess.run(
        [*command, *forgery.options(), *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
        timeout=60,
    )


def test_the_true_file_verifies(tmp_path: Path) -> None:
    done = verify(tmp_path, Forgery(lambda: exported()[0], "", ""))
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1] == "verified"
    assert "validators: 3; 3 of them together could have forged it" in done.stdout


def test_a_file_of_a_block_below_what_the_home_has_verified_verifies(tmp_path: Path) -> None:
    """It speaks of what was; a newest state that is so old would be refused."""
    data, grid = exported()
    header = block_of(data).header
    later = replace(header, height=header.height + 1_000, time=Timestamp.from_ms(header.time.ms + 1_000_000))
    trusted = parse_genesis(grid.chain.document)
    TrustStore(tmp_path / "light", trusted, GENESIS_TRUST).save(trust_signed(grid.chain.sign(later), trusted.chain_id))
    remembered = {path: path.read_bytes() for path in (tmp_path / "light").iterdir()}
    done = verify(tmp_path, Forgery(lambda: data, "", ""))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "verified"), done
    assert len(remembered) == 1 and all(path.read_bytes() == kept for path, kept in remembered.items())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ISSUE else [pytest.mark.long]) for name in FORGERIES]
)
def test_a_forged_file_is_refused_by_its_own_error(tmp_path: Path, name: str) -> None:
    forgery = FORGERIES[name]
    done = verify(tmp_path, forgery)
    assert done.returncode == 5, done
    told, following = done.stdout.splitlines()[-2:]
    assert told.startswith("NOT VERIFIED: ") and forgery.words in told and told.endswith(f" ({forgery.code})")
    assert following.startswith("next: ") and len(following) > len("next: ")
    assert "observed" not in done.stdout and "validators:" not in done.stdout  # nothing is said on its word


@pytest.mark.long
@pytest.mark.parametrize("name", FORGERIES)
def test_programs_read_the_same(tmp_path: Path, name: str) -> None:
    done = verify(tmp_path, FORGERIES[name], "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"], document["statements"]) == (5, "not verified", [])
    assert document["problem"]["code"] == FORGERIES[name].code and document["problem"]["hint"]
    assert FORGERIES[name].words in document["problem"]["message"] and document["validators"] == 0
