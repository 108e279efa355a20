"""Folders to layers for the demo's images: pruned roots, and plain tars of what a root adds to the one below.

The same tree gives the same bytes: entries sorted, owners by number, times cut at a fixed one.
"""

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

from freehold.base.errors import FreeholdError

NEWEST_SECONDS = 1_686_355_200  # Debian 12's release day; later times of files are set to it
# What no service needs: documentation (licences stay), translations, package managers' data, other character sets.
PRUNED = (
    "boot",
    "lib32",
    "libx32",
    "usr/lib32",
    "usr/libx32",
    "usr/games",
    "usr/include",
    "usr/lib/*/gconv",
    "usr/lib/*/perl-base",
    "usr/lib/*/security",
    "usr/lib/dpkg",
    "usr/lib/init",
    "usr/lib/systemd",
    "usr/lib/tmpfiles.d",
    "usr/lib/sysusers.d",
    "usr/lib/udev",
    "usr/lib/lsb",
    "usr/lib/mime",
    "usr/share/mime",
    "usr/lib/valgrind",
    "usr/local/share/man",
    "usr/share/adduser",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/debconf",
    "usr/share/doc-base",
    "usr/share/dpkg",
    "usr/share/gcc",
    "usr/share/gdb",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/pam*",
    "usr/share/perl*",
    "usr/share/pixmaps",
    "usr/share/applications",
    "usr/share/polkit-1",
    "etc/apt",
    "etc/cron.*",
    "etc/default",
    "etc/init.d",
    "etc/kernel",
    "etc/logrotate.d",
    "etc/pam.*",
    "etc/rc*.d",
    "etc/security",
    "etc/systemd",
    "var/cache/*",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/lib/pam",
    "var/log/*",
    "dev/*",
    "run/*",
    "tmp/*",
)


def prune(root: Path, more: Iterable[str] = ()) -> None:
    """Remove what no service needs, and every setuid or setgid file.

    Args:
        root: the unpacked packages.
        more: further patterns, relative to root.
    """
    for pattern in (*PRUNED, *more):
        for path in sorted(root.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            info = path.lstat()
            is_documentation = "usr/share/doc/" in f"{folder}/" and name != "copyright"
            if is_documentation or (stat.S_ISREG(info.st_mode) and info.st_mode & 0o6000):
                path.unlink()


def write_layer(root: Path, tar: Path, below: Iterable[Path] = ()) -> int:
    """Write what root has and none of the roots below has alike, as a plain tar.

    Args:
        root: the whole tree with the layers below it.
        tar: the file to make.
        below: trees of the layers below, of which root must be a superset.

    Returns:
        How many entries were written.

    Raises:
        FreeholdError: something of below is missing in root (`not_a_superset`).
    """
    known = {path: mark for tree in below for path, mark in _marks(tree).items()}
    present = _marks(root)
    if missing := sorted(known.keys() - present.keys()):
        raise FreeholdError(f"the upper layer lacks {missing[0]} of the lower", code="not_a_superset")
    chosen = {path for path, mark in present.items() if known.get(path) != mark}
    for path in list(chosen):
        chosen.update(str(parent) for parent in Path(path).parents if str(parent) != ".")
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(chosen):
            info = archive.gettarinfo(root / path, path)
            info.uname = info.gname = ""
            info.mtime = min(int(info.mtime), NEWEST_SECONDS)
            if info.isfile():
                with (root / path).open("rb") as file:
                    archive.addfile(info, file)
            else:
                archive.addfile(info)
    return len(chosen)


def _marks(root: Path) -> dict[str, str]:
    """For every path below root, a text that differs when anything about it that a layer holds differs."""
    marks = {}
    for path in root.rglob("*"):
        info = path.lstat()
        content = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif stat.S_ISREG(info.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        marks[str(path.relative_to(root))] = f"{info.st_mode:o} {info.st_uid} {info.st_gid} {content}"
    return marks
