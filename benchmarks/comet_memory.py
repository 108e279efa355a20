"""`comet.memory`: what a validator's application and engine hold in memory after a million transactions.

The baseline is the same processes before the first of them. Takes a quarter of an hour on two cores.
"""

import asyncio
from collections.abc import Iterator
from typing import Final

from benchmarks.comet_transfers import STREAMS, WAITING, account_keys, genesis_state, transfers
from benchmarks.engine_lab import App, validators
from benchmarks.engine_load import await_height, offer
from benchmarks.rows import Row, load, row

TXS: Final = 1_000_000
PART: Final = 100_000  # signed and offered at a time


def run(txs: int = TXS, part: int = PART) -> Iterator[Row]:
    """One validator with the ledger, given transfers in parts."""
    keys = account_keys()
    with validators(1, App.LEDGER, genesis_state(keys)) as (validator,):
        sockets = [validator.home.rpc_socket]
        asyncio.run(await_height(sockets, 2))
        before = validator.memory_mib()
        committed = 0
        for first in range(0, txs, part):
            streams = transfers(keys, part, first=first)
            outcome = asyncio.run(offer(sockets, streams, rate=None, waiting=WAITING))
            committed += outcome.committed
        after, cpu = validator.memory_mib(), validator.cpu_seconds()
    workload = f"{committed} transfers committed by one validator, {len(keys)} accounts, {STREAMS} streams; {load()}"
    for name in sorted(after):
        baseline = f"MiB of {name} before"
        yield row("comet.memory", after[name], f"MiB of {name}", baseline, before.get(name, 0.0), workload, cpu)
