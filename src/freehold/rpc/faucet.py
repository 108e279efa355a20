"""The faucet of a local grid: an ordinary transfer of 1,000 tokens to a new account, once.

Whoever makes many keys can empty it; that is why only the minimal preset's genesis names one. One transfer at a time:
each waits for its block, so that the next nonce is read from the durable state. Spec: docs/spec/rpc.md.
"""

import asyncio
from typing import Final

from freehold.base.amounts import TOKEN
from freehold.base.errors import RefusedError, UnreachableError
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.context import read_params
from freehold.ledger.records import Account
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import VALID_HEIGHTS, Transfer, sign_tx, tx_id
from freehold.rpc.desk import Desk, TxOutcome

GIFT: Final = 1_000 * TOKEN
MAX_WAITING: Final = 32


class Faucet:
    """The faucet's key over a desk."""

    def __init__(self, key: PrivateKey, desk: Desk) -> None:
        self._key = key
        self._desk = desk
        self._turn = asyncio.Lock()
        self._waiting = 0

    @property
    def account(self) -> bytes:
        """The account that gives."""
        return self._key.public

    async def give(self, account: bytes) -> tuple[bytes, TxOutcome]:
        """Transfer the gift to an account that does not exist yet; returns when that is in a durable block.

        Returns:
            The transaction's id and outcome.

        Raises:
            RefusedError: the account exists, or the ledger refused.
            UnreachableError: too many wait for their turn.
        """
        if self._waiting >= MAX_WAITING:
            raise UnreachableError(
                "too many accounts wait for the faucet", code="busy", hint="try again in a few seconds"
            )
        self._waiting += 1
        try:
            async with self._turn:
                return await self._give(account)
        finally:
            self._waiting -= 1

    async def _give(self, account: bytes) -> tuple[bytes, TxOutcome]:
        height = self._desk.standing().height
        if self._desk.get(keys.account_key(account), height) is not None:
            raise RefusedError(
                "this account exists: the faucet gives to new accounts only, once",
                code="account_exists",
                hint="`freehold wallet balance` shows what it holds",
            )
        data = self._sign(account, height)
        id_ = tx_id(data)
        outcome = await self._desk.submit(data)
        if outcome.code == Code.OK:
            outcome = await self._desk.wait_committed(id_)
            await self._desk.wait_height(outcome.height + 1)  # so that the client's next read proves it
        if outcome.code != Code.OK:
            raise RefusedError(
                f"the ledger refused the faucet's transfer, code {outcome.code}",
                code="faucet_refused",
                hint="the faucet may be empty; ask the grid's operator",
            )
        return id_, outcome

    def _sign(self, account: bytes, height: int) -> bytes:
        params_bytes = self._desk.get(keys.PARAMS, height)
        record = self._desk.get(keys.account_key(self.account), height)
        if params_bytes is None or record is None:
            raise RefusedError("the faucet's account is not on this ledger", code="no_faucet")
        params, preset = read_params(params_bytes)
        nonce = decode_record(record, Account).nonce
        body = Transfer(account, GIFT)
        return sign_tx(params.chain_id, self._key, nonce, preset.min_fee, height + VALID_HEIGHTS, body)
