"""A folder to one EROFS file, reproducibly: Debian's mkfs.erofs with fixed arguments, in an empty network namespace."""

import hashlib
import re
import subprocess
from pathlib import Path

from freehold.base.errors import FreeholdError, check
from freehold.runtime.images.tarstream import MAX_MTIME

# Any fixed value will do; it must never change, or the same image gets another digest.
FILESYSTEM_UUID = "6672656f-686f-4c64-8000-696d61676531"
MAX_SOURCE_BYTES = 700  # with the longest path of an image, still below PATH_MAX


class BuildError(FreeholdError):
    """The host could not build an image file: a tool is missing, failed, or the disk is full."""


def tool_version() -> str:
    """The version line of mkfs.erofs; part of what a digest of its output means.

    Raises:
        BuildError: the tool is missing.
    """
    # 1.5 prints its version and then refuses the option; later ones know it.
    output = _run(["mkfs.erofs", "--version"], 10, may_fail=True)
    match = re.search(r"mkfs\.erofs [0-9][0-9A-Za-z.-]{0,40}", output)
    return match[0] if match else "mkfs.erofs"


def make_erofs(source: Path, output: Path, timeout_seconds: float) -> str:
    """Pack a folder; the same tree gives the same bytes.

    Fixed superblock time and UUID; files keep the times of the image, because Python's and other caches compare
    them (-T would overwrite those too: 1.5 keeps earlier ones only under SOURCE_DATE_EPOCH). No extended attribute is
    read, so none of the host's gets in.

    Args:
        source: the folder; its path is at most 700 bytes long.
        output: the file to make.
        timeout_seconds: kill the tool after that time.

    Returns:
        The digest of the file, `sha256:...`.

    Raises:
        BuildError: the tool is missing or failed.
    """
    check(len(bytes(source)) <= MAX_SOURCE_BYTES, "build_folder_path_is_short", path=str(source))
    options = [f"-U{FILESYSTEM_UUID}", "-x-1", "-zlz4", "--quiet"]
    confined = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--"]
    _run([*confined, "mkfs.erofs", *options, str(output), str(source)], timeout_seconds)
    return file_digest(output)


def file_digest(path: Path) -> str:
    """The sha256 digest of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _run(arguments: list[str], timeout_seconds: float, *, may_fail: bool = False) -> str:
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_seconds,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "SOURCE_DATE_EPOCH": str(MAX_MTIME)},
        )
    except FileNotFoundError as error:
        raise BuildError(
            f"{error.filename} is not installed", code="tool_missing", hint="apt-get install erofs-utils util-linux"
        ) from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"{arguments[0]} took longer than {timeout_seconds:.0f} s", code="build_timeout") from None
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0 and not may_fail:
        code = "disk_full" if "No space left" in output else "build_failed"
        hint = "free some disk space" if code == "disk_full" else ""
        raise BuildError(f"mkfs.erofs failed: {output[-300:].strip()}", code=code, hint=hint)
    return output
