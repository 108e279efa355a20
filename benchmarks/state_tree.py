"""`state.updates`, `state.proof`, `state.verify`: the authenticated map at 100,000 and 1,000,000 keys.

The last is the verification of those proofs, as a reader of the ledger does it.
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from benchmarks.rows import Row, Spent, by_cpu, load, measured, one_core, row
from freehold.consensus.state_store import StateStore
from freehold.crypto.hashing import sha256
from freehold.light.ics23 import SMT, decode_proof, verify_existence

SIZES = (100_000, 1_000_000)
BATCH = 1_000
BATCHES = 20
PROOFS = 500
VALUE_BYTES = 80


def run(sizes: tuple[int, ...] = SIZES) -> Iterator[Row]:
    """For each size: updates of keys drawn uniformly, proofs of such keys, their verification."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder, one_core():
            yield from _run_size(Path(folder), size)


def _run_size(folder: Path, size: int) -> Iterator[Row]:
    rng = random.Random(size)
    store = StateStore.open(folder / "state", 256)
    for start in range(0, size, 50_000):
        changes = {_key(index): rng.randbytes(VALUE_BYTES) for index in range(start, min(size, start + 50_000))}
        store.stage(start // 50_000 + 1, changes)
        store.commit()
    height = store.height
    batches = [{_key(rng.randrange(size)): rng.randbytes(VALUE_BYTES) for _ in range(BATCH)} for _ in range(BATCHES)]
    count = sum(map(len, batches))
    spent, plain = Spent(), Spent()
    with _plain_lmdb(folder / "plain", size) as put:
        for number, changes in enumerate(batches, start=height + 1):
            with measured(spent):
                store.stage(number, changes)
                store.commit()
            with measured(plain):
                put(changes)
    workload = (
        f"{count} updates in batches of {BATCH} of {VALUE_BYTES} bytes, {size} keys drawn uniformly, "
        f"one fsync a batch, one core; {by_cpu(count, spent, plain)}"
    )
    rate, plain_rate = count / spent.wall_s, count / plain.wall_s
    yield row(
        "state.updates",
        rate,
        "updates/s",
        "plain puts/s, sorted by hash, into an LMDB of as many keys, no tree",
        plain_rate,
        workload,
        spent.cpu_s,
    )
    keys = [_key(rng.randrange(size)) for _ in range(PROOFS)]
    with measured() as proving:
        proofs = [store.prove(key, store.height) for key in keys]
    root = store.app_hash
    with measured() as verifying:
        for key, (value, proof) in zip(keys, proofs, strict=True):
            if value is None:
                raise RuntimeError("a key that was written has no value")
            verify_existence(SMT, root, key, value, decode_proof(proof))
    with measured() as reading:
        for key in keys:
            store.get(key)
    each, read_each = proving.wall_s / PROOFS * 1e6, reading.wall_s / PROOFS * 1e6
    yield row(
        "state.proof",
        each,
        "us a proof",
        "us a plain read of the same key",
        read_each,
        f"{PROOFS} existence proofs, {size} keys drawn uniformly, one core; {load()}",
        proving.cpu_s,
    )
    yield row(
        "state.verify",
        verifying.wall_s / PROOFS * 1e6,
        "us a verification",
        "us a proof",
        each,
        f"{PROOFS} ICS-23 verifications of those proofs, {size} keys, one core; {load()}",
        verifying.cpu_s,
    )
    store.close()


def _key(index: int) -> bytes:
    return b"a" + index.to_bytes(32, "big")


@contextmanager
def _plain_lmdb(folder: Path, size: int) -> Iterator[Callable[[dict[bytes, bytes]], None]]:
    """Fill an LMDB with as many keys, and give what writes a batch to it, durably."""
    with lmdb.open(str(folder), map_size=4 << 30) as environment:
        with environment.begin(write=True) as transaction:
            for index in range(size):
                transaction.put(sha256(_key(index)), bytes(VALUE_BYTES))

        def put(changes: dict[bytes, bytes]) -> None:
            with environment.begin(write=True) as transaction:
                for key in sorted(map(sha256, changes)):
                    transaction.put(key, bytes(VALUE_BYTES))

        yield put
