"""Agents and watchdogs that die: containers run on, fences hold, nothing is lost and nothing is left."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, Node, leftovers
from test_runtime_life import wait_for_line

from freehold.base.errors import RefusedError
from freehold.runtime import kernel, mounts
from freehold.runtime.bundle import BundleBuilder
from freehold.runtime.places import Places
from freehold.runtime.records import ExitReason, Status
from freehold.runtime.watchdog import boottime_ms

pytestmark = pytest.mark.root

COUNT = "import time\nnumber = 0\nwhile True:\n print(number, flush=True); number += 1; time.sleep(0.01)"


@contextlib.contextmanager
def agent(lab: Lab, home: Path, image: Path, mode: str, wanted: Any = None) -> Iterator[tuple[Any, dict[str, int]]]:
    """An agent process in the node's namespace; killed at the end, if it was not before."""
    command = [sys.executable, str(Path(__file__).with_name("agent_process.py")), str(home), "node", str(image), mode]
    process = kernel.in_network_namespace(
        lab.node,
        lambda: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True),
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(wanted) + "\n")
        process.stdin.flush()
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def home(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """A node's home; what runs there is removed afterwards."""
    home = tmp_path / "node"
    yield home
    node = _reopen(lab, home, Path("/nowhere"))
    node.close()


def _reopen(lab: Lab, home: Path, image: Path) -> Node:
    """The agent's next start."""
    return Node(lab, image, "node", home=home)


def _events(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "term.log").read_text().splitlines()]


def test_containers_outlive_the_agent(lab: Lab, home: Path, container_image: Path) -> None:
    wanted = [("count", COUNT, False), ("ends", "import time, sys\ntime.sleep(0.7)\nsys.exit(42)", False)]
    with agent(lab, home, container_image, "hold", wanted) as (process, pids):
        process.kill()
        process.wait()
    time.sleep(1)  # the agent stays away while one container goes on and the other ends
    node = _reopen(lab, home, container_image)
    found = {item.id: item for item in lab.run(node.runtime.list)}
    assert (found["count"].status, found["count"].pid) == (Status.RUNNING, pids["count"])
    ended = found["ends"].exit
    assert ended is not None and (ended.reason, ended.code) == (ExitReason.EXITED, 42)
    stopped = next(row for row in _events(home) if (row["event"], row["container"]) == ("stopped", "ends"))
    assert boottime_ms() - stopped["boottime_ms"] > 100  # the time of its end, not of the agent's return
    lab.run(lambda: node.runtime.stop("count", 0))
    numbers = [int(line.text) for line in lab.run(lambda: node.runtime.logs("count"))]
    assert numbers == list(range(len(numbers))) and len(numbers) > 50


def test_fence_stops_a_container_whose_agent_is_dead(lab: Lab, home: Path, container_image: Path) -> None:
    wanted = [("fenced", COUNT, True), ("free", COUNT, False)]
    with agent(lab, home, container_image, "hold", wanted) as (process, pids):
        time.sleep(0.8)  # longer than the fence: renewing keeps it alive
        assert _alive(pids["fenced"])
        process.kill()
        killed = boottime_ms()
        process.wait()
    _wait(lambda: not _alive(pids["fenced"]))
    gone = boottime_ms() - killed
    assert gone < 500 + 150, f"{gone} ms"
    assert _alive(pids["free"])
    _wait(lambda: _events(home)[-1]["event"] == "fenced")
    assert (_events(home)[-1]["container"], _events(home)[-1]["term"]) == ("fenced", 7)
    node = _reopen(lab, home, container_image)
    ended = lab.run(lambda: node.runtime.wait("fenced"))
    assert ended.reason is ExitReason.FENCED

    async def again() -> None:
        with pytest.raises(RefusedError, match="fence"):
            await node.runtime.start("fenced")
        node.runtime.fence.renew("fenced", boottime_ms() + 60_000, 8)
        assert (await node.runtime.start("fenced")).status is Status.RUNNING

    lab.run(again)
    assert [row["event"] for row in _events(home) if row["container"] == "fenced"] == ["started", "fenced", "started"]


def test_without_the_watchdog_the_fence_test_fails(lab: Lab, home: Path, container_image: Path) -> None:
    """The canary: the same death with a watchdog that does not act, and the container lives on."""
    with agent(lab, home, container_image, "hold", [("fenced", COUNT, True)]) as (process, pids):
        process.kill()
        process.wait()
        os.kill(_watchdog(home), signal.SIGSTOP)
    time.sleep(1)
    assert _alive(pids["fenced"])
    node = _reopen(lab, home, container_image)
    stuck = _watchdog(home)
    _wait(lambda: node.runtime.watchdog.ensure() != stuck)  # is replaced, and the new one does what was due
    _wait(lambda: not _alive(pids["fenced"]))
    assert lab.run(lambda: node.runtime.wait("fenced")).reason is ExitReason.FENCED


