"""A seeded workload through the real chain and tree: one app hash under any hash seed, and again from the blocks alone.

tests/property shows the same for the pure rules; here every block is proposed, signed, executed, hashed and stored as
the validator does it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from freehold.consensus.block_store import BlockStore
from freehold.consensus.chain import Chain
from freehold.consensus.ledger_application import LedgerApplication
from freehold.consensus.signing import SignerState
from freehold.crypto import ed25519
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.genesis import GenesisFarm, GenesisNode, app_state_document
from freehold.light.genesis import genesis_document, parse_genesis
from freehold.light.skipping import verify_hop
from freehold.light.trust import GENESIS_TRUST, trust_bounds, trust_genesis
from freehold.light.types import Timestamp

SEED = 20_261_125
PROPERTY = Path(__file__).parent.parent / "property"


def final_hash(seed: int, transactions: int) -> str:
    """Run a workload through a chain, replay it from genesis, and give the app hash that both end with."""
    sys.path.insert(0, str(PROPERTY))
    from ledger_grid import CAPACITY, CHAIN, GENESIS_MS, OFFER, ZERO, Grid, Key, preset_with
    from ledger_workload import Workload, accepted

    from freehold.base.amounts import TOKEN

    def key(name: str) -> PrivateKey:
        return PrivateKey.from_seed(Key(name).public)

    grid = Grid(preset_with(report_epochs=12), make_key=key, check_signature=ed25519.verify, is_checked=False)
    work = Workload(grid, seed)
    work.run(transactions)
    assert accepted(work.codes) > transactions // 2, work.codes
    farms = [GenesisFarm(farm.public, f"farm-{at}", "DE", "Berlin") for at, farm in enumerate(grid.farms)]
    nodes = [
        GenesisNode(node.public, ZERO, grid.owner[node.public], ["192.0.2.1:7000"], CAPACITY, OFFER)
        for node in grid.nodes
    ]
    accounts = {tenant.public: 1_000 * TOKEN for tenant in grid.tenants}
    trusted = parse_genesis(
        genesis_document(
            chain_id=CHAIN,
            genesis_time=Timestamp.from_ms(GENESIS_MS),
            validators=[(grid.validator.public, 10, "one")],
            app_state=app_state_document(grid.preset, farms, nodes, faucet=grid.faucet.public, accounts=accounts),
        )
    )
    with TemporaryDirectory() as name:
        folder = Path(name)
        signer = key("validator")

        def open_chain(blocks: BlockStore, application: LedgerApplication) -> Chain:
            chain = Chain(trusted, application, blocks, signer, SignerState(folder / "last_signed"))
            chain.start()
            return chain

        with BlockStore(folder / "blocks") as blocks:
            application = LedgerApplication.open(folder, trusted, signer)
            chain = open_chain(blocks, application)
            for block in grid.blocks:
                made = chain.make_block(block.time_ms, block.txs[1:])
                # A proposer leaves out what would be refused; the rest stands in order, to the same state.
                asked = iter(block.txs)
                assert all(tx in asked for tx in made.txs)
            assert dict(application.state.items()) == grid.state
            light_block = chain.light_block(chain.height)
            assert light_block is not None
            verify_hop(trust_genesis(trusted), light_block, trust_bounds(GENESIS_TRUST, trusted), None)
            app_hash = chain.app_hash
            application.close()
            shutil.rmtree(folder / "state")
            application = LedgerApplication.open(folder, trusted, signer)
            assert open_chain(blocks, application).app_hash == app_hash == application.state.app_hash
            application.close()
    return app_hash.hex()


def run_in_process(hash_seed: int, seed: int, transactions: int) -> str:
    code = f"import test_ledger_hashes as t; print(t.final_hash({seed}, {transactions}))"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=1_200,
        check=True,
    ).stdout.strip()


def one_hash_under_two_hash_seeds(seed: int, transactions: int) -> None:
    first = run_in_process(1, seed, transactions)
    assert len(first) == 64
    assert run_in_process(2, seed, transactions) == first


def test_five_hundred_transactions_lead_to_one_hash():
    one_hash_under_two_hash_seeds(SEED, 500)
    assert final_hash(SEED + 1, 100) != final_hash(SEED + 2, 100)


@pytest.mark.long
def test_ten_thousand_transactions_lead_to_one_hash():
    one_hash_under_two_hash_seeds(SEED, 10_000)
