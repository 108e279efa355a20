"""What must hold of every state, checked over the whole of it: for tests, audits and restored snapshots.

Tokens are conserved, nothing is negative, a lease's escrow pays exactly what is left of it, no time is paid twice, one
member holds each term, nodes count what they lease. This loops over everything, so no rule calls it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from freehold.base.errors import check
from freehold.ledger import elections as voting
from freehold.ledger import keys
from freehold.ledger.bonds import MAX_UNBONDING, validator_address
from freehold.ledger.context import preset_of
from freehold.ledger.farms import LEASE_SLOT_BYTES, fits, plus
from freehold.ledger.fee_shares import earned_of
from freehold.ledger.pricing import lease_cost
from freehold.ledger.records import (
    Account,
    Attendance,
    Candidates,
    ChallengeRecord,
    Deployment,
    Elections,
    Farm,
    Lease,
    Node,
    NodeHistory,
    NodeLease,
    NodeSlot,
    Params,
    TenantIndex,
    Totals,
    ValidatorAddress,
    ValidatorBond,
)
from freehold.ledger.state import R, decode_record, read
from freehold.ledger.transactions import Resources
from freehold.ledger.validator_sets import known_sets


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
        self.bonds = dict(_family(state, keys.bond_key, ValidatorBond))
        self.addresses = dict(_family(state, keys.validator_address_key, ValidatorAddress))
        self.elections = read(state, keys.ELECTIONS, Elections)
        self.candidates = read(state, keys.CANDIDATES, Candidates)
        self.attendance = read(state, keys.ATTENDANCE, Attendance)
        self.validator_sets = known_sets(state)


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
    _check_validators(books)


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
        + sum(bond.stake + bond.deposit for bond in books.bonds.values())
        + sum(part.amount for bond in books.bonds.values() for part in bond.unbonding)
        + (books.elections.pool if books.elections is not None else 0)
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


def _check_validators(books: _Books) -> None:
    """Somebody always votes; bonds, the table of candidates, the newest set and the pool of fees agree."""
    for members in books.validator_sets:
        check(bool(members) and min(power for _, power in members) > 0, "validator_set_not_empty")
        check(len({key for key, _ in members}) == len(members), "validators_named_once")
    elections, table = books.elections, books.candidates
    if elections is None or table is None:
        check(not books.bonds, "no_bonds_without_elections")
        return
    newest = dict(books.validator_sets[-1])
    for key, bond in books.bonds.items():
        name = key.hex()
        check(
            min([bond.stake, bond.earned, *(part.amount for part in bond.unbonding)]) >= 0, "bond_positive", bond=name
        )
        check(len(bond.unbonding) <= MAX_UNBONDING, "unbonding_bounded", bond=name)
        check(bond.power == newest.get(key, 0), "power_is_the_newest_set's", bond=name)
        check(not (bond.is_removed and bond.is_listed), "removed_never_stands", bond=name)
    check(
        {key: validator_address(key) for key in books.bonds}
        == {row.validator: address for address, row in books.addresses.items()},
        "addresses_match",
    )
    listed = [(bond.stake, key, bond.owner) for key, bond in books.bonds.items() if bond.is_listed]
    check(table.entries == sorted(listed, key=lambda row: (-row[0], row[1])), "candidates_match")
    preset = voting.preset_of(elections)
    check(len(table.entries) <= preset.max_candidates, "candidates_bounded")
    check(elections.power == sum(bond.power for bond in books.bonds.values()), "power_matches")
    earned = sum(earned_of(elections, bond) for bond in books.bonds.values())
    check(elections.pool >= earned, "pool_covers_earnings", pool=elections.pool, earned=earned)
    _check_cap(books, newest, preset.cap_permill)
    _check_attendance(books, preset.max_candidates)


def _check_attendance(books: _Books, rows: int) -> None:
    """Counters are of validators, none above the blocks that were counted; who is out has a bond and no place."""
    record = books.attendance
    if record is None:
        return
    blocks = books.totals.height - record.since_height
    check(all(0 < count <= blocks for _, count in record.missed), "missed_within_the_era", blocks=blocks)
    check(all(one[0] < two[0] for one, two in pairwise(record.missed)), "missed_ascending")
    check(len(record.missed) <= max(len(members) for members in books.validator_sets), "missed_bounded")
    absent = [key for key, _ in record.absent]
    check(len(set(absent)) == len(absent) <= rows, "absent_bounded", count=len(absent))
    for key in absent:
        check(key in books.bonds and not books.bonds[key].is_listed, "absent_has_no_place", bond=key.hex())


def _check_cap(books: _Books, newest: Mapping[bytes, int], cap_permill: int) -> None:
    """No owner's power exceeds the cap, or an equal share where owners are few; once elections seat somebody."""
    if books.elections is None or not books.elections.is_elected:
        return
    held: Counter[bytes] = Counter()
    for key, power in newest.items():
        bond = books.bonds.get(key)
        held[bond.owner if bond is not None else key] += power
    share = max(cap_permill, -(-voting.PERMILL // len(held)))
    for owner, power in held.items():
        check(power * voting.PERMILL <= share * sum(held.values()), "power_within_cap", owner=owner.hex())
