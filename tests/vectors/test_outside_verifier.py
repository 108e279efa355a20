"""Other people's library reads our proofs: npm's @confio/ics23 0.6.8, from the bytes of a proof file alone.

Its `smtSpec` (build/proofs.js) is older than the public vectors; with `leafSpec.prehashKey = 1` (SHA-256) it reads
them.
It knows no proofs of absence over hashed keys; those are held to the public vectors (test_light_ics23.py).
"""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from freehold.light.proof_file import parse_proof_file

sys.path.insert(0, str(Path(__file__).parents[1] / "property"))

from proof_grid import ProofGrid

PACKAGE = "@confio/ics23@0.6.8"
SCRIPT = """
const { ics23, verifyMembership } = require("@confio/ics23");
const { smtSpec } = require("@confio/ics23/build/proofs.js");
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));
const spec = { ...smtSpec, leafSpec: { ...smtSpec.leafSpec, prehashKey: 1 } };
const cases = JSON.parse(require("fs").readFileSync(0, "utf8"));
const answers = cases.map(({ root, key, value, proof }) => {
  try {
    return verifyMembership(ics23.CommitmentProof.decode(bytes(proof)), spec, bytes(root), bytes(key), bytes(value));
  } catch (error) {
    return false;
  }
});
process.stdout.write(JSON.stringify(answers));
"""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("npm")
    (path / "package.json").write_text('{"private": true}')
    (path / "check.js").write_text(SCRIPT)
    command = ["npm", "install", "--no-audit", "--no-fund", PACKAGE]
    done = subprocess.run(command, cwd=path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def cases() -> list[dict[str, bytes]]:
    """Every value of a proof file: root, key, value and the commitment proof as the file has it."""
    grid = ProofGrid()
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    for _ in range(3):
        grid.next_epoch()
    data = grid.export(lease)
    file = parse_proof_file(data)
    roots = {block.header.height: block.header.app_hash for block in file.light_blocks}
    entries: list[dict[str, Any]] = json.loads(data)["proofs"]
    return [
        {
            "root": roots[entry["height"]],
            "key": bytes.fromhex(entry["key"]),
            "value": bytes.fromhex(entry["value"]),
            "proof": base64.b64decode(entry["commitment_proof"]),
        }
        for entry in entries
        if entry["value"]
    ]


def ask(folder: Path, cases: list[dict[str, bytes]]) -> list[bool]:
    text = json.dumps([{name: base64.b64encode(part).decode() for name, part in case.items()} for case in cases])
    done = subprocess.run(
        ["node", "check.js"], cwd=folder, input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answers: list[bool] = json.loads(done.stdout)
    assert len(answers) == len(cases)
    return answers


def test_it_accepts_every_value_of_a_proof_file(folder: Path, cases: list[dict[str, bytes]]) -> None:
    assert len(cases) > 10
    assert ask(folder, cases) == [True] * len(cases)


@pytest.mark.parametrize("part", ["root", "key", "value", "proof"])
def test_it_refuses_each_with_one_bit_flipped(folder: Path, cases: list[dict[str, bytes]], part: str) -> None:
    # The last byte of a proof is that of its topmost sibling.
    flipped = [{**case, part: case[part][:-1] + bytes([case[part][-1] ^ 1])} for case in cases]
    assert ask(folder, flipped) == [False] * len(cases)


def test_it_refuses_the_value_of_another_key(folder: Path, cases: list[dict[str, bytes]]) -> None:
    swapped = [
        {**case, "value": other["value"]}
        for case, other in zip(cases, [*cases[1:], cases[0]], strict=True)
        if case["value"] != other["value"]
    ]
    assert ask(folder, swapped) == [False] * len(swapped)
