"""The watchdog's decisions on folders that stand for control groups, and its files."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import InvariantError
from freehold.runtime import watchdog
from freehold.runtime.fence import Fence
from freehold.runtime.watchdog import Watchdog, boottime_ms, read_deadline


class World:
    """A run folder, a home, and a version-1 group that holds a real process."""

    def __init__(self, folder: Path) -> None:
        self.run, self.home, self.groups = folder / "run", folder / "home", folder / "groups"
        for path in (self.run, self.home / "containers/c", self.groups / "c"):
            path.mkdir(parents=True)
        self.fence = Fence(self.run)
        self.victim = subprocess.Popen(["/bin/sleep", "60"])
        self.procs = self.groups / "c/cgroup.procs"
        self.procs.write_text(f"{self.victim.pid}\n")
        self.watchdog = Watchdog(str(self.run), str(self.home), str(self.groups))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.victim.kill()
    world.victim.wait()


def test_nothing_happens_before_the_deadline(world: World) -> None:
    world.fence.renew("c", 10_000, 3)
    assert world.watchdog.step(9_900) == pytest.approx(0.1)  # sleeps exactly until it
    assert world.victim.poll() is None
    world.fence.renew("c", 20_000, 3)
    assert world.watchdog.step(10_000) == pytest.approx(0.25)  # renewed meanwhile: read again, never longer than a poll
    assert world.victim.poll() is None


def test_a_passed_deadline_kills_then_writes_down(world: World) -> None:
    world.fence.renew("c", 10_000, 3)
    assert world.watchdog.step(10_000) < 0.01
    assert world.victim.wait(5) == -9
    assert not (world.home / "containers/c/fenced").exists()  # not before the group is empty
    world.procs.write_text("")
    world.watchdog.step(10_001)
    version, at_ms, term = (world.home / "containers/c/fenced").read_text().split()
    assert (version, term) == ("1", "3") and abs(boottime_ms() - int(at_ms)) < 5_000
    row = json.loads((world.home / "term.log").read_text())
    assert (row["event"], row["container"], row["term"]) == ("fenced", "c", 3)
    world.watchdog.step(10_002)
    assert len((world.home / "term.log").read_text().splitlines()) == 1


def test_an_ended_container_is_not_told_as_fenced(world: World) -> None:
    world.fence.renew("c", 10_000, 3)
    world.procs.write_text("")
    world.watchdog.step(20_000)
    assert not (world.home / "term.log").exists()


def test_no_fence_no_kill(world: World) -> None:
    world.watchdog.step(1 << 60)
    assert world.victim.poll() is None
    world.fence.renew("c", 10, 0)
    world.fence.lift("c")
    world.watchdog.step(1 << 60)
    assert world.victim.poll() is None


@pytest.mark.parametrize("text", ["", "2 999999999 1", "1 x 1", "1 5", "garbage" * 100])
def test_a_damaged_fence_counts_as_passed(world: World, text: str) -> None:
    (world.run / "fence/c").write_text(text)
    world.watchdog.step(10)
    assert world.victim.wait(5) == -9


def test_a_deadline_only_grows(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    assert fence.deadline("c") is None and not fence.has_passed("c")
    fence.renew("c", 1_000, 1)
    fence.renew("c", 900, 1)
    assert fence.deadline("c") == 1_000 and fence.has_passed("c")
    assert fence.containers() == {"c"}


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b"])
def test_a_fence_has_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvariantError):
        Fence(tmp_path).renew(name, 1, 1)


@given(deadline=st.integers(0, 1 << 62), term=st.integers(0, 1 << 62))
def test_fence_files_round_trip(tmp_path_factory: pytest.TempPathFactory, deadline: int, term: int) -> None:
    run = tmp_path_factory.mktemp("fence")
    Fence(run).renew("c", deadline, term)
    assert read_deadline(str(run / "fence/c")) == (deadline, term)


def test_the_program_needs_nothing_but_the_standard_library() -> None:
    source = Path(watchdog.__file__).read_text()
    imports = [line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert sorted(imports) == ["contextlib", "fcntl", "json", "os", "pathlib", "signal", "sys", "time"]
