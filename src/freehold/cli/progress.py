"""Progress of long work on stderr: live lines on a terminal, one line per step elsewhere."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from freehold.cli.output import plain, say, use_colour
from freehold.client import deploying


class ProgressView:
    """Shows `deploying.Progress` events; use it in `with`."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True, no_color=not use_colour()),
            transient=True,
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def tell(self, event: deploying.Progress) -> None:
        """Take in an event."""
        if event.total_bytes and event.done_bytes < event.total_bytes:
            if self._live:
                if event.subject not in self._tasks:
                    self._tasks[event.subject] = self._progress.add_task(event.subject, total=event.total_bytes)
                self._progress.update(self._tasks[event.subject], completed=event.done_bytes)
            return
        if event.subject in self._tasks:
            self._progress.remove_task(self._tasks.pop(event.subject))
        if self._live:
            line = plain(f"{event.subject}: {event.what}")
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            say(f"{event.subject}: {event.what}")
