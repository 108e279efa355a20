"""The folder of a compose file: the file itself, `.env`, and files beside it, never anything outside."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from freehold.base.errors import InvalidInputError
from freehold.base.limits import MAX_COMPOSE_BYTES
from freehold.client.compose.checking import CheckResult, check_compose
from freehold.client.compose.environment import ReadFile
from freehold.client.compose.problems import quote

MAX_BESIDE_BYTES = 64 * 1024


def check_file(path: Path, environment: Mapping[str, str]) -> CheckResult:
    """Read a compose file from disk, with `.env` beside it, and check it.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    full = Path(os.path.abspath(path))  # noqa: PTH100  # the folder as named, symbolic links kept: it gives the name
    text = _read_regular(full, MAX_COMPOSE_BYTES + 1)
    env_path = full.parent / ".env"
    env_text = _read_regular(env_path, MAX_BESIDE_BYTES + 1).decode(errors="replace") if env_path.is_file() else None
    return check_compose(text, str(full), environment, env_text, confined_reader(full.parent))


def confined_reader(folder: Path) -> ReadFile:
    """Make a `read_file` for a folder and below; `..`, absolute paths and links that leave it are refused."""
    root = folder.resolve()

    def read(path: str) -> bytes:
        wanted = PurePosixPath(path)
        if wanted.is_absolute() or ".." in wanted.parts or path.startswith("~") or "\0" in path:
            raise _outside(path)
        full = (root / wanted).resolve()
        if not full.is_relative_to(root):
            raise _outside(path)
        data = _read_regular(full, MAX_BESIDE_BYTES + 1)
        if len(data) > MAX_BESIDE_BYTES:
            raise InvalidInputError(f"{quote(path)} is longer than {MAX_BESIDE_BYTES} bytes", code="oversized")
        return data

    return read


def _read_regular(path: Path, limit: int) -> bytes:
    """Read at most `limit` bytes of a regular file; a pipe or device must not hang the reader."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InvalidInputError(
            f"no file {quote(str(path), 200)}",
            code="file_missing",
            hint="check the path; it is relative to the compose file",
        ) from None
    except OSError as error:
        raise InvalidInputError(
            f"{quote(str(path), 200)} cannot be read: {error.strerror}", code="file_unreadable"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidInputError(f"{quote(str(path), 200)} is not a regular file", code="file_unreadable")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit)


def _outside(path: str) -> InvalidInputError:
    return InvalidInputError(
        f"{quote(path)} lies outside the compose file's folder",
        code="outside_folder",
        hint="copy the file beside the compose file and name it by a relative path",
    )
