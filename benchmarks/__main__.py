"""`python -m benchmarks [NAME ...] [--quick]`: runs the benchmarks, prints a table, writes results/latest.json.

Rows of one name differ in workload or unit. How to read them: docs/performance.md. Named ones alone leave latest.json
as it is and write results/named.json. At the end it says how long each took.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from benchmarks import (
    agent_idle,
    comet_memory,
    comet_transfers,
    history_index,
    lease_start,
    ledger_bytes,
    ledger_transfers,
    light_hop,
    state_sync,
    state_tree,
)
from benchmarks.rows import Row

RESULTS = Path(__file__).parent / "results"
Run = Callable[[], Iterable[Row]]
FULL: dict[str, Run] = {
    "ledger.transfers": ledger_transfers.run,
    "state": state_tree.run,
    "sync": state_sync.run,
    "light.hop": light_hop.run,
    "index": history_index.run,
    "lease.start": lease_start.run,
    "comet.transfers": comet_transfers.run,
    "comet.memory": comet_memory.run,
    "ledger.bytes": ledger_bytes.run,
    "agent.idle": agent_idle.run,
}
# Too long for a part of the whole: run by name, `make bench-memory`.
ALONE: dict[str, Run] = {"comet.memory.million": lambda: comet_memory.run(comet_memory.MILLION)}
QUICK: dict[str, Run] = {
    **FULL,
    "ledger.transfers": lambda: ledger_transfers.run(accounts=10_000, blocks=5),
    "state": lambda: state_tree.run((10_000,)),
    "sync": lambda: state_sync.run(50_000),
    "index": lambda: history_index.run(5),
    "light.hop": lambda: light_hop.run(signatures=1_000),
    "lease.start": lambda: lease_start.run(rounds=5),
    "comet.transfers": lambda: comet_transfers.run((1,), 2_000),
    "comet.memory": lambda: comet_memory.run((2_000, 4_000, 8_000)),
    "comet.memory.million": lambda: comet_memory.run((2_000, 4_000, 8_000)),
    "agent.idle": lambda: agent_idle.run(minutes=0.5, nodes=2),
}


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").partition("\n")[0])
    every = FULL | ALONE
    alone = ", ".join(ALONE)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(every)}; all but {alone} when left out")
    parser.add_argument("--quick", action="store_true", help="small counts, to see that everything runs")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in every]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}; there are: {', '.join(every)}")
    table = QUICK if arguments.quick else every
    rows: list[Row] = []
    spans: dict[str, float] = {}
    for name in arguments.names or FULL:
        sys.stderr.write(f"running {name}\n")
        began = time.monotonic()
        for item in table[name]():
            rows.append(item)
            sys.stdout.write(_lines(item))
            sys.stdout.flush()
        spans[name] = time.monotonic() - began
    RESULTS.mkdir(exist_ok=True)
    results = RESULTS / ("named.json" if arguments.names else "latest.json")
    results.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
    for name, span in spans.items():
        sys.stdout.write(f"{name:<20} {span:>6.0f} s\n")
    sys.stdout.write(f"{'in all':<20} {sum(spans.values()):>6.0f} s; written to {results}\n")
    return 0


def _lines(item: Row) -> str:
    indent = " " * 20
    return (
        f"{item.name:<20} {item.value:>12.3f} {item.unit}\n"
        f"{indent} {item.baseline_value:>12.3f} {item.baseline}\n"
        f"{indent} {item.ratio:>12.3f} ratio; {item.cpu_seconds:.2f} CPU s on {item.cores} cores\n"
        f"{indent} {item.workload}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
