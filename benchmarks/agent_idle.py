"""`agent.idle.memory`, `agent.idle.cpu`: agents of a mainnet-preset grid that have nothing to do, beside a bare endpoint.

The baseline is a process that only holds an open p2p endpoint: what the transport alone costs. Duties and reports of
an hour's epoch fall into the time as they do in life.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, row
from freehold.grid import lifecycle
from freehold.grid.processes import daemon_pid

NODES = 4
SETTLE_S = 20
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


def run(minutes: float = 10.0) -> list[Row]:
    """Watch idle agents for some minutes; the figure is their mean."""
    bare = subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE)
    try:
        if bare.stdout is not None:
            bare.stdout.readline()
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "grid"
            layout = lifecycle.up(home, nodes=NODES, farms=NODES, preset="mainnet", say=_quiet)
            try:
                time.sleep(SETTLE_S)  # what is measured is a span of time, not an event
                pids = [daemon_pid(node.home) for node in layout.nodes]
                before, bare_before, began = [_cpu(pid) for pid in pids], _cpu(bare.pid), time.monotonic()
                time.sleep(minutes * 60)
                span = time.monotonic() - began
                spent = [_cpu(pid) - first for pid, first in zip(pids, before, strict=True)]
                memory = [_rss_mib(pid) for pid in pids]
                bare_spent, bare_memory = _cpu(bare.pid) - bare_before, _rss_mib(bare.pid)
            finally:
                lifecycle.down(home, say=_quiet)
    finally:
        bare.kill()
        bare.wait()
    percent, bare_percent = sum(spent) / len(spent) / span * 100, max(bare_spent / span * 100, 1e-3)
    workload = f"{NODES} agents without leases, mainnet preset, {span:.0f} s, mean of the agents"
    return [
        row(
            "agent.idle.cpu",
            percent,
            "% of a core",
            "% of a core of a process with an open endpoint alone",
            bare_percent,
            workload,
            sum(spent),
        ),
        row(
            "agent.idle.memory",
            sum(memory) / len(memory),
            "MiB resident",
            "MiB resident of a process with an open endpoint alone",
            bare_memory,
            workload,
            sum(spent),
        ),
    ]


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / (1 << 20)


def _quiet(line: str) -> None:
    del line
