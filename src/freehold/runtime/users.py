"""Who a container runs as: an image's or a service's `user` made into numbers, by the image's own files.

The files are a tenant's: read with the image as root of every link, only if plain, and no further than a bound.
"""

import os
import stat
from pathlib import Path
from typing import Final

from freehold.base.errors import InvalidInputError
from freehold.runtime import kernel
from freehold.runtime.spec import IDS_PER_TENANT, Identity

_MAX_FILE_BYTES: Final = 1 << 20
_MAX_GROUPS: Final = 64


def resolve_user(root: Path, user: str) -> Identity:
    """Find the numbers of `name`, `uid`, `name:group`, `uid:gid`; empty is root.

    Args:
        root: where the image is mounted.
        user: as the image or the compose file states it.

    Raises:
        InvalidInputError: no such user or group, or a number above 65,535 (`no_such_user`).
    """
    name, _, group = user.partition(":")
    name = name or "0"
    row = next((row for row in _rows(root, "/etc/passwd", 7) if name in (row[0], row[2])), None)
    if row is not None:
        uid, gid, home, account = _number(row[2], user), _number(row[3], user), row[5] or "/", row[0]
    else:
        uid, gid, home, account = _number(name, user), 0, "/root" if name == "0" else "/", ""
    groups = _rows(root, "/etc/group", 4)
    if group:
        found = next((entry for entry in groups if group in (entry[0], entry[2])), None)
        return Identity(uid, _number(found[2] if found else group, user), (), home)
    member = [_number(entry[2], user) for entry in groups if account and account in entry[3].split(",")]
    return Identity(uid, gid, tuple(sorted(set(member)))[:_MAX_GROUPS], home)


def _number(text: str, user: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < IDS_PER_TENANT):
        raise InvalidInputError(
            f"the image has no user {user!r}", code="no_such_user", hint="ids inside a container go from 0 to 65,535"
        )
    return int(text)


def _rows(root: Path, path: str, width: int) -> list[list[str]]:
    try:
        fd = kernel.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        text = file.read(_MAX_FILE_BYTES).decode(errors="replace")
    return [row for line in text.splitlines() if len(row := line.split(":")) == width]
