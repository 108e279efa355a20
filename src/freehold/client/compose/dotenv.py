"""`.env` and `env_file` text, as Compose reads it: quotes, comments, `export`, variables, values over several lines.

Unquoted and double-quoted values take variables (those set before in the same file too), single-quoted ones do not.
"""

import re
from collections.abc import Mapping

from freehold.client.compose.interpolation import InterpolationError, interpolate

MAX_ENV_FILE_BYTES = 64 * 1024
MAX_VARIABLES = 1_000

_KEY = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?:([=:])[ \t]*|\Z|(?=\n|#))", re.ASCII)
_BLANK = re.compile(r"(?:[ \t\r]*(?:#[^\n]*)?\n|[ \t\r]+)*(?:#[^\n]*\Z)?", re.ASCII)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "f": "\f",
    "b": "\b",
    "v": "\v",
    "a": "\a",
    "\\": "\\",
    '"': '"',
    "$": "$$",
}


class DotenvError(ValueError):
    """The text is not an environment file.

    Attributes:
        line: counted from 1.
    """

    def __init__(self, code: str, message: str, line: int, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.line = line
        self.hint = hint


def parse_dotenv(text: str, variables: Mapping[str, str], *, raw: bool = False) -> dict[str, str | None]:
    """Read an environment file.

    Args:
        text: at most `MAX_ENV_FILE_BYTES` of UTF-8.
        variables: what values may refer to; they win over what the file itself has set before.
        raw: take every value as it stands after `=`, without quotes, comments and variables.

    Returns:
        Values by name; None for a name without `=`, which means "as in the environment".

    Raises:
        DotenvError: a line that is no assignment, an open quote, a bad variable, or too much of it.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_ENV_FILE_BYTES:
        raise DotenvError("oversized", f"an environment file holds at most {MAX_ENV_FILE_BYTES} bytes", 0)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str | None] = {}
    at = _skip_blank(text, 0)
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        key = _KEY.match(text, at)
        if key is None or "\0" in text:
            shown = text[at : at + 24].partition("\n")[0]
            raise DotenvError("bad_env_file", f"{shown!r} is not NAME=VALUE", line, "write one NAME=VALUE a line")
        if key[2] is None:
            found[key[1]] = None
            at = _line_end(text, key.end())
        else:
            scope = {**{name: value for name, value in found.items() if value is not None}, **variables}
            found[key[1]], at = _value(text, key.end(), line, scope, raw)
        if len(found) > MAX_VARIABLES:
            raise DotenvError("oversized", f"more than {MAX_VARIABLES} variables", line)
        at = _skip_blank(text, at)
    return found


def _skip_blank(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _value(text: str, at: int, line: int, scope: Mapping[str, str], raw: bool) -> tuple[str, int]:
    end = _line_end(text, at)
    quote = text[at : at + 1]
    if raw:
        return text[at:end].strip(), end
    if quote not in ("'", '"'):
        written = text[at:end].partition(" #")[0].strip()
        return _expand(written, line, scope), end
    close = _closing_quote(text, at + 1, quote)
    if close < 0:
        raise DotenvError("bad_env_file", f"the quote {quote} is never closed", line, "close it, or escape it")
    rest = text[close + 1 : _line_end(text, close)].strip()
    if rest and not rest.startswith("#"):
        raise DotenvError("bad_env_file", f"{rest[:24]!r} follows a closed quote", line, "quote the whole value")
    written = text[at + 1 : close]
    if quote == "'":
        return written.replace("\\'", "'"), _line_end(text, close)
    # Escapes first, as Compose does, so that what a variable holds is taken as it is.
    unescaped = _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[0]), written)
    return _expand(unescaped, line, scope), _line_end(text, close)


def _closing_quote(text: str, at: int, quote: str) -> int:
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text[at] == quote:
            return at
        else:
            at += 1
    return -1


def _expand(written: str, line: int, scope: Mapping[str, str]) -> str:
    if "$" not in written:
        return written
    try:
        return interpolate(written, scope)[0]
    except InterpolationError as error:
        raise DotenvError(error.code, error.message, line, error.hint) from None
