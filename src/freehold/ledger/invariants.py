"""What must hold of every state, checked over the whole of it: for tests, audits and restored snapshots.

Tokens are conserved, nothing is negative, a lease's escrow pays exactly what is left of it, no time is paid twice, one
member holds each term, nodes count what they lease. This loops over everything, so no rule calls it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from freehold.base.errors import check
from freehold.ledger import keys
from freehold.ledger.context import preset_of
from freehold.ledger.farms import LEASE_SLOT_BYTES, fits, plus
from freehold.ledger.pricing import lease_cost
from freehold.ledger.records import (
    Account,
    ChallengeRecord,
    Deployment,
    Farm,
    Lease,
    Node,
    NodeHistory,
    NodeLease,
    NodeSlot,
    Params,
    TenantIndex,
    Totals,
)
from freehold.ledger.state import R, decode_record
from freehold.ledger.transactions import Resources


class _Books:
    """A whole state, decoded by family."""

    def __init__(self, state: Mapping[bytes, bytes]) -> None:
        self.params = decode_record(state[keys.PARAMS], Params)
        self.preset = preset_of(self.params)
        self.totals = decode_record(state[keys.TOTALS], Totals)
        self.accounts = dict(_family(state, keys.account_key, Account))
        self.farms = dict(_family(state, keys.farm_key, Farm))
        self.nodes = dict(_family(state, keys.node_key, Node))
        self.histories = dict(_family(state, keys.node_history_key, NodeHistory))
        self.slots = {int.from_bytes(key, "big"): row for key, row in _family(state, lambda key: b"s" + key, NodeSlot)}
        self.deployments = dict(_family(state, keys.deployment_key, Deployment))
        self.leases = dict(_family(state, keys.lease_key, Lease))
        self.challenges = dict(_family(state, keys.challenge_key, ChallengeRecord))
        self.node_leases = {
            (key[:-1], key[-1]): row.lease for key, row in _family(state, lambda key: b"k" + key, NodeLease)
        }
        self.tenants = dict(_family(state, keys.tenant_key, TenantIndex))


def _family(state: Mapping[bytes, bytes], key_of: Callable[[bytes], bytes], kind: type[R]) -> Iterator[tuple[bytes, R]]:
    family = key_of(b"")
    for key, value in state.items():
        if key[:1] == family and len(key) > 1:
            yield key[1:], decode_record(value, kind)


def check_state(state: Mapping[bytes, bytes]) -> None:
    """Check every invariant.

    Args:
        state: the whole of a ledger's state.

    Raises:
        InvariantError: one does not hold.
    """
    books = _Books(state)
    _check_tokens(books)
    for lease_id, lease in books.leases.items():
        _check_money(lease_id, lease)
        _check_terms(books, lease_id, lease)
    _check_nodes(books)
    _check_deployments(books)
    _check_challenges(books)


def total_tokens(state: Mapping[bytes, bytes]) -> int:
    """Give the sum of all tokens, wherever a record holds them."""
    return _sum_tokens(_Books(state))


def _sum_tokens(books: _Books) -> int:
    return (
        books.totals.treasury
        + books.totals.fees
        + sum(account.balance for account in books.accounts.values())
        + sum(farm.deposit for farm in books.farms.values())
        + sum(node.stake + node.deposit for node in books.nodes.values())
        + sum(deployment.deposit for deployment in books.deployments.values())
        + sum(lease.escrow + lease.bounty + lease.deposit for lease in books.leases.values())
        + sum(challenge.bond + challenge.bounty for challenge in books.challenges.values())
    )


def _check_tokens(books: _Books) -> None:
    total = _sum_tokens(books)
    check(total == books.totals.supply, "tokens_conserved", total=total, supply=books.totals.supply)
    check(min(books.totals.treasury, books.totals.fees) >= 0, "totals_not_negative")
    for account in books.accounts.values():
        check(0 <= account.reserved <= account.balance, "balance_covers_deposit", balance=account.balance)


def _check_money(lease_id: bytes, lease: Lease) -> None:
    """A lease's escrow is the cost of what is left of it; what left it is what was settled: no time is paid twice."""
    prices = (lease.price_per_hour, lease.reserve_per_hour, len(lease.members) - 1)
    name = lease_id.hex()
    check(0 <= lease.settled_ms <= lease.prepaid_ms, "lease_settled_within_prepaid", lease=name)
    check(lease.escrow >= 0 and lease.bounty >= 0, "escrow_not_negative", lease=name, escrow=lease.escrow)
    left = lease_cost(*prices, lease.settled_ms, lease.prepaid_ms)
    check(lease.escrow == left, "escrow_pays_the_rest", lease=name, escrow=lease.escrow, left=left)
    settled = lease_cost(*prices, 0, lease.settled_ms)
    check(lease.paid + lease.refunded == settled, "settled_once", lease=name, settled=settled)
    epochs = [entry.epoch for entry in lease.settlements]
    check(all(one < two for one, two in pairwise(epochs)), "epochs_settled_once", lease=name)
    check(not epochs or epochs[-1] < lease.settled_epoch, "settled_epochs_are_past", lease=name)


