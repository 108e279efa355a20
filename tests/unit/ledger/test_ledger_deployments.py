"""Deploy, accept, refund, top up, close."""

from typing import Any

import msgspec
import pytest
from ledger_grid import FEE, SMALL, ZERO, Grid, Key

from freehold.base.amounts import MAX_AMOUNT, TOKEN
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.deployments import top_up_cost
from freehold.ledger.events import LeaseChanged
from freehold.ledger.fields import MAX_PREPAID_MS
from freehold.ledger.pricing import lease_charge, price_per_hour
from freehold.ledger.records import Deployment, Lease, NodeLease, Term
from freehold.ledger.transactions import (
    Accept,
    Claim,
    Close,
    Deploy,
    LeaseOrder,
    Probe,
    Refund,
    Resources,
    RetireNode,
    TopUp,
    Transfer,
    deployment_id,
    lease_id,
)

HOUR = 3_600_000


@pytest.fixture
def grid() -> Grid:
    grid = Grid()
    grid.block()
    return grid


def test_a_deployment_locks_escrow_bounty_and_deposits(grid: Grid) -> None:
    tenant = grid.tenants[0]
    before = grid.balance(tenant.public)
    orders = [grid.order([0, 2, 4], "web", hours=2), grid.order([6], "db")]
    data = grid.ok(tenant, Deploy("shop", [b"k" * 32], orders))
    assert data == deployment_id("freehold-test", tenant.public, 0)
    deployment = grid.need(keys.deployment_key(data), Deployment)
    assert deployment.leases == [lease_id(data, "web", 0), lease_id(data, "db", 0)]
    assert (deployment.tenant, deployment.name, deployment.access_keys) == (tenant.public, "shop", [b"k" * 32])
    assert grid.deployments_of(tenant.public) == [data]
    web, db = (grid.lease(entry) for entry in deployment.leases)
    # Ten tokens an hour for two hours, and two standbys at a fifth.
    assert (web.escrow, web.bounty, web.deposit) == (28 * TOKEN, TOKEN, TOKEN // 10)
    assert (db.escrow, db.bounty, db.deposit) == (10 * TOKEN, 0, TOKEN // 10)
    charged = sum(lease_charge(grid.preset, order).total for order in orders) + TOKEN // 10 + FEE
    assert before - grid.balance(tenant.public) == charged
    assert (web.accept_by_ms, web.started_ms, web.terms) == (grid.now + 60_000, 0, [])
    assert grid.node(grid.nodes[0].public).used == SMALL
    assert grid.need(keys.node_lease_key(grid.nodes[0].public, 0), NodeLease).lease == deployment.leases[0]


def test_what_deploy_refuses(grid: Grid) -> None:
    tenant = grid.tenants[0]
    ok = grid.order([0, 2])

    def order(**changes: Any) -> list[LeaseOrder]:
        return [msgspec.structs.replace(ok, **changes)]

    node = [key.public for key in grid.nodes]
    cases: list[tuple[Deploy, Code]] = [
        (Deploy("Bad", [], [ok]), Code.BAD_NAME),
        (Deploy("x", [], []), Code.TOO_MANY),
        (Deploy("x", [], [ok] * 33), Code.TOO_MANY),
        (Deploy("x", [ZERO] * 17, [ok]), Code.TOO_MANY),
        (Deploy("x", [b"short"], [ok]), Code.BAD_FIELD),
        (Deploy("x", [], [ok, ok]), Code.ALREADY_EXISTS),
        (Deploy("x", [], order(service="no/slash")), Code.BAD_NAME),
        (Deploy("x", [], order(replica=-1)), Code.BAD_FIELD),
        (Deploy("x", [], order(members=[])), Code.TOO_MANY),
        (Deploy("x", [], order(members=node[:6])), Code.TOO_MANY),
        (Deploy("x", [], order(members=[node[0], node[1]])), Code.SAME_OWNER),
        (Deploy("x", [], order(members=[node[0], node[0]])), Code.SAME_OWNER),
        (Deploy("x", [], order(members=[b"x" * 32])), Code.UNKNOWN_NODE),
        (Deploy("x", [], order(members=[b"x"])), Code.BAD_FIELD),
        (Deploy("x", [], order(image_digest=b"x")), Code.BAD_FIELD),
        (Deploy("x", [], order(spec_hash=b"x")), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(3, 80, ""))), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(0, 80, ""))), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(0, 0, "/"))), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(1, 0, ""))), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(1, 65_536, ""))), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(1, 80, "/"))), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(2, 80, ""))), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(2, 80, "/a b"))), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(2, 80, "/\r\nHost: x"))), Code.BAD_FIELD),
        (Deploy("x", [], order(probe=Probe(2, 80, "/" + "a" * 128))), Code.BAD_FIELD),
        (Deploy("x", [], order(ports=[80, 80])), Code.BAD_FIELD),
        (Deploy("x", [], order(ports=[443, 80])), Code.BAD_FIELD),
        (Deploy("x", [], order(ports=[0])), Code.BAD_FIELD),
        (Deploy("x", [], order(ports=list(range(1, 18)))), Code.BAD_FIELD),
        (Deploy("x", [], order(prepaid_ms=grid.preset.epoch_ms - 1)), Code.BAD_FIELD),
        (Deploy("x", [], order(prepaid_ms=MAX_PREPAID_MS + 1)), Code.BAD_FIELD),
        (Deploy("x", [], order(prepaid_ms=-HOUR)), Code.BAD_FIELD),
        (Deploy("x", [], order(resources=Resources(-1, 1, 1))), Code.BAD_FIELD),
        (Deploy("x", [], order(price_per_hour=-1)), Code.BAD_AMOUNT),
        (Deploy("x", [], order(price_per_hour=MAX_AMOUNT + 1)), Code.BAD_AMOUNT),
        (Deploy("x", [], order(price_per_hour=MAX_AMOUNT // 2)), Code.INSUFFICIENT_BALANCE),
        (Deploy("x", [], order(price_per_hour=MAX_AMOUNT, prepaid_ms=MAX_PREPAID_MS)), Code.BAD_AMOUNT),
        (Deploy("x", [], order(price_per_hour=TOKEN)), Code.PRICE_TOO_LOW),
        (Deploy("x", [], order(resources=Resources(8001, 1, 1), price_per_hour=99 * TOKEN)), Code.NO_CAPACITY),
        (Deploy("x", [], order(resources=Resources(1, 16_385, 1), price_per_hour=99 * TOKEN)), Code.NO_CAPACITY),
        (Deploy("x", [], order(resources=Resources(1, 1, 100_001), price_per_hour=99 * TOKEN)), Code.NO_CAPACITY),
    ]
    before = grid.balance(tenant.public)
    for body, code in cases:
        assert grid.run(tenant, body) == code, (body, code)
    assert grid.balance(tenant.public) == before
    for http in (Probe(2, 80, "/"), Probe(2, 80, "/" + "a" * 127), Probe(0, 0, "")):
        grid.ok(tenant, Deploy("x", [], order(probe=http)))


def test_the_widest_order_that_is_allowed(grid: Grid) -> None:
    asked = price_per_hour(grid.node(grid.nodes[0].public).offer, SMALL)
    wide = grid.order(
        [0, 2, 4, 6, 8], price=asked, replica=(1 << 32) - 1, prepaid_ms=grid.preset.epoch_ms, ports=list(range(1, 17))
    )
    assert grid.run(grid.tenants[0], Deploy("x", [], [grid.order([0], price=asked - 1)])) == Code.PRICE_TOO_LOW
    grid.ok(grid.tenants[0], Deploy("x", [ZERO] * 16, [wide]))


def test_the_deployments_own_deposit_must_be_there(grid: Grid) -> None:
    order = grid.order([0])
    charge = lease_charge(grid.preset, order).total
    deposit = grid.preset.record_deposit
    poor = Key("poor")
    grid.ok(grid.faucet, Transfer(poor.public, charge + deposit + FEE + deposit - 1))
    assert grid.run(poor, Deploy("x", [], [order])) == Code.INSUFFICIENT_BALANCE
    grid.ok(grid.faucet, Transfer(poor.public, 1))
    grid.ok(poor, Deploy("x", [], [order]))
    assert grid.balance(poor.public) == deposit


def test_a_retired_node_takes_no_lease(grid: Grid) -> None:
    grid.ok(grid.farms[0], RetireNode(grid.nodes[0].public))
    assert grid.run(grid.tenants[0], Deploy("x", [], [grid.order([0])])) == Code.NODE_RETIRED


def test_all_leases_or_none(grid: Grid) -> None:
    orders = [grid.order([0], "a"), grid.order([99 % 10], "b", price=1)]
    assert grid.run(grid.tenants[0], Deploy("x", [], orders)) == Code.PRICE_TOO_LOW
    assert grid.node(grid.nodes[0].public).used == Resources(0, 0, 0)
    assert not grid.deployments_of(grid.tenants[0].public)


def test_capacity_is_counted_across_leases(grid: Grid) -> None:
    half = Resources(4000, 1024, 0)
    orders = [grid.order([0], f"s{at}", resources=half, price=30 * TOKEN) for at in range(3)]
    assert grid.run(grid.tenants[0], Deploy("x", [], orders)) == Code.NO_CAPACITY
    grid.ok(grid.tenants[0], Deploy("x", [], orders[:2]))
    assert grid.run(grid.tenants[1], Deploy("x", [], orders[2:])) == Code.NO_CAPACITY


def test_a_node_holds_at_most_256_leases() -> None:
    grid = Grid(capacity=Resources(1 << 20, 1 << 20, 1 << 20), is_checked=False)
    grid.block()
    tiny = Resources(1, 1, 0)
    for batch in range(8):
        orders = [grid.order([0], f"s{batch}-{at}", resources=tiny, price=TOKEN) for at in range(32)]
        grid.ok(grid.faucet, Deploy("x", [], orders))
    assert grid.node(grid.nodes[0].public).lease_slots == b"\xff" * 32
    one_more = grid.order([0], "x", resources=tiny, price=TOKEN)
    assert grid.run(grid.faucet, Deploy("x", [], [one_more])) == Code.NO_CAPACITY
    # A slot that was given back is the next to be taken.
    gone = grid.need(keys.node_lease_key(grid.nodes[0].public, 37), NodeLease).lease
    grid.ok(grid.faucet, Close(gone, ""))
    data = grid.ok(grid.faucet, Deploy("x", [], [one_more]))
    assert grid.lease(grid.leases_of(data)[0]).members[0].slot == 37


def test_an_account_has_at_most_256_deployments() -> None:
    grid = Grid(capacity=Resources(1 << 20, 1 << 20, 1 << 20), is_checked=False)
    grid.block()
    for at in range(256):
        order = grid.order([at % 10], resources=Resources(1, 1, 0), price=TOKEN)
        grid.ok(grid.faucet, Deploy("x", [], [order]), dt=1)
    assert grid.run(grid.faucet, Deploy("x", [], [grid.order([0])])) == Code.TOO_MANY


def test_the_primarys_acceptance_starts_the_lease(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0, 2]], accept=False)[0]
    assert grid.run(grid.nodes[4], Accept(lease, ZERO)) == Code.NOT_MEMBER
    assert grid.run(grid.nodes[0], Accept(lease, b"short")) == Code.BAD_FIELD
    assert grid.run(grid.nodes[0], Accept(ZERO, ZERO)) == Code.UNKNOWN_LEASE
    grid.ok(grid.nodes[2], Accept(lease, b"e" * 32))
    record = grid.lease(lease)
    assert (record.started_ms, record.members[1].accepted_ms, record.members[1].erofs_digest) == (
        0,
        grid.now,
        b"e" * 32,
    )
    assert grid.run(grid.nodes[2], Accept(lease, ZERO)) == Code.ALREADY_ACCEPTED
    assert grid.run(grid.faucet, Claim(lease, 0, 0)) == Code.LEASE_NOT_ACTIVE
    grid.ok(grid.nodes[0], Accept(lease, ZERO))
    record = grid.lease(lease)
    assert (record.started_ms, record.terms) == (grid.now, [Term(0, grid.now, grid.now)])
    assert record.settled_epoch == grid.epoch


