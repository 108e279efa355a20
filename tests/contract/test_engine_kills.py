"""`kill -9` of a validator process under load, at seeded points: nothing acknowledged is lost, nothing signed twice.

The same test must fail for builds that acknowledge too early or forget what they signed.
"""

import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest
from engine_child import CHAIN_ID, SENDERS

from freehold.base.amounts import TOKEN
from freehold.base.presets import MINIMAL
from freehold.consensus.block_store import BlockStore
from freehold.consensus.ledger_engine import open_ledger_engine
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.genesis import app_state_document
from freehold.ledger.transactions import tx_id
from freehold.light.genesis import genesis_document, parse_genesis
from freehold.light.headers import header_hash
from freehold.light.skipping import verify_hop
from freehold.light.trust import GENESIS_TRUST, trust_bounds, trust_genesis
from freehold.light.types import Timestamp

CHILD = Path(__file__).parent / "engine_child.py"
VALIDATOR = PrivateKey.from_seed(b"v" * 32)
STEPS = ("executed", "proposal_saved", "vote_recorded", "vote_signed", "block_final", "application_committed")
RECOVERY_SHARE = 0.1  # of kills that hit the first block after a start, often a resumed one
# short gaps, so that kills land while blocks are made; the verdict window follows by the rules of presets
PRESET = msgspec.structs.replace(MINIMAL, min_block_gap_ms=10, verdict_window_ms=600)


class Witness:
    """What the children said, over all their lives."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, int] = {}
        self.signed: dict[int, set[str]] = defaultdict(set)
        self.kills_in_flight = 0

    def hear(self, lines: list[str]) -> None:
        offered: set[str] = set()
        for line in lines:
            match line.split():
                case ["OFFERED", name]:
                    offered.add(name)
                case ["ACK", name, height]:
                    self.acknowledged[name] = int(height)
                    offered.discard(name)
                case ["SIGN", height, digest]:
                    self.signed[int(height)].add(digest)
        self.kills_in_flight += bool(offered)

    def check(self, folder: Path, genesis: Path) -> None:
        trusted = parse_genesis(genesis.read_bytes())
        final: dict[str, int] = {}
        engine = open_ledger_engine(folder, trusted, VALIDATOR)
        live = engine.status()
        engine._resources.close()
        with BlockStore(folder / "blocks") as blocks:
            for height in range(1, blocks.height + 1):
                block, record = blocks.block(height), blocks.record(height)
                assert block is not None
                assert record is not None
                for tx, result in zip(block.data.txs, record.results, strict=True):
                    if result.code == 0:
                        final[tx_id(tx).hex()] = height
        lost = [name for name in self.acknowledged if name not in final]
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged transactions are lost"
        twice = [height for height, messages in self.signed.items() if len(messages) > 1]
        assert not twice, f"two blocks were signed at heights {twice}"
        # the blocks alone lead to the same state
        (folder / "state").rename(folder / "state-of-the-living")
        engine = open_ledger_engine(folder, trusted, VALIDATOR)
        assert (engine.status().app_hash, engine.status().height) == (live.app_hash, live.height)
        light_block = engine._chain.light_block(live.height)
        assert light_block is not None
        state = verify_hop(trust_genesis(trusted), light_block, trust_bounds(GENESIS_TRUST, trusted), None)
        assert state.hash == header_hash(light_block.header) == live.block_hash
        engine._resources.close()


def kill_many(folder: Path, kills: int, *, seed: int, mode: str = "", steps: tuple[str, ...] = STEPS) -> Witness:
    dice, witness = random.Random(seed), Witness()
    genesis = folder / "genesis.json"
    genesis.write_bytes(
        genesis_document(
            chain_id=CHAIN_ID,
            genesis_time=Timestamp.from_ms(1_790_000_000_000),
            validators=[(VALIDATOR.public, 10, "one")],
            app_state=app_state_document(
                PRESET, [], [], accounts={sender.public: 100_000 * TOKEN for sender in SENDERS}
            ),
        )
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    for run in range(kills):
        step, count, in_recovery = dice.choice(steps), dice.randint(1, 12), run > 0 and dice.random() < RECOVERY_SHARE
        count = 1 if in_recovery else count
        print(f"seed {seed} kill {run}: at {step} number {count} after {'start' if in_recovery else 'the load began'}")
        command = [sys.executable, str(CHILD), str(folder / "data"), str(genesis), str(run), mode]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            lines: list[str] = []
            ready = in_recovery
            for line in child.stdout:
                lines.append(line)
                ready = ready or line.startswith("OFFERED")
                if ready and line == f"STEP {step}\n":
                    count -= 1
                    if count == 0:
                        child.kill()
            assert child.wait() == -9, "".join(lines[-20:])
        witness.hear(lines)
    witness.check(folder / "data", genesis)
    assert witness.kills_in_flight >= kills * 0.8, f"work was in flight at {witness.kills_in_flight} of {kills} kills"
    print(f"{len(witness.acknowledged)} acknowledged, {len(witness.signed)} heights signed")
    return witness


def test_kills_lose_nothing_and_sign_nothing_twice(tmp_path: Path) -> None:
    witness = kill_many(tmp_path, 5, seed=20261125)
    assert len(witness.acknowledged) > 20


@pytest.mark.long
def test_fifty_kills_lose_nothing_and_sign_nothing_twice(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    witness = kill_many(tmp_path, 50, seed=seed)
    assert len(witness.acknowledged) > 500


def test_canary_a_build_that_acknowledges_early_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="acknowledged transactions are lost"):
        kill_many(tmp_path, 2, seed=1, mode="early_ack", steps=("vote_signed", "executed"))


def test_canary_a_build_that_forgets_what_it_signed_is_caught(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="two blocks were signed"):
        kill_many(tmp_path, 4, seed=1, mode="forgetful", steps=("vote_signed",))
