"""Verified surveys of the ledger: the nodes and farms there are, and a tenant's deployments with their leases."""

from collections.abc import Iterable
from dataclasses import dataclass

from freehold.base.errors import NotVerifiedError
from freehold.client.session import Session
from freehold.ledger.keys import (
    TOTALS,
    account_key,
    bond_key,
    deployment_key,
    farm_key,
    lease_key,
    node_key,
    node_slot_key,
    tenant_key,
)
from freehold.ledger.records import Account, Deployment, Farm, Lease, Node, NodeSlot, TenantIndex, Totals, ValidatorBond
from freehold.light.trust import Forgers, fewest_signers
from freehold.lightclient.client import AskedHeader

MAX_SURVEY_SLOTS = 4_096


@dataclass(frozen=True)
class GridSurvey:
    """Nodes by id, farms and their owners' accounts by owner; all proven at one header.

    `forgers` are the fewest who could sign another header of that height; `validator_owners` names the owners of
    validators with a bond, by the validator's public key.
    """

    at: AskedHeader
    totals: Totals
    nodes: dict[bytes, Node]
    farms: dict[bytes, Farm]
    owners: dict[bytes, Account]
    forgers: Forgers
    validator_owners: dict[bytes, bytes]

    def farm_name(self, node: Node) -> str:
        """The name of a node's farm."""
        farm = self.farms.get(node.farm)
        return farm.name if farm else "?"


@dataclass(frozen=True)
class DeploymentView:
    """A deployment with its leases, in the order of the record."""

    id: bytes
    record: Deployment
    leases: dict[bytes, Lease]


async def survey_grid(session: Session) -> GridSurvey:
    """Read every node and farm, up to `MAX_SURVEY_SLOTS` slots; larger grids are browsed through an indexer."""
    first = await session.ledger.read([TOTALS])
    totals = first.get(TOTALS, Totals)
    if totals is None:
        raise NotVerifiedError("the state has no totals: this is no Freehold ledger", code="bad_state")
    height = first.at.height
    validators = first.light_block.validator_set
    bonds = {bond_key(key): key for key in (member.pub_key.ed25519 for member in validators.validators)}
    keys = [node_slot_key(slot) for slot in range(min(totals.node_slots, MAX_SURVEY_SLOTS))]
    slots = await session.ledger.read([*bonds, *keys], height)
    bonded = {key: bond.owner for place, key in bonds.items() if (bond := slots.get(place, ValidatorBond))}
    ids = [slot.node for key in keys if (slot := slots.get(key, NodeSlot))]
    nodes_read = await session.ledger.read([node_key(id_) for id_ in ids], height) if ids else first
    nodes = {id_: node for id_ in ids if (node := nodes_read.get(node_key(id_), Node))}
    owners = sorted({node.farm for node in nodes.values()})
    rows = await session.ledger.read([*map(farm_key, owners), *map(account_key, owners)], height) if owners else first
    return GridSurvey(
        first.at,
        totals,
        nodes,
        {owner: farm for owner in owners if (farm := rows.get(farm_key(owner), Farm))},
        {owner: account for owner in owners if (account := rows.get(account_key(owner), Account))},
        fewest_signers(validators, height, bonded),
        bonded,
    )


async def survey_tenant(session: Session, tenant: bytes) -> tuple[AskedHeader, Totals, list[DeploymentView]]:
    """Read a tenant's standing deployments, oldest first."""
    first = await session.ledger.read([TOTALS, tenant_key(tenant)])
    totals = first.get(TOTALS, Totals)
    if totals is None:
        raise NotVerifiedError("the state has no totals: this is no Freehold ledger", code="bad_state")
    index = first.get(tenant_key(tenant), TenantIndex)
    ids = index.deployments if index else []
    height = first.at.height
    records = await session.ledger.read([deployment_key(id_) for id_ in ids], height) if ids else first
    found = {id_: record for id_ in ids if (record := records.get(deployment_key(id_), Deployment))}
    lease_ids = [lease for record in found.values() for lease in record.leases]
    leases = await session.ledger.read([lease_key(id_) for id_ in lease_ids], height) if lease_ids else first
    views = [
        DeploymentView(
            id_, record, {lease: value for lease in record.leases if (value := leases.get(lease_key(lease), Lease))}
        )
        for id_, record in found.items()
    ]
    return first.at, totals, views


async def name_nodes(session: Session, ids: Iterable[bytes], height: int) -> dict[bytes, str]:
    """For people: a node's farm and the first digits of its id, for those that still stand; read with proofs."""
    keys = {node_key(id_): id_ for id_ in ids if id_}
    nodes = await session.ledger.read(list(keys), height) if keys else None
    found = {id_: node for key, id_ in keys.items() if nodes and (node := nodes.get(key, Node))}
    owners = sorted({node.farm for node in found.values()})
    farms = await session.ledger.read([farm_key(owner) for owner in owners], height) if owners else None
    names = {owner: farm.name for owner in owners if farms and (farm := farms.get(farm_key(owner), Farm))}
    return {id_: f"{names[node.farm]} {id_.hex()[:8]}" for id_, node in found.items() if node.farm in names}
