"""Typing commands: `freehold ...` as a subprocess, its JSON back, its errors as they stand."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError

# In a session of its own, so that Ctrl-C reaches the demo alone; killed by the kernel when the demo is.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


class Cli:
    """Runs commands of one home."""

    def __init__(self, home: Path, passphrase_file: Path, say: Any) -> None:
        self._home = home
        self._passphrase_file = passphrase_file
        self._say = say

    async def run(self, *arguments: str, quiet: bool = False) -> Any:
        """Run `freehold ARGUMENTS --json` and return its document.

        Raises:
            FreeholdError: it did not exit with 0; the message is what it said, the code the command's own.
        """
        if not quiet:
            self._say(f"$ freehold {' '.join(arguments)}")
        environment = {
            **os.environ,
            "FREEHOLD_HOME": str(self._home),
            "FREEHOLD_PASSPHRASE_FILE": str(self._passphrase_file),
            "NO_COLOR": "1",
        }
        environment.pop("FREEHOLD_RPC", None)
        process = await asyncio.create_subprocess_exec(
            *DIES_WITH_US,
            sys.executable,
            "-P",
            "-m",
            "freehold.cli.main",
            *arguments,
            "--json",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            output, noise = await process.communicate()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        if process.returncode:
            said = noise.decode(errors="replace").strip() or output.decode(errors="replace").strip()
            raise FreeholdError(f"`freehold {' '.join(arguments)}` failed:\n{said}", code=_code(output))
        return decode_json(output, dict[str, Any])


def _code(output: bytes) -> str:
    """The error's code in the document of a command that failed."""
    try:
        return str(decode_json(output, dict[str, Any])["error"]["code"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "command_failed"
