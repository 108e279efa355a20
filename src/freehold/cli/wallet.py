"""`freehold wallet`: keys, balance, transfers."""

import asyncio
from pathlib import Path

from cyclopts import App

from freehold.base.amounts import format_amount, parse_amount
from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.cli.output import Json, Result, say
from freehold.client import wallet as wallets
from freehold.client.home import Home
from freehold.client.session import Session
from freehold.crypto.strkey import decode_account, encode_account
from freehold.ledger.transactions import Transfer

app = App(name="wallet", help="Make a wallet, see its balance, send tokens.")


@app.command
def new(*, words_file: Path | None = None, json: Json = False) -> Result:
    """Make a wallet: 24 words from which all keys follow, kept encrypted under a passphrase.

    Where the grid has a faucet (local grids do), the new account gets 1,000 tokens by an ordinary transfer, once.

    Parameters
    ----------
    words_file
        Restore from the words in this file instead of making new ones.
    json
        One JSON document on stdout (it holds the words of a new wallet: handle with care).
    """
    home = Home.default()
    given = None
    if words_file is not None:
        try:
            given = words_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"cannot read {words_file}: {error}", code="no_words") from None
    wallet, words = wallets.create(home, wallets.read_passphrase(confirm=True), given)
    funded, note = asyncio.run(_fund(home, wallet))
    document = {"account": wallet.address, "wallet": str(home.wallet_path), "funded": format_amount(funded)}
    lines = [f"account  {wallet.address}", f"wallet   {home.wallet_path}"]
    if given is None:
        document["words"] = words
        lines += ["words    write these down; they are everything, and are shown only now:", "", f"  {words}", ""]
    lines.append(f"balance  {format_amount(funded)} tokens from the faucet" if funded else f"balance  0 ({note})")
    return Result(document, "\n".join(lines))


@app.command
def show(*, json: Json = False) -> Result:
    """Show the wallet's account id and where its file lies; needs no passphrase."""
    home = Home.default()
    account = wallets.address(home)
    return Result(
        {"account": account, "wallet": str(home.wallet_path)}, f"account  {account}\nwallet   {home.wallet_path}"
    )


@app.command
def balance(account: str | None = None, /, *, json: Json = False) -> Result:
    """Show a balance, verified against the ledger's signed headers.

    Parameters
    ----------
    account
        An account id (G...); the wallet's own when left out.
    """
    home = Home.default()
    name = account or wallets.address(home)
    return asyncio.run(_balance(home, name))


@app.command
def send(to: str, amount: str, /, *, json: Json = False) -> Result:
    """Send tokens to an account; costs the fee of one transaction.

    Parameters
    ----------
    to
        The receiving account id (G...).
    amount
        Tokens, such as 12.5.
    """
    home = Home.default()
    receiver, units = decode_account(to), parse_amount(amount)
    if units == 0:
        raise InvalidInputError("the amount is zero", code="bad_amount")
    opened = wallets.open_wallet(home, wallets.read_passphrase())
    return asyncio.run(_send(home, opened, receiver, units))


async def _fund(home: Home, wallet: wallets.Wallet) -> tuple[int, str]:
    """Ask the faucet, when genesis names one; a wallet is whole without it."""
    try:
        session = Session(home)
    except FreeholdError as error:
        return 0, f"no grid yet: {error.message}"
    try:
        if not session.ledger.genesis.app_state.get("faucet"):
            return 0, "this grid has no faucet"
        await session.ledger.ask_faucet(wallet.address)
        record = await session.account(wallet.id)
        return (record.balance, "") if record else (0, "the faucet's transfer is not visible yet")
    except FreeholdError as error:
        say(f"note: the faucet did not answer: {error.message}")
        return 0, "faucet not reached"
    finally:
        await session.close()


async def _balance(home: Home, name: str) -> Result:
    session = Session(home)
    try:
        record = await session.account(decode_account(name))
        header = await session.ledger.refresh()
    finally:
        await session.close()
    held = record.balance if record else 0
    free = held - (record.reserved if record else 0)
    document = {
        "account": name,
        "balance": format_amount(held),
        "spendable": format_amount(free),
        "exists": record is not None,
        "height": header.height,
    }
    return Result(document, f"{format_amount(held)} tokens ({format_amount(free)} spendable) at height {header.height}")


async def _send(home: Home, wallet: wallets.Wallet, receiver: bytes, units: int) -> Result:
    session = Session(home, wallet)
    try:
        outcome = await session.submit(wallet.account, Transfer(receiver, units))
    finally:
        await session.close()
    to = encode_account(receiver)
    document = {"tx": outcome.tx_id.hex(), "height": outcome.height, "to": to, "amount": format_amount(units)}
    return Result(document, f"sent {format_amount(units)} tokens to {to} at height {outcome.height}")
