"""System calls that Python 3.11 does not offer, by ctypes, with the kernel's error as an `OSError`.

Invariant: nothing here changes the calling thread for good. What needs another namespace runs in a thread made for
it (`in_network_namespace`, `new_network_namespace`), which ends with the call, so no pool thread is left elsewhere.

Source: mount(2), open_tree(2), mount_setattr(2), openat2(2), user_namespaces(7), pidfd_open(2).
"""

import ctypes
import os
import platform
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_NOATIME: Final = 1024
MS_BIND: Final = 4096
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
_CLONE_VM: Final = 0x100

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_OPEN_TREE_CLONE: Final = 1
_OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_MOUNT_ATTR_IDMAP: Final = 0x00100000
_RESOLVE_IN_ROOT: Final = 0x10
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_NO_XDEV: Final = 0x01

# These numbers are the same on x86-64 and arm64: both took them from the shared table.
_SYS_OPEN_TREE: Final = 428
_SYS_MOVE_MOUNT: Final = 429
_SYS_OPENAT2: Final = 437
_SYS_MOUNT_SETATTR: Final = 442

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.syscall.restype = ctypes.c_long


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _fail(call: str, subject: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}", subject)


def mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    """Mount `kind` from `source` on `target`.

    Raises:
        OSError: the kernel refused.
    """
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, data.encode()) != 0:
        raise _fail(f"mount {kind}", str(target))


def umount(target: Path, flags: int = MNT_DETACH | UMOUNT_NOFOLLOW) -> None:
    """Unmount what lies on `target`.

    Raises:
        OSError: nothing is mounted there, or it is busy and `flags` do not detach.
    """
    if _libc.umount2(os.fsencode(target), flags) != 0:
        raise _fail("umount", str(target))


def clone_mount(source: Path, *, recursive: bool = False) -> int:
    """A detached copy of the mount at `source`, as a file descriptor that the caller closes."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    fd = _libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, ctypes.c_char_p(os.fsencode(source)), ctypes.c_uint(flags))
    if fd < 0:
        raise _fail("open_tree", str(source))
    return int(fd)


def idmap_mount(mount_fd: int, userns_fd: int) -> None:
    """Show the files of a detached mount with the ids of a user namespace."""
    attr = _MountAttr(_MOUNT_ATTR_IDMAP, 0, 0, userns_fd)
    done = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        mount_fd,
        ctypes.c_char_p(b""),
        ctypes.c_uint(_AT_EMPTY_PATH),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    if done != 0:
        raise _fail("mount_setattr", f"fd {mount_fd}")


def attach_mount(mount_fd: int, target: Path) -> None:
    """Put a detached mount on `target`."""
    done = _libc.syscall(
        _SYS_MOVE_MOUNT,
        mount_fd,
        ctypes.c_char_p(b""),
        _AT_FDCWD,
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
    )
    if done != 0:
        raise _fail("move_mount", str(target))


def open_in_root(root: Path, path: str, flags: int) -> int:
    """Open `path` with `root` as its root: no link in a tenant's tree leads out of it.

    Args:
        root: the directory that `/` and `..` stop at.
        path: a path written by a tenant.
        flags: as for `os.open`; `O_CLOEXEC` is added.

    Raises:
        OSError: no such file, or the kernel refused.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = _libc.syscall(
            _SYS_OPENAT2,
            root_fd,
            ctypes.c_char_p(path.encode()),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd < 0:
            raise _fail("openat2", path)
        return int(fd)
    finally:
        os.close(root_fd)


def user_namespace(base: int, size: int) -> int:
    """A user namespace that maps ids 0..size-1 to base..base+size-1, as a file descriptor that the caller closes.

    The namespace is made by a child that never runs a line of Python: `clone` starts it in libc's `pause`, sharing
    our memory, so neither a thread nor a lock of this process can hang it; it is killed once its file is open.
    """
    stack = ctypes.create_string_buffer(64 * 1024)
    top = (ctypes.addressof(stack) + len(stack) - 64) & ~15
    entry = ctypes.cast(_libc.pause, ctypes.c_void_p)
    _libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    child = _libc.clone(entry, ctypes.c_void_p(top), CLONE_NEWUSER | _CLONE_VM | signal.SIGCHLD, None)
    if child < 0:
        raise _fail("clone", "user namespace")
    try:
        proc = Path(f"/proc/{child}")
        mapping = f"0 {base} {size}\n"
        (proc / "uid_map").write_text(mapping)
        (proc / "gid_map").write_text(mapping)
        return os.open(proc / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own and hand back its value or its exception."""
    values: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            values.append(work())
        except BaseException as error:  # raised again by the thread that waits for this one
            errors.append(error)

    thread = threading.Thread(target=body, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return values[0]


def in_network_namespace(path: Path, work: Callable[[], T]) -> T:
    """Run `work` inside the network namespace that `path` names.

    Raises:
        OSError: no such namespace; and whatever `work` raises.
    """

    def enter() -> T:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(fd, CLONE_NEWNET) != 0:
                raise _fail("setns", str(path))
        finally:
            os.close(fd)
        return work()

    return _in_thread(enter)


def new_network_namespace(path: Path) -> None:
    """Make a network namespace that lives as long as it is mounted on the file `path`."""
    path.touch(mode=0o600, exist_ok=True)

    def make() -> None:
        if _libc.unshare(CLONE_NEWNET) != 0:
            raise _fail("unshare", "network namespace")
        mount(f"/proc/self/task/{threading.get_native_id()}/ns/net", path, "none", MS_BIND)

    _in_thread(make)


def machine() -> str:
    """The machine's word in seccomp profiles: `amd64` or `arm64`."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
