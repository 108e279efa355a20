"""Farms, nodes and stake: who offers what, and the table of slots from which witnesses are drawn.

Invariants: slots are handed out once, in order, and never reused; a change of stake counts from the second epoch after
it, so nobody can adjust a weight to a beacon that is known. Spec: docs/spec/state.md, docs/spec/witnesses.md.
"""

from msgspec.structs import replace

from freehold.base.amounts import MAX_AMOUNT
from freehold.base.ids import is_name
from freehold.base.limits import ID_BYTES, SIGNATURE_BYTES
from freehold.crypto import mmr
from freehold.ledger import keys, schedule
from freehold.ledger.accounts import credit, debit, receive
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.events import FarmRegistered, NodeChanged
from freehold.ledger.fields import is_addresses, is_offer, is_place, is_resources
from freehold.ledger.records import NODE_VERSION, Farm, Node, NodeHistory, NodeSlot
from freehold.ledger.transactions import (
    AddStake,
    Place,
    RegisterFarm,
    RegisterNode,
    ReleaseNode,
    Resources,
    RetireNode,
    Tx,
    UpdateNode,
    possession_bytes,
)

FARM_VERSION = SLOT_VERSION = HISTORY_VERSION = 1
LEASE_SLOT_BYTES = 32
ACTIVE_AFTER_EPOCHS = 2  # a node or a change of stake counts from the second epoch after it
_STAKES_KEPT = 4


def new_node(body: RegisterNode, *, farm: bytes, place: Place, slot: int, deposit: int, epoch: int) -> Node:
    """Build the record of a node that joins."""
    return Node(
        version=NODE_VERSION,
        farm=farm,
        slot=slot,
        box_key=body.box_key,
        addresses=body.addresses,
        place=place,
        capacity=body.capacity,
        used=Resources(0, 0, 0),
        lease_slots=bytes(LEASE_SLOT_BYTES),
        offer=body.offer,
        stake=body.stake,
        deposit=deposit,
        registered_epoch=epoch,
        retired_epoch=0,
        last_report_epoch=-1,
        history_count=0,
        history_root=mmr.root(mmr.Peaks()),
    )


def process_register_farm(ctx: Context, tx: Tx, body: RegisterFarm) -> Code:
    """Make the sender a farm owner."""
    if not is_name(body.name):
        return Code.BAD_NAME
    if not is_place(body.place):
        return Code.BAD_FIELD
    key = keys.farm_key(tx.sender)
    if ctx.state.get(key, Farm) is not None:
        return Code.ALREADY_EXISTS
    deposit = ctx.preset.record_deposit
    code = debit(ctx, tx.sender, deposit)
    if code:
        return code
    ctx.state.put(key, Farm(FARM_VERSION, body.name, body.place, 0, deposit))
    ctx.events.append(FarmRegistered(tx.sender, body.name))
    return Code.OK


def check_node_fields(body: RegisterNode, node_stake: int) -> Code:
    """Check what a node registers with, apart from its place in the state."""
    if len(body.node) != ID_BYTES or len(body.box_key) != ID_BYTES:
        return Code.BAD_FIELD
    if not (is_addresses(body.addresses) and is_resources(body.capacity) and is_offer(body.offer)):
        return Code.BAD_FIELD
    if not (0 <= body.stake <= MAX_AMOUNT and 0 <= body.purse <= MAX_AMOUNT):
        return Code.BAD_AMOUNT
    return Code.STAKE_TOO_LOW if body.stake < node_stake else Code.OK


def process_register_node(ctx: Context, tx: Tx, body: RegisterNode) -> Code:
    """Add a node to the sender's farm; it takes part from the second epoch after this one."""
    code = check_node_fields(body, ctx.preset.node_stake)
    if code:
        return code
    farm = ctx.state.get(keys.farm_key(tx.sender), Farm)
    if farm is None:
        return Code.UNKNOWN_FARM
    if ctx.state.get(keys.node_key(body.node), Node) is not None:
        return Code.ALREADY_EXISTS
    message = possession_bytes(ctx.chain_id, body.node, tx.sender, body.box_key)
    if len(body.possession) != SIGNATURE_BYTES or not ctx.verify(body.node, message, body.possession):
        return Code.BAD_POSSESSION
    deposit = ctx.preset.record_deposit
    code = debit(ctx, tx.sender, body.stake + body.purse + deposit)
    if not code and body.purse:
        code = receive(ctx, body.node, body.purse)
    if code:
        return code
    slot = ctx.totals.node_slots
    ctx.state.put(keys.farm_key(tx.sender), replace(farm, nodes=farm.nodes + 1))
    ctx.state.put(
        keys.node_key(body.node),
        new_node(body, farm=tx.sender, place=farm.place, slot=slot, deposit=deposit, epoch=ctx.epoch),
    )
    first_epoch = ctx.epoch + ACTIVE_AFTER_EPOCHS
    ctx.state.put(
        keys.node_slot_key(slot),
        NodeSlot(SLOT_VERSION, body.node, tx.sender, [(first_epoch, body.stake)], first_epoch, -1, False),
    )
    ctx.state.put(keys.node_history_key(body.node), NodeHistory(HISTORY_VERSION, 0, []))
    ctx.add_totals(node_slots=1)
    ctx.events.append(NodeChanged(body.node, tx.sender, "registered"))
    return Code.OK


