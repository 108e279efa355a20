"""Taking a local grid from its embedded ledger to validators on CometBFT, which go on with its state.

Nothing of the old ledger is overwritten: its folder stays as it is, and each old genesis lies beside the new one. Until
`grid.json` is written, the last step, the grid is the old one and may be started again.
Spec: docs/spec/leaving-embedded.md.
"""

import shutil
import time
from pathlib import Path
from typing import Any, Final

from freehold.agent.identity import NodeSettings, write_settings
from freehold.base.errors import InvalidInputError, RefusedError
from freehold.client.home import Home, Settings
from freehold.consensus.carried_genesis import carried_app_state
from freehold.consensus.comet.founding import genesis_of, settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.leaving import export_last_state
from freehold.grid.claims import load_layout, write_marker
from freehold.grid.founding import new_chain_id
from freehold.grid.layout import LEDGER_PORT, GridLayout, make_layout
from freehold.grid.lifecycle import Say, exclusive
from freehold.grid.processes import stop_daemons
from freehold.rpc.config import load_home

KEPT: Final = (
    "accounts with balances and nonces, farms, nodes with stake and history, reports, epochs and their count",
    "wallets, farmers' and nodes' keys; the old ledger's folder, and each old genesis beside the new one",
)
CHANGED: Final = (
    "the chain id: what was signed for the old chain is refused on the new one",
    "the validators, whose votes carry the beacon; rule-set 2 with elections, and nobody bonded yet",
)
LOST: Final = (
    "the newest block, which no header proves: the beacon and the clock of one height, no user's transaction",
    "transactions that wait in the mempool; history before that height stays with the old ledger",
)


def upgrade_plan(folder: Path, validators: int) -> GridLayout:
    """Give the layout after an upgrade.

    Raises:
        InvalidInputError: no grid here, it runs on CometBFT already, or the count is out of range.
    """
    layout = load_layout(folder)
    if layout is None:
        raise InvalidInputError("there is no grid here", code="no_grid", hint="start one with `freehold grid up`")
    if layout.validators:
        raise InvalidInputError("this grid runs on CometBFT", code="not_embedded", hint="nothing has to be done")
    if validators < 2:
        raise InvalidInputError(
            f"{validators} validator is no more than there was", code="bad_count", hint="name 2 to 7, better 4 or more"
        )
    return make_layout(
        folder,
        nodes=len(layout.nodes),
        farms=len(layout.farms),
        preset=layout.preset,
        validators=validators,
        subnet=int(layout.host_ip.split(".")[2]),
    )


def upgrade_grid(folder: Path, *, validators: int, force: bool, say: Say) -> dict[str, Any]:
    """Stop a grid and write the genesis with which its validators go on; `grid up` starts it.

    Args:
        folder: of the grid.
        validators: 2 to 7.
        force: remove the validators' homes that an earlier attempt left.
        say: is told of each step.

    Returns:
        Old and new chain id, the first height, and where the old ledger lies.

    Raises:
        InvalidInputError: the state cannot be left; the old grid may be started again.
        RefusedError: `needs_force`; nothing was changed.
    """
    with exclusive(folder):
        layout = upgrade_plan(folder, validators)
        left = folder / "validators"
        if left.exists() and not force:
            names = ", ".join(sorted(one.name for one in left.iterdir()))
            raise RefusedError(
                f"{left} holds validators' homes of an earlier attempt: {names}",
                code="needs_force",
                hint="nothing was changed: `--force` removes them with their keys",
            )
        say("grid: stopping the agents and the ledger")
        stop_daemons([*(node.home for node in layout.nodes), layout.ledger_home])
        old = load_home(layout.ledger_home)
        try:
            last = export_last_state(old.data, old.genesis, old.validator, time.time_ns() // 1_000_000)
            state = carried_app_state(last.light_block, last.records)
        except InvalidInputError:
            say("grid: nothing was changed; `freehold grid up` with the same counts starts it again")
            raise
        height = last.light_block.header.height
        say(f"grid: {len(last.records)} records of {old.genesis.chain_id} after block {height - 1}")
        shutil.rmtree(left, ignore_errors=True)
        document = _found(layout, state, height)
        chain_id = _hand_out(layout, document, old.genesis_bytes, old.genesis.chain_id)
        write_marker(layout)
    return {"old_chain": old.genesis.chain_id, "chain": chain_id, "height": height, "kept": str(layout.ledger_home)}


def _found(layout: GridLayout, state: dict[str, Any], height: int) -> bytes:
    """Make the validators' homes; the faucet's key goes to the first, since two would spend one nonce twice."""
    homes = [OperatorHome(validator.home) for validator in layout.validators]
    cards = [home.make_keys(row.name, row.peer) for home, row in zip(homes, layout.validators, strict=True)]
    document = genesis_of(cards, new_chain_id(), state, initial_height=height)
    for home, row in zip(homes, layout.validators, strict=True):
        settle(home, document, cards, rpc=f"{row.ip}:{LEDGER_PORT}")
    faucet = layout.ledger_home / "faucet.key"
    if faucet.exists():
        Home(homes[0].folder).write(homes[0].folder / "faucet.key", faucet.read_bytes())
    return document


def _hand_out(layout: GridLayout, document: bytes, old: bytes, old_chain: str) -> str:
    """Give everybody the new genesis and the new servers, the old genesis beside it."""
    homes = (layout.folder, *(node.home for node in layout.nodes), *(farm.home for farm in layout.farms))
    for folder in homes:
        home = Home(folder)
        home.write(folder / f"genesis.{old_chain}.json", old)
        home.write(folder / "genesis.json", document)
    for index, node in enumerate(layout.nodes):
        write_settings(node.home, NodeSettings(ledger=layout.url_for(index), listen=node.listen, name=node.name))
    for farm in layout.farms:
        Home(farm.home).save_settings(Settings(rpc=layout.url))
    return Home(layout.folder).genesis().chain_id