def test_watchdog_is_one_and_comes_back(node: Node) -> None:
    async def body() -> None:
        watch = node.runtime.watch()
        first = await anext(watch)
        assert node.runtime.watchdog.ensure() == first
        os.kill(first, signal.SIGKILL)
        second = await asyncio.wait_for(anext(watch), 10)
        assert second != first and node.runtime.watchdog.is_healthy()
        await watch.aclose()

    node.lab.run(body)
    command = f"watchdog.py\0{node.places.run}".encode()
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if command in _read(path)]
    assert len(running) == 1
    status = (running[0].parent / "smaps_rollup").read_text()
    pss_kb = int(next(line.split()[1] for line in status.splitlines() if line.startswith("Pss:")))
    assert pss_kb < 10_000, pss_kb


def test_watchdog_ends_with_its_run_folder(node: Node) -> None:
    watchdog = node.runtime.watchdog.pid()
    assert _alive(watchdog)
    (node.places.run / "watchdog.lock").rename(node.places.run / "moved")
    _wait(lambda: not _alive(watchdog))


def test_container_that_lost_its_conmon_is_ended(node: Node) -> None:
    async def body() -> None:
        await node.begin("c", COUNT)
        await wait_for_line(node, "c", "5")
        os.kill(int((node.runtime.places.of("c").bundle / "conmon.pid").read_text()), signal.SIGKILL)
        ended = await asyncio.wait_for(node.runtime.wait("c"), 10)
        assert ended.reason is ExitReason.SHIM_LOST
        assert (await node.runtime.start("c")).status is Status.RUNNING

    node.lab.run(body)


@pytest.mark.parametrize("count", [6, pytest.param(50, marks=pytest.mark.long)])
def test_killed_anywhere_leaves_nothing(
    lab: Lab, container_image: Path, home: Path, count: int, request: pytest.FixtureRequest
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    request.node.user_properties.append(("seed", seed))
    print(f"seed {seed}")
    chance, in_flight = random.Random(seed), 0
    places = Places(home, "node")
    for _ in range(count):
        with agent(lab, home, container_image, "churn") as (process, _):
            delay = chance.uniform(0.0, 0.5)
            print(f"killed after {delay:.3f} s")
            time.sleep(delay)
            process.kill()
            process.wait()
        in_flight += any((home / "containers").iterdir())
        node = _reopen(lab, home, container_image)
        states = lab.run(node.runtime.list)
        assert {item.status for item in states} <= {Status.BROKEN, Status.CREATED, Status.RUNNING, Status.EXITED}
        lab.run(lambda runtime=node.runtime: runtime.cleanup(set()))
        assert list((home / "containers").iterdir()) == list((places.run / "c").iterdir()) == []
        mounted = [line for line in leftovers(places, lab.node) if line.startswith("mount")]
        assert mounted == [f"mount {places.run}"]
    assert in_flight >= count * 2 // 3


def test_cleanup_unmounts_what_a_crash_kept_mounted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by killing at random: dead between the end of the last container and the unmounting of its image."""
    with monkeypatch.context() as patch:
        patch.setattr(BundleBuilder, "release", lambda *_: None)
        node.python("pass")
    assert list((node.places.run / "images").iterdir()) != []
    node.lab.run(node.runtime.cleanup)
    assert mounts.mounted_under(node.places.run) == [node.places.run]


def test_many_at_once(node: Node) -> None:
    names = [f"c{number}" for number in range(12)]

    async def body() -> None:
        began = time.monotonic()
        started = await asyncio.gather(*(node.begin(name, "import time; time.sleep(60)") for name in names))
        print(f"{len(names)} started in {time.monotonic() - began:.2f} s")
        assert len({item.pid for item in started} | {item.address for item in started}) == 2 * len(names)
        assert [item.status for item in await node.runtime.list()] == [Status.RUNNING] * len(names)
        await asyncio.gather(*(node.runtime.remove(name) for name in names))
        assert await node.runtime.list() == []

    node.lab.run(body)


def _alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def _read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def _watchdog(home: Path) -> int:
    command = f"watchdog.py\0{Places(home, 'node').run}".encode()
    return next(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if command in _read(path))


def _wait(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
