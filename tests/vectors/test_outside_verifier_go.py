"""Other people's library reads our proofs, of values and of absence: github.com/cosmos/ics23/go with its own SmtSpec.

`ics23_outside/` is a Go module of its own, pinned by go.mod and go.sum; its program knows nothing of ours. It also has
to refuse what is tampered with, so that its yes means something.
"""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from freehold.crypto.smt import hash_path
from freehold.light.ics23 import CommitmentProof, absence

sys.path.insert(0, str(Path(__file__).parents[1] / "property"))

from proof_grid import ProofGrid

MODULE = Path(__file__).parent / "ics23_outside"
# In the order of the tree, so that the first and the last stand outside of all that is there.
ABSENT = sorted((b"absent%d" % number for number in range(9_901)), key=hash_path)[::50]

pytestmark = pytest.mark.long


class Claim(NamedTuple):
    """What a proof is said to show; an empty value says that there is none."""

    root: bytes
    key: bytes
    value: bytes
    proof: bytes


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("go") / "verifier"
    environment = {**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    command = ["go", "build", "-o", str(program), "."]
    done = subprocess.run(
        command, cwd=MODULE, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def claims() -> tuple[list[Claim], list[Claim]]:
    """Every value of a grid's state, and the absence of 200 other keys."""
    grid = ProofGrid()
    grid.next_epoch()
    grid.deploy(grid.tenants[0], [[0, 3]])
    grid.next_epoch()
    with grid.stored() as store:
        values, absent = [], []
        for key in grid.state:
            value, proof = store.prove(key, 0)
            assert value
            values.append(Claim(store.app_hash, key, value, proof))
        for key in ABSENT:
            value, proof = store.prove(key, 0)
            assert value is None
            absent.append(Claim(store.app_hash, key, b"", proof))
    return values, absent


def ask(verifier: Path, claims: list[Claim]) -> list[bool]:
    text = json.dumps([{n: base64.b64encode(part).decode() for n, part in claim._asdict().items()} for claim in claims])
    done = subprocess.run([verifier], input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    verdicts: list[bool] = json.loads(done.stdout)
    assert len(verdicts) == len(claims)
    return verdicts


def flipped(claim: Claim, part: str) -> Claim:
    """With the last bit of a part changed; the last byte of a proof is that of its topmost sibling, or of a prefix."""
    data = getattr(claim, part)
    return claim._replace(**{part: data[:-1] + bytes([data[-1] ^ 1])})


def test_it_accepts_every_value_and_every_absence(verifier: Path, claims: tuple[list[Claim], list[Claim]]) -> None:
    values, absent = claims
    assert len(values) > 30
    sides = {
        (proof.nonexist.left is None, proof.nonexist.right is None)
        for proof in (CommitmentProof.decode(claim.proof) for claim in absent)
        if proof.nonexist is not None
    }
    assert len(sides) == 3  # between two keys, before the first, behind the last
    assert ask(verifier, values + absent) == [True] * (len(values) + len(absent))


@pytest.mark.parametrize("part", ["root", "key", "value", "proof"])
def test_it_refuses_each_value_with_one_bit_flipped(
    verifier: Path, claims: tuple[list[Claim], list[Claim]], part: str
) -> None:
    wrong = [flipped(claim, part) for claim in claims[0]]
    assert ask(verifier, wrong) == [False] * len(wrong)


@pytest.mark.parametrize("part", ["root", "proof"])
def test_it_refuses_each_absence_with_one_bit_flipped(
    verifier: Path, claims: tuple[list[Claim], list[Claim]], part: str
) -> None:
    wrong = [flipped(claim, part) for claim in claims[1]]
    assert ask(verifier, wrong) == [False] * len(wrong)


def test_it_refuses_to_hide_what_is_there(verifier: Path, claims: tuple[list[Claim], list[Claim]]) -> None:
    values, absent = claims
    existing = [CommitmentProof.decode(claim.proof).exist for claim in values]
    wrong = [claim._replace(value=b"") for claim in values]  # a proof of a value as one of absence
    wrong += [other._replace(key=claim.key) for claim in values for other in absent[:20]]
    wrong += [claim._replace(value=b"x") for claim in absent]
    for at, claim in enumerate(values[1:-1], 1):  # neighbours that do not touch, or stand elsewhere
        made_up = absence(claim.key, existing[at - 1], existing[at + 1])
        wrong.append(claim._replace(value=b"", proof=made_up.encode()))
        wrong.append(claim._replace(value=b"", proof=absence(claim.key, existing[at - 1], None).encode()))
    assert ask(verifier, wrong) == [False] * len(wrong)


def test_it_refuses_absence_between_neighbours_that_do_not_touch(
    verifier: Path, claims: tuple[list[Claim], list[Claim]]
) -> None:
    values, absent = claims
    existing = [CommitmentProof.decode(claim.proof).exist for claim in values]
    wrong = []
    for claim in absent:
        proof = CommitmentProof.decode(claim.proof)
        assert proof.nonexist is not None
        for other in existing[:10]:
            if other is not None and other not in (proof.nonexist.left, proof.nonexist.right):
                shifted = replace(proof, nonexist=replace(proof.nonexist, left=other))
                wrong.append(claim._replace(proof=shifted.encode()))
    assert len(wrong) > 1_000
    assert ask(verifier, wrong) == [False] * len(wrong)
