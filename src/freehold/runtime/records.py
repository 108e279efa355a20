"""What is kept on disk of each container, and what can be told from it after any crash.

The files of one container: HOME/containers/ID/{record.json, log, log.1, log.cur, scratch.img, exit/ID, fenced} live
on disk; RUN/c/ID/{bundle, image, scratch, rootfs, vol-N} are mounts in memory, gone after a reboot.
"""

import enum
import signal
from pathlib import Path

import msgspec


class Status(enum.StrEnum):
    """Where a container stands."""

    CREATING = "creating"
    BROKEN = "broken"  # its creation was cut short; remove it
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


class ExitReason(enum.StrEnum):
    """Why a container no longer runs; append only."""

    EXITED = "exited"  # by itself, with a code
    SIGNALED = "signaled"  # by a signal that nobody here sent
    OOM = "oom"  # the kernel killed it at its memory limit
    STOPPED = "stopped"  # the agent asked
    FENCED = "fenced"  # the watchdog, when its deadline passed
    START_FAILED = "start_failed"
    SHIM_LOST = "shim_lost"  # conmon died: the exit code is not known
    HOST_REBOOT = "host_reboot"


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a container ended.

    Attributes:
        reason: see `ExitReason`.
        code: exit status, 128 + number for a signal; -1 when unknown.
        signal: number of the signal, 0 for none.
        boottime_ms: when.
        message: more, for people.
    """

    reason: ExitReason
    code: int = -1
    signal: int = 0
    boottime_ms: int = 0
    message: str = ""


class Record(msgspec.Struct, kw_only=True):
    """A container as the node remembers it."""

    version: int = 1
    id: str
    tenant: str
    deployment: str
    image_path: str
    term: int
    base_id: int
    cgroup: str
    boot_id: str
    stop_signal: int
    log_bytes: int
    volumes: list[str] = []
    complete: bool = False  # creation went through
    address: str = ""
    pid: int = 0
    pid_started: int = 0
    conmon_pid: int = 0
    conmon_started: int = 0
    started_ms: int = 0  # boot time of the start; 0 = not started
    stop_asked: bool = False
    starts: int = 0
    exit: Exit | None = None


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container as it stands now.

    Attributes:
        id: its id.
        tenant: the tenant's key.
        deployment: its network.
        term: the lease's term.
        status: see `Status`.
        pid: its first process on the host, 0 when none.
        address: its address on the deployment's bridge.
        started_ms: boot time of the last start, 0 when never.
        starts: how often it was started.
        exit: how it ended last, when it has.
        image_path: the EROFS file.
    """

    id: str
    tenant: str
    deployment: str
    term: int
    status: Status
    pid: int
    address: str
    started_ms: int
    starts: int
    exit: Exit | None
    image_path: str


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def explain_exit(code: int, *, stop_asked: bool, fenced: bool, oom_kills: int, at_ms: int) -> Exit:
    """Name the reason of an exit (pure): the fence before the memory limit, that before a wish, that before the code.

    Args:
        code: exit status as conmon wrote it.
        stop_asked: the agent had asked for the end.
        fenced: the watchdog left its mark.
        oom_kills: processes that the kernel killed in the group at its limit.
        at_ms: boot time of the end.
    """
    number = code - 128 if 128 < code < 128 + 65 else 0
    if fenced:
        reason = ExitReason.FENCED
    elif oom_kills > 0 and (number == signal.SIGKILL or (code != 0 and not stop_asked)):
        reason = ExitReason.OOM
    elif stop_asked:
        reason = ExitReason.STOPPED
    else:
        reason = ExitReason.SIGNALED if number else ExitReason.EXITED
    return Exit(reason=reason, code=code, signal=number, boottime_ms=at_ms)


def show(record: Record, status: Status) -> Container:
    """A record as others see it."""
    return Container(
        id=record.id,
        tenant=record.tenant,
        deployment=record.deployment,
        term=record.term,
        status=status,
        pid=record.pid if status in (Status.CREATED, Status.RUNNING) else 0,
        address=record.address,
        started_ms=record.started_ms,
        starts=record.starts,
        exit=record.exit,
        image_path=record.image_path,
    )