def test_the_deadline(grid: Grid) -> None:
    tenant = grid.tenants[0]
    before = grid.balance(tenant.public)
    late, kept = grid.deploy(tenant, [[0, 2], [4, 6]], accept=False)
    grid.ok(grid.nodes[4], Accept(kept, ZERO))
    assert grid.run(grid.faucet, Refund(late)) == Code.DEADLINE_NOT_PASSED
    assert grid.run(grid.faucet, Refund(ZERO)) == Code.UNKNOWN_LEASE
    by = grid.lease(late).accept_by_ms
    grid.block(dt=by - grid.now - 1)
    assert grid.run(grid.faucet, Refund(late), dt=1) == Code.DEADLINE_NOT_PASSED  # exactly at it: still in time
    assert grid.run(grid.nodes[0], Accept(late, ZERO), dt=1) == Code.DEADLINE_PASSED
    assert grid.run(grid.nodes[6], Accept(kept, ZERO), dt=1) == Code.DEADLINE_PASSED
    assert grid.run(grid.faucet, Refund(kept), dt=1) == Code.ALREADY_ACCEPTED
    grid.ok(grid.faucet, Refund(late), dt=1)
    assert grid.node(grid.nodes[0].public).used == Resources(0, 0, 0)
    assert grid.node(grid.nodes[2].public).lease_slots == bytes(32)
    held = grid.lease(kept)
    fees = FEE
    deployment_deposit = grid.preset.record_deposit
    assert before - grid.balance(tenant.public) == held.escrow + held.bounty + held.deposit + deployment_deposit + fees
    assert grid.run(grid.faucet, Refund(late), dt=1) == Code.UNKNOWN_LEASE


