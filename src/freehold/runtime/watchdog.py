"""The watchdog of a node: stops containers whose fence has passed, also when the agent is dead.

A program of its own on the standard library alone, run as `python -I -S -E watchdog.py RUN HOME CGROUP`; the agent
starts it (`freehold.runtime.watch`), it leaves the agent's session, and one lock lets only one live per node.

For each container that must be fenced the folder RUN/fence holds a file `1 DEADLINE TERM`: DEADLINE in milliseconds
of CLOCK_BOOTTIME, which also counts suspended time. A deadline only ever grows; to stop earlier, stop the container.
When it passes, every process of the container's group is killed, HOME/containers/ID/fenced is written and a line is
appended to the term log. Containers without such a file are left alone (docs/spec/runtime.md, "Fence").
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.25
BEAT_SECONDS = 1.0
_ALREADY_RUNNING = 3


def boottime_ms() -> int:
    """Milliseconds since boot, suspended time included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def group_processes(folder: str) -> list[int]:
    """Pids in a control group's folder and below it; empty when there is none."""
    found: list[int] = []
    for top, _, _ in os.walk(folder):
        with contextlib.suppress(OSError, ValueError), open(f"{top}/cgroup.procs") as file:  # noqa: PTH123
            found += [int(line) for line in file]
    return found


def kill_group(folder: str) -> bool:
    """Send SIGKILL to everything in a control group at once. Returns whether there was anything.

    Version 2 has `cgroup.kill`. In version 1 the group is frozen first: frozen processes cannot fork, so one pass
    meets them all; they die when thawed.
    """
    if not group_processes(folder):
        return False
    if Path(folder, "cgroup.kill").exists():
        _write(f"{folder}/cgroup.kill", "1")
        return True
    _write(f"{folder}/freezer.state", "FROZEN")
    for pid in group_processes(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _write(f"{folder}/freezer.state", "THAWED")
    return True


def _write(path: str, text: str) -> None:
    with contextlib.suppress(OSError), open(path, "w") as file:  # noqa: PTH123
        file.write(text)


def append_event(path: str, event: str, container: str, term: int, at_ms: int) -> None:
    """Append one line to a term log, whole or not at all.

    Args:
        path: the log.
        event: `started`, `stopped` or `fenced`.
        container: its id.
        term: the lease's term.
        at_ms: when, in milliseconds since boot.
    """
    row = {"event": event, "container": container, "term": term, "boottime_ms": at_ms}
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, (json.dumps(row) + "\n").encode())
    finally:
        os.close(fd)


def read_deadline(path: str) -> tuple[int, int] | None:
    """Deadline and term of a fence file; None when it is gone. One that cannot be read counts as passed."""
    try:
        with open(path) as file:  # noqa: PTH123
            words = file.read(128).split()
    except FileNotFoundError:
        return None
    except OSError:
        return 0, 0
    if len(words) == 3 and words[0] == "1" and words[1].isdecimal() and words[2].isdecimal():
        return int(words[1]), int(words[2])
    return 0, 0


class Watchdog:
    """Reads deadlines and kills; see the module."""

    def __init__(self, run: str, home: str, cgroup: str) -> None:
        self.fences = f"{run}/fence"
        self.home = home
        self.cgroup = cgroup
        self.known: dict[str, tuple[int, int]] = {}
        self.fencing: set[str] = set()

    def step(self, now_ms: int) -> float:
        """Look once. Returns how many seconds to sleep."""
        names = {name for name in self._list() if not name.startswith(".")}
        self.known = {name: known for name, known in self.known.items() if name in names}
        nearest = now_ms + int(POLL_SECONDS * 1_000)
        passed = []
        for name in names:
            if self.known.get(name, (0, 0))[0] <= now_ms:  # read again only what would be due
                found = read_deadline(f"{self.fences}/{name}")
                if found is None:
                    continue
                self.known[name] = found
            deadline = self.known[name][0]
            if deadline <= now_ms:
                passed.append(name)
            else:
                nearest = min(nearest, deadline)
        busy = [name for name in passed if self._fence(name)]
        return 0.005 if busy else max(0.0, (nearest - now_ms) / 1_000)

    def _list(self) -> list[str]:
        try:
            return os.listdir(self.fences)  # noqa: PTH208
        except FileNotFoundError:
            return []

    def _fence(self, name: str) -> bool:
        """Kill a container. Returns whether it was alive; when it no longer is, what happened is written down."""
        if kill_group(f"{self.cgroup}/{name}"):
            self.fencing.add(name)
            return True
        if name in self.fencing:
            self.fencing.discard(name)
            term, now = self.known[name][1], boottime_ms()
            _write(f"{self.home}/containers/{name}/fenced", f"1 {now} {term}\n")
            with contextlib.suppress(OSError):
                append_event(f"{self.home}/term.log", "fenced", name, term, now)
        return False


def _is_at(fd: int, path: str) -> bool:
    """Whether an open file is the one that a path names."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))  # noqa: PTH116
    except FileNotFoundError:
        return False


def main(arguments: list[str]) -> int:
    """Become the node's watchdog and stay; the parent returns once that has happened.

    Returns:
        0 when a watchdog runs now, 3 when another held the lock.
    """
    run, home, cgroup = arguments
    ready_read, ready_write = os.pipe()
    if os.fork() > 0:
        os.close(ready_write)
        return 0 if os.read(ready_read, 1) else _ALREADY_RUNNING
    os.close(ready_read)
    os.setsid()
    os.chdir("/")
    lock = os.open(f"{run}/watchdog.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return _ALREADY_RUNNING
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _write("/proc/self/oom_score_adj", "-999")
    with contextlib.suppress(OSError):
        os.nice(-10)
    os.utime(lock)
    os.write(ready_write, b"1")
    os.close(ready_write)
    watchdog, beat = Watchdog(run, home, cgroup), 0.0
    while True:
        pause = watchdog.step(boottime_ms())
        if time.monotonic() - beat >= BEAT_SECONDS:
            beat = time.monotonic()
            os.utime(lock)
            if not _is_at(lock, f"{run}/watchdog.lock"):
                return 0  # the run folder is gone, and with it everything to watch
        time.sleep(pause)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
