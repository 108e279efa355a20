"""`freehold ledger join`: a home on a running chain, by one command."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from msgspec import Struct

from freehold.base.amounts import format_amount
from freehold.base.errors import InvalidInputError, RefusedError
from freehold.base.presets import ElectionPreset
from freehold.cli.output import Json, Result, say
from freehold.client.ledger_joining import Footing, check_genesis, fetch_genesis, find_footing, parse_digest
from freehold.consensus.comet.addresses import check_address, merge_peers
from freehold.consensus.comet.configuration import SIGNER_RECORD, begin_signing, held_data, remove_data
from freehold.consensus.comet.founding import check_folder, check_same_genesis, settle
from freehold.consensus.comet.operators import OperatorHome, check_name, read_card
from freehold.consensus.folder import FolderLock
from freehold.ledger.genesis_elections import read_elections
from freehold.light.genesis import MAX_GENESIS_BYTES, TrustedGenesis
from freehold.light.trust import GENESIS, GENESIS_TRUST, parse_trust
from freehold.rpc.config import parse_address

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True)]
Words = Annotated[list[str] | None, Parameter(consume_multiple=True)]


class _Plan(Struct, frozen=True):
    """What a join would do, all of it checked.

    Attributes:
        document: of genesis.
        genesis: the same, parsed.
        begins: how it has validators elected; None where its own stay.
        peers: `id@host:port` each.
        servers: of state sync; none for all blocks.
        footing: what they proved; None without them.
        destroys: what the home holds of the chain and would lose.
    """

    document: bytes
    genesis: TrustedGenesis
    begins: ElectionPreset | None
    peers: list[str]
    servers: list[str]
    footing: Footing | None
    destroys: list[str]


def join(
    *,
    home: Path,
    genesis: str = "",
    digest: str = "",
    operators: Files = None,
    peer: Words = None,
    state_sync: str = "",
    trust: str = GENESIS,
    name: str = "",
    address: str = "",
    rpc: str = "127.0.0.1:4600",
    plan: bool = False,
    force: bool = False,
    json: Json = False,
) -> Result:
    """Set up a home for a chain that runs: its keys, genesis, peers, and from where it begins.

    The home follows the chain as a full node and serves reads; it votes once its bond is elected.

    Parameters
    ----------
    home
        The validator's folder; its keys are made when it has none.
    genesis
        The chain's document: a file, or the URL of a validator's HTTP face (with --digest). Left out where the home has
        it already.
    digest
        What the document's SHA-256 must be, from an operator whom you trust.
    operators
        The cards (operator.json) of validators, who become peers.
    peer
        Peers without a card: NODEID@HOST:PORT, one or several.
    state_sync
        HTTP faces of two running validators of different operators (http://host:port,http://host:port): begin with a
        peer's snapshot of the state instead of all blocks.
    trust
        With --state-sync: `genesis`, or HEIGHT:HASH of a header from somebody whom you trust.
    name
        A short word for people, when keys are made.
    address
        The ip:port at which peers reach it, when keys are made.
    rpc
        The ip:port at which wallets, agents and browsers ask it over HTTP.
    plan
        Only check, and show what would be done.
    force
        Let the home lose what it holds of the chain; without this that is named, and nothing is changed. Keys and the
        record of what was signed stay.
    """
    own, listen, servers = OperatorHome(home), str(parse_address(rpc)), [*filter(None, state_sync.split(","))]
    _check_folder(own, name, address)
    ready = _prepare(own, genesis, digest, operators or [], peer or [], servers, trust)
    if ready.destroys and not (plan or force):
        raise RefusedError(
            "to begin anew destroys " + "; ".join(ready.destroys),
            code="needs_force",
            hint=f"nothing was changed: add --force to do it; keys and {SIGNER_RECORD} would stay",
        )
    if not plan:
        _write(own, ready, name, address, listen, trust)
    return _result(own, ready, plan=plan)


def _check_folder(own: OperatorHome, name: str, address: str) -> None:
    if own.card_path.exists():
        own.card()
        return
    if not name or not address:
        raise InvalidInputError(
            "the home has no keys yet: say how they are called and reached",
            code="bad_usage",
            hint="add --name NAME --address IP:PORT, the address at which its peers reach it",
        )
    check_name(name)
    check_address(address)
    check_folder(own)


def _prepare(
    own: OperatorHome,
    source: str,
    digest: str,
    cards: list[Path],
    named: list[str],
    servers: list[str],
    trust: str,
) -> _Plan:
    wanted = parse_digest(digest) if digest else None
    document = _document(own, source, wanted)
    genesis = check_genesis(document, source or str(own.genesis_path), wanted)
    begins = read_elections(genesis.app_state)
    check_same_genesis(own, document)
    say(f"genesis of {genesis.chain_id}, SHA-256 {genesis.digest.hex()}")
    is_new = not own.card_path.exists()
    known = own.settings().peers if own.settings_path.exists() else []
    given = [f"{card.peer}@{card.address}" for card in map(read_card, cards)]
    peers = merge_peers(known, [*given, *named], "" if is_new else own.card().peer)
    if not peers:
        raise InvalidInputError(
            "no peer is named: the engine finds the chain's blocks nowhere",
            code="no_peers",
            hint="add --operators CARD.., or --peer NODEID@HOST:PORT; `ledger status` of a validator prints its own",
        )
    believed = parse_trust(trust)
    footing = None
    if servers:
        footing = asyncio.run(find_footing(servers, genesis, believed, say))
    elif believed != GENESIS_TRUST:
        raise InvalidInputError(
            "--trust is for --state-sync: whoever fetches all blocks believes genesis",
            code="bad_usage",
            hint="add --state-sync URL,URL, or leave --trust out",
        )
    destroys = [str(path) for path in held_data(own)] if servers else []
    return _Plan(document, genesis, begins, peers, servers, footing, destroys)


def _document(own: OperatorHome, source: str, digest: bytes | None) -> bytes:
    if "://" in source:
        say(f"asking {source} for its genesis")
        return asyncio.run(fetch_genesis(source, digest))
    hint = "give the chain's document: --genesis FILE, or --genesis URL --digest SHA256"
    return read_document(Path(source) if source else own.genesis_path, hint)


def read_document(path: Path, hint: str) -> bytes:
    """Read a genesis document, and of a longer file than it may be no more than shows that.

    Raises:
        InvalidInputError: `missing_file`, with the hint.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_GENESIS_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}", code="missing_file", hint=hint) from None


