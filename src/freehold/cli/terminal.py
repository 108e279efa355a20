"""Logs on a terminal: a container, or a node that lies about one, may colour its lines and nothing else.

Escape sequences can retitle or resize a window, write to the clipboard, hide text, or answer as if someone had typed.
What goes to a file or a pipe is left as it is.
"""

import re

MAX_HELD_BYTES = 64 * 1024

# Colours and attributes pass; every other control character, C1 ones included, becomes a question mark.
_SAFE = re.compile(r"\x1b\[[0-9;]{0,32}m|[^\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class TerminalLog:
    """Filters a stream of bytes line by line, so that neither a character nor a sequence is cut in two."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Give what can be shown by now."""
        whole, newline, rest = (self._held + data).rpartition(b"\n")
        if len(rest) > MAX_HELD_BYTES:
            whole, newline, rest = whole + newline + rest, b"", b""
        self._held = rest
        return _safe(whole + newline)

    def rest(self) -> bytes:
        """Give what is left of a last line without an end."""
        held, self._held = self._held, b""
        return _safe(held)


def _safe(data: bytes) -> bytes:
    text = data.decode("utf-8", "replace")
    shown, at = [], 0
    for match in _SAFE.finditer(text):
        shown.append("?" * (match.start() - at))
        shown.append(match[0])
        at = match.end()
    shown.append("?" * (len(text) - at))
    return "".join(shown).encode()
