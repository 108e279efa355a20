"""Homes of validators on CometBFT for daemons of their own, all on loopback."""

import socket
import time
from pathlib import Path

from ledger_process import FAST, FAUCET, account

from freehold.base.amounts import TOKEN
from freehold.consensus.comet.founding import genesis_of as document_of
from freehold.consensus.comet.founding import settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.ledger.genesis import app_state_document


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
