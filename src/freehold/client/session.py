"""A person's view of the ledger: verified reads and signed transactions with the right nonce."""

import sys

from freehold.client.home import Home
from freehold.client.wallet import Wallet
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.genesis import parse_preset
from freehold.ledger.keys import account_key
from freehold.ledger.records import Account
from freehold.ledger.transactions import VALID_HEIGHTS, Body, sign_tx
from freehold.light.trust import Trust
from freehold.lightclient.client import LedgerClient, Outcome
from freehold.lightclient.trust_store import TrustStore


class Session:
    """A ledger client with the home's genesis, and a wallet when one is needed."""

    def __init__(self, home: Home, wallet: Wallet | None = None, trust: Trust | None = None) -> None:
        """Bind the parts; nothing is asked yet.

        Args:
            home: names the genesis and the server.
            wallet: when something is signed or opened.
            trust: where trust begins; None for what the home says.

        Raises:
            InvalidInputError: the home's genesis, settings or remembered light block are damaged.
        """
        self.home = home
        self.wallet = wallet
        genesis, trust = home.genesis(), home.trust() if trust is None else trust
        store = TrustStore(home.trust_folder, genesis, trust)
        self.ledger = LedgerClient(home.settings().rpc, genesis, trust=trust, store=store, doubt=_note)
        state = self.ledger.genesis.app_state
        self.preset = parse_preset(state["preset"], state["values"])

    async def close(self) -> None:
        """Close the connections."""
        await self.ledger.close()

    async def account(self, account: bytes) -> Account | None:
        """The verified account record."""
        snapshot = await self.ledger.read([account_key(account)])
        return snapshot.get(account_key(account), Account)

    async def next_nonce(self, account: bytes) -> int:
        """The nonce for the account's next transaction."""
        record = await self.account(account)
        return record.nonce if record else 0

    async def submit(self, sender: PrivateKey, body: Body, *, nonce: int | None = None) -> Outcome:
        """Sign and send; returns when the transaction is in a durable block.

        Raises:
            RefusedError: the ledger refused it.
            UnreachableError: no answer in time.
        """
        header = await self.ledger.refresh()
        if nonce is None:
            nonce = await self.next_nonce(sender.public)
        until = header.height + VALID_HEIGHTS
        data = sign_tx(self.ledger.chain_id, sender, nonce, self.preset.min_fee, until, body)
        return await self.ledger.submit(data)


def _note(words: str) -> None:
    print(f"note: {words}", file=sys.stderr, flush=True)
