"""A container's output: conmon's k8s-file log, kept in at most three files of a bounded size, read in order.

conmon 2.1.6 holds a log to `--log-size-max` by opening a new file and renaming it over the old one, which would lose
everything before. So the node keeps a hard link `log.cur` to the file that conmon writes; when the name `log` points
to another file, the old one becomes `log.1` (`keep_previous`). Together never more than three times the size.

A line of the file: `2026-01-01T00:00:00.000000000+00:00 stdout F text`, where P instead of F says that the text goes
on in the next line of that stream. Source: Kubernetes CRI logging format.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

MAX_LINE_BYTES: Final = 64 * 1024
MAX_TAIL: Final = 100_000
_POLL_SECONDS: Final = 0.2
_STREAMS: Final = {b"stdout": "stdout", b"stderr": "stderr"}


class LogLine(msgspec.Struct, frozen=True):
    """One line of output.

    Attributes:
        time: RFC 3339 with nanoseconds, when its first part was read.
        stream: `stdout` or `stderr`.
        text: at most 64 KiB; longer lines come in several, each but the last with `more`.
        more: the line goes on in the next `LogLine` of this stream.
    """

    time: str
    stream: str
    text: bytes
    more: bool = False


class LineJoiner:
    """Joins the partial lines of a log file (pure but for its memory of open lines)."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[str, bytes]] = {}

    def feed(self, raw: bytes) -> Iterator[LogLine]:
        """Take one line of the file, without its newline; damaged lines are left out."""
        words = raw.split(b" ", 3)
        if len(words) != 4 or words[1] not in _STREAMS or words[2] not in (b"F", b"P"):
            return
        stream = _STREAMS[words[1]]
        time, text = self._open.pop(stream, (words[0].decode(errors="replace"), b""))
        text += words[3]
        while len(text) > MAX_LINE_BYTES:
            yield LogLine(time, stream, text[:MAX_LINE_BYTES], True)
            text = text[MAX_LINE_BYTES:]
        if words[2] == b"P":
            self._open[stream] = (time, text)
        else:
            yield LogLine(time, stream, text)

    def flush(self) -> Iterator[LogLine]:
        """Lines that were still open at the end."""
        for stream, (time, text) in sorted(self._open.items()):
            yield LogLine(time, stream, text)
        self._open = {}


def keep_previous(log: Path) -> None:
    """See whether conmon has begun a new file, and keep the one before; cheap, call it often."""
    current = log.with_name("log.cur")
    try:
        newest = log.stat().st_ino
    except FileNotFoundError:
        return
    with contextlib.suppress(FileNotFoundError):
        if current.stat().st_ino == newest:
            return
        current.rename(log.with_name("log.1"))
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.link(log, current)


class LogReader:
    """A place in a container's log, that moves on over conmon's change of files; close it after use."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._file: BinaryIO | None = None
        self._joiner = LineJoiner()

    def read(self) -> Iterator[LogLine]:
        """Lines that are there and were not read before, in order."""
        if self._file is None:
            with contextlib.suppress(FileNotFoundError):
                self._file = self._log.open("rb")
                yield from self._read_previous(os.fstat(self._file.fileno()).st_ino)
        while self._file is not None:
            yield from self._read_file(self._file)
            if not self._is_replaced(self._file):
                return
            yield from self._read_file(self._file)  # what came before it was replaced
            keep_previous(self._log)
            self._file.close()
            self._file = self._log.open("rb")

    def flush(self) -> Iterator[LogLine]:
        """Lines that never ended."""
        return self._joiner.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_previous(self, current: int) -> Iterator[LogLine]:
        keep_previous(self._log)
        with contextlib.suppress(FileNotFoundError), self._log.with_name("log.1").open("rb") as file:
            if os.fstat(file.fileno()).st_ino != current:
                yield from self._read_file(file)

    def _read_file(self, file: BinaryIO) -> Iterator[LogLine]:
        for raw in _whole_lines(file):
            yield from self._joiner.feed(raw)

    def _is_replaced(self, file: BinaryIO) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self._log.stat().st_ino != os.fstat(file.fileno()).st_ino
        return False


def read_log(log: Path, *, tail: int | None = None) -> list[LogLine]:
    """Read what is there.

    Args:
        log: the file that conmon writes.
        tail: only the last so many lines, at most 100,000.
    """
    reader = LogReader(log)
    try:
        lines = deque(reader.read(), maxlen=MAX_TAIL if tail is None else min(max(tail, 0), MAX_TAIL))
        lines.extend(reader.flush())
    finally:
        reader.close()
    return list(lines)


async def follow_log(log: Path, *, tail: int | None = None, ended: asyncio.Event) -> AsyncIterator[LogLine]:
    """Read what is there, then what comes, until `ended` is set and all is read.

    Args:
        log: the file that conmon writes.
        tail: begin with only the last so many lines.
        ended: set when the container has ended; the log is read to its end then.
    """
    reader = LogReader(log)
    keep = MAX_TAIL if tail is None else min(max(tail, 0), MAX_TAIL)
    try:
        while True:
            last_round = ended.is_set()
            for line in await asyncio.to_thread(lambda most: list(deque(reader.read(), maxlen=most)), keep):
                yield line
            keep = MAX_TAIL
            if last_round:
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _POLL_SECONDS)
        for line in reader.flush():
            yield line
    finally:
        reader.close()


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines that end in a newline; the position stays before one that is still being written."""
    while True:
        position = file.tell()
        raw = file.readline(2 * MAX_LINE_BYTES)
        if not raw.endswith(b"\n"):
            if len(raw) >= 2 * MAX_LINE_BYTES:  # conmon never writes such: skip what cannot be its line
                continue
            file.seek(position)
            return
        yield raw[:-1]
