"""Folders that a container's file systems in memory are mounted on, made beforehand with the mode that is asked for.

runc gives a tmpfs the mode of the folder that it hides, whatever the mount says; without this a /tmp of an image
that has it at 0755 could not be written to by anybody but root.
"""

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from freehold.runtime import kernel
from freehold.runtime.spec import TmpfsMount, VolumeMount

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


def prepare_mountpoints(
    tmpfs: Sequence[TmpfsMount], volumes: Sequence[tuple[VolumeMount, Path]], rootfs: Path, base_id: int
) -> None:
    """Make the folders; one that cannot be made is left to the container runtime, which tells why.

    Args:
        tmpfs: the file systems in memory.
        volumes: each with the folder of its data, where files bear the ids that the container sees.
        rootfs: the container's root, where they bear the host's.
        base_id: host id of the container's root.
    """
    for mount in tmpfs:
        root, inside, owner = rootfs, mount.path, base_id
        for volume, data in sorted(volumes, key=lambda pair: pair[0].path):
            if mount.path.startswith(f"{volume.path}/"):
                root, inside, owner = data, mount.path.removeprefix(volume.path), 0
        with contextlib.suppress(FileNotFoundError, FileExistsError, NotADirectoryError):
            _make_folders(root, inside, owner)
            _set_mode(root, inside, mount.mode)


def _make_folders(root: Path, path: str, owner: int) -> None:
    parts = path.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        try:
            os.close(kernel.open_in_root(root, "/".join(parts[:count]), _FOLDER))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            parent = kernel.open_in_root(root, "/".join(parts[: count - 1]) or ".", _FOLDER)
            try:
                os.mkdir(parts[count - 1], 0o755, dir_fd=parent)
                os.chown(parts[count - 1], owner, owner, dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(parent)


def _set_mode(root: Path, path: str, mode: int) -> None:
    fd = kernel.open_in_root(root, path.strip("/"), _FOLDER)
    try:
        if os.fstat(fd).st_mode & 0o7777 != mode:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)
