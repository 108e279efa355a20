"""Signs and sends this node's transactions: free ones at once, others with the node account's next nonce."""

import asyncio

from freehold.agent.chain import ChainView
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.keys import account_key
from freehold.ledger.records import Account
from freehold.ledger.transactions import FREE_BODIES, VALID_HEIGHTS, Body, sign_tx
from freehold.lightclient.client import Outcome


class Sender:
    """See the module. One at a time, so that nonces follow each other."""

    def __init__(self, chain: ChainView, key: PrivateKey) -> None:
        self._chain = chain
        self._key = key
        self._lock = asyncio.Lock()

    async def send(self, body: Body) -> Outcome:
        """Send a transaction and wait until it is in a durable block.

        Raises:
            RefusedError: the ledger refused it; the error's code is the ledger's word.
            UnreachableError: no answer in time; it may still be committed.
        """
        if isinstance(body, FREE_BODIES):
            return await self._chain.ledger.submit(self._sign(body, nonce=0, fee=0))
        async with self._lock:
            key = account_key(self._key.public)
            record = (await self._chain.ledger.read([key])).get(key, Account)
            nonce = record.nonce if record else 0
            return await self._chain.ledger.submit(self._sign(body, nonce=nonce, fee=self._chain.preset.min_fee))

    def _sign(self, body: Body, *, nonce: int, fee: int) -> bytes:
        height = self._chain.header.height if self._chain.header else 0
        return sign_tx(self._chain.ledger.chain_id, self._key, nonce, fee, height + VALID_HEIGHTS, body)
