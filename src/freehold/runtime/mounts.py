"""Mounts of a node: EROFS images, idmapped views, overlays, sized ext4 files; and taking all of it down again.

Invariants: no byte made by a tenant reaches a file-system parser of the kernel: images are EROFS files built by the
node, ext4 files are formatted here and no container can write their blocks. Every mount is `nosuid,nodev`. Loop
devices free themselves with their last user, so a crash leaves none behind.
"""

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import threading
from pathlib import Path
from typing import Final

from freehold.base.errors import FreeholdError
from freehold.runtime import kernel

_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LO_FLAGS_READ_ONLY: Final = 1
_LO_FLAGS_AUTOCLEAR: Final = 4
_LOOP_CONFIG_BYTES: Final = 304  # struct loop_config: fd, block size, loop_info64 of 232 bytes, 8 reserved words
_LOOP_TRIES: Final = 32
_TEMPLATES: Final = 16
_ZEROS: Final = bytes(64 * 1024)
_SAFE: Final = kernel.MS_NOSUID | kernel.MS_NODEV


def attach_loop(file: Path, *, read_only: bool) -> tuple[str, int]:
    """Attach a file to a free loop device that clears itself after its last user.

    Returns:
        The device's path, and a descriptor that keeps it until the caller has mounted it and closes it.

    Raises:
        OSError: no loop device could be had.
    """
    mode = os.O_RDONLY if read_only else os.O_RDWR
    file_fd = os.open(file, mode | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if read_only else 0)
    config = bytearray(_LOOP_CONFIG_BYTES)
    struct.pack_into("=II", config, 0, file_fd, 0)
    struct.pack_into("=I", config, 8 + 52, flags)
    try:
        for _ in range(_LOOP_TRIES):
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            loop_fd = os.open(device, mode | os.O_CLOEXEC)
            try:
                fcntl.ioctl(loop_fd, _LOOP_CONFIGURE, bytes(config))
            except OSError as error:
                os.close(loop_fd)
                if error.errno != errno.EBUSY:  # somebody else took it between the two calls
                    raise
            else:
                return device, loop_fd
        raise OSError(errno.EBUSY, "no free loop device", str(file))
    finally:
        os.close(control)
        os.close(file_fd)


def mount_erofs(image: Path, target: Path) -> None:
    """Mount an EROFS file read-only: straight from the file where the kernel can, else through a loop device."""
    flags = kernel.MS_RDONLY | _SAFE
    try:
        kernel.mount(str(image), target, "erofs", flags)
    except OSError as error:
        if error.errno not in (errno.ENOTBLK, errno.EINVAL, errno.EOPNOTSUPP):
            raise
    else:
        return
    device, loop_fd = attach_loop(image, read_only=True)
    try:
        kernel.mount(device, target, "erofs", flags)
    finally:
        os.close(loop_fd)


def mount_ext4(image: Path, target: Path) -> None:
    """Mount a sized ext4 file that `make_ext4` made."""
    device, loop_fd = attach_loop(image, read_only=False)
    try:
        kernel.mount(device, target, "ext4", _SAFE | kernel.MS_NOATIME, "errors=remount-ro,noinit_itable")
    finally:
        os.close(loop_fd)


def mount_idmapped(source: Path, target: Path, userns_fd: int) -> None:
    """Mount a view of the mount at `source` on `target`, with the ids of a user namespace."""
    fd = kernel.clone_mount(source)
    try:
        kernel.idmap_mount(fd, userns_fd)
        kernel.attach_mount(fd, target)
    finally:
        os.close(fd)


def mount_overlay(lower: Path, upper: Path, work: Path, target: Path) -> None:
    """Mount an overlay; its parts are passed as descriptors, so no character of a path can be read as an option."""
    fds = [os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in (lower, upper, work)]
    low, up, busy = (f"/proc/self/fd/{fd}" for fd in fds)
    try:
        kernel.mount("freehold", target, "overlay", _SAFE, f"lowerdir={low},upperdir={up},workdir={busy}")
    finally:
        for fd in fds:
            os.close(fd)


def mount_tmpfs(target: Path, size_bytes: int, mode: int) -> None:
    """Mount a tmpfs of at most `size_bytes` (rounded up to a page)."""
    kernel.mount("freehold", target, "tmpfs", _SAFE | kernel.MS_NOEXEC, f"size={size_bytes},mode={mode:o}")


