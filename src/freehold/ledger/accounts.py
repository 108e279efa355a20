"""Accounts: transfers and signers; the only place where balances move.

Invariant: a balance never falls below what is reserved for the account's own record.
"""

from freehold.base.amounts import MAX_AMOUNT
from freehold.base.errors import check
from freehold.base.limits import ID_BYTES, MAX_SIGNERS
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.events import Transferred
from freehold.ledger.fields import MAX_SIGNER_WEIGHT, is_ascending
from freehold.ledger.records import ACCOUNT_VERSION, Account
from freehold.ledger.transactions import SetSigners, Transfer, Tx


def spendable(account: Account) -> int:
    """Give what an account may spend: its balance without the deposit for its own record."""
    return account.balance - account.reserved


def with_balance(account: Account, balance: int) -> Account:
    """Give the account with another balance."""
    return Account(account.version, balance, account.nonce, account.reserved, account.threshold, account.signers)


def debit(ctx: Context, account_id: bytes, amount: int) -> Code:
    """Take an amount from a sender's account, or refuse."""
    key = keys.account_key(account_id)
    account = ctx.state.need(key, Account)
    if amount > account.balance - account.reserved:
        return Code.INSUFFICIENT_BALANCE
    ctx.state.put(key, with_balance(account, account.balance - amount))
    return Code.OK


def credit(ctx: Context, account_id: bytes, amount: int) -> None:
    """Give an amount to an account that exists.

    Raises:
        InvariantError: it does not: only ids that own a record are credited by rules.
    """
    if not amount:
        return
    key = keys.account_key(account_id)
    account = ctx.state.need(key, Account)
    check(amount > 0 and account.balance + amount <= MAX_AMOUNT, "credit_in_range", amount=amount)
    ctx.state.put(key, with_balance(account, account.balance + amount))


def receive(ctx: Context, account_id: bytes, amount: int) -> Code:
    """Give an amount to an id of a person's choice; an unknown id becomes an account and keeps its deposit aside."""
    key = keys.account_key(account_id)
    account = ctx.state.get(key, Account)
    if account is not None:
        ctx.state.put(key, with_balance(account, account.balance + amount))
        return Code.OK
    deposit = ctx.preset.record_deposit
    if amount < deposit:
        return Code.BAD_AMOUNT
    ctx.state.put(key, Account(ACCOUNT_VERSION, amount, 0, deposit, 0, []))
    return Code.OK


def process_transfer(ctx: Context, tx: Tx, body: Transfer) -> Code:
    """Move tokens to another account."""
    if len(body.to) != ID_BYTES:
        return Code.BAD_FIELD
    if not 1 <= body.amount <= MAX_AMOUNT:
        return Code.BAD_AMOUNT
    code = debit(ctx, tx.sender, body.amount) or receive(ctx, body.to, body.amount)
    ctx.events.append(Transferred(tx.sender, body.to, body.amount))  # dropped again if it is refused
    return code


def process_set_signers(ctx: Context, tx: Tx, body: SetSigners) -> Code:
    """Replace the sender's signers; no signers and threshold 0 give the account back to its id's own key."""
    if len(body.signers) > MAX_SIGNERS:
        return Code.TOO_MANY
    if any(len(key) != ID_BYTES or not 1 <= weight <= MAX_SIGNER_WEIGHT for key, weight in body.signers):
        return Code.BAD_FIELD
    if not is_ascending([key for key, _ in body.signers]):
        return Code.NOT_SORTED
    total = sum(weight for _, weight in body.signers)
    if not (1 <= body.threshold <= total if body.signers else body.threshold == 0):
        return Code.BAD_FIELD
    key = keys.account_key(tx.sender)
    account = ctx.state.need(key, Account)
    ctx.state.put(
        key,
        Account(account.version, account.balance, account.nonce, account.reserved, body.threshold, body.signers),
    )
    return Code.OK