def _own_node(ctx: Context, tx: Tx, node_id: bytes) -> Node | Code:
    """Give a node of the sender's farm that is not retired."""
    node = ctx.state.get(keys.node_key(node_id), Node)
    if node is None:
        return Code.UNKNOWN_NODE
    if node.farm != tx.sender:
        return Code.NOT_OWNER
    return Code.NODE_RETIRED if node.retired_epoch else node


def process_update_node(ctx: Context, tx: Tx, body: UpdateNode) -> Code:
    """Change addresses, capacity and offer; what is leased stays within capacity and keeps its price."""
    if not (is_addresses(body.addresses) and is_resources(body.capacity) and is_offer(body.offer)):
        return Code.BAD_FIELD
    node = _own_node(ctx, tx, body.node)
    if isinstance(node, Code):
        return node
    if not fits(node.used, body.capacity):
        return Code.NODE_BUSY
    ctx.state.put(
        keys.node_key(body.node),
        replace(node, addresses=body.addresses, capacity=body.capacity, offer=body.offer),
    )
    ctx.events.append(NodeChanged(body.node, tx.sender, "updated"))
    return Code.OK


def process_add_stake(ctx: Context, tx: Tx, body: AddStake) -> Code:
    """Move tokens from the farm to its node's stake."""
    if not 1 <= body.amount <= MAX_AMOUNT:
        return Code.BAD_AMOUNT
    node = _own_node(ctx, tx, body.node)
    if isinstance(node, Code):
        return node
    code = debit(ctx, tx.sender, body.amount)
    if code:
        return code
    stake = node.stake + body.amount
    ctx.state.put(keys.node_key(body.node), replace(node, stake=stake))
    key = keys.node_slot_key(node.slot)
    slot = ctx.state.need(key, NodeSlot)
    counts_from = ctx.epoch + ACTIVE_AFTER_EPOCHS
    stakes = [entry for entry in slot.stakes if entry[0] != counts_from]
    stakes = [*stakes, (counts_from, stake)][-_STAKES_KEPT:]
    ctx.state.put(key, replace(slot, stakes=stakes))
    ctx.events.append(NodeChanged(body.node, tx.sender, "staked"))
    return Code.OK


def process_retire_node(ctx: Context, tx: Tx, body: RetireNode) -> Code:
    """End a node that holds no lease. It stays in the draws of this epoch, whose beacon is known already."""
    node = _own_node(ctx, tx, body.node)
    if isinstance(node, Code):
        return node
    if any(node.lease_slots):
        return Code.NODE_BUSY
    last_epoch = max(1, ctx.epoch)
    ctx.state.put(keys.node_key(body.node), replace(node, retired_epoch=last_epoch))
    key = keys.node_slot_key(node.slot)
    ctx.state.put(key, replace(ctx.state.need(key, NodeSlot), last_epoch=last_epoch))
    ctx.events.append(NodeChanged(body.node, tx.sender, "retired"))
    return Code.OK


def process_release_node(ctx: Context, tx: Tx, body: ReleaseNode) -> Code:
    """Remove a retired node after its last report window; stake and deposit go back to the farm."""
    node = ctx.state.get(keys.node_key(body.node), Node)
    if node is None:
        return Code.UNKNOWN_NODE
    if node.farm != tx.sender:
        return Code.NOT_OWNER
    if not node.retired_epoch:
        return Code.NODE_BUSY
    if ctx.time_ms < schedule.window_end_ms(ctx.preset, ctx.genesis_ms, node.retired_epoch):
        return Code.DEADLINE_NOT_PASSED
    ctx.state.delete(keys.node_key(body.node))
    ctx.state.delete(keys.node_history_key(body.node))
    key = keys.farm_key(node.farm)
    farm = ctx.state.need(key, Farm)
    ctx.state.put(key, replace(farm, nodes=farm.nodes - 1))
    credit(ctx, node.farm, node.stake + node.deposit)
    ctx.events.append(NodeChanged(body.node, node.farm, "released"))
    return Code.OK


def fits(part: Resources, whole: Resources) -> bool:
    """Whether part is within whole in every resource."""
    return (
        part.vcpu_milli <= whole.vcpu_milli and part.memory_mib <= whole.memory_mib and part.disk_mib <= whole.disk_mib
    )


def plus(first: Resources, second: Resources) -> Resources:
    """Add two amounts of resources."""
    return Resources(
        first.vcpu_milli + second.vcpu_milli,
        first.memory_mib + second.memory_mib,
        first.disk_mib + second.disk_mib,
    )


def minus(first: Resources, second: Resources) -> Resources:
    """Subtract resources that are part of the first."""
    return Resources(
        first.vcpu_milli - second.vcpu_milli,
        first.memory_mib - second.memory_mib,
        first.disk_mib - second.disk_mib,
    )
