"""Small state files of a node: written whole or not at all, read with a bound.

They are not forced to disk: what they describe (processes, mounts, links, ids in use) lives in the kernel and ends
with the power, while a killed agent loses nothing that the kernel has taken. A file that a power failure damaged is
set aside, and the node begins anew; volumes and images do not depend on these files.
"""

import os
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError

T = TypeVar("T")
MAX_STATE_BYTES: Final = 4 << 20


def save_json(path: Path, value: object) -> None:
    """Replace a file with the JSON of `value`; a crash leaves the old file or the new one.

    Raises:
        FreeholdError: the disk is full or not writable (`disk_full`); the old file is as it was.
    """
    partial = path.with_name(f".{path.name}.new")
    data = msgspec.json.encode(value)
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            written = 0
            while written < len(data):
                written += os.write(fd, data[written:])
        finally:
            os.close(fd)
        partial.rename(path)
    except OSError as error:
        raise FreeholdError(
            f"cannot write {path.name}: {error.strerror}",
            code="disk_full",
            hint="free disk space on the node and see that its home is writable",
        ) from None


def load_json(path: Path, kind: type[T]) -> T | None:
    """Read a file that `save_json` wrote; None when there is none, or when it was damaged and is now set aside."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_STATE_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(data) <= MAX_STATE_BYTES:
        try:
            return decode_json(data, kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    path.rename(path.with_name(path.name + ".damaged"))
    return None
