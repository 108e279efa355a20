"""What a node adds to a bare run of the same bundle by the same runtime: below 150 ms in the median."""

import contextlib
import json
import statistics
import subprocess
import time
from pathlib import Path

import pytest
from lab import Node

from freehold.runtime import cgroups

pytestmark = pytest.mark.root

ROUNDS = 7
ALLOWED_MS = 150.0


def test_start_is_not_much_slower_than_a_bare_run(node: Node, tmp_path: Path) -> None:
    engine, ours, bare, steps = node.runtime.engine, [], [], []

    async def start_and_remove() -> None:
        spec = node.spec("c", ("/bin/sleep", "60"))
        began = time.perf_counter()
        await node.runtime.create(spec)
        await node.runtime.start("c")
        ours.append((time.perf_counter() - began) * 1_000)
        steps.append(node.runtime.timings)
        bare.append(_bare_run(engine.path, node.runtime.places.of("c").bundle / "config.json", tmp_path))
        await node.runtime.remove("c")

    for _ in range(ROUNDS):
        node.lab.run(start_and_remove)
    medians = {name: round(statistics.median(step[name] for step in steps) * 1_000, 1) for name in steps[0]}
    added = statistics.median(ours) - statistics.median(bare)
    print(f"ours {statistics.median(ours):.1f} ms, bare {engine.name} {statistics.median(bare):.1f} ms; {medians}")
    assert added < ALLOWED_MS


def _bare_run(engine: str, config: Path, folder: Path) -> float:
    """Milliseconds until `run --detach` of the same bundle is back: its process runs then."""
    changed = json.loads(config.read_text())
    changed["linux"]["cgroupsPath"] += "-bare"
    (folder / "config.json").write_text(json.dumps(changed))
    command = [engine, f"--root={folder / 'state'}"]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    began = time.perf_counter()
    try:
        subprocess.run([*command, "run", "--detach", f"--bundle={folder}", "bare"], check=True, **streams)
        return (time.perf_counter() - began) * 1_000
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run([*command, "delete", "--force", "bare"], check=True, **streams)
        cgroups.remove(changed["linux"]["cgroupsPath"])
