"""10,000 seeded transactions: the same state under two hash seeds, and again after replay from genesis."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ledger_grid import Grid, Key, apply_changes, preset_with, state_digest, verify
from ledger_workload import Workload, accepted

from freehold.ledger.execute import execute_block
from freehold.ledger.invariants import check_state

SEED = 20_261_125
BODIES = 18


def digest_of(seed: int, transactions: int) -> str:
    """Run a workload, check what it did, replay it, and give the digest of its state."""
    grid = Grid(preset_with(report_epochs=12), is_checked=False)
    genesis = dict(grid.state)
    work = Workload(grid, seed)
    work.run(transactions)
    check_state(grid.state)
    assert accepted(work.codes) > transactions * 2 // 3, work.codes
    if transactions >= 10_000:
        assert len(work.codes) >= 20, work.codes  # many kinds of refusal
        assert len(work.kinds) == BODIES, work.kinds
    for block in grid.blocks:
        apply_changes(genesis, execute_block(genesis, block, verify))
    assert genesis == grid.state
    return state_digest(grid.state)


def run_in_process(hash_seed: int, seed: int, transactions: int) -> str:
    code = f"import test_ledger_replay as t; print(t.digest_of({seed}, {transactions}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    return done.stdout.strip()


def test_two_hash_seeds_give_one_state() -> None:
    first = run_in_process(1, SEED, 10_000)
    assert len(first) == 64
    assert run_in_process(2, SEED, 10_000) == first


def test_another_seed_gives_another_state() -> None:
    assert digest_of(SEED + 1, 500) != digest_of(SEED + 2, 500)


@pytest.mark.parametrize("seed", range(3))
def test_every_block_of_a_workload_keeps_the_invariants(seed: int) -> None:
    grid = Grid(preset_with(report_epochs=6), tenants=3)
    Workload(grid, seed).run(600)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
def test_many_workloads_keep_the_invariants(seed: int) -> None:
    grid = Grid(preset_with(report_epochs=6), tenants=3)
    Workload(grid, seed).run(4_000)


def test_real_keys_do_as_well() -> None:
    from freehold.crypto.ed25519 import PrivateKey
    from freehold.crypto.ed25519 import verify as verify_ed25519

    def make(name: str) -> PrivateKey:
        return PrivateKey.from_seed(Key(name).public)

    grid = Grid(make_key=make, check_signature=verify_ed25519)
    work = Workload(grid, 5)
    work.run(150)
    assert accepted(work.codes) > 50
