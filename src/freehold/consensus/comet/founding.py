"""A new chain of several operators, from their public cards alone, and each operator's settings for it."""

import time
from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import replace

from freehold.base.errors import InvalidInputError
from freehold.consensus.comet.addresses import check_state_sync, merge_peers
from freehold.consensus.comet.operators import Card, OperatorHome, Settings
from freehold.consensus.storage import write_file
from freehold.crypto.strkey import decode_account
from freehold.ledger.genesis_beacon import vrf_document
from freehold.ledger.genesis_elections import GenesisBond, parse_elections
from freehold.light.genesis import ConsensusParams, TrustedGenesis, genesis_document, parse_genesis
from freehold.light.types import Timestamp

POWER: Final = 10  # of each validator of a new chain


def genesis_of(
    cards: Sequence[Card],
    chain_id: str,
    app_state: dict[str, Any],
    *,
    time_ms: int | None = None,
    initial_height: int = 1,
) -> bytes:
    """Write the genesis document of a new chain.

    Args:
        cards: of all its validators.
        chain_id: 1 to 50 bytes.
        app_state: the ledger's beginning, to which the operators' VRF keys are added.
        time_ms: of the beginning; now when None.
        initial_height: above 1 where `app_state` carries another chain's state.

    Raises:
        InvalidInputError: a validator, name or address stands twice, or the document would not be read back.
    """
    for what, values in (
        ("validator", [card.validator for card in cards]),
        ("VRF key", [card.vrf for card in cards]),
        ("name", [card.name for card in cards]),
        ("address", [card.address for card in cards]),
    ):
        if len(set(values)) != len(values):
            raise InvalidInputError(
                f"a {what} stands twice among the operators",
                code="repeated_operator",
                hint="give each operator's card once, each made with a key, name and address of its own",
            )
    now = time.time_ns() // 1_000_000 if time_ms is None else time_ms
    return genesis_document(
        chain_id=chain_id,
        genesis_time=Timestamp.from_ms(now),
        validators=[(card.validator_key, POWER, card.name) for card in sorted(cards, key=lambda card: card.validator)],
        app_state=app_state | {"vrf": vrf_document([card.vrf_member for card in cards])},
        initial_height=initial_height,
        params=_params(app_state),
    )


def bonds_of(cards: Sequence[Card], amount: int) -> list[GenesisBond]:
    """Give the bonds with which a new chain begins: of each operator that named an owner.

    Args:
        cards: of all its validators.
        amount: of each bond, in 10^-7 token.
    """
    return [
        GenesisBond(card.validator_key, decode_account(card.owner), amount, card.vrf_member.vrf_key)
        for card in cards
        if card.owner
    ]


def _params(app_state: dict[str, Any]) -> ConsensusParams:
    """The engine takes evidence for as long as bonds are liable for it."""
    params = ConsensusParams(vote_extensions_enable_height=1)
    if app_state.get("elections") is None:
        return params
    preset = parse_elections(app_state["elections"]["values"])
    return replace(
        params,
        evidence_max_age_ns=preset.unbonding_ms * 1_000_000,
        evidence_max_age_blocks=preset.unbonding_blocks,
    )


def check_founder(home: OperatorHome, genesis: TrustedGenesis) -> None:
    """Refuse a home whose validator genesis does not name: it cannot begin the chain, and joins it later.

    Raises:
        InvalidInputError: `not_a_validator`.
    """
    validator = home.card().validator_key
    if validator not in {member.pub_key.ed25519 for member in genesis.validators.validators}:
        raise InvalidInputError(
            f"genesis of {genesis.chain_id} does not name validator {validator.hex()[:16]}",
            code="not_a_validator",
            hint="to found it, send operator.json to whoever makes genesis; once it runs, `freehold ledger join` it",
        )


def check_folder(home: OperatorHome) -> None:
    """Refuse to make a home of a folder that holds something else; keys may lie there, of a backup.

    Raises:
        InvalidInputError: `home_not_empty`.
    """
    if home.card_path.exists() or not home.folder.is_dir():
        return
    names = {path.name for path in home.folder.iterdir()} - {f"{home.card_path.name}.new"}  # cut off while writing it
    strange = sorted(name for name in names if not name.removesuffix(".new").endswith(".key"))
    if strange:
        raise InvalidInputError(
            f"{home.folder} is not empty, and no validator's home: it holds {', '.join(strange[:5])}",
            code="home_not_empty",
            hint="nothing was changed; choose a new folder (keys of a backup may lie in it)",
        )


def settle(
    home: OperatorHome,
    genesis: bytes,
    cards: Sequence[Card],
    *,
    rpc: str,
    peers: Sequence[str] = (),
    state_sync: Sequence[str] | None = None,
    trust: str = "",
) -> TrustedGenesis:
    """Put genesis and settings into a home; what its operator has set in validator.toml and ledger.toml stays.

    Args:
        home: with its keys.
        genesis: the document.
        cards: of other operators, who become peers; its own may be among them.
        rpc: `ip:port` of the HTTP face, written into ledger.toml where there is none.
        peers: more of them, `id@host:port`. All are added to those that stand in validator.toml.
        state_sync: HTTP faces of others from which a home without blocks is restored, none for all blocks; see
            `Settings`. What stands in validator.toml when None.
        trust: `HEIGHT:HASH`, for that.

    Raises:
        InvalidInputError: the home has another genesis, or a setting is malformed.
        StorageError: a file cannot be written.
    """
    own, document = home.card(), parse_genesis(genesis)
    settings = home.settings() if home.settings_path.exists() else Settings(own.name, own.address)
    if state_sync is not None or trust:
        check_state_sync(state_sync or [], trust)
        settings = replace(settings, state_sync=list(state_sync or []), trust=trust)
    named = [f"{card.peer}@{card.address}" for card in cards]
    settings = replace(settings, peers=merge_peers(settings.peers, [*named, *peers], own.peer))
    check_same_genesis(home, genesis)
    write_file(home.genesis_path, genesis)
    home.save_settings(settings)
    if not home.rpc_settings_path.exists():
        write_file(home.rpc_settings_path, f'listen = ["{rpc}"]\n'.encode())
    return document


def check_same_genesis(home: OperatorHome, genesis: bytes) -> None:
    """Refuse another genesis than a home's own.

    Raises:
        InvalidInputError: `other_genesis`.
    """
    if home.genesis_path.exists() and home.genesis_path.read_bytes() != genesis:
        raise InvalidInputError(
            f"{home.folder} belongs to another genesis",
            code="other_genesis",
            hint="nothing was changed; use another folder for another chain",
        )
