"""Somebody who types commands, with a home of their own."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from freehold.cli.main import run


class Person:
    """Types commands into a terminal of their own."""

    passphrase = "a passphrase of several words"

    def __init__(self, folder: Path, url: str, genesis: Path) -> None:
        folder.mkdir()
        (folder / "genesis.json").write_bytes(genesis.read_bytes())
        (folder / "words").write_text(f"{self.passphrase}\n")
        self.env = {
            "FREEHOLD_HOME": str(folder),
            "FREEHOLD_RPC": url,
            "FREEHOLD_PASSPHRASE_FILE": str(folder / "words"),
        }

    def read(self, *words: str, code: int | None = 0) -> str:
        """`code` None for any. In this process: the program's start is no part of what is tried here."""
        output = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
            for name, value in self.env.items():
                patch.setenv(name, value)
            assert run(words) in ({code} if code is not None else range(256)), (words, output.getvalue())
        return output.getvalue()

    def type(self, *words: str, code: int | None = 0) -> Any:
        return json.loads(self.read(*words, "--json", code=code))
