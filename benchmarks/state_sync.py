"""`sync.snapshot`, `sync.restore`: the state of 1,000,000 keys copied for a peer, and taken over by one.

Each runs as a process of its own, as in a ledger, so that its peak memory is its own. The baseline is a plain copy of
the same LMDB file, synced.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.rows import Row, load, measured, row
from freehold.base.limits import MIB
from freehold.consensus.application import ChunkResult, OfferResult
from freehold.consensus.snapshot_format import CHUNK_BYTES
from freehold.consensus.snapshot_store import SnapshotFolder
from freehold.consensus.state_store import StateStore
from freehold.consensus.state_sync import SNAPSHOTS, StateSync

VALUE_BYTES = 80
BATCH = 50_000
CHAIN = "bench"
# What the system counts for a parent would include this process, from which the child was forked.
PEAK = """
import importlib, sys
from pathlib import Path
code = importlib.import_module(sys.argv[1]).main(sys.argv[2:])
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
sys.exit(code)
"""


def run(keys: int = 1_000_000) -> Iterator[Row]:
    """Take a snapshot, copy the file, restore the snapshot."""
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "source", Path(name) / "target"
        height = _fill(source / "state", keys)
        arguments = [str(source / "state"), str(source / SNAPSHOTS), CHAIN, str(height), "1", str(CHUNK_BYTES)]
        take_s, take_cpu, take_mib = _child("freehold.consensus.snapshot_writer", arguments)
        with measured() as copying:
            _copy(source / "state" / "data.mdb", Path(name) / "copy")
        folder = SnapshotFolder(source / SNAPSHOTS)
        metadata = folder.find(height)
        if metadata is None:
            raise RuntimeError("no snapshot was taken")
        size_mib, file_mib = folder.size(height) / MIB, (source / "state" / "data.mdb").stat().st_size / MIB
        restore_s, restore_cpu, restore_mib = _child("benchmarks.state_sync", [str(source), str(target)])
        what = (
            f"{keys} keys with values of {VALUE_BYTES} bytes; snapshot {size_mib:.0f} MiB in "
            f"{len(metadata.chunks)} chunks, LMDB file {file_mib:.0f} MiB"
        )
        baseline = "s to copy the LMDB file, synced"
        yield row(
            "sync.snapshot",
            take_s,
            "s",
            baseline,
            copying.wall_s,
            f"{what}; peak {take_mib:.0f} MiB; {load()}",
            take_cpu,
        )
        note = f"{what}; every hash checked, state opened; peak {restore_mib:.0f} MiB, no network; {load()}"
        yield row("sync.restore", restore_s, "s", baseline, copying.wall_s, note, restore_cpu)


def restore(source: Path, target: Path) -> int:
    """Offer and apply the newest snapshot of a folder, as the engine does with one of a peer."""
    folder = SnapshotFolder(source / SNAPSHOTS)
    with StateStore.open(target / "state", 256) as state:
        sync = StateSync(state, target / "state", CHAIN)
        (snapshot,) = StateSync(state, source / "state", CHAIN).listed()
        metadata = folder.find(snapshot.height)
        if metadata is None or sync.offer(snapshot, metadata.app_hash) is not OfferResult.ACCEPT:
            return 1
        for index in range(snapshot.chunks):
            chunk = folder.load(snapshot.height, snapshot.format, index) or b""
            if sync.apply(index, chunk, "peer").result is not ChunkResult.ACCEPT:
                return 1
        return 0 if state.app_hash == metadata.app_hash else 1


def _fill(path: Path, keys: int) -> int:
    rng = random.Random(keys)
    with StateStore.open(path, 4) as store:
        for start in range(0, keys, BATCH):
            changes = {b"a" + n.to_bytes(32, "big"): rng.randbytes(VALUE_BYTES) for n in range(start, start + BATCH)}
            store.stage(start // BATCH + 1, dict(changes))
            store.commit()
        return store.height


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _child(module: str, arguments: Sequence[str]) -> tuple[float, float, float]:
    """Run a Python module as a process: wall and CPU seconds, and its peak memory in MiB as it sees it itself."""
    with measured() as spent:
        done = subprocess.run(
            [sys.executable, "-c", PEAK, module, *arguments], check=True, stdout=subprocess.PIPE, text=True
        )
    return spent.wall_s, spent.cpu_s, int(done.stdout.split()[-2]) / 1_024


def main(arguments: Sequence[str]) -> int:
    """Restore, as a process of its own: SOURCE TARGET."""
    return restore(Path(arguments[0]), Path(arguments[1]))