def _write(own: OperatorHome, ready: _Plan, name: str, address: str, listen: str, trust: str) -> None:
    """Keys first and settings last: a home that was cut off on the way is finished by the same command."""
    if not own.card_path.exists():
        own.make_keys(name, address)
    with FolderLock(own.data):
        if ready.destroys:
            remove_data(own)
        footing = ready.footing
        if footing is not None:
            begin_signing(own, footing.newest)
        settle(
            own,
            ready.document,
            [],
            rpc=listen,
            peers=ready.peers,
            state_sync=ready.servers,
            trust="" if footing is None else f"{footing.height}:{footing.hash.hex()}",
        )


def _result(own: OperatorHome, ready: _Plan, *, plan: bool) -> Result:
    genesis, footing, home = ready.genesis, ready.footing, own.folder
    elections = ready.begins if footing is None else footing.elections
    steps = [f"freehold ledger run --home {home}"]
    if elections is not None:
        steps.append(f"freehold ledger bond AMOUNT --home {home}")
    document: dict[str, Any] = {
        "home": str(home),
        "chain_id": genesis.chain_id,
        "genesis": genesis.digest.hex(),
        "validator": None if plan and not own.card_path.exists() else own.card().validator,
        "peers": ready.peers,
        "state_sync": ready.servers,
        "trust": None if footing is None else f"{footing.height}:{footing.hash.hex()}",
        "newest": None if footing is None else footing.newest,
        "validators": len(genesis.validators.validators) if footing is None else footing.validators,
        "least_bond": None if elections is None else format_amount(elections.min_bond),
        "destroys": ready.destroys,
        "plan": plan,
        "next": steps,
    }
    signers = "begun by" if footing is None else "signed by"  # without a header only genesis' own are known
    count = document["validators"]
    lines = [f"chain {genesis.chain_id}, {signers} {count} validators, genesis {genesis.digest.hex()}"]
    if footing is None:
        lines.append(f"all blocks are fetched from {len(ready.peers)} peers")
    else:
        lines.append(f"a snapshot is restored from {len(ready.peers)} peers, trusting {document['trust']}")
    verb = "would be destroyed" if plan else "destroyed"
    lines += [f"{verb}: {path}" for path in ready.destroys]
    lines.append(f"next: `{steps[0]}`")
    if elections is not None:
        lines.append(
            f"then, to vote: `{steps[1]}`, at least {document['least_bond']} tokens, from a wallet on this chain"
        )
    else:
        lines.append("this chain keeps the validators of its genesis: the home follows and serves reads")
    return Result(document, "\n".join(lines))
