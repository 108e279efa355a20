"""Homes of validators on CometBFT for daemons of their own, all on loopback."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path

from ledger_process import FAST, FAUCET, account
from msgspec.structs import replace

from freehold.base.amounts import TOKEN
from freehold.base.presets import MINIMAL_ELECTIONS
from freehold.consensus.comet.founding import genesis_of as document_of
from freehold.consensus.comet.founding import settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.ledger.genesis import app_state_document
from freehold.ledger.genesis_elections import GenesisBond


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_validators(folder: Path, count: int, *, accounts: int = 8, genesis_ms: int | None = None) -> list[Path]:
    """Homes of one chain; each daemon chooses its HTTP port at each start."""
    homes = [OperatorHome(folder / f"v{index}") for index in range(count)]
    cards = [home.make_keys(f"v{index}", f"127.0.0.1:{free_port()}") for index, home in enumerate(homes)]
    state = app_state_document(
        FAST, [], [], faucet=FAUCET.public, accounts={account(n).public: 1_000 * TOKEN for n in range(accounts)}
    )
    now = time.time_ns() // 1_000_000 if genesis_ms is None else genesis_ms
    document = document_of(cards, "e2e-comet", state, time_ms=now)
    for home in homes:
        settle(home, document, cards, rpc="127.0.0.1:0")
    (homes[0].folder / "faucet.key").write_bytes(FAUCET.export_seed())
    (homes[0].folder / "faucet.key").chmod(0o600)
    return [home.folder for home in homes]


def make_elected(
    folder: Path, chain_id: str, count: int, *, late: int = 0, owners: Mapping[int, bytes] | None = None
) -> list[OperatorHome]:
    """Homes of bonded validators who are elected every eight seconds, and of others who only have genesis.

    `account(n)` owns validator n, unless `owners` says who.
    """
    owner = {index: account(index).public for index in range(count + late)} | dict(owners or {})
    homes = [OperatorHome(folder / f"v{index}") for index in range(count + late)]
    cards = [home.make_keys(f"v{index}", f"127.0.0.1:{free_port()}") for index, home in enumerate(homes)]
    bonds = [
        GenesisBond(card.validator_key, owner[index], 200 * TOKEN, homes[index].vrf_key().public)
        for index, card in enumerate(cards[:count])
    ]
    state = app_state_document(
        FAST,
        [],
        [],
        faucet=FAUCET.public,
        accounts=dict.fromkeys([*owner.values(), account(count).public], 1_000 * TOKEN),
        elections=replace(MINIMAL_ELECTIONS, era_epochs=4),
        bonds=bonds,
    )
    document = document_of(cards[:count], chain_id, state, time_ms=time.time_ns() // 1_000_000)
    for home in homes:
        settle(home, document, cards, rpc="127.0.0.1:0")
    return homes
