"""Joining a grid: a farmer's machine becomes a node by one transaction from the farm's wallet.

The node's keys are made on the machine and stay there; the wallet signs, and may be elsewhere. Addresses are public on
the ledger: the farmer is told before.
"""

from dataclasses import dataclass

from freehold.base.errors import InvalidInputError, RefusedError
from freehold.client.session import Session
from freehold.client.wallet import Wallet
from freehold.crypto.box import BoxKey
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.keys import farm_key, node_key
from freehold.ledger.records import Farm, Node
from freehold.ledger.transactions import Offer, Place, RegisterFarm, RegisterNode, Resources, possession_bytes


@dataclass(frozen=True)
class Joining:
    """What a farmer offers with a new node."""

    listen: str
    capacity: Resources
    offer: Offer
    purse: int


async def ensure_farm(session: Session, wallet: Wallet, name: str, place: Place) -> bool:
    """Register the wallet's farm unless it stands; returns whether it was new.

    Raises:
        RefusedError: the ledger refused.
        InvalidInputError: no name was given for a new farm.
    """
    key = farm_key(wallet.id)
    if (await session.ledger.read([key])).get(key, Farm) is not None:
        return False
    if not name:
        raise InvalidInputError(
            "this wallet has no farm yet", code="no_farm", hint="add --farm NAME --country CC to register one"
        )
    await session.submit(wallet.account, RegisterFarm(name, place))
    return True


async def join(session: Session, wallet: Wallet, key: PrivateKey, box: BoxKey, joining: Joining) -> int:
    """Register a node; returns the height at which it was.

    Args:
        session: of the farmer.
        wallet: the farm's; stake and purse leave its balance.
        key: the node's own key, which signs that it belongs to this farm.
        box: the node's box key.
        joining: what it offers.

    Raises:
        RefusedError: the ledger refused, or the node is registered already.
    """
    state_key = node_key(key.public)
    if (await session.ledger.read([state_key])).get(state_key, Node) is not None:
        raise RefusedError("this node is registered already", code="already_exists")
    message = possession_bytes(session.ledger.chain_id, key.public, wallet.id, box.public)
    body = RegisterNode(
        node=key.public,
        box_key=box.public,
        possession=key.sign(message),
        addresses=[joining.listen],
        capacity=joining.capacity,
        offer=joining.offer,
        stake=session.preset.node_stake,
        purse=joining.purse,
    )
    return (await session.submit(wallet.account, body)).height
