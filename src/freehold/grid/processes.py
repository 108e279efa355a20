"""Daemons of a local grid: started in their namespace, known by a pid file, stopped with a bound.

A pid file names pid and start time; one whose process is gone, or whose pid another process has, means: not running.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from freehold.base.errors import FreeholdError

STOP_TIMEOUT_S = 10.0
POLL_S = 0.05


def start_daemon(
    home: Path,
    arguments: Sequence[str],
    *,
    namespace: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Start `python ARGUMENTS` as a daemon of its own session, its output in `home`/daemon.log.

    Args:
        home: the daemon's own folder; its pid file lies there.
        arguments: after the interpreter, such as ["-m", "freehold.agent.main", "--home", ..].
        namespace: network namespace to run in; None for this one.
        environment: beside PATH and LANG, all that it gets.

    Returns:
        The pid; that of a running daemon when there is one.
    """
    running = daemon_pid(home)
    if running:
        return running
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    # nsenter execs, so that the pid stays; `ip netns exec` would also give a mount namespace of its own, in which the
    # next agent could not see the containers' mounts.
    enter = ["nsenter", f"--net={namespace}", "--"] if namespace else []
    with (home / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [*enter, sys.executable, "-P", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            close_fds=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LANG": "C.UTF-8", **environment},
        )
    (home / "daemon.pid").write_text(f"{process.pid} {_start_time(process.pid)}\n")
    return process.pid


def daemon_pid(home: Path) -> int:
    """The pid of the running daemon of a home; 0 when there is none."""
    try:
        pid, started = (home / "daemon.pid").read_text().split()
    except (OSError, ValueError):
        return 0
    return int(pid) if started == _start_time(int(pid)) and started != "0" else 0


def stop_daemons(homes: Sequence[Path], *, kill: bool = False) -> None:
    """Stop daemons, all at once: SIGTERM, and SIGKILL for what is still there after ten seconds."""
    pids = {home: pid for home in homes if (pid := daemon_pid(home))}
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
    wait_until(lambda: not any(daemon_pid(home) for home in pids), STOP_TIMEOUT_S)
    for home in pids:
        pid = daemon_pid(home)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(daemon_pid(home) for home in pids), STOP_TIMEOUT_S)
    for home in pids:
        (home / "daemon.pid").unlink(missing_ok=True)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll a condition until it holds or the time is over; returns whether it holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def last_lines(home: Path, count: int = 5) -> str:
    """The end of a daemon's log, for an error message."""
    try:
        with (home / "daemon.log").open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 8192))
            text = log.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def require_running(home: Path, name: str) -> None:
    """Check that a daemon lives.

    Raises:
        FreeholdError: it ended; the message holds the end of its log.
    """
    if not daemon_pid(home):
        raise FreeholdError(
            f"{name} ended at once; its log ends:\n{last_lines(home)}",
            code="daemon_failed",
            hint=f"the whole log is in {home / 'daemon.log'}",
        )


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat, which tells a process from a later one with the same pid; "0" when gone or dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "0"
    return "0" if fields[0] in ("Z", "X") else fields[19]
