"""Who a container runs as: a `user` text against the image's own passwd and group files; pure."""

import re

import msgspec

from freehold.runtime.images.manifest import refuse
from freehold.runtime.images.tarstream import MAX_ID

MAX_FILE_BYTES = 256 * 1024
MAX_GROUPS = 64
_NUMBER = re.compile(r"[0-9]{1,5}\Z", re.ASCII)


class User(msgspec.Struct, frozen=True):
    """Numeric identity inside the container, each 0 to 65,535."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve_user(text: str, passwd: bytes, group: bytes) -> User:
    """Resolve `user`, `uid`, `user:group` or `uid:gid` as Docker does.

    Args:
        text: from the image's config or the compose file; empty means root.
        passwd: the image's /etc/passwd, empty when there is none.
        group: the image's /etc/group, empty when there is none.

    Raises:
        ImageError: a name is not in the image's files, or a number is out of range.
    """
    name, _, group_name = (text or "0").partition(":")
    users = [(row[0], row[2], row[3], row[5]) for row in _rows(passwd, 7)]
    groups = [(row[0], row[2], row[3].split(",")) for row in _rows(group, 4)]
    found = next((row for row in users if name in (row[0], row[1])), None)
    if found is not None:
        uid, gid, home = _id(found[1]), _id(found[2]), found[3] if found[3].startswith("/") else "/"
    else:
        uid, gid, home = _id(name, f"the image has no user {name[:64]!r}"), 0, "/"
    if group_name:
        row = next((row for row in groups if group_name in (row[0], row[1])), None)
        gid = _id(row[1]) if row else _id(group_name, f"the image has no group {group_name[:64]!r}")
        return User(uid, gid, (), home)
    extra = sorted({_id(row[1]) for row in groups if found is not None and found[0] in row[2]} - {gid})
    return User(uid, gid, tuple(extra[:MAX_GROUPS]), home)


def _rows(data: bytes, fields: int) -> list[list[str]]:
    lines = data[:MAX_FILE_BYTES].decode("utf-8", "replace").split("\n")
    rows = [line.split(":") for line in lines]
    return [row for row in rows if len(row) == fields and _NUMBER.match(row[2]) and int(row[2]) <= MAX_ID]


def _id(text: str, otherwise: str = "") -> int:
    if not _NUMBER.match(text) or int(text) > MAX_ID:
        refuse(otherwise or f"{text[:40]!r} is not an id of 0 to {MAX_ID}", "unknown_user", "use a name of the image")
    return int(text)
