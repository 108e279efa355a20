"""`comet.memory`: what a validator's application and engine hold in memory, and what each further transaction adds.

The baseline is the same processes before the first transaction. Memory is taken at marks on the way, told as they are
reached; the slope is that of the straight line through the marks of the second half, where start-up and the first fill
of bounded buffers are over.
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.comet_transfers import STREAMS, WAITING, account_keys, genesis_state, transfers
from benchmarks.engine_lab import App, Validator, validators
from benchmarks.engine_load import await_height, offer
from benchmarks.rows import Row, load, row

MILLION: Final = (10_000, 100_000, 250_000, 500_000, 750_000, 1_000_000)
FEWER: Final = (10_000, 20_000, 40_000, 60_000, 80_000, 100_000)
PART: Final = 50_000  # signed and offered at a time
MIB: Final = 1 << 20

Mark = tuple[int, dict[str, float]]  # transactions committed, and MiB of each process by name


def run(marks: Sequence[int] = FEWER) -> Iterator[Row]:
    """One validator with the ledger, given transfers up to each mark."""
    keys = account_keys()
    with validators(1, App.LEDGER, genesis_state(keys)) as (validator,):
        sockets = [validator.home.rpc_socket]
        asyncio.run(await_height(sockets, 2))
        taken: list[Mark] = [(0, validator.memory_mib())]
        began, offered, committed = time.monotonic(), 0, 0
        size = 0
        for mark in marks:
            while offered < mark:
                count = min(PART, mark - offered)
                streams = transfers(keys, count, first=offered)
                size = len(streams[0][-1])
                committed += asyncio.run(offer(sockets, streams, rate=None, waiting=WAITING)).committed
                offered += count
                _tell(validator, committed, marks[-1], began)
            taken.append((committed, validator.memory_mib()))
        cpu = validator.cpu_seconds()
    span = time.monotonic() - began
    for name in sorted(taken[-1][1]):
        told = ", ".join(f"{count}: {memory.get(name, 0.0):.0f}" for count, memory in taken)
        workload = (
            f"{committed} of {offered} transfers committed by one validator in {span:.0f} s, signing included, "
            f"{len(keys)} accounts, {STREAMS} streams; MiB by transactions: {told}; {load()}"
        )
        before, after = taken[0][1].get(name, 0.0), taken[-1][1][name]
        yield row("comet.memory", after, f"MiB of {name}", f"MiB of {name} before", before, workload, cpu)
        slope = _slope([(count, memory.get(name, 0.0) * MIB) for count, memory in taken[len(taken) // 2 :]])
        unit = f"bytes of {name} a further transaction"
        yield row("comet.memory", slope, unit, "bytes of a transaction", size, workload, cpu)


def _tell(validator: Validator, committed: int, aim: int, began: float) -> None:
    span = time.monotonic() - began
    memory = ", ".join(f"{value:.0f} MiB {name}" for name, value in sorted(validator.memory_mib().items()))
    left = span / committed * (aim - committed) if committed else 0.0
    sys.stderr.write(f"  {committed} of {aim}, {committed / span:.0f}/s, {left:.0f} s to go; {memory}\n")
    sys.stderr.flush()


def _slope(points: Sequence[tuple[int, float]]) -> float:
    """Give the slope of the line of least squares; 0 for fewer than two places."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
