"""`ledger.bytes`: what blocks hold for each node and epoch, and what a year of 100,000 nodes comes to.

Real signed reports of a grid in which every node reports, duties are spread as the draw spreads them, and every lease
slot count is the same; of each block header, commit and first transaction (the beacon's proofs) with as many validators
as named, shared by all nodes.
"""

import random
from collections.abc import Iterator
from typing import Final

from benchmarks.light_hop import Chain
from benchmarks.rows import Row, measured, row
from freehold.base.codec import encode
from freehold.base.presets import MAINNET, MINIMAL
from freehold.consensus.comet.configuration import commit_pause_ms
from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.ledger.beacons import EXTENSION_BYTES, VrfBeaconTx
from freehold.ledger.transactions import TX_VERSION, Report, Tx, tx_signing_bytes
from freehold.light.types import LightBlock
from freehold.light.wire import length_delimited

NODES: Final = 100_000
VALIDATORS: Final = 100
SAMPLES: Final = 2_000
YEAR_MS: Final = 365 * 24 * 3_600 * 1_000
SIGNATURE_BYTES: Final = 64
ROOT_BYTES: Final = 32
LEASE_BITS_BYTES: Final = 32
SLOT_BYTES: Final = 3  # what 100,000 slots need


def run(samples: int = SAMPLES) -> Iterator[Row]:
    """Reports drawn for a grid of 100,000 nodes, and the blocks of an epoch, at both presets' lengths of it."""
    with measured() as spent:
        encoded, _ = Chain(VALIDATORS).light_block(1_000)
        head = len(LightBlock.decode(encoded).signed_header.encode())
        first = len(length_delimited(_first_tx())) + 1
    block = head + first
    workload = (
        f"{head} bytes of header and commit, {first} of the first transaction with a proof of each of {VALIDATORS} "
        f"validators; beside the block the engine stores {VALIDATORS * _extension_bytes()} of their votes' extensions"
    )
    unit, baseline = "bytes of a block without further transactions", "bytes of its header and commit"
    yield row("ledger.bytes", block, unit, baseline, head, workload, spent.cpu_s)
    for name, preset in (("mainnet", MAINNET), ("minimal", MINIMAL)):
        rng = random.Random(7)
        with measured() as spent:
            reports = [len(length_delimited(_report(rng, number, preset.witnesses))) + 1 for number in range(samples)]
        report = sum(reports) / samples
        blocks = preset.epoch_ms // commit_pause_ms(preset)
        total = report + blocks * block / NODES
        bare = SIGNATURE_BYTES + 2 * ROOT_BYTES + LEASE_BITS_BYTES + 2 * preset.witnesses * SLOT_BYTES
        year = total * NODES * YEAR_MS / preset.epoch_ms / 1e12
        workload = (
            f"mean of {samples} signed reports ({report:.0f} bytes, largest {max(reports)}), w = {preset.witnesses}, "
            f"and {blocks} blocks an epoch of {preset.epoch_ms // 1_000} s, {block} bytes each "
            f"({blocks * first / NODES:.0f} bytes a node for the beacon's proofs), {VALIDATORS} validators, {NODES} "
            f"nodes: {year:.2f} TB a year before pruning"
        )
        baseline = "bytes of their signatures, roots, lease bits and slots, bare"
        unit = f"block bytes a node and epoch, {name}"
        yield row("ledger.bytes", total, unit, baseline, bare, workload, spent.cpu_s)


def _first_tx() -> bytes:
    """A block's first transaction, with the proofs of all that voted."""
    keys = [PrivateKey.from_seed(sha256(b"vrf" + number.to_bytes(4, "big"))) for number in range(VALIDATORS)]
    proofs = [(place, ecvrf.prove(key, sha256(b"height"))) for place, key in enumerate(keys)]
    return encode(VrfBeaconTx(1_000_000, proofs))


def _extension_bytes() -> int:
    """What a vote's extension and the engine's signature over it add to a vote that the engine stores."""
    return sum(len(length_delimited(bytes(size))) + 1 for size in (EXTENSION_BYTES, SIGNATURE_BYTES))


def _report(rng: random.Random, number: int, witnesses: int) -> bytes:
    key = PrivateKey.from_seed(sha256(number.to_bytes(4, "big")))
    # The number of nodes that drew this one is binomial with mean w; so many duties it has.
    duties = sum(1 for _ in range(NODES // 100) if rng.random() < witnesses * 100 / NODES)
    body = Report(
        epoch=8_000,
        evidence_root=rng.randbytes(ROOT_BYTES),
        lease_bits=rng.randbytes(LEASE_BITS_BYTES),
        witnesses=rng.sample(range(NODES), witnesses),
        duty_targets=sorted(rng.sample(range(NODES), duties)),
        duty_root=rng.randbytes(ROOT_BYTES),
        duty_count=4 * duties,
        duty_failed=[],
    )
    unsigned = Tx(TX_VERSION, "freehold-bench", key.public, 0, 0, 6_000_000, body, [])
    signature = key.sign(tx_signing_bytes(unsigned))
    return encode(Tx(TX_VERSION, "freehold-bench", key.public, 0, 0, 6_000_000, body, [(key.public, signature)]))
