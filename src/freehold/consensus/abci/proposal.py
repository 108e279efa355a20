"""Which of the engine's waiting transactions go into a block, and in which order.

CometBFT's mempool is a plain queue. The proposer's application orders what it is offered by the rules of the embedded
engine's mempool: lanes with reserved room, fees across senders, nonces within one. What is refused, doubled, out of
its time, or without its predecessor is left out.
"""

from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final

from freehold.base.limits import MAX_BLOCK_TXS, MAX_TX_BYTES
from freehold.consensus.application import OK, CheckTxResponse
from freehold.consensus.errors import MempoolFullError
from freehold.consensus.mempool import Mempool

OWN_TX_ROOM_BYTES: Final = 256  # for the transaction that the application itself puts first


def choose(
    txs: Iterable[bytes],
    check: Callable[[bytes], CheckTxResponse],
    *,
    height: int,
    max_tx_bytes: int,
    extension_bytes: int = 0,
) -> tuple[bytes, ...]:
    """Choose the transactions of a block.

    Args:
        txs: what the engine offers, in the order of arrival.
        check: says whether a transaction may be included now.
        height: of the block.
        max_tx_bytes: of all its transactions as the engine counts them, each with tag and length.
        extension_bytes: of the last votes' extensions, all of which the application's own transaction may hold.
    """
    pool = Mempool()
    for tx in txs:
        if len(tx) > MAX_TX_BYTES:
            continue
        answer = check(tx)
        if answer.code != OK:
            continue
        try:
            pool.add(sha256(tx).digest(), tx, answer, height - 1)
        except MempoolFullError:
            continue  # it offers less than another with its nonce, or cannot follow
    room = max_tx_bytes - OWN_TX_ROOM_BYTES - extension_bytes
    return tuple(entry.tx for entry in pool.select(height, max_txs=MAX_BLOCK_TXS, max_bytes=room))
