"""Problems: what is wrong with a compose file, where, and what to write instead.

A problem whose code begins with `warning_` does not make the file unusable; every other one does.
"""

import json
import re
from typing import TypeAlias

import msgspec

Step: TypeAlias = str | int
Path: TypeAlias = tuple[Step, ...]

MAX_PROBLEMS = 100
MAX_WARNINGS = 50
MAX_MESSAGE_CHARACTERS = 400
WARNING = "warning_"
MAX_KEY_CHARACTERS = 64
_PLAIN_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_KEY_CHARACTERS}}}\Z", re.ASCII)


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong, or worth knowing, at one place of a file.

    Attributes:
        code: stable machine-readable word.
        path: the place, such as `services.web.ports[0]`; empty for the whole file.
        line: counted from 1; 0 when no single line is to blame.
        message: what is wrong.
        hint: what to do next; may be empty.
    """

    code: str
    path: str
    line: int
    message: str
    hint: str = ""

    @property
    def is_warning(self) -> bool:
        """Whether the file can be deployed in spite of it."""
        return self.code.startswith(WARNING)


class Problems:
    """Collects at most `MAX_PROBLEMS` errors and `MAX_WARNINGS` warnings, each (code, place, message) once."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._seen: set[tuple[str, Path, str]] = set()
        self._places: set[Path] = set()
        self._room = {False: MAX_PROBLEMS, True: MAX_WARNINGS}  # by whether it is a warning

    def add(self, code: str, path: Path, line: int, message: str, hint: str = "") -> None:
        """Note a problem; what there is no room for is told as one more."""
        message = shorten(message)
        key = (code, path, message)
        is_warning = code.startswith(WARNING)
        if key in self._seen or self._room[is_warning] < 0:
            return
        self._room[is_warning] -= 1
        if self._room[is_warning] < 0:
            cut = "warning_too_many" if is_warning else "too_many_problems"
            self._found.append(Problem(cut, "", 0, "there are more of these", "repair the ones told first"))
            return
        self._seen.add(key)
        self._places.add(path)
        self._found.append(Problem(code, format_path(path), line, message, hint))

    def has_room(self, *, warnings: bool = False) -> bool:
        """Whether one more would be kept, so that nothing costly need be worked out for it otherwise."""
        return self._room[warnings] > 0

    def has_error(self) -> bool:
        """Whether anything but warnings was noted."""
        return any(not problem.is_warning for problem in self._found)

    def touches(self, path: Path) -> bool:
        """Whether a problem was noted at this path, above it or below it."""
        return any(place[: len(path)] == path[: len(place)] for place in self._places)

    def listed(self) -> tuple[Problem, ...]:
        """All problems, by line."""
        return tuple(sorted(self._found, key=lambda problem: (problem.line == 0, problem.line)))


def format_path(path: Path) -> str:
    """Write a path as people read it: `services.web.ports[0]`, odd keys in brackets and quotes."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif _PLAIN_KEY.match(step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"[{json.dumps(step[:MAX_KEY_CHARACTERS])}]")
    return "".join(parts)


def quote(value: object, width: int = 60) -> str:
    """Show a value from a file in a message: escaped, on one line, of bounded length."""
    text = value if isinstance(value, str) else repr(value)
    shown = repr(text[:width])
    return f"{shown[:-1]}…{shown[-1]}" if len(text) > width else shown


def shorten(message: str) -> str:
    """Bound a message's length."""
    if len(message) <= MAX_MESSAGE_CHARACTERS:
        return message
    return message[: MAX_MESSAGE_CHARACTERS - 1] + "…"