def make_ext4(image: Path, size_bytes: int, *, journal: bool) -> None:
    """Make a file of exactly `size_bytes`, its blocks reserved on the host, with an empty ext4 in it.

    Raises:
        FreeholdError: the disk is full (`disk_full`), or mkfs failed.
    """
    partial = image.with_name(image.name + ".new")
    os.close(_reserve(partial, size_bytes))
    features = "^resize_inode,^dir_index,^huge_file" + ("" if journal else ",^has_journal")
    options = "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"
    argv = ["/sbin/mkfs.ext4", "-q", "-F", "-m", "0", "-O", features, "-E", options, str(partial)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, env={"PATH": "/sbin:/bin"})
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        reason = done.stderr.decode(errors="replace").strip()[-200:]
        raise FreeholdError(f"mkfs.ext4 failed: {reason}", code="mkfs_failed")
    partial.rename(image)


def copy_ext4(templates: Path, image: Path, size_bytes: int) -> None:
    """Make what `make_ext4` makes without a journal, as a copy of the few blocks that an empty one of that size has.

    Args:
        templates: folder of one empty file system per size, made on first use; at most 16 are kept.
        image: the new file.
        size_bytes: its size.
    """
    template = templates / f"{size_bytes}.img"
    try:
        source = os.open(template, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        make_ext4(image, size_bytes, journal=False)
        _keep_template(image, template)
        return
    try:
        target = _reserve(image, size_bytes)
        try:
            _copy_data(source, target, size_bytes)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _keep_template(image: Path, template: Path) -> None:
    for old in sorted(template.parent.glob("*.img"), key=lambda path: path.stat().st_mtime)[: -_TEMPLATES + 1]:
        old.unlink(missing_ok=True)
    partial = template.with_name(f"{template.name}.{os.getpid()}.{threading.get_ident()}.new")
    size_bytes = image.stat().st_size
    with image.open("rb") as source, partial.open("wb") as target:
        target.truncate(size_bytes)
        _copy_data(source.fileno(), target.fileno(), size_bytes)
    partial.rename(template)


def _copy_data(source: int, target: int, size_bytes: int) -> None:
    """Copy the parts of a file that are not holes."""
    end = 0
    while True:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        while start < end:
            piece = os.pread(source, min(len(_ZEROS), end - start), start)
            if piece != _ZEROS[: len(piece)]:  # a reserved block reads as zeros, as the target does already
                os.pwrite(target, piece, start)
            start += len(piece)
        if end >= size_bytes:
            return


def _reserve(path: Path, size_bytes: int) -> int:
    """Make a file whose blocks are all reserved; returns it open for writing."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    except OSError as error:
        os.close(fd)
        path.unlink()
        raise FreeholdError(
            f"cannot reserve {size_bytes} bytes: {error.strerror}",
            code="disk_full",
            hint="free disk space on the node, or lower the size that the service asks for",
        ) from None
    return fd


def mounted_under(folder: Path) -> list[Path]:
    """All mount points at or below `folder`, deepest and newest first."""
    prefix = os.fsencode(folder)
    found: list[Path] = []
    with Path("/proc/self/mountinfo").open("rb") as lines:
        for line in lines:
            point = _unescape(line.split(b" ", 5)[4])
            if point == prefix or point.startswith(prefix + b"/"):
                found.append(Path(os.fsdecode(point)))
    return found[::-1]


def _unescape(field: bytes) -> bytes:
    """Undo mountinfo's octal escapes of space, tab, newline and backslash."""
    if b"\\" not in field:
        return field
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, char)
    return field


def unmount_tree(folder: Path) -> int:
    """Detach every mount at or below `folder`; what is already gone is fine. Returns how many there were."""
    count = 0
    for point in mounted_under(folder):
        try:
            kernel.umount(point)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        else:
            count += 1
    return count


def is_mounted(folder: Path) -> bool:
    """Whether something is mounted exactly on `folder`."""
    return folder in mounted_under(folder)


def filesystem_magic(path: Path) -> int:
    """The file system's magic number (statfs(2) `f_type`)."""
    buffer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int(ctypes.c_long.from_buffer(buffer).value)
