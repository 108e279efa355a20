"""Private files of a home, written so that a crash leaves the old or the new one whole."""

import os
from pathlib import Path


def write_private(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, durable when this returns; missing folders are made.

    Args:
        path: replaced in one step.
        data: all of it.

    Raises:
        OSError: it cannot be written; what was there stands.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
