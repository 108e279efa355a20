"""`agent.idle`: CPU and memory of agents of a mainnet-preset grid that have nothing to do, beside a bare endpoint.

The baseline is a process that only holds an open p2p endpoint: what the transport alone costs. Duties and reports of
an hour's epoch fall into the time as they do in life.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Row, load, row
from freehold.grid import lifecycle
from freehold.grid.processes import daemon_pid

NODES = 4
SETTLE_S = 20.0
BARE = """
import asyncio
from freehold.transport.iroh_endpoint import Endpoint
async def hold():
    endpoint = await Endpoint.create(bytes(31) + b"1", ["127.0.0.1:0"], [])
    print("open", flush=True)
    await asyncio.Event().wait()
asyncio.run(hold())
"""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def run(minutes: float = 10.0, nodes: int = NODES, preset: str = "mainnet") -> Iterator[Row]:
    """Watch idle agents for some minutes; the figures are their means. Needs root."""
    with subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE) as bare:
        try:
            if bare.stdout is not None:
                bare.stdout.readline()
            with tempfile.TemporaryDirectory(prefix="freehold-bench-") as folder:
                yield from _watch(Path(folder) / "grid", minutes * 60, nodes, preset, bare.pid)
        finally:
            bare.kill()


def _watch(home: Path, seconds: float, nodes: int, preset: str, bare: int) -> Iterator[Row]:
    try:
        layout = lifecycle.up(home, nodes=nodes, farms=nodes, preset=preset, say=_quiet)
        time.sleep(SETTLE_S)  # what is measured is a span of time, not an event
        pids = [bare, daemon_pid(layout.ledger_home), *(daemon_pid(node.home) for node in layout.nodes)]
        before, began = [_cpu(pid) for pid in pids], time.monotonic()
        time.sleep(seconds)
        span = time.monotonic() - began
        spent = [_cpu(pid) - first for pid, first in zip(pids, before, strict=True)]
        memory = [_rss_mib(pid) for pid in pids]
    finally:
        lifecycle.down(home, say=_quiet)
    percent = [value / span * 100 for value in spent]
    workload = (
        f"mean of {nodes} agents without leases, {preset} preset, one node a namespace, {span:.0f} s; "
        f"the ledger's process beside them: {percent[1]:.2f} % and {memory[1]:.0f} MiB; {load()}"
    )
    cpu_s = sum(spent[2:])
    for unit, values, least in (("% of a core", percent, 1 / _TICKS / span * 100), ("MiB resident", memory, 0.0)):
        mean = sum(values[2:]) / nodes
        baseline = f"{unit} of a process that only holds an open endpoint"
        yield row("agent.idle", mean, unit, baseline, max(values[0], least), workload, cpu_s)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / (1 << 20)


def _quiet(line: str) -> None:
    del line
