"""Who a container runs as: a `user` text made into numbers by the image's own /etc/passwd and /etc/group.

The files are a tenant's: they are opened with the image as root of every link, only if plain, and read no further
than a bound. What the text means is `freehold.runtime.images.users`.
"""

import os
import stat
from pathlib import Path

from freehold.runtime import kernel
from freehold.runtime.images import users
from freehold.runtime.spec import Identity


def resolve_user(root: Path, user: str) -> Identity:
    """Find the numbers of `name`, `uid`, `name:group`, `uid:gid`; empty is root.

    Args:
        root: where the image is mounted.
        user: as the image or the compose file states it.

    Raises:
        InvalidInputError: no such user or group, or a number above 65,535 (`unknown_user`).
    """
    found = users.resolve_user(user, _read(root, "/etc/passwd"), _read(root, "/etc/group"))
    return Identity(found.uid, found.gid, found.groups, found.home)


def _read(root: Path, path: str) -> bytes:
    try:
        fd = kernel.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(users.MAX_FILE_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
