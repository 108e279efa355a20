"""The grid as one page shows it: farms, nodes, leases of one version of the state, read without proofs.

Bounded by slots and leases, since it walks over all nodes: a larger grid is told as incomplete, and is an indexer's
work.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from freehold.base.codec import Record
from freehold.crypto.strkey import encode_account
from freehold.ledger import keys, leases
from freehold.ledger.context import read_params
from freehold.ledger.records import (
    Account,
    Deployment,
    Farm,
    Lease,
    Node,
    NodeLease,
    NodeSlot,
    ReportRecord,
    Totals,
)
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import Resources
from freehold.rpc.answers import FarmRow, GridAnswer, LeaseRow, MemberRow, NodeRow, ResourcesRow

R = TypeVar("R", bound=Record)

MAX_SLOTS: Final = 512
MAX_LEASES: Final = 1_024


class _Reader:
    """One version of the state, its records decoded once."""

    def __init__(self, get: Callable[[bytes], bytes | None]) -> None:
        self._get = get
        self._seen: dict[bytes, Record | None] = {}

    def get(self, key: bytes, kind: type[R]) -> R | None:
        if key not in self._seen:
            data = self._get(key)
            self._seen[key] = None if data is None else decode_record(data, kind)
        found = self._seen[key]
        return found if isinstance(found, kind) else None


def view_grid(get: Callable[[bytes], bytes | None], height: int) -> GridAnswer | None:
    """Read the grid.

    Args:
        get: reads one version of the state.
        height: of the block after which that version stands; it goes into the answer.

    Returns:
        The page, or None when the state holds no ledger yet.

    Raises:
        InvariantError: the state does not hold what its keys promise.
    """
    reader = _Reader(get)
    params_bytes, totals = get(keys.PARAMS), reader.get(keys.TOTALS, Totals)
    if params_bytes is None or totals is None:
        return None
    params, preset = read_params(params_bytes)
    nodes: dict[bytes, Node] = {}
    for slot in range(min(totals.node_slots, MAX_SLOTS)):
        row = reader.get(keys.node_slot_key(slot), NodeSlot)
        node = reader.get(keys.node_key(row.node), Node) if row else None
        if row and node and node.slot == slot:
            nodes[row.node] = node
    lease_ids = _lease_ids(reader, nodes)
    shown = list(lease_ids)[:MAX_LEASES]
    return GridAnswer(
        height,
        totals.time_ms,
        params.genesis_ms,
        totals.epoch,
        preset.epoch_ms,
        totals.node_slots <= MAX_SLOTS and len(shown) == len(lease_ids),
        [_farm_row(reader, owner) for owner in dict.fromkeys(node.farm for node in nodes.values())],
        [_node_row(reader, id_, node, preset.report_epochs) for id_, node in nodes.items()],
        [
            _lease_row(reader, id_, lease, totals)
            for id_ in shown
            if (lease := reader.get(keys.lease_key(id_), Lease)) is not None
        ],
    )


def _lease_ids(reader: _Reader, nodes: dict[bytes, Node]) -> dict[bytes, None]:
    """The leases in the nodes' lease slots, each once, in the order of nodes."""
    found: dict[bytes, None] = {}
    for id_, node in nodes.items():
        for slot in range(8 * len(node.lease_slots)):
            if node.lease_slots[slot // 8] >> (slot % 8) & 1:
                held = reader.get(keys.node_lease_key(id_, slot), NodeLease)
                if held is not None:
                    found[held.lease] = None
    return found


def _farm_row(reader: _Reader, owner: bytes) -> FarmRow:
    farm = reader.get(keys.farm_key(owner), Farm)
    account = reader.get(keys.account_key(owner), Account)
    balance = account.balance if account else 0
    if farm is None:
        return FarmRow(encode_account(owner), "", "", "", 0, balance)
    return FarmRow(encode_account(owner), farm.name, farm.place.country, farm.place.city, farm.nodes, balance)


def _node_row(reader: _Reader, id_: bytes, node: Node, report_epochs: int) -> NodeRow:
    report = None
    if node.last_report_epoch >= 0:
        report = reader.get(keys.report_key(id_, node.last_report_epoch, report_epochs), ReportRecord)
    return NodeRow(
        id_.hex(),
        node.slot,
        encode_account(node.farm),
        node.place.country,
        node.place.city,
        _resources(node.capacity),
        _resources(node.used),
        sum(byte.bit_count() for byte in node.lease_slots),
        node.stake,
        node.retired_epoch != 0,
        node.last_report_epoch,
        report.received_ms if report and report.epoch == node.last_report_epoch else 0,
    )


def _lease_row(reader: _Reader, id_: bytes, lease: Lease, totals: Totals) -> LeaseRow:
    deployment = reader.get(keys.deployment_key(lease.deployment), Deployment)
    holder = leases.holder_at(lease, totals.time_ms)
    return LeaseRow(
        id_.hex(),
        deployment.name if deployment else "",
        lease.service,
        lease.replica,
        encode_account(lease.tenant),
        str(leases.status(lease, totals.time_ms, totals.void_ms)),
        [MemberRow(member.node.hex(), member.accepted_ms != 0, member.lost) for member in lease.members],
        "" if holder is None else lease.members[holder].node.hex(),
        leases.term_at(lease, totals.time_ms),
        lease.started_ms,
        leases.end_ms(lease, totals.void_ms),
        lease.price_per_hour,
        lease.paid,
        lease.refunded,
        lease.escrow,
    )


def _resources(resources: Resources) -> ResourcesRow:
    return ResourcesRow(resources.vcpu_milli, resources.memory_mib, resources.disk_mib)
