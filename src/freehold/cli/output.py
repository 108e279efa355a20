"""What a command gives back, and how it is printed: text for people, or exactly one JSON document on stdout."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from freehold.base.errors import ExitCode, FreeholdError

Json = Annotated[bool, Parameter(help="One JSON document on stdout; everything else goes to stderr.")]


@dataclass(frozen=True)
class Result:
    """A command's outcome: the document for `--json`, the text for people, the exit code."""

    document: Any
    text: str = ""
    exit_code: int = ExitCode.DONE


@dataclass
class Table:
    """Plain aligned columns, readable without colours and in logs."""

    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Append a row."""
        self.rows.append([str(cell) for cell in cells])

    def text(self) -> str:
        """The table as lines; an empty one is its header alone."""
        lines = [list(self.columns), *[[plain(cell) for cell in row] for row in self.rows]]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )


def print_result(result: Result, *, as_json: bool) -> None:
    """Print to stdout."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(result.document), indent=2).decode() + "\n")
    elif result.text:
        sys.stdout.write("\n".join(map(plain, result.text.rstrip("\n").split("\n"))) + "\n")
    sys.stdout.flush()


# What to do next where the error itself has no better word.
_NEXT_BY_EXIT_CODE = {
    ExitCode.INVALID: "add --help to the command to see what it takes",
    ExitCode.REFUSED: "docs/errors.md says what each code means",
    ExitCode.UNREACHABLE: "try again; `freehold status` shows whether the ledger answers",
    ExitCode.NOT_VERIFIED: "do not rely on it: fetch it again from its source",
}


def print_error(error: FreeholdError, *, as_json: bool) -> None:
    """Say what was wrong and what to do next: on stderr, and with `--json` as the one document on stdout."""
    hint = error.hint or _NEXT_BY_EXIT_CODE.get(error.exit_code, "the lines above tell more")
    if as_json:
        document = {"error": {"code": error.code, "message": error.message, "hint": hint}}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
        sys.stdout.flush()
    say(f"error: {error.message}")
    say(f"next: {hint}")


def plain(text: str) -> str:
    """A line as a terminal may show it: nodes, images and files put words into it, never commands to the terminal."""
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in text)


def say(line: str) -> None:
    """A line of progress or explanation: stderr, so that stdout stays the result alone."""
    sys.stderr.write("\n".join(map(plain, line.split("\n"))) + "\n")
    sys.stderr.flush()


def use_colour() -> bool:
    """Whether stderr may carry colours: a terminal, and no `NO_COLOR`."""
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ
