"""Volumes of a stated size: one ext4 file each, its blocks reserved on the host, mounted once, seen idmapped.

Files in a volume are stored with the ids that the container sees, so a volume survives a change of the tenant's
range. Its `data` folder is what the container gets: `lost+found` stays out of sight (postgres wants an empty folder).
"""

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import Final

from freehold.base.errors import InvalidInputError, check
from freehold.runtime import kernel, mounts
from freehold.runtime.spec import VolumeMount, is_container_id

_MAX_COPY_ENTRIES: Final = 100_000


class VolumeStore:
    """The volumes of one node.

    Args:
        home: folder of the volume files.
        run: folder of their mounts, below the node's run folder.
    """

    def __init__(self, home: Path, run: Path) -> None:
        self._home = home
        self._run = run
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        run.mkdir(parents=True, exist_ok=True, mode=0o700)
        for unfinished in home.glob("*.new"):
            unfinished.unlink()

    def names(self) -> list[str]:
        """All volumes, sorted."""
        return sorted(path.stem for path in self._home.glob("*.img"))

    def size(self, name: str) -> int:
        """Bytes reserved for a volume; 0 when there is none."""
        try:
            return self._file(name).stat().st_size
        except FileNotFoundError:
            return 0

    def prepare(self, volume: VolumeMount, image_root: Path) -> Path:
        """Make (on first use) and mount a volume. Returns the folder that holds its data.

        Args:
            volume: name, size, path inside.
            image_root: the image's root; what it has at that path fills a new volume, as docker does.

        Raises:
            InvalidInputError: the volume exists with another size (`volume_size`).
            FreeholdError: the disk is full (`disk_full`).
        """
        file, mounted = self._file(volume.name), self._run / volume.name
        if not file.exists():
            mounts.make_ext4(file, volume.size_bytes, journal=True)
        elif file.stat().st_size != volume.size_bytes:
            raise InvalidInputError(
                f"volume {volume.name} holds {file.stat().st_size} bytes, {volume.size_bytes} were asked for",
                code="volume_size",
                hint="a volume keeps the size that it was made with; use another name",
            )
        mounted.mkdir(exist_ok=True, mode=0o700)
        if not mounts.is_mounted(mounted):
            mounts.mount_ext4(file, mounted)
        data = mounted / "data"
        if not data.exists():
            self._fill(mounted, image_root, volume.path)
        return data

    def release(self, in_use: set[str]) -> None:
        """Unmount every volume that no container uses."""
        for folder in self._run.iterdir():
            if folder.name not in in_use:
                mounts.unmount_tree(folder)
                with contextlib.suppress(FileNotFoundError):
                    folder.rmdir()

    def remove(self, name: str) -> None:
        """Unmount and delete a volume with all its data; one that is gone is fine."""
        folder = self._run / name
        mounts.unmount_tree(folder)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        check(is_container_id(name), "volume_name", volume=name)
        return self._home / f"{name}.img"

    @staticmethod
    def _fill(mounted: Path, image_root: Path, inside: str) -> None:
        """Make `data` with the owner, mode and content of the image's folder; atomic by rename."""
        partial, data = mounted / "data.new", mounted / "data"
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(mode=0o755)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            source = kernel.open_in_root(image_root, inside, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _copy_tree(source, partial)
            finally:
                os.close(source)
        partial.rename(data)


def _copy_tree(source_fd: int, target: Path) -> None:
    """Copy folders, plain files and links below a descriptor, with owners and modes; nothing else, no link followed."""
    budget = _MAX_COPY_ENTRIES
    target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _copy_attributes(os.fstat(source_fd), target_fd)
        stack = [(os.dup(source_fd), os.dup(target_fd))]
        while stack:
            source, into = stack.pop()
            try:
                for name in os.listdir(source):  # noqa: PTH208 - a descriptor
                    budget -= 1
                    if budget < 0:
                        raise InvalidInputError("the image has too many files at the volume's path", code="volume_fill")
                    status = os.stat(name, dir_fd=source, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        stack.append(_copy_folder(source, into, name, status))
                    elif stat.S_ISLNK(status.st_mode):
                        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=into)
                        os.chown(name, status.st_uid, status.st_gid, dir_fd=into, follow_symlinks=False)
                    elif stat.S_ISREG(status.st_mode):
                        _copy_file(source, into, name, status)
            finally:
                os.close(source)
                os.close(into)
    finally:
        os.close(target_fd)


_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _copy_folder(source: int, into: int, name: str, status: os.stat_result) -> tuple[int, int]:
    os.mkdir(name, 0o700, dir_fd=into)
    made = os.open(name, _FOLDER, dir_fd=into)
    _copy_attributes(status, made)
    return os.open(name, _FOLDER, dir_fd=source), made


def _copy_file(source: int, into: int, name: str, status: os.stat_result) -> None:
    read_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    write_fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=into)
    with os.fdopen(read_fd, "rb") as reader, os.fdopen(write_fd, "wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        _copy_attributes(status, writer.fileno())


def _copy_attributes(status: os.stat_result, fd: int) -> None:
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode) & 0o1777)
