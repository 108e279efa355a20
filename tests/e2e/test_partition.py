"""A node cut off from everyone by a rule in its namespace: it stops by itself, the standby runs, never both at once.

The canary is the same test against agents built without the fence: it must see both run.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import Eyes, boottime_ms, overlaps, seed_of, spans_of, ticker_service
from local_grid import LocalGrid

import freehold
from freehold.base.presets import MINIMAL

pytestmark = pytest.mark.root

ALLOWANCE_MS = 3_000
CUT = (
    "table inet cut { chain out { type filter hook output priority -300; oifname eth0 drop; }; "
    "chain in { type filter hook input priority -300; iifname eth0 drop; }; }"
)
FENCE_CODE = "    by_request = asked_boottime_ms + preset.fence_ms\n"


def cut(grid: LocalGrid, node: str) -> None:
    """Drop every packet of a node."""
    grid.in_namespace(node, "nft", CUT)


def heal(grid: LocalGrid, node: str) -> None:
    """Let packets pass again."""
    grid.in_namespace(node, "nft", "delete table inet cut")


def partition(grid: LocalGrid) -> tuple[int, int, list[object]]:
    """Cut the holder's node off and wait until the standby serves; returns cut time, lease and overlaps."""
    rng = seed_of("partition")
    marker = f"split-{rng.randrange(1_000_000)}"
    grid.deploy(f"name: split\nservices:\n{ticker_service('web', marker, 1)}")
    lease = grid.service("split/web")["lease"]
    node = grid.node_of("split/web")
    with Eyes(marker) as eyes:
        at_ms = boottime_ms()
        cut(grid, node)
        try:
            grid.wait_for(lambda: (row := grid.service("split/web"))["term"] == 2 and row["state"] == "running", 45)
            running_ms = boottime_ms()
        finally:
            spans = spans_of(grid, lease)
            heal(grid, node)
    print(f"cut {node}; standby ran {running_ms - at_ms} ms later; {eyes.looks} looks, at most {eyes.most} at once")
    for span in spans:
        print(f"  {span.node} term {span.term}: {span.start_ms - at_ms} to {span.end_ms - at_ms} ms after the cut")
    assert eyes.looks > 100
    return at_ms, eyes.most, [node, lease, spans, overlaps(spans)]


def test_the_holder_stops_by_itself_and_never_both_run(own_grid: LocalGrid) -> None:
    at_ms, most, (node, lease, spans, both) = partition(own_grid)
    old = next(span for span in spans if span.node == node)
    assert old.end_ms <= at_ms + MINIMAL.fence_ms + ALLOWANCE_MS, "the fence did not stop it in time"
    assert both == []
    assert most == 1
    own_grid.wait_for(lambda: lease not in _containers(own_grid, node), 30)


@pytest.mark.long  # without it, `test_runtime_death` has a canary of its own
def test_the_canary_without_a_fence_is_caught(own_grid: LocalGrid, tmp_path: Path) -> None:
    grid = own_grid
    broken = _build_without_fence(tmp_path)
    agents = []
    try:
        for name in grid.node_status():
            grid.kill_agent(name)
            agents.append(_start_broken(grid, name, broken))
            grid.wait_for(lambda name=name: "listening" in str(grid.agent_log(name)[-3:]), 20)
        _, most, (_, _, _, both) = partition(grid)
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()
    assert both or most > 1, "the test does not see two holders: it could not fail"


def _containers(grid: LocalGrid, node: str) -> set[str]:
    return {path.name for path in (grid.node_home(node) / "data/runtime/containers").glob("*")}


def _build_without_fence(folder: Path) -> Path:
    """A copy of the package in which the fence never falls."""
    source = Path(freehold.__file__).parent
    shutil.copytree(source, folder / "freehold", ignore=shutil.ignore_patterns("__pycache__"))
    module = folder / "freehold/agent/core/fencing.py"
    text = module.read_text()
    assert FENCE_CODE in text
    module.write_text(text.replace(FENCE_CODE, "    return Fence(1 << 60)\n" + FENCE_CODE))
    return folder


def _start_broken(grid: LocalGrid, name: str, package: Path) -> "subprocess.Popen[bytes]":
    home = grid.node_home(name)
    with (home / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [
                "nsenter",
                f"--net={grid.namespace_path(name)}",
                "--",
                sys.executable,
                "-m",
                "freehold.agent.main",
                "--home",
                str(home),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(package)},
        )
    started = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    (home / "daemon.pid").write_text(f"{process.pid} {started}\n")
    return process
