"""Start a container's conmon: the small process that owns its output and exit code while agents come and go.

conmon runs `create`, tells the container's pid over a pipe, and stays: it writes the log, and at the end the exit
status into a file. It is started in a control group of its own, with a ceiling on CPU, so that a flood of output
slows the container that makes it and nobody else.
"""

import contextlib
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError
from freehold.runtime import cgroups
from freehold.runtime.engine import Engine

_MAX_MESSAGE: Final = 16 * 1024
_CREATE_TIMEOUT: Final = 60.0
_START_TIMEOUT: Final = 10.0
_SHIM_CPU_MILLI: Final = 200
_SHIM_MEMORY: Final = 64 << 20
ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class _Sync(msgspec.Struct):
    data: int = -1  # the pid; a negative number is the failed runtime's exit status
    message: str = ""


class Shim(msgspec.Struct, frozen=True, kw_only=True):
    """Where conmon and the OCI runtime keep a container's parts."""

    container: str
    bundle: Path
    runtime_root: Path
    exit_dir: Path
    log_file: Path
    log_bytes: int
    cgroup: str

    @property
    def pid_file(self) -> Path:
        """Holds the pid of the container's first process."""
        return self.bundle / "pid"

    @property
    def conmon_pid_file(self) -> Path:
        """Holds the pid of conmon."""
        return self.bundle / "conmon.pid"


def launch(engine: Engine, shim: Shim) -> int:
    """Create the container under a conmon. Returns the pid of its first process, which waits for `start`.

    Raises:
        FreeholdError: the OCI runtime refused (`create_failed`), with its own words.
    """
    cgroups.make_shim_group(shim.cgroup)
    sync_read, sync_write = os.pipe2(os.O_CLOEXEC)
    start_read, start_write = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            _command(engine, shim),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=shim.bundle,
            env=ENVIRONMENT | {"_OCI_SYNCPIPE": str(sync_write), "_OCI_STARTPIPE": str(start_read)},
            pass_fds=(sync_write, start_read),
            start_new_session=True,
        )
        os.close(sync_write)
        sync_write = -1
        with contextlib.suppress(ProcessLookupError):  # told below, when nothing comes through the pipe
            cgroups.join(shim.cgroup, process.pid)
        os.write(start_write, b"\0")
        reply = _read_line(sync_read, time.monotonic() + _CREATE_TIMEOUT)
        process.wait(timeout=_CREATE_TIMEOUT)
    finally:
        for fd in (sync_read, sync_write, start_read, start_write):
            if fd >= 0:
                os.close(fd)
    try:
        answer = decode_json(reply, _Sync)
    except msgspec.DecodeError:
        answer = _Sync(message="conmon ended without an answer")
    if answer.data <= 0:
        raise FreeholdError(
            f"the container could not be created: {_reason(answer.message)}",
            code="create_failed",
            hint="see that command, user and working directory exist in the image",
        )
    # Only now: the runtime that makes the container started in conmon's group and must not be slowed down.
    cgroups.limit_shim_group(shim.cgroup, _SHIM_CPU_MILLI, _SHIM_MEMORY)
    return answer.data


def _command(engine: Engine, shim: Shim) -> list[str]:
    return [
        engine.conmon,
        "--api-version=1",
        f"--cid={shim.container}",
        f"--cuuid={shim.container}",
        f"--name={shim.container}",
        f"--runtime={engine.path}",
        f"--runtime-arg=--root={shim.runtime_root}",
        f"--bundle={shim.bundle}",
        f"--container-pidfile={shim.pid_file}",
        f"--conmon-pidfile={shim.conmon_pid_file}",
        f"--persist-dir={shim.bundle}",
        f"--exit-dir={shim.exit_dir}",
        f"--log-path=k8s-file:{shim.log_file}",
        f"--log-size-max={shim.log_bytes}",
        "--log-level=error",
        "--no-sync-log",
        "--full-attach",
    ]


def _read_line(fd: int, deadline: float) -> bytes:
    """Read one line, or what there is when conmon closes the pipe."""
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while b"\n" not in data and len(data) < _MAX_MESSAGE:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1_000):
            break
        piece = os.read(fd, 4_096)
        if not piece:
            break
        data += piece
    return data.split(b"\n", 1)[0]


def _reason(message: str) -> str:
    """The part of a runtime's message that a person can use."""
    return message.strip().rsplit("level=error msg=", 1)[-1].strip().strip('"')[-300:] or "no reason given"


def start(engine: Engine, root: Path, container: str) -> None:
    """Let the process of a created container begin.

    runc's own `start` costs 35 ms to say one thing: its waiting process writes into a pipe, and goes on once somebody
    reads that. So it is read here; crun's pipe goes the other way, and its program is quick.

    Raises:
        FreeholdError: the process is gone, or the runtime refused (`runtime_failed`).
    """
    gate = root / container / "exec.fifo"
    if engine.name != "runc":
        _run_engine(engine, root, "start", container)
        return
    try:
        fd = os.open(gate, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FreeholdError(f"{container} does not wait for its start", code="runtime_failed") from None
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(_START_TIMEOUT * 1_000) or not os.read(fd, 1):
            raise FreeholdError(f"the first process of {container} is gone", code="runtime_failed")
    finally:
        os.close(fd)
    gate.unlink(missing_ok=True)


def _run_engine(engine: Engine, root: Path, *arguments: str, timeout: float = 60.0) -> None:
    """Run the OCI runtime itself, such as `start ID` or `delete ID`.

    Raises:
        FreeholdError: it failed (`runtime_failed`), with its own words.
    """
    argv = [engine.path, f"--root={root}", *arguments]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, env=ENVIRONMENT
        )
    except subprocess.TimeoutExpired:
        raise FreeholdError(f"{engine.name} {arguments[0]} did not end", code="runtime_failed") from None
    if done.returncode != 0:
        reason = _reason(done.stderr.decode(errors="replace"))
        raise FreeholdError(f"{engine.name} {arguments[0]}: {reason}", code="runtime_failed")


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 when there is none. With the pid it names one process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[-1].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def is_alive(pid: int, started: int) -> bool:
    """Whether one certain process exists and is not a zombie; 0 is nobody."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[-1].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return pid > 0 and int(fields[19]) == started and fields[0] not in ("Z", "X")


def send_signal(pid: int, started: int, number: int) -> bool:
    """Signal one certain process, never another that took its pid. Returns whether it was there."""
    if pid <= 0:
        return False
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(pid, started):  # looked at after the descriptor was opened: it is the same process
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True
