"""`ledger.bytes`: what blocks hold for each node and epoch, and what a year of 100,000 nodes comes to.

Real signed reports of a grid in which every node reports, duties are spread as the draw spreads them, and every lease
slot count is the same; header and commit of each block with as many validators as named, shared by all nodes.
"""

import random
from collections.abc import Iterator
from typing import Final

from benchmarks.light_hop import Chain
from benchmarks.rows import Row, measured, row
from freehold.base.codec import encode
from freehold.base.presets import MAINNET
from freehold.consensus.comet.configuration import commit_pause_ms
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.ledger.transactions import TX_VERSION, Report, Tx, tx_signing_bytes
from freehold.light.types import LightBlock
from freehold.light.wire import length_delimited

NODES: Final = 100_000
VALIDATORS: Final = 100
SAMPLES: Final = 2_000
HOURS_PER_YEAR: Final = 8_760
SIGNATURE_BYTES: Final = 64
ROOT_BYTES: Final = 32
LEASE_BITS_BYTES: Final = 32
SLOT_BYTES: Final = 3  # what 100,000 slots need


def run(samples: int = SAMPLES) -> Iterator[Row]:
    """Reports drawn for a grid of 100,000 nodes, and the blocks of an epoch."""
    rng = random.Random(7)
    with measured() as spent:
        reports = [len(length_delimited(_report(rng, number))) + 1 for number in range(samples)]
    report = sum(reports) / samples
    encoded, _ = Chain(VALIDATORS).light_block(1_000)
    head = len(LightBlock.decode(encoded).signed_header.encode())
    blocks = MAINNET.epoch_ms // commit_pause_ms(MAINNET)
    total = report + blocks * head / NODES
    bare = SIGNATURE_BYTES + 2 * ROOT_BYTES + LEASE_BITS_BYTES + 2 * MAINNET.witnesses * SLOT_BYTES
    year = total * NODES * HOURS_PER_YEAR / 1e12
    workload = (
        f"mean of {samples} signed reports ({report:.0f} bytes, largest {max(reports)}), w = {MAINNET.witnesses}, and "
        f"{blocks} blocks an epoch, {head} bytes of header and commit each ({VALIDATORS} validators), {NODES} nodes: "
        f"{year:.2f} TB a year before pruning"
    )
    baseline = "bytes of their signatures, roots, lease bits and slots, bare"
    yield row("ledger.bytes", total, "block bytes a node and epoch", baseline, bare, workload, spent.cpu_s)


def _report(rng: random.Random, number: int) -> bytes:
    key = PrivateKey.from_seed(sha256(number.to_bytes(4, "big")))
    # The number of nodes that drew this one is binomial with mean w; so many duties it has.
    duties = sum(1 for _ in range(NODES // 100) if rng.random() < MAINNET.witnesses * 100 / NODES)
    body = Report(
        epoch=8_000,
        evidence_root=rng.randbytes(ROOT_BYTES),
        lease_bits=rng.randbytes(LEASE_BITS_BYTES),
        witnesses=rng.sample(range(NODES), MAINNET.witnesses),
        duty_targets=sorted(rng.sample(range(NODES), duties)),
        duty_root=rng.randbytes(ROOT_BYTES),
        duty_count=4 * duties,
        duty_failed=[],
    )
    unsigned = Tx(TX_VERSION, "freehold-bench", key.public, 0, 0, 6_000_000, body, [])
    signature = key.sign(tx_signing_bytes(unsigned))
    return encode(Tx(TX_VERSION, "freehold-bench", key.public, 0, 0, 6_000_000, body, [(key.public, signature)]))
