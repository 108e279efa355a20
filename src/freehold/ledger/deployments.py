"""Deployments and their leases from order to end: deploy, accept, refund, top up, close.

Invariants: a node's `used` is the sum of what its leases hold (a lease holds capacity from its creation to its close or
removal, a lost member's share to its loss); a lease slot is kept until the lease is removed, so that a bit of a report
never means two leases. Nothing is swept: whoever touches an ended lease last removes it. Spec: docs/spec/leases.md.
"""

from msgspec.structs import replace

from freehold.base.amounts import MAX_AMOUNT
from freehold.base.ids import is_name
from freehold.base.limits import MAX_LEASES_PER_DEPLOYMENT, MAX_LEASES_PER_NODE, MAX_STANDBYS
from freehold.ledger import keys, leases
from freehold.ledger.accounts import credit, debit
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.events import LeaseChanged
from freehold.ledger.farms import LEASE_SLOT_BYTES, fits, minus, plus
from freehold.ledger.fields import (
    MAX_ACCESS_KEYS,
    MAX_DEPLOYMENTS_PER_ACCOUNT,
    MAX_PREPAID_MS,
    MAX_REASON_BYTES,
    MAX_U32,
    is_ids,
    is_ports,
    is_probe,
    is_resources,
    is_text,
)
from freehold.ledger.pricing import lease_charge, lease_cost, price_per_hour, reserve_per_hour
from freehold.ledger.records import (
    LEASE_VERSION,
    Deployment,
    Lease,
    Member,
    Node,
    NodeLease,
    TenantIndex,
    Term,
)
from freehold.ledger.transactions import (
    Accept,
    Close,
    Deploy,
    LeaseOrder,
    Refund,
    TopUp,
    Tx,
    deployment_id,
    lease_id,
)

DEPLOYMENT_VERSION = NODE_LEASE_VERSION = TENANT_VERSION = 1


def check_order(order: LeaseOrder, epoch_ms: int) -> Code:
    """Check an order's own fields; what the state says comes later."""
    if not is_name(order.service):
        return Code.BAD_NAME
    if not 1 <= len(order.members) <= 1 + MAX_STANDBYS:
        return Code.TOO_MANY
    if not is_ids([*order.members, order.image_digest, order.spec_hash]):
        return Code.BAD_FIELD
    if not (is_resources(order.resources) and is_probe(order.probe) and is_ports(order.ports)):
        return Code.BAD_FIELD
    if not 0 <= order.replica <= MAX_U32 or not epoch_ms <= order.prepaid_ms <= MAX_PREPAID_MS:
        return Code.BAD_FIELD
    return Code.OK if 0 <= order.price_per_hour <= MAX_AMOUNT else Code.BAD_AMOUNT


def process_deploy(ctx: Context, tx: Tx, body: Deploy) -> Code:
    """Create a deployment with all of its leases, or nothing."""
    if not is_name(body.name):
        return Code.BAD_NAME
    if not 1 <= len(body.leases) <= MAX_LEASES_PER_DEPLOYMENT or len(body.access_keys) > MAX_ACCESS_KEYS:
        return Code.TOO_MANY
    if not is_ids(body.access_keys):
        return Code.BAD_FIELD
    tenant_key = keys.tenant_key(tx.sender)
    index = ctx.state.get(tenant_key, TenantIndex) or TenantIndex(TENANT_VERSION, [])
    if len(index.deployments) >= MAX_DEPLOYMENTS_PER_ACCOUNT:
        return Code.TOO_MANY
    deployment = deployment_id(ctx.chain_id, tx.sender, tx.nonce)
    ids: list[bytes] = []
    for order in body.leases:
        code = check_order(order, ctx.preset.epoch_ms)
        if code:
            return code
        new_id = lease_id(deployment, order.service, order.replica)
        code = Code.ALREADY_EXISTS if new_id in ids else _create_lease(ctx, tx.sender, deployment, new_id, order)
        if code:
            return code
        ids.append(new_id)
    deposit = ctx.preset.record_deposit
    code = debit(ctx, tx.sender, deposit)
    if code:
        return code
    ctx.state.put(
        keys.deployment_key(deployment),
        Deployment(DEPLOYMENT_VERSION, tx.sender, body.name, body.access_keys, ids, ctx.time_ms, deposit),
    )
    ctx.state.put(tenant_key, TenantIndex(TENANT_VERSION, [*index.deployments, deployment]))
    ctx.data = deployment
    return Code.OK


