"""What a node found out about transactions and need not find out again.

A transaction's decoded form and whether its signatures are good follow from its bytes alone. A node that checked one
for its mempool therefore neither decodes nor verifies it again when it is rechecked, proposed or executed; what the
state decides is asked every time. Nothing here comes from another node. Bounded in count and bytes, the oldest
forgotten first; safe on any thread.
"""

from collections import OrderedDict
from threading import Lock
from typing import Final

from freehold.base.limits import MAX_BLOCK_TXS, MAX_MEMPOOL_BYTES, MAX_MEMPOOL_TXS
from freehold.crypto import ed25519
from freehold.crypto.hashing import sha256
from freehold.ledger.transactions import Tx

MAX_KNOWN_TXS: Final = MAX_MEMPOOL_TXS + MAX_BLOCK_TXS
MAX_SIGNATURES: Final = 16_384


class KnownTxs:
    """Transactions by their bytes, each with valid signatures of all who signed."""

    def __init__(self, *, max_txs: int = MAX_KNOWN_TXS, max_bytes: int = MAX_MEMPOOL_BYTES) -> None:
        self._max_txs = max_txs
        self._max_bytes = max_bytes
        self._txs: OrderedDict[bytes, Tx] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._txs)

    def find(self, data: bytes) -> Tx | None:
        """Give a transaction that is known."""
        return self._txs.get(data)

    def keep(self, data: bytes, tx: Tx) -> None:
        """Remember a transaction whose signatures were all found good by `verify_strict`."""
        with self._lock:
            if data in self._txs:
                return
            self._txs[data] = tx
            self._bytes += len(data)
            while len(self._txs) > self._max_txs or self._bytes > self._max_bytes:
                gone, _ = self._txs.popitem(last=False)
                self._bytes -= len(gone)

    def forget(self, txs: list[bytes]) -> None:
        """Forget what is in a durable block."""
        with self._lock:
            for data in txs:
                if self._txs.pop(data, None) is not None:
                    self._bytes -= len(data)


class VerifiedSignatures:
    """Single signatures that were found good, also those that stand within a transaction's body.

    Both rules of verification agree on what is remembered, because whatever `verify_strict` accepts, `verify` (ZIP-215,
    the rule of consensus) accepts too.
    """

    def __init__(self, capacity: int = MAX_SIGNATURES) -> None:
        self._capacity = capacity
        self._known: OrderedDict[tuple[bytes, bytes, bytes], None] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._known)

    def verify_new(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Verify a signature from outside, strictly, and remember it if it is good."""
        key = (public, sha256(message), signature)
        if key in self._known:
            return True
        if not ed25519.verify_strict(public, message, signature):
            return False
        with self._lock:
            self._known[key] = None
            while len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return True

    def verify_decided(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Verify a signature in a block by the rule of consensus, unless it is remembered."""
        return (public, sha256(message), signature) in self._known or ed25519.verify(public, message, signature)
