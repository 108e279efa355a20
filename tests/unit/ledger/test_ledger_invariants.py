"""The canary: states that were tampered with are noticed, each by the invariant that guards it."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from ledger_grid import Grid

from freehold.base.codec import encode
from freehold.base.errors import InvariantError
from freehold.ledger import keys
from freehold.ledger.invariants import check_state
from freehold.ledger.records import (
    Account,
    ChallengeRecord,
    Deployment,
    Farm,
    Lease,
    Member,
    Node,
    NodeSlot,
    Term,
    Totals,
)
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import Challenge, Resources, Verdict


def build() -> tuple[Grid, bytes, bytes]:
    grid = Grid(farms=8)
    grid.block()
    lease = grid.deploy(grid.tenants[0], [[0, 2, 4]])[0]
    for _ in range(4):
        grid.next_epoch()
    grid.claim_all(lease)
    challenge = grid.ok(grid.nodes[2], Challenge(lease, 1))
    grid.block(dt=100)
    for slot in grid.challenge_witnesses(challenge):
        grid.ok(grid.node_of_slot(slot), Verdict(challenge, True))
    return grid, lease, challenge


GRID, LEASE, CHALLENGE = build()
NODE = GRID.nodes[0].public
STANDBY = GRID.nodes[2].public
TENANT = GRID.tenants[0].public


def change(key: bytes, kind: type[Any], edit: Callable[[Any], dict[str, Any]]) -> Callable[[dict[bytes, bytes]], None]:
    def apply(state: dict[bytes, bytes]) -> None:
        record = decode_record(state[key], kind)
        state[key] = encode(msgspec.structs.replace(record, **edit(record)))

    return apply


def lease_change(edit: Callable[[Lease], dict[str, Any]]) -> Callable[[dict[bytes, bytes]], None]:
    return change(keys.lease_key(LEASE), Lease, edit)


CASES: list[tuple[str, Callable[[dict[bytes, bytes]], None]]] = [
    ("tokens_conserved", change(keys.account_key(TENANT), Account, lambda r: {"balance": r.balance + 1})),
    ("tokens_conserved", change(keys.TOTALS, Totals, lambda r: {"fees": r.fees - 1})),
    ("tokens_conserved", change(keys.node_key(NODE), Node, lambda r: {"stake": r.stake + 1})),
    ("tokens_conserved", change(keys.challenge_key(CHALLENGE), ChallengeRecord, lambda r: {"bond": 0})),
    ("balance_covers_deposit", change(keys.account_key(TENANT), Account, lambda r: {"reserved": r.balance + 1})),
    ("lease_settled_within_prepaid", lease_change(lambda r: {"settled_ms": -1})),
    ("escrow_pays_the_rest", lease_change(lambda r: {"settled_ms": r.settled_ms + 1_000})),
    ("settled_once", lease_change(lambda r: {"paid": r.paid + 1})),
    ("epochs_settled_once", lease_change(lambda r: {"settlements": [*r.settlements, r.settlements[-1]]})),
    ("settled_epochs_are_past", lease_change(lambda r: {"settled_epoch": r.settled_epoch - 1})),
    ("one_holder_a_term", lease_change(lambda r: {"terms": [*r.terms, r.terms[0]]})),
    ("started_has_a_term", lease_change(lambda r: {"terms": []})),
    (
        "lost_after_a_later_term",
        lease_change(
            lambda r: {"members": [Member(m.node, m.slot, m.accepted_ms, m.erofs_digest, False) for m in r.members]}
        ),
    ),
    (
        "term_waits_for_the_fence",
        lease_change(lambda r: {"terms": [r.terms[0], Term(1, r.terms[1].decided_ms, r.terms[1].decided_ms)]}),
    ),
    ("node_leases_match", lambda state: state.pop(keys.node_lease_key(NODE, 0)) and None),
    ("used_matches_leases", change(keys.node_key(STANDBY), Node, lambda r: {"used": Resources(0, 0, 0)})),
    ("used_within_capacity", change(keys.node_key(STANDBY), Node, lambda r: {"capacity": Resources(1, 1, 1)})),
    ("bitmap_matches", change(keys.node_key(STANDBY), Node, lambda r: {"lease_slots": bytes(32)})),
    ("slot_row_matches", change(keys.node_slot_key(0), NodeSlot, lambda r: {"owner": bytes(32)})),
    ("history_matches", change(keys.node_key(NODE), Node, lambda r: {"history_count": 1})),
    ("slots_have_no_gap", change(keys.TOTALS, Totals, lambda r: {"node_slots": 5})),
    ("farm_counts_nodes", change(keys.farm_key(GRID.farms[0].public), Farm, lambda r: {"nodes": 1})),
    ("tenants_list_deployments", lambda state: state.pop(keys.tenant_key(TENANT)) and None),
    ("challenges_match", lease_change(lambda r: {"challenge": b""})),
    (
        "one_verdict_a_witness",
        change(keys.challenge_key(CHALLENGE), ChallengeRecord, lambda r: {"verdicts": [*r.verdicts, r.verdicts[0]]}),
    ),
]


def test_the_state_is_sound() -> None:
    check_state(GRID.state)
    deployment = GRID.deployments_of(TENANT)[0]
    assert GRID.need(keys.deployment_key(deployment), Deployment).leases == [LEASE]


@pytest.mark.parametrize(("name", "tamper"), CASES)
def test_tampering_is_noticed(name: str, tamper: Callable[[dict[bytes, bytes]], None]) -> None:
    state = dict(GRID.state)
    tamper(state)
    with pytest.raises(InvariantError, match=name):
        check_state(state)


def test_a_lease_that_no_deployment_lists_is_noticed() -> None:
    state = dict(GRID.state)
    key = keys.deployment_key(GRID.deployments_of(TENANT)[0])
    record = decode_record(state[key], Deployment)
    state[key] = encode(msgspec.structs.replace(record, leases=[]))
    with pytest.raises(InvariantError, match="deployments_list_leases"):
        check_state(state)