def _check_terms(books: _Books, lease_id: bytes, lease: Lease) -> None:
    """Each term has one holder; the next is in force only a fence time and an allowance after its decision."""
    name = lease_id.hex()
    holders = [term.member for term in lease.terms]
    check(len(set(holders)) == len(holders), "one_holder_a_term", lease=name)
    check(bool(holders) == bool(lease.started_ms), "started_has_a_term", lease=name)
    for index, member in enumerate(lease.members):
        check(member.lost == (index in holders[:-1]), "lost_after_a_later_term", lease=name, member=index)
    fence = books.preset.fence_ms + books.preset.clock_allowance_ms
    for previous, term in pairwise(lease.terms):
        check(term.from_ms == term.decided_ms + fence, "term_waits_for_the_fence", lease=name)
        check(term.decided_ms >= previous.from_ms, "terms_in_order", lease=name)


def _check_nodes(books: _Books) -> None:
    """Nodes, their slots, their capacity and their bitmaps agree with the leases."""
    used: dict[bytes, Resources] = {}
    held: dict[tuple[bytes, int], bytes] = {}
    for lease_id, lease in books.leases.items():
        for member in lease.members:
            held[(member.node, member.slot)] = lease_id
            if not lease.closed_ms and not member.lost:
                used[member.node] = plus(used.get(member.node, Resources(0, 0, 0)), lease.resources)
    check(held == books.node_leases, "node_leases_match")
    farms: Counter[bytes] = Counter()
    for node_id, node in books.nodes.items():
        name = node_id.hex()
        farms[node.farm] += 1
        check(node.used == used.get(node_id, Resources(0, 0, 0)), "used_matches_leases", node=name)
        check(fits(node.used, node.capacity), "used_within_capacity", node=name)
        bits = sum(1 << slot for owner, slot in held if owner == node_id)
        check(node.lease_slots == bits.to_bytes(LEASE_SLOT_BYTES, "little"), "bitmap_matches", node=name)
        row = books.slots.get(node.slot)
        check(row is not None and row.node == node_id and row.owner == node.farm, "slot_row_matches", node=name)
        check(books.histories[node_id].count == node.history_count, "history_matches", node=name)
    check(sorted(books.slots) == list(range(books.totals.node_slots)), "slots_have_no_gap")
    for farm_id, farm in books.farms.items():
        check(farm.nodes == farms[farm_id], "farm_counts_nodes", farm=farm_id.hex())


def _check_deployments(books: _Books) -> None:
    """Deployments, leases and tenants' lists name each other."""
    standing = {lease for deployment in books.deployments.values() for lease in deployment.leases}
    check(standing == set(books.leases), "deployments_list_leases")
    listed = [(tenant, entry) for tenant, index in books.tenants.items() for entry in index.deployments]
    owned = [(deployment.tenant, entry) for entry, deployment in books.deployments.items()]
    check(sorted(listed) == sorted(owned), "tenants_list_deployments")


def _check_challenges(books: _Books) -> None:
    """At most one challenge a lease, and each is its lease's."""
    open_ones = {lease.challenge: lease_id for lease_id, lease in books.leases.items() if lease.challenge}
    check(open_ones == {entry: record.lease for entry, record in books.challenges.items()}, "challenges_match")
    for record in books.challenges.values():
        slots = [slot for slot, _ in record.verdicts]
        check(len(set(slots)) == len(slots) and set(slots) <= set(record.witnesses), "one_verdict_a_witness")
