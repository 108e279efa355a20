"""Founding a local grid: every key is made in its owner's home, genesis from public keys alone."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from freehold.agent.identity import NodeSettings, create_keys, write_settings
from freehold.base.errors import InvalidInputError, RefusedError
from freehold.base.presets import ELECTIONS, PRESETS
from freehold.client import wallet as wallets
from freehold.client.home import Home, Settings
from freehold.client.joining import Joining, join
from freehold.client.session import Session
from freehold.consensus.comet.founding import genesis_of, settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.entropy import random_bytes
from freehold.crypto.strkey import decode_account
from freehold.grid.layout import LEDGER_PORT, GridLayout, NodeLayout
from freehold.ledger.genesis import FAUCET_BALANCE, NODE_PURSE, GenesisFarm, GenesisNode, app_state_document
from freehold.ledger.transactions import Offer, Resources
from freehold.light.genesis import genesis_document
from freehold.light.types import Timestamp

# What each node of a local grid offers; small enough that 64 of them fit a laptop's promise, not its memory.
CAPACITY = Resources(vcpu_milli=4_000, memory_mib=4_096, disk_mib=20_480)
PRICES = Offer(vcpu_hour=200_000, memory_gib_hour=100_000, disk_gib_hour=5_000)
AppState = Callable[[list[PrivateKey]], dict[str, Any]]  # from the faucets' keys
PASSPHRASE_FILE = "passphrase"  # noqa: S105 - the name of a file


def found(layout: GridLayout) -> None:
    """Make keys and genesis of a new grid; what is there is kept, so an interrupted founding is finished.

    Raises:
        InvalidInputError: a file is malformed.
    """
    layout.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owners = {farm.name: _found_farm(farm.home) for farm in layout.farms}
    nodes = []
    for index, node in enumerate(layout.nodes):
        key, box = create_keys(node.home)
        write_settings(node.home, NodeSettings(ledger=layout.url_for(index), listen=node.listen, name=node.name))
        nodes.append(
            GenesisNode(
                node=key.public,
                box_key=box.public,
                farm=owners[node.farm.name],
                addresses=[node.listen],
                capacity=CAPACITY,
                offer=PRICES,
            )
        )
    members = [GenesisFarm(owners[farm.name], farm.name, farm.country, farm.city) for farm in layout.farms]

    def state(faucets: list[PrivateKey]) -> dict[str, Any]:
        return app_state_document(
            PRESETS[layout.preset],
            members,
            nodes,
            faucet=faucets[0].public,
            accounts={key.public: FAUCET_BALANCE for key in faucets[1:]},
            elections=ELECTIONS[layout.preset] if layout.validators else None,
        )

    if layout.validators:
        _found_validators(layout, state)
    else:
        _found_embedded(layout, state)
    copy = layout.genesis_path.read_bytes()
    for folder in (*layout.ledger_homes, *(node.home for node in layout.nodes), *(farm.home for farm in layout.farms)):
        if not (folder / "genesis.json").exists():
            Home(folder).write(folder / "genesis.json", copy)
    for farm in layout.farms:
        Home(farm.home).save_settings(Settings(rpc=layout.url))


def _found_embedded(layout: GridLayout, state: AppState) -> None:
    validator = _seed_key(layout.ledger_home / "validator.key")
    faucet = _seed_key(layout.ledger_home / "faucet.key")
    listen = f'listen = ["{layout.host_ip}:{LEDGER_PORT}"]\n'
    (layout.ledger_home / "ledger.toml").write_text(listen, encoding="utf-8")
    if not layout.genesis_path.exists():
        document = genesis_document(
            chain_id=new_chain_id(),
            genesis_time=Timestamp.from_ms(time.time_ns() // 1_000_000),
            validators=[(validator.public, 10, "local")],
            app_state=state([faucet]),
        )
        Home(layout.folder).write(layout.genesis_path, document)


def _found_validators(layout: GridLayout, state: AppState) -> None:
    """Keys in each validator's home, genesis from their cards; each has a faucet of its own, so that one may die."""
    homes = [OperatorHome(validator.home) for validator in layout.validators]
    cards = [home.make_keys(row.name, row.peer) for home, row in zip(homes, layout.validators, strict=True)]
    faucets = [_seed_key(home.folder / "faucet.key") for home in homes]
    if not layout.genesis_path.exists():
        Home(layout.folder).write(layout.genesis_path, genesis_of(cards, new_chain_id(), state(faucets)))
    for home, row in zip(homes, layout.validators, strict=True):
        settle(home, layout.genesis_path.read_bytes(), cards, rpc=f"{row.ip}:{LEDGER_PORT}")


def new_chain_id() -> str:
    """A name that no other local grid has."""
    return f"freehold-local-{random_bytes(4).hex()}"


async def register_node(node: NodeLayout) -> None:
    """Register a node that is not in genesis, from its farm's wallet; one that is registered is left alone.

    Raises:
        RefusedError: the ledger refused.
    """
    home = Home(node.farm.home)
    wallet = wallets.open_wallet(home, (node.farm.home / PASSPHRASE_FILE).read_text())
    key, box = create_keys(node.home)
    session = Session(home, wallet)
    try:
        await join(session, wallet, key, box, Joining(node.listen, CAPACITY, PRICES, NODE_PURSE))
    except RefusedError as error:
        if error.code != "already_exists":
            raise
    finally:
        await session.close()


def _found_farm(folder: Path) -> bytes:
    """A farmer's home with a real wallet; its passphrase lies beside it, as for any machine account."""
    home = Home(folder)
    if home.wallet_path.exists():
        return decode_account(wallets.address(home))
    passphrase = random_bytes(16).hex()
    home.write(folder / PASSPHRASE_FILE, passphrase.encode())
    return wallets.create(home, passphrase)[0].id


def _seed_key(path: Path) -> PrivateKey:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(random_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    seed = path.read_bytes()
    if len(seed) != 32:
        raise InvalidInputError(f"{path} is not a key of 32 bytes", code="bad_key")
    return PrivateKey.from_seed(seed)
