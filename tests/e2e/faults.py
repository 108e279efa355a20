"""What fault tests share: a deployment that ticks, eyes outside the nodes, and spans read from their term logs."""

import os
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from local_grid import LocalGrid

# Prints a number ten times a second and serves: a gap in the numbers is a gap in the log or in the process.
TICKER = (
    "import threading, time, sys, runpy\n"
    "def tick():\n"
    "    n = 0\n"
    "    while True:\n"
    "        print('tick', n, flush=True); n += 1; time.sleep(0.1)\n"
    "threading.Thread(target=tick, daemon=True).start()\n"
    "sys.argv = ['serve.py']\n"
    "runpy.run_path('/srv/serve.py', run_name='__main__')\n"
)


def ticker_service(name: str, marker: str, standbys: int) -> str:
    """A service that ticks; `marker` stands in its command line, to be found from outside."""
    program = TICKER.replace("\n", "\\n")
    return (
        f"  {name}:\n"
        '    image: "test-image:1"\n'
        f'    command: ["/bin/python3", "-ISc", "{program}", "{marker}"]\n'
        '    ports: ["8080"]\n'
        "    restart: always\n"
        f"    x-freehold: {{standbys: {standbys}, probe: {{http: /healthz, port: 8080}}}}\n"
    )


def seed_of(name: str) -> random.Random:
    """A logged seed: `FREEHOLD_SEED` repeats a run."""
    seed = int(os.environ.get("FREEHOLD_SEED") or time.time_ns() % 1_000_000)
    print(f"{name}: seed {seed}")
    return random.Random(seed)


def boottime_ms() -> int:
    """The clock of the term logs."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


@dataclass(frozen=True)
class Span:
    """Between a start and an end of a lease's container on one node, in ms of boot time."""

    node: str
    term: int
    start_ms: int
    end_ms: int


def spans_of(grid: LocalGrid, lease: str) -> list[Span]:
    """All spans of a lease over all nodes, by start; one that still runs ends now."""
    found = []
    for node in grid.node_status():
        open_since: tuple[int, int] | None = None
        for line in grid.term_log(node):
            if line["container"] != lease:
                continue
            if line["event"] == "started":
                open_since = (line["boottime_ms"], line["term"])
            elif open_since is not None:
                found.append(Span(node, open_since[1], open_since[0], line["boottime_ms"]))
                open_since = None
        if open_since is not None:
            found.append(Span(node, open_since[1], open_since[0], boottime_ms()))
    return sorted(found, key=lambda span: span.start_ms)


def overlaps(spans: list[Span]) -> list[tuple[Span, Span]]:
    """Pairs of spans of different nodes that touch."""
    return [
        (one, other)
        for index, one in enumerate(spans)
        for other in spans[index + 1 :]
        if one.node != other.node and other.start_ms < one.end_ms and one.start_ms < other.end_ms
    ]


@dataclass
class Eyes:
    """Looks at the machine's processes from outside, many times a second: how many carry the marker at once."""

    marker: str
    most: int = 0
    looks: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.03):
            self.most = max(self.most, len(carriers(self.marker)))
            self.looks += 1


def carriers(marker: str) -> list[int]:
    """Pids of processes in which the container's own program runs: the marker is their last argument."""
    wanted = marker.encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            arguments = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except OSError:
            continue
        if arguments[-1] == wanted and arguments[0].endswith(b"python3"):
            found.append(int(folder.name))
    return found


def ticks(lines: list[str]) -> list[int]:
    """The numbers that were ticked."""
    return [int(line.split()[1]) for line in lines if line.startswith("tick ")]


def statement(row: dict[str, Any]) -> str:
    """A service's row in few words, for a failure's message."""
    return f"{row['service']} {row['status']} {row['state']} term {row['term']}"
