"""Control groups of a node, version 1 (also hybrid) and 2: where they are, what they used, killing all in one.

Paths: every container lives in `/freehold-<prefix>/<container>` below each hierarchy's root, so agents of one host
never meet, and in `/freehold-<prefix>/shim-<container>` its conmon, whose CPU share bounds what a flood of log costs.
"""

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from freehold.runtime.mounts import filesystem_magic
from freehold.runtime.watchdog import group_processes, kill_group

ROOT: Final = Path("/sys/fs/cgroup")
_CGROUP2_MAGIC: Final = 0x63677270
_V1 = ("memory", "cpu", "cpuacct", "pids", "freezer", "devices", "blkio", "cpuset", "systemd", "net_cls", "net_prio",
       "perf_event", "hugetlb", "rdma", "misc", "unified")  # fmt: skip
_KILL_ROUNDS: Final = 200


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a container used, as its control group counts it."""

    memory_bytes: int
    memory_limit_bytes: int
    cpu_us: int
    pids: int
    oom_kills: int


def is_unified() -> bool:
    """Whether the host has pure cgroup v2."""
    return filesystem_magic(ROOT) == _CGROUP2_MAGIC


def _folders(path: str) -> list[Path]:
    """The folders of a group in every hierarchy where it exists."""
    tops = [ROOT] if is_unified() else [ROOT / name for name in _V1]
    candidates = [top / path.lstrip("/") for top in tops]
    seen: dict[tuple[int, int], Path] = {}
    for folder in candidates:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = folder.stat()
            seen.setdefault((status.st_dev, status.st_ino), folder)
    return list(seen.values())


def main_folder(path: str) -> Path:
    """The folder whose `cgroup.procs` holds every process of the group (v1: of the freezer hierarchy)."""
    return ROOT / path.lstrip("/") if is_unified() else ROOT / "freezer" / path.lstrip("/")


def processes(path: str) -> list[int]:
    """Ids of the processes in a group and below it; empty when there is no such group."""
    return group_processes(str(main_folder(path)))


def kill_all(path: str) -> bool:
    """Send SIGKILL to every process of a group until none is left; blocks for at most about two seconds.

    Returns:
        Whether the group is empty now.
    """
    folder = str(main_folder(path))
    for _ in range(_KILL_ROUNDS):
        if not kill_group(folder):
            return True
        time.sleep(0.01)
    return not processes(path)


def remove(path: str) -> None:
    """Remove a group without processes from every hierarchy; what is gone already is fine."""
    for top in _folders(path):
        for folder, _, _ in os.walk(top, topdown=False):
            _remove_folder(Path(folder))


def _remove_folder(folder: Path) -> None:
    for _ in range(50):
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:  # a killed process may take a moment to leave
                raise
            time.sleep(0.01)
        else:
            return


def make_shim_group(path: str) -> None:
    """Make the group of a conmon, in the hierarchies that will limit it."""
    if is_unified():
        folder = ROOT / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for parent in (ROOT, folder.parent):
            _write(parent / "cgroup.subtree_control", "+cpu +memory +pids")
    else:
        for name in ("cpu", "memory"):
            (ROOT / name / path.lstrip("/")).mkdir(parents=True, exist_ok=True)


def limit_shim_group(path: str, cpu_milli: int, memory_bytes: int) -> None:
    """Put a ceiling on CPU and memory of a conmon's group."""
    if is_unified():
        _write(ROOT / path.lstrip("/") / "cpu.max", f"{cpu_milli * 100} 100000")
        _write(ROOT / path.lstrip("/") / "memory.max", str(memory_bytes))
    else:
        _write(ROOT / "cpu" / path.lstrip("/") / "cpu.cfs_quota_us", str(cpu_milli * 100))
        _write(ROOT / "memory" / path.lstrip("/") / "memory.limit_in_bytes", str(memory_bytes))


def join(path: str, pid: int) -> None:
    """Move a process into a group that `make_shim_group` made."""
    for folder in _folders(path):
        (folder / "cgroup.procs").write_text(str(pid))


def list_groups(parent: str) -> set[str]:
    """Names of the groups directly below a parent, in any hierarchy."""
    names: set[str] = set()
    for folder in _folders(parent):
        with contextlib.suppress(FileNotFoundError):
            names |= {entry.name for entry in folder.iterdir() if entry.is_dir()}
    return names


def usage(path: str) -> Usage:
    """Read a group's counters; zeros when there is no such group."""
    relative = path.lstrip("/")
    if is_unified():
        folder = ROOT / relative
        return Usage(
            memory_bytes=_number(folder / "memory.current"),
            memory_limit_bytes=_number(folder / "memory.max"),
            cpu_us=_field(folder / "cpu.stat", "usage_usec"),
            pids=_number(folder / "pids.current"),
            oom_kills=_field(folder / "memory.events", "oom_kill"),
        )
    memory = ROOT / "memory" / relative
    return Usage(
        memory_bytes=_number(memory / "memory.usage_in_bytes"),
        memory_limit_bytes=_number(memory / "memory.limit_in_bytes"),
        cpu_us=_number(ROOT / "cpuacct" / relative / "cpuacct.usage") // 1000,
        pids=_number(ROOT / "pids" / relative / "pids.current"),
        oom_kills=_field(memory / "memory.oom_control", "oom_kill"),
    )


def counts_swap() -> bool:
    """Whether memory and swap can be limited together (v1 without swap accounting cannot)."""
    return is_unified() or (ROOT / "memory/memory.memsw.limit_in_bytes").exists()


def _write(file: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        file.write_text(text)


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _field(file: Path, name: str) -> int:
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return 0
    return next((int(row[1]) for row in rows if len(row) == 2 and row[0] == name), 0)
