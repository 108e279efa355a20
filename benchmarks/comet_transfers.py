"""`comet.transfers`: transfers through real CometBFT validators, beside CometBFT's own kvstore in the same run.

The same load tool, size of transactions, configuration and number of validators; each application in turn. Rate and
latency are taken apart: the rate with as many waiting as the window allows, the latency at a quarter of our rate.
"""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.engine_lab import CHAIN, App, Validator, validators
from benchmarks.engine_load import Outcome, await_height, offer
from benchmarks.rows import Row, load, row
from freehold.base.amounts import TOKEN
from freehold.base.codec import encode
from freehold.base.presets import MINIMAL
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.ledger.genesis import app_state_document
from freehold.ledger.transactions import TX_VERSION, Transfer, Tx, tx_signing_bytes

TXS: Final = 20_000
STREAMS: Final = 8
SENDERS_PER_STREAM: Final = 100
WAITING: Final = 4_000
VALID_UNTIL: Final = 9_000
LATENCY_TXS: Final = 2_000


def run(counts: Sequence[int] = (1, 4), txs: int = TXS) -> Iterator[Row]:
    """Rates and latencies with each number of validators."""
    for count in counts:
        yield from _compare(count, txs)


def _compare(count: int, txs: int) -> Iterator[Row]:
    keys = account_keys()
    state = genesis_state(keys)
    slow_txs = min(LATENCY_TXS, txs)
    signed = transfers(keys, txs + slow_txs)
    size = len(signed[0][-1])
    words = _key_values(size, txs + slow_txs)
    ours = _measure(count, App.LEDGER, state, signed, txs, None)
    base = _measure(count, App.SOCKET_KVSTORE, state, words, txs, ours.slow_rate)
    inner = _measure(count, App.INNER_KVSTORE, state, words, txs, ours.slow_rate)
    cpu_us = {shown.app: round(shown.cpu_s / txs * 1e6) for shown in (ours, base, inner)}
    told = f"CPU us a transaction of all validators: {', '.join(f'{value} {app}' for app, value in cpu_us.items())}"
    for other in (base, inner):
        workload = (
            f"{txs} transfers of {size} bytes from {len(keys)} accounts, {count} validators on loopback, window "
            f"{WAITING}, blocks {ours.fast.blocks} and {other.fast.blocks}, refused {ours.fast.refused} and "
            f"{other.fast.refused}; {told}; {load()}"
        )
        rate, baseline = ours.fast.rate, f"{other.app}, committed/s"
        yield row(f"comet.transfers.{count}", rate, "committed/s", baseline, other.fast.rate, workload, ours.cpu_s)
        for percent in (50, 99):
            yield row(
                f"comet.latency.{count}",
                ours.slow.percentile(percent) * 1_000,
                f"ms p{percent}",
                f"{other.app}, ms p{percent}",
                other.slow.percentile(percent) * 1_000,
                f"{ours.slow.committed} and {other.slow.committed} transactions at {ours.slow_rate:.0f}/s, {count} "
                f"validators; {load()}",
                ours.cpu_s,
            )


@dataclass
class _Shown:
    """What one application showed: as fast as it goes, with the validators' CPU time, and at a given rate."""

    app: App
    fast: Outcome
    cpu_s: float
    slow: Outcome
    slow_rate: float


def _measure(
    count: int, app: App, state: dict[str, Any], streams: list[list[bytes]], txs: int, rate: float | None
) -> _Shown:
    """Run one application: as fast as it goes, then at a rate (a quarter of its own when None)."""
    each = txs // STREAMS
    with validators(count, app, state) as running:
        sockets = [validator.home.rpc_socket for validator in running]
        before = _cpu(running)
        fast = asyncio.run(_offer(sockets, [stream[:each] for stream in streams], None))
        cpu = _cpu(running) - before
        rate = rate or fast.rate / 4
        slow = asyncio.run(_offer(sockets, [stream[each:] for stream in streams], rate))
    sys.stderr.write(f"  {app}, {count} validators: {fast.rate:.0f}/s\n")
    return _Shown(app, fast, cpu, slow, rate)


async def _offer(sockets: list[Path], streams: list[list[bytes]], rate: float | None) -> Outcome:
    await await_height(sockets, 2)
    return await offer(sockets, streams, rate=rate, waiting=WAITING)


def _cpu(running: list[Validator]) -> float:
    return sum(validator.cpu_seconds() for validator in running)


def account_keys() -> list[PrivateKey]:
    """The senders."""
    count = STREAMS * SENDERS_PER_STREAM
    return [PrivateKey.from_seed(sha256(b"sender" + index.to_bytes(4, "big"))) for index in range(count)]


def genesis_state(keys: list[PrivateKey]) -> dict[str, Any]:
    """A ledger in which each of them has tokens."""
    return app_state_document(MINIMAL, [], [], accounts={key.public: 100 * TOKEN for key in keys})


def transfers(keys: list[PrivateKey], count: int, *, first: int = 0) -> list[list[bytes]]:
    """Signed transfers in streams; each sender's nonces lie in one stream, in order.

    Args:
        keys: of `account_keys`.
        count: of all streams.
        first: how many were made before.
    """
    streams = []
    for number in range(STREAMS):
        own = keys[number * SENDERS_PER_STREAM : (number + 1) * SENDERS_PER_STREAM]
        stream = []
        for index in range(first // STREAMS, (first + count) // STREAMS):
            nonce, place = divmod(index, SENDERS_PER_STREAM)
            stream.append(_transfer(own[place], keys[index % len(keys)].public, nonce))
        streams.append(stream)
    return streams


def _transfer(sender: PrivateKey, to: bytes, nonce: int) -> bytes:
    unsigned = Tx(TX_VERSION, CHAIN, sender.public, nonce, MINIMAL.min_fee, VALID_UNTIL, Transfer(to, 1_000), [])
    signature = sender.sign(tx_signing_bytes(unsigned))
    signed = [(sender.public, signature)]
    return encode(Tx(TX_VERSION, CHAIN, sender.public, nonce, MINIMAL.min_fee, VALID_UNTIL, unsigned.body, signed))


def _key_values(size: int, count: int) -> list[list[bytes]]:
    """Transactions of the kvstore, `key=value`, of the same size, in as many streams."""
    streams = []
    for number in range(STREAMS):
        heads = (b"%d-%d=" % (number, index) for index in range(count // STREAMS))
        streams.append([head + b"v" * (size - len(head)) for head in heads])
    return streams
