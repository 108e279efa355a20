"""Variables in values: `$NAME`, `${NAME}` with `:-` `-` `:?` `?` `:+` `+` and nested defaults, `$$` for a dollar.

One pass over the text, depth and output bounded, so that no value can grow without bound.
Source: compose specification, "Interpolation".
"""

import re
from collections.abc import Mapping

MAX_NESTING = 8
MAX_RESULT_CHARACTERS = 256 * 1024

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")


class InterpolationError(ValueError):
    """The text cannot be interpolated.

    Attributes:
        code: `bad_interpolation`, `variable_required` or `oversized`.
        hint: what to write instead.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def interpolate(text: str, variables: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Replace the variables in a text.

    Args:
        text: with `$` in it or not.
        variables: what is set; an empty value counts as unset for the operators with a colon.

    Returns:
        The result, and the names that were unset and had neither default nor alternative, in order.

    Raises:
        InterpolationError: a malformed reference, a required variable that is not set, or too long a result.
    """
    reader = _Reader(text, variables)
    result = reader.read(depth=0, active=True)
    return result, tuple(dict.fromkeys(reader.unset))


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str]) -> None:
        self.text = text
        self.at = 0
        self.variables = variables
        self.unset: list[str] = []
        self._produced = 0

    def read(self, *, depth: int, active: bool) -> str:
        """Read up to the end, or inside braces up to the closing one.

        What is inactive (a default that is not used) is read for its form only.
        """
        parts: list[str] = []
        while self.at < len(self.text):
            character = self.text[self.at]
            if character == "}" and depth:
                break
            if character == "$":
                parts.append(self._reference(depth, active))
                continue
            end = self._plain_end(depth)
            parts.append(self._counted(self.text[self.at : end]))
            self.at = end
        return "".join(parts)

    def _plain_end(self, depth: int) -> int:
        end = self.text.find("$", self.at)
        end = len(self.text) if end < 0 else end
        if depth:
            brace = self.text.find("}", self.at, end)
            end = end if brace < 0 else brace
        return end

    def _counted(self, piece: str) -> str:
        self._produced += len(piece)
        if self._produced > MAX_RESULT_CHARACTERS:
            raise InterpolationError("oversized", f"variables make a value longer than {MAX_RESULT_CHARACTERS}")
        return piece

    def _reference(self, depth: int, active: bool) -> str:
        following = self.text[self.at + 1 : self.at + 2]
        if following == "$":
            self.at += 2
            return self._counted("$")
        if following == "{":
            return self._braced(depth + 1, active)
        name = _NAME.match(self.text, self.at + 1)
        if name is None:  # `$1` and `a $ b` stay as they are, as in Compose
            self.at += 1
            return self._counted("$")
        self.at = name.end()
        return self._plain_value(name[0], active)

    def _braced(self, depth: int, active: bool) -> str:
        if depth > MAX_NESTING:
            raise InterpolationError("bad_interpolation", f"variables nested deeper than {MAX_NESTING} levels")
        start = self.at
        name = _NAME.match(self.text, self.at + 2)
        if name is None:
            raise self._malformed()
        self.at = name.end()
        operator = next((sign for sign in _OPERATORS if self.text.startswith(sign, self.at)), "")
        self.at += len(operator)
        value = self.variables.get(name[0])
        is_set = bool(value) if operator.startswith(":") else value is not None
        uses_word = active and bool(operator) and (is_set if operator.endswith("+") else not is_set)
        word = self.read(depth=depth, active=uses_word) if operator else ""
        if self.text[self.at : self.at + 1] != "}":
            self.at = start
            raise self._malformed()
        self.at += 1
        if not active:
            return ""
        if not operator:
            return self._plain_value(name[0], active)
        if operator.endswith("?") and not is_set:
            raise InterpolationError(
                "variable_required",
                f"the variable {name[0]} is required" + (f": {word}" if word else ""),
                f"set {name[0]} in the environment or in .env",
            )
        if operator.endswith("+"):
            return word if is_set else ""
        return self._counted(value or "") if is_set else word

    def _plain_value(self, name: str, active: bool) -> str:
        if not active:
            return ""
        value = self.variables.get(name)
        if value is None:
            self.unset.append(name)
        return self._counted(value or "")

    def _malformed(self) -> InterpolationError:
        shown = self.text[self.at : self.at + 24]
        return InterpolationError(
            "bad_interpolation",
            f"{shown!r} is not a variable",
            "write `$$` for a dollar sign, `${NAME}` for a variable",
        )