def _create_lease(ctx: Context, tenant: bytes, deployment: bytes, new_id: bytes, order: LeaseOrder) -> Code:
    charge = lease_charge(ctx.preset, order)
    if charge.total > MAX_AMOUNT:
        return Code.BAD_AMOUNT
    members: list[Member] = []
    owners: set[bytes] = set()
    for node_id in order.members:
        slot = _hold_capacity(ctx, node_id, new_id, order, owners)
        if isinstance(slot, Code):
            return slot
        members.append(Member(node_id, slot.number, 0, b"", False))
    code = debit(ctx, tenant, charge.total)
    if code:
        return code
    lease = Lease(
        version=LEASE_VERSION,
        tenant=tenant,
        deployment=deployment,
        service=order.service,
        replica=order.replica,
        members=members,
        terms=[],
        resources=order.resources,
        image_digest=order.image_digest,
        spec_hash=order.spec_hash,
        probe=order.probe,
        ports=order.ports,
        price_per_hour=order.price_per_hour,
        reserve_per_hour=reserve_per_hour(ctx.preset, order.price_per_hour),
        prepaid_ms=order.prepaid_ms,
        failover_empty=order.failover_empty,
        created_ms=ctx.time_ms,
        accept_by_ms=ctx.time_ms + ctx.preset.accept_deadline_ms,
        started_ms=0,
        void_ms_at_start=0,
        closed_ms=0,
        close_reason="",
        settled_epoch=0,
        escrow=charge.escrow,
        bounty=charge.bounty,
        deposit=charge.deposit,
        bounty_epoch=-1,
        challenge=b"",
        paid=0,
        refunded=0,
        settlements=[],
        settled_ms=0,
        local_volume=order.local_volume,
    )
    ctx.state.put(keys.lease_key(new_id), lease)
    ctx.events.append(LeaseChanged(new_id, deployment, tenant, "created"))
    return Code.OK


class _Slot:
    """A lease slot that was found free on a node."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def _hold_capacity(ctx: Context, node_id: bytes, new_id: bytes, order: LeaseOrder, owners: set[bytes]) -> _Slot | Code:
    """Take capacity and the lowest free lease slot of a node for a new lease; its owner joins `owners`."""
    key = keys.node_key(node_id)
    node = ctx.state.get(key, Node)
    if node is None:
        return Code.UNKNOWN_NODE
    if node.retired_epoch:
        return Code.NODE_RETIRED
    if node.farm in owners:
        return Code.SAME_OWNER
    if order.price_per_hour < price_per_hour(node.offer, order.resources):
        return Code.PRICE_TOO_LOW
    used = plus(node.used, order.resources)
    taken = int.from_bytes(node.lease_slots, "little")
    number = (~taken & (taken + 1)).bit_length() - 1
    if not fits(used, node.capacity) or number >= MAX_LEASES_PER_NODE:
        return Code.NO_CAPACITY
    owners.add(node.farm)
    slots = (taken | 1 << number).to_bytes(LEASE_SLOT_BYTES, "little")
    ctx.state.put(key, replace(node, used=used, lease_slots=slots))
    ctx.state.put(keys.node_lease_key(node_id, number), NodeLease(NODE_LEASE_VERSION, new_id))
    return _Slot(number)


def process_accept(ctx: Context, tx: Tx, body: Accept) -> Code:
    """A member is ready. The primary's acceptance starts the lease; it pays from this instant."""
    lease = ctx.state.get(keys.lease_key(body.lease), Lease)
    if lease is None:
        return Code.UNKNOWN_LEASE
    index = next((number for number, member in enumerate(lease.members) if member.node == tx.sender), None)
    if index is None:
        return Code.NOT_MEMBER
    if not is_ids([body.erofs_digest]):
        return Code.BAD_FIELD
    if lease.closed_ms:
        return Code.LEASE_CLOSED
    member = lease.members[index]
    if member.accepted_ms:
        return Code.ALREADY_ACCEPTED
    if ctx.time_ms > lease.accept_by_ms:
        return Code.DEADLINE_PASSED
    members = list(lease.members)
    members[index] = replace(member, accepted_ms=ctx.time_ms, erofs_digest=body.erofs_digest)
    lease = replace(lease, members=members)
    if index == 0:
        lease = replace(
            lease,
            terms=[Term(0, ctx.time_ms, ctx.time_ms)],
            started_ms=ctx.time_ms,
            void_ms_at_start=ctx.totals.void_ms,
            settled_epoch=ctx.epoch,
        )
    ctx.state.put(keys.lease_key(body.lease), lease)
    change = "started" if index == 0 else "accepted"
    ctx.events.append(LeaseChanged(body.lease, lease.deployment, lease.tenant, change, tx.sender))
    return Code.OK


def process_refund(ctx: Context, tx: Tx, body: Refund) -> Code:
    """End a lease whose primary let the accept deadline pass; everything goes back to the tenant."""
    del tx  # anyone may
    lease = ctx.state.get(keys.lease_key(body.lease), Lease)
    if lease is None:
        return Code.UNKNOWN_LEASE
    if lease.started_ms:
        return Code.ALREADY_ACCEPTED
    if ctx.time_ms <= lease.accept_by_ms:
        return Code.DEADLINE_NOT_PASSED
    end_lease(ctx, body.lease, lease, "refunded")
    return Code.OK


