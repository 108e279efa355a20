"""A place in a document: typed reading that reports what does not fit instead of raising.

Every read of a mapping goes through a `KeyTable`, so a key that nobody reads cannot slip through.
"""

import difflib
from collections.abc import Iterator

from freehold.client.compose.keys import KeyTable
from freehold.client.compose.loading import Document, Value
from freehold.client.compose.problems import Path, Problems, format_path, quote
from freehold.client.compose.scalars import format_scalar

EXTENSION = "x-freehold"

# What Compose still takes for a boolean, with a warning, though it is none in YAML 1.2.
_TRUE_WORDS = frozenset({"1", "t", "y", "yes", "on"})
_FALSE_WORDS = frozenset({"0", "f", "n", "no", "off"})


class Cursor:
    """One value, the path to it, and where problems go."""

    __slots__ = ("document", "path", "problems", "value")

    def __init__(self, document: Document, problems: Problems, value: Value, path: Path = ()) -> None:
        self.document = document
        self.problems = problems
        self.value = value
        self.path = path

    @property
    def line(self) -> int:
        """The line of this place, or of the nearest one above it."""
        return line_of(self.document, self.path)

    @property
    def name(self) -> str:
        """The last step of the path, as text."""
        return str(self.path[-1]) if self.path else ""

    def child(self, step: str | int) -> "Cursor":
        """The value one step further; the step must exist."""
        return Cursor(self.document, self.problems, self.value[step], (*self.path, step))

    def report(self, code: str, message: str, hint: str = "") -> None:
        """Note a problem here."""
        self.problems.add(code, self.path, self.line, message, hint)

    def wrong_type(self, expected: str, hint: str = "") -> None:
        """Note that the value is of another type."""
        found = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
        kind = found.get(type(self.value), "a number")
        self.report("wrong_type", f"{format_path(self.path) or 'the file'} must be {expected}, not {kind}", hint)

    def entries(self, what: str = "a mapping") -> list["Cursor"]:
        """The children of a mapping with free names; none, with a report, when it is no mapping."""
        if not isinstance(self.value, dict):
            self.wrong_type(what)
            return []
        return [self.child(key) for key in self.value]

    def items(self, what: str = "a list", limit: int = 256) -> list["Cursor"]:
        """The items of a list; none, with a report, when it is no list or too long."""
        if not isinstance(self.value, list):
            self.wrong_type(what)
            return []
        if len(self.value) > limit:
            self.report("too_many", f"{format_path(self.path)} has {len(self.value)} entries, at most {limit}")
            return []
        return [self.child(index) for index in range(len(self.value))]

    def fields(self, table: KeyTable) -> dict[str, "Cursor"]:
        """The supported children of a mapping with known keys; every other key is reported."""
        if not isinstance(self.value, dict):
            self.wrong_type("a mapping")
            return {}
        found = {}
        for key in self.value:
            place = self.child(key)
            if key in table.supported or (key == EXTENSION and table.settings):
                found[key] = place
            elif key == EXTENSION:
                place.report("unknown_key", f"a {table.noun} has no {EXTENSION} settings", "remove it")
            elif key in table.refused:
                refused = table.refused[key]
                if not any(place.value is item or _same(place.value, item) for item in refused.harmless):
                    place.report("unsupported_key", f"{key} is not supported in a {table.noun}", refused.hint)
            elif key.startswith("x-") and table.extensible:
                place.check_extension()
            else:
                hint = suggest(key, table.known) if self.problems.has_room() else ""
                place.report("unknown_key", f"a {table.noun} has no key {quote(key)}", hint)
        return found

    def check_extension(self) -> None:
        """Warn of an `x-` key that looks like a misspelt `x-freehold`; others mean nothing here, by specification."""
        is_near = abs(len(self.name) - len(EXTENSION)) <= 3 and self.problems.has_room(warnings=True)
        if is_near and difflib.get_close_matches(self.name, [EXTENSION], cutoff=0.8):
            self.report("warning_extension", f"{quote(self.name)} has no meaning", f"is `{EXTENSION}` meant?")

    def text(self, what: str = "text", limit: int = 4_096) -> str | None:
        """The value as non-empty bounded text."""
        if not isinstance(self.value, str):
            self.wrong_type(what, "quote it" if isinstance(self.value, int | float) else "")
            return None
        if not self.value or len(self.value) > limit:
            self.report("bad_value", f"{format_path(self.path)} must have 1 to {limit} characters")
            return None
        return self.value

    def scalar_text(self, limit: int = 128 * 1024) -> str | None:
        """Text, or a number or boolean written as Compose would; warns when that is not what the file shows."""
        if isinstance(self.value, dict | list):
            self.wrong_type("text, a number or a boolean")
            return None
        text = format_scalar(self.value)
        written = self.document.written.get(self.path)
        if written is not None:
            self.report(
                "warning_unquoted_number", f"{quote(written)} is read as {text}", f'quote it to keep it: "{written}"'
            )
        if len(text) > limit:
            self.report("bad_value", f"{format_path(self.path)} is longer than {limit} characters")
            return None
        return text

    def boolean(self) -> bool | None:
        """True or false, also as text that came from a variable."""
        value = self.value
        if isinstance(value, bool):
            return value
        word = value.lower() if isinstance(value, str) else ""
        if word in ("true", "false"):
            return word == "true"
        if word in _TRUE_WORDS or word in _FALSE_WORDS:
            meant = "true" if word in _TRUE_WORDS else "false"
            self.report("warning_yaml_boolean", f"{quote(word)} is taken for {meant}", f"write {meant}")
            return word in _TRUE_WORDS
        self.wrong_type("true or false") if not isinstance(value, str) else self.report(
            "bad_value", f"{quote(value)} is neither true nor false"
        )
        return None

    def integer(self, low: int, high: int) -> int | None:
        """A whole number, also as text that came from a variable, within bounds."""
        value = self.value
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.report("bad_value", f"{format_path(self.path)} must be a whole number from {low} to {high}")
            return None
        if not low <= value <= high:
            self.report("out_of_range", f"{format_path(self.path)} is {value}, must be from {low} to {high}")
            return None
        return value

    def strings(self, what: str = "a list of text") -> Iterator[tuple["Cursor", str]]:
        """The items of a list of text with their places."""
        for item in self.items(what):
            text = item.text()
            if text is not None:
                yield item, text


def line_of(document: Document, path: Path) -> int:
    """The line of a path, or of the nearest one above it that has one."""
    for length in range(len(path), -1, -1):
        line = document.lines.get(path[:length])
        if line is not None:
            return line
    return 0


def suggest(word: str, known: frozenset[str]) -> str:
    """A hint that names the known word nearest to a misspelt one."""
    near = difflib.get_close_matches(word[:64], sorted(known), n=1, cutoff=0.6)
    return f"is `{near[0]}` meant?" if near else ""


def _same(value: Value, item: object) -> bool:
    return type(value) is type(item) and bool(value == item)
