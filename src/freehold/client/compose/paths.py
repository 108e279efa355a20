"""Paths inside a container: absolute, plain, and not over what the node itself provides."""

import posixpath

from freehold.client.compose.cursor import Cursor
from freehold.client.compose.model import SECRETS_FOLDER
from freehold.client.compose.problems import quote

MAX_PATH_CHARACTERS = 256
_RESERVED_TREES = ("/proc", "/sys", "/dev", SECRETS_FOLDER)
_RESERVED = frozenset({"/", "/etc", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"})


def read_container_path(place: Cursor, text: str, *, mount: bool) -> str | None:
    """Check a path in a container; reports and gives None when it will not do.

    Args:
        place: where the path is written.
        text: the path.
        mount: whether something is mounted there.
    """
    path = text.rstrip("/") or "/"
    plain = text.startswith("/") and not text.startswith("//") and posixpath.normpath(path) == path
    if not plain or not text.isprintable() or len(text) > MAX_PATH_CHARACTERS or any(sign in text for sign in ",:"):
        place.report(
            "bad_path", f"{quote(text)} is not a plain absolute path in the container", "such as /var/lib/data"
        )
        return None
    in_tree = any(path == tree or path.startswith(f"{tree}/") for tree in _RESERVED_TREES)
    if mount and (path in _RESERVED or in_tree):
        place.report(
            "bad_path", f"nothing can be mounted at {quote(text)}", "mount below a folder of the program's own"
        )
        return None
    return path
