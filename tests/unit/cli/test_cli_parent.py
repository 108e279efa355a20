"""A background child dies with a parent that was killed, and lives on once it stands by itself."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from freehold.grid.processes import wait_until

CHILD = """
import sys, signal
from pathlib import Path
from freehold.cli.parent import follow_parent, outlive_parent
if not follow_parent():
    sys.exit(3)
if sys.argv[1] == "outlive":
    outlive_parent()
print("ready", flush=True)
signal.pause()
"""
PARENT = """
import os, subprocess, sys, signal
from freehold.cli.parent import marked
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], env=marked(dict(os.environ)),
                         stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
signal.pause()
"""


def ends(pid: int) -> Callable[[], bool]:
    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
        except OSError:
            return True

    return ended


@pytest.mark.parametrize(("mode", "dies"), [("follow", True), ("outlive", False)])
def test_a_killed_parent_takes_only_a_child_that_follows(mode: str, dies: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD, mode], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait(10)
    try:
        assert wait_until(ends(child), 10 if dies else 1) is dies
    finally:
        if not ends(child)():
            os.kill(child, signal.SIGKILL)


def test_a_child_whose_parent_was_gone_before_does_not_start() -> None:
    environment = {**os.environ, "FREEHOLD_STARTED_BY": "1"}
    done = subprocess.run([sys.executable, "-c", CHILD, "follow"], env=environment, check=False, timeout=20)
    assert done.returncode == 3
