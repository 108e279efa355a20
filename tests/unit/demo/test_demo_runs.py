"""Runs of the demo beside each other and after a kill: one at a time on a cache, and no command outlives its demo."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from freehold.base.errors import FreeholdError
from freehold.demo.main import only_one
from freehold.demo.story import in_words
from freehold.demo.view import View
from freehold.grid.processes import wait_until

RUN = """
import asyncio, sys
from pathlib import Path
from freehold.demo.cli import Cli
home = Path(sys.argv[1])
asyncio.run(Cli(home, home / "passphrase", lambda text: print(text, flush=True)).run("wallet", "new"))
"""


def commands_of(home: Path) -> list[int]:
    """Processes of `freehold` commands that were given this home."""
    mark = f"FREEHOLD_HOME={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_killed_demo_takes_its_running_command_along(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "passphrase")  # the command waits here for someone to write
    with subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.DEVNULL) as demo:
        assert wait_until(lambda: len(commands_of(tmp_path)) == 1, 20)
        demo.kill()
        demo.wait(10)
    assert wait_until(lambda: commands_of(tmp_path) == [], 10)


def test_a_second_demo_on_a_cache_says_who_has_it(tmp_path: Path) -> None:
    with only_one(tmp_path):
        command = [sys.executable, "-m", "freehold.demo.main", "--cache", str(tmp_path)]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert second.returncode == 1
        assert f"process {os.getpid()}" in second.stderr
        assert "next: wait for it to end" in second.stderr
        with pytest.raises(FreeholdError, match=str(os.getpid())), only_one(tmp_path):
            pass
    with only_one(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_people_read_hours() -> None:
    assert in_words("2020-11-26T01:20:00Z").startswith("26 Nov 01:20 UTC, in -")


def test_a_new_step_ends_the_note_and_nothing_shown_is_stale() -> None:
    view = View(Console(file=io.StringIO(), force_terminal=True, width=100))
    row = {"service": "a/web", "node": "ab" * 32, "term": 1, "state": "running", "health": "", "paid": "0"}
    view.show([row], {"ab" * 32: "ghent-1"}, [("ghent", "1")])
    view.progress("waiting for an epoch")
    assert "ghent-1" in view.shown() and "waiting for an epoch" in view.shown()
    view.step("next")
    assert "waiting" not in view.shown()
    view.show([], {}, [])
    assert view.shown().strip() == ""
