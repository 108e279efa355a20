"""Log lines of the daemon: one JSON object each on stderr, with time, level, event and fields."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

MAX_REPEATS: Final = 20  # lines of one event in a minute; the rest are counted
PERIOD_S: Final = 60.0
_MAX_EVENTS: Final = 256


class JsonLog:
    """Writes lines; the same event at most `MAX_REPEATS` times a minute, so that nobody fills the disk from outside."""

    def __init__(self, out: TextIO | None = None, now_s: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._now_s = now_s
        self._seen: dict[str, tuple[float, int]] = {}  # since, lines

    def write(self, event: str, fields: dict[str, Any] | None = None, *, level: str = "info") -> None:
        """Write a line.

        Args:
            event: a stable word.
            fields: JSON values.
            level: info, warning or error.
        """
        since, lines = self._seen.get(event, (self._now_s(), 0))
        left_out = 0
        if self._now_s() - since >= PERIOD_S:
            left_out, since, lines = max(0, lines - MAX_REPEATS), self._now_s(), 0
        if len(self._seen) >= _MAX_EVENTS and event not in self._seen:
            self._seen.clear()
        self._seen[event] = (since, lines + 1)
        if lines >= MAX_REPEATS:
            return
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "event": event,
            **(fields or {}),
        }
        if left_out:
            line["left_out"] = left_out
        out = self._out or sys.stderr
        # A log on a full disk must not end a ledger that still answers and says why it halted.
        with contextlib.suppress(OSError):
            out.write(msgspec.json.encode(line, enc_hook=str).decode() + "\n")
            out.flush()

    def take_over(self) -> None:
        """Send what libraries log (warnings and above) through this log, without tracebacks."""
        root = logging.getLogger()
        root.handlers[:] = [_Handler(self)]
        root.setLevel(logging.WARNING)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class _Handler(logging.Handler):
    def __init__(self, log: JsonLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        fields = {"logger": record.name, "message": record.getMessage()[:1000]}
        if error is not None:
            fields["error"] = f"{type(error).__name__}: {error}"[:1000]
        self._log.write(f"log.{record.name}", fields, level=record.levelname.lower())
