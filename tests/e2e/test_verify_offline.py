"""A proof made over a running grid verifies where there is no network, wallet or home: file and genesis alone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_grid import LocalGrid

pytestmark = pytest.mark.root

APP = """
name: proven
services:
  web:
    image: test-image:1
    ports: ["8080"]
    x-freehold: {standbys: 0, probe: {http: /healthz, port: 8080}}
"""
OBSERVED_S = 60


@pytest.fixture(scope="module")
def observed(local_grid: LocalGrid) -> Iterator[LocalGrid]:
    local_grid.deploy(APP)
    local_grid.wait_for(lambda: bool(local_grid.service("proven/web")["epochs_observed"]), OBSERVED_S)
    yield local_grid
    local_grid.end("proven")


def verify_offline(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """`freehold verify` in an empty network namespace and an empty home."""
    command = ["unshare", "--net", sys.executable, "-P", "-m", "freehold.cli.main", "verify", *arguments, "--json"]
    environment = {"PATH": os.environ["PATH"], "FREEHOLD_HOME": str(folder / "nobody")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=30)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.long
def test_a_live_proof_verifies_offline_and_a_changed_one_does_not(observed: LocalGrid, tmp_path: Path) -> None:
    proof, genesis = tmp_path / "proof.json", tmp_path / "genesis.json"
    live = observed.cli("verify", "proven/web", "--export", str(proof))
    shutil.copy(observed.home / "genesis.json", genesis)

    code, offline = verify_offline(tmp_path, "proof.json", "--genesis", "genesis.json")
    assert code == 0, offline
    assert offline["statements"] == live["statements"]
    assert offline["verdict"] == live["verdict"]
    assert offline["validators"] == 1
    assert any(row["word"].startswith("observed") for row in offline["statements"])

    document = json.loads(proof.read_text())
    document["proofs"][0]["value"] = "00" + document["proofs"][0]["value"][2:]
    proof.write_text(json.dumps(document))
    code, refused = verify_offline(tmp_path, "proof.json", "--genesis", "genesis.json")
    assert code == 5, refused