def top_up_cost(lease: Lease, add_ms: int) -> int:
    """Give what `add_ms` more of a lease costs its tenant."""
    return lease_cost(
        lease.price_per_hour,
        lease.reserve_per_hour,
        len(lease.members) - 1,
        lease.prepaid_ms,
        lease.prepaid_ms + add_ms,
    )


def process_top_up(ctx: Context, tx: Tx, body: TopUp) -> Code:
    """Prepay more of a lease that has not ended."""
    lease = _own_open_lease(ctx, tx, body.lease)
    if isinstance(lease, Code):
        return lease
    if not 1 <= body.add_ms <= MAX_PREPAID_MS - lease.prepaid_ms:
        return Code.BAD_FIELD
    cost = top_up_cost(lease, body.add_ms)
    code = debit(ctx, tx.sender, cost)
    if code:
        return code
    ctx.state.put(
        keys.lease_key(body.lease),
        replace(lease, prepaid_ms=lease.prepaid_ms + body.add_ms, escrow=lease.escrow + cost),
    )
    ctx.events.append(LeaseChanged(body.lease, lease.deployment, lease.tenant, "prepaid"))
    return Code.OK


def process_close(ctx: Context, tx: Tx, body: Close) -> Code:
    """The tenant ends a lease now. Capacity is free at once; the money when the last windows have closed."""
    if not is_text(body.reason, MAX_REASON_BYTES):
        return Code.BAD_FIELD
    lease = _own_open_lease(ctx, tx, body.lease)
    if isinstance(lease, Code):
        return lease
    if not lease.started_ms:
        end_lease(ctx, body.lease, lease, "closed", body.reason)
        return Code.OK
    _free_capacity(ctx, lease)
    ctx.state.put(keys.lease_key(body.lease), replace(lease, closed_ms=ctx.time_ms, close_reason=body.reason))
    ctx.events.append(LeaseChanged(body.lease, lease.deployment, lease.tenant, "closed", reason=body.reason))
    return Code.OK


def _own_open_lease(ctx: Context, tx: Tx, lease: bytes) -> Lease | Code:
    """Give a lease of the sender that has not ended (it may not have started)."""
    record = ctx.state.get(keys.lease_key(lease), Lease)
    if record is None:
        return Code.UNKNOWN_LEASE
    if record.tenant != tx.sender:
        return Code.NOT_OWNER
    now = leases.status(record, ctx.time_ms, ctx.totals.void_ms)
    return Code.LEASE_CLOSED if now in (leases.LeaseStatus.CLOSED, leases.LeaseStatus.ENDED) else record


def free_member(ctx: Context, lease: Lease, member: Member) -> None:
    """Give a member's capacity back to its node; the lease slot stays taken."""
    key = keys.node_key(member.node)
    node = ctx.state.need(key, Node)
    ctx.state.put(key, replace(node, used=minus(node.used, lease.resources)))


def _free_capacity(ctx: Context, lease: Lease) -> None:
    for member in lease.members:
        if not member.lost:
            free_member(ctx, lease, member)


def end_lease(ctx: Context, ended: bytes, lease: Lease, change: str, reason: str = "") -> None:
    """Remove a lease: what is left of escrow, bounty and deposits goes to the tenant, slots become free."""
    if not lease.closed_ms:
        _free_capacity(ctx, lease)
    for member in lease.members:
        key = keys.node_key(member.node)
        node = ctx.state.need(key, Node)
        taken = int.from_bytes(node.lease_slots, "little") & ~(1 << member.slot)
        ctx.state.put(key, replace(node, lease_slots=taken.to_bytes(LEASE_SLOT_BYTES, "little")))
        ctx.state.delete(keys.node_lease_key(member.node, member.slot))
    ctx.state.delete(keys.lease_key(ended))
    back = lease.escrow + lease.bounty + lease.deposit
    credit(ctx, lease.tenant, back + _leave_deployment(ctx, ended, lease))
    ctx.events.append(LeaseChanged(ended, lease.deployment, lease.tenant, change, reason=reason))


def _leave_deployment(ctx: Context, ended: bytes, lease: Lease) -> int:
    """Take a lease out of its deployment; the last one removes it. Returns the deposit that comes back."""
    key = keys.deployment_key(lease.deployment)
    deployment = ctx.state.need(key, Deployment)
    rest = [other for other in deployment.leases if other != ended]
    if rest:
        ctx.state.put(key, replace(deployment, leases=rest))
        return 0
    ctx.state.delete(key)
    tenant_key = keys.tenant_key(lease.tenant)
    index = ctx.state.need(tenant_key, TenantIndex)
    others = [other for other in index.deployments if other != lease.deployment]
    if others:
        ctx.state.put(tenant_key, TenantIndex(index.version, others))
    else:
        ctx.state.delete(tenant_key)
    return deployment.deposit
