"""The agent's side of the fence: deadlines that the watchdog obeys, and the log of who ran under which term."""

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from freehold.base.errors import FreeholdError, check
from freehold.runtime import watchdog
from freehold.runtime.spec import is_container_id
from freehold.runtime.watchdog import boottime_ms

_FLOCK: Final = "@hhqqi4x"  # struct flock of fcntl(2) on 64-bit Linux
_START_TIMEOUT: Final = 20.0
_SILENT_SECONDS: Final = 3.0


class Fence:
    """Deadlines of a node's containers.

    Args:
        run: the node's run folder, where the watchdog looks.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / "fence"
        self._folder.mkdir(exist_ok=True, mode=0o700)

    def renew(self, container: str, deadline_boottime_ms: int, term: int = 0) -> None:
        """Let a container run until a deadline; call again with a later one before it passes.

        Args:
            container: its id; may be called before it is created.
            deadline_boottime_ms: milliseconds of CLOCK_BOOTTIME; an earlier one than before changes nothing.
            term: the lease's term, for the log.
        """
        check(is_container_id(container) and deadline_boottime_ms >= 0 and term >= 0, "fence_arguments", id=container)
        current = self.deadline(container)
        if current is not None and current > deadline_boottime_ms:
            return
        partial = self._folder / f".{container}.new"
        partial.write_text(f"1 {deadline_boottime_ms} {term}\n")
        partial.rename(self._folder / container)

    def deadline(self, container: str) -> int | None:
        """When a container will be stopped; None when it has no fence."""
        found = watchdog.read_deadline(str(self._folder / container))
        return None if found is None else found[0]

    def has_passed(self, container: str) -> bool:
        """Whether a container has a fence and it has passed."""
        deadline = self.deadline(container)
        return deadline is not None and deadline <= boottime_ms()

    def lift(self, container: str) -> None:
        """Take a container's fence away: it may run for ever."""
        (self._folder / container).unlink(missing_ok=True)

    def containers(self) -> set[str]:
        """Containers that have a fence."""
        return {path.name for path in self._folder.iterdir() if not path.name.startswith(".")}


class TermLog:
    """An append-only file of starts and stops, one JSON object a line, for eyes outside the node.

    `started` is written before the first instruction can run, `stopped` and `fenced` after the last process is gone:
    the spans in the log cover the real ones.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: str, container: str, term: int, at_ms: int | None = None) -> None:
        """Write one event; the time is now unless given."""
        watchdog.append_event(str(self._path), event, container, term, boottime_ms() if at_ms is None else at_ms)


class WatchdogProcess:
    """Sees to it that the node's watchdog lives.

    Args:
        run: the node's run folder.
        home: the runtime's folder.
        cgroup_folder: folder below which each container's group lies.
    """

    def __init__(self, run: Path, home: Path, cgroup_folder: Path) -> None:
        self._run, self._home, self._cgroup = run, home, cgroup_folder
        self._lock = run / "watchdog.lock"

    def pid(self) -> int:
        """The watchdog's pid, taken from the lock that it holds; 0 when there is none."""
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, query))
        finally:
            os.close(fd)
        return 0 if kind == fcntl.F_UNLCK else int(pid)

    def is_healthy(self) -> bool:
        """Whether a watchdog lives and has shown a beat in the last seconds."""
        if self.pid() == 0:
            return False
        with contextlib.suppress(FileNotFoundError):
            return time.time() - self._lock.stat().st_mtime < _SILENT_SECONDS
        return False

    def ensure(self) -> int:
        """Start the watchdog unless it lives. Returns its pid.

        Raises:
            FreeholdError: it did not start (`no_watchdog`); nothing with a fence may run then.
        """
        for _ in range(20):
            pid = self.pid()
            if pid and self.is_healthy():
                return pid
            if pid:  # stopped or stuck: it would not fence anything
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            program = str(Path(watchdog.__file__).resolve())
            argv = [sys.executable, "-I", "-S", "-E", program, str(self._run), str(self._home), str(self._cgroup)]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={},
                    timeout=_START_TIMEOUT,
                    check=False,
                )
            time.sleep(0.01)
        raise FreeholdError("the watchdog does not start", code="no_watchdog", hint="see that the home is writable")