def test_accepting_at_the_deadline_is_in_time(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], accept=False)[0]
    grid.block(dt=grid.lease(lease).accept_by_ms - grid.now - 1)
    grid.ok(grid.nodes[0], Accept(lease, ZERO), dt=1)


def test_a_refunded_deployment_gives_everything_back(grid: Grid) -> None:
    tenant = grid.tenants[0]
    before = grid.balance(tenant.public)
    for lease in grid.deploy(tenant, [[0, 2], [4]], accept=False):
        grid.block(dt=max(1, grid.lease(lease).accept_by_ms - grid.now))
        grid.ok(grid.faucet, Refund(lease))
    assert grid.balance(tenant.public) == before - FEE
    assert not grid.deployments_of(tenant.public)


def test_top_up_extends_at_the_frozen_price(grid: Grid) -> None:
    tenant = grid.tenants[0]
    lease = grid.deploy(tenant, [[0, 2]])[0]
    end, before, record = grid.end_ms(lease), grid.balance(tenant.public), grid.lease(lease)
    assert top_up_cost(record, HOUR) == 12 * TOKEN
    grid.ok(tenant, TopUp(lease, HOUR))
    assert grid.end_ms(lease) == end + HOUR
    assert before - grid.balance(tenant.public) == 12 * TOKEN + FEE
    assert grid.run(grid.tenants[1], TopUp(lease, HOUR)) == Code.NOT_OWNER
    assert grid.run(tenant, TopUp(ZERO, HOUR)) == Code.UNKNOWN_LEASE
    assert grid.run(tenant, TopUp(lease, 0)) == Code.BAD_FIELD
    assert grid.run(tenant, TopUp(lease, -HOUR)) == Code.BAD_FIELD
    assert grid.run(tenant, TopUp(lease, MAX_PREPAID_MS)) == Code.BAD_FIELD
    assert grid.run(tenant, TopUp(lease, MAX_PREPAID_MS // 2)) == Code.INSUFFICIENT_BALANCE


def test_odd_top_ups_cost_what_one_would(grid: Grid) -> None:
    tenant = grid.tenants[0]
    lease = grid.deploy(tenant, [[0, 2]], price=9 * TOKEN + 1)[0]
    for add in (1, 7, 999, 1_000_003):
        grid.ok(tenant, TopUp(lease, add))
    record = grid.lease(lease)
    price = record.price_per_hour * record.prepaid_ms // HOUR + record.reserve_per_hour * record.prepaid_ms // HOUR
    assert record.escrow == price


def test_an_ended_lease_cannot_be_topped_up_or_closed(grid: Grid) -> None:
    tenant = grid.tenants[0]
    lease = grid.deploy(tenant, [[0]], prepaid_ms=10_000)[0]
    for _ in range(2):
        grid.next_epoch(reports=False)
    assert grid.now >= grid.end_ms(lease)
    assert grid.run(tenant, TopUp(lease, HOUR)) == Code.LEASE_CLOSED
    assert grid.run(tenant, Close(lease, "late")) == Code.LEASE_CLOSED


def test_closing_before_the_start_gives_everything_back(grid: Grid) -> None:
    tenant = grid.tenants[0]
    before = grid.balance(tenant.public)
    lease = grid.deploy(tenant, [[0, 2]], accept=False)[0]
    assert grid.run(grid.tenants[1], Close(lease, "not mine")) == Code.NOT_OWNER
    assert grid.run(tenant, Close(lease, "x" * 257)) == Code.BAD_FIELD
    assert grid.run(tenant, Close(lease, "\n")) == Code.BAD_FIELD
    grid.ok(tenant, Close(lease, "changed my mind"))
    assert grid.balance(tenant.public) == before - 2 * FEE
    assert grid.read(keys.lease_key(lease), Lease) is None


def test_closing_frees_capacity_now_and_the_slot_later(grid: Grid) -> None:
    tenant, node = grid.tenants[0], grid.nodes[0].public
    lease = grid.deploy(tenant, [[0, 2]])[0]
    grid.ok(tenant, Close(lease, "moving"))
    assert grid.node(node).used == Resources(0, 0, 0)
    assert grid.node(node).lease_slots[0] == 1  # a bit of this epoch's report must not mean two leases
    record = grid.lease(lease)
    assert (record.closed_ms, record.close_reason) == (grid.now, "moving")
    for body in (Close(lease, "again"), TopUp(lease, HOUR)):
        assert grid.run(tenant, body) == Code.LEASE_CLOSED
    second = grid.deploy(tenant, [[0]])[0]
    assert grid.lease(second).members[0].slot == 1
    for _ in range(3):
        grid.next_epoch()
    grid.claim_all(lease)
    assert grid.node(node).lease_slots[0] == 2
    assert any(
        isinstance(event, LeaseChanged) and event.lease == lease and (event.change, event.reason) == ("ended", "moving")
        for event in grid.events
    )


def test_a_standby_cannot_accept_a_closed_lease(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0, 2]], accept=False)[0]
    grid.ok(grid.nodes[0], Accept(lease, ZERO))
    grid.ok(grid.tenants[0], Close(lease, ""))
    assert grid.run(grid.nodes[2], Accept(lease, ZERO)) == Code.LEASE_CLOSED


def test_ids_depend_on_chain_tenant_and_nonce() -> None:
    one, two = Key("one").public, Key("two").public
    ids = {deployment_id(*parts) for parts in (("a", one, 0), ("b", one, 0), ("a", two, 0), ("a", one, 1))}
    assert len(ids) == 4
    assert lease_id(ZERO, "ab", 1) != lease_id(ZERO, "a", 1)
