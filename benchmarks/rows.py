"""A row of results, and how time is taken: wall and CPU of this process and its waited-for children."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec


class Row(msgspec.Struct, frozen=True):
    """One figure. `ratio` = value / baseline_value; its meaning is in `unit` and `baseline`."""

    name: str
    value: float
    unit: str
    baseline: str
    baseline_value: float
    ratio: float
    workload: str
    cpu_seconds: float
    cores: int


def row(name: str, value: float, unit: str, baseline: str, baseline_value: float, workload: str, cpu_s: float) -> Row:
    """Make a row."""
    ratio = value / baseline_value if baseline_value else 0.0
    cores = len(os.sched_getaffinity(0))
    return Row(name, value, unit, baseline, baseline_value, ratio, workload, cpu_s, cores)


@dataclass
class Spent:
    """Seconds spent in a `measured` block."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def measured(spent: Spent | None = None) -> Iterator[Spent]:
    """Measure a block; into a `Spent` that is given, to add up pieces of two things done in turn.

    In turn, because what else the machine does then falls on both alike.
    """
    spent = spent or Spent()
    cpu, wall = _cpu(), time.perf_counter()
    try:
        yield spent
    finally:
        spent.wall_s += time.perf_counter() - wall
        spent.cpu_s += _cpu() - cpu


@contextmanager
def one_core() -> Iterator[None]:
    """Run a block on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def by_cpu(count: int, spent: Spent, baseline: Spent) -> str:
    """Say how a comparison of two blocks, which did `count` things each, looks in CPU time, and what else ran.

    Rows hold what the wall clock says, which is right on an idle machine; beside other work only this is.
    """
    ratio = baseline.cpu_s / spent.cpu_s
    return f"by CPU time {count / spent.cpu_s:.0f}/s and {count / baseline.cpu_s:.0f}/s, ratio {ratio:.3f}; {load()}"


def load() -> str:
    """Say how busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
