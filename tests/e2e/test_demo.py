"""The demo: a full run, an interrupted one, a killed one; nothing is left, and the next run succeeds."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import seed_of
from local_grid import processes_naming

pytestmark = [pytest.mark.root, pytest.mark.long]

TREE = Path(__file__).parents[2]
FULL_S = 300.0
CLEAN_S = 60.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("demo")
    yield folder
    assert left_of(folder) == []


def start(cache: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "freehold.demo.main", "--cache", str(cache), *arguments]
    return subprocess.Popen(
        [*command, "--example", str(TREE / "examples/guestbook")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left_of(cache: Path) -> list[str]:
    """Processes, mounts and namespaces of the cache's grid that are still there."""
    home = str(cache / "home")
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if home in line]
    return [*map(str, processes_naming(home)), *mounts, *([home] if (cache / "home").exists() else [])]


def full_run(cache: Path, *arguments: str) -> str:
    demo = start(cache, *arguments)
    output, _ = demo.communicate(timeout=FULL_S)
    assert demo.returncode == 0, output
    assert "still stand, proven" in output
    assert left_of(cache) == []
    return output


def test_a_full_run_tells_the_whole_story(cache: Path) -> None:
    output = full_run(cache)
    for said in ("observed", "says: down", "gives term 2", "still has: Ada", "is left"):
        assert said in output


def interrupt(cache: Path, number: int, after_s: float) -> None:
    demo = start(cache)
    time.sleep(after_s)  # the moment is what is drawn
    assert demo.poll() is None, demo.communicate()[0]
    os.kill(demo.pid, number)
    output, _ = demo.communicate(timeout=CLEAN_S)
    assert demo.returncode == 130, output
    assert left_of(cache) == [], output


def test_a_full_run_on_four_validators_survives_the_death_of_one(cache: Path) -> None:
    output = full_run(cache, "--validators", "4")
    for said in ("kill validator-2", "the ledger goes on", "with 3 of 4 validators", "verified, validators: 4"):
        assert said in output, output


def test_interrupts_at_any_moment_leave_nothing(cache: Path) -> None:
    rng: random.Random = seed_of("demo interrupts")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        after_s = rng.uniform(1.0, 45.0)
        print(f"signal {number} after {after_s:.1f} s")
        interrupt(cache, number, after_s)


def test_a_killed_run_is_cleared_by_the_next(cache: Path) -> None:
    rng = seed_of("demo kill")
    demo = start(cache)
    after_s = rng.uniform(8.0, 40.0)
    print(f"killed after {after_s:.1f} s")
    time.sleep(after_s)  # the moment is what is drawn
    demo.kill()
    demo.communicate()
    full_run(cache)
