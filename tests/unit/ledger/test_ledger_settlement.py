"""Claims: what an epoch pays, to whom, when, and that nothing is paid twice."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_grid import FEE, GENESIS_MS, ZERO, Grid, Key, preset_with

from freehold.base.amounts import TOKEN
from freehold.base.presets import MINIMAL
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.events import Payment
from freehold.ledger.records import Lease
from freehold.ledger.settlement import split_payment
from freehold.ledger.transactions import Accept, Claim, Close

PRICE = 36_000_000  # 100,000 an epoch of 10 s


@pytest.fixture
def grid() -> Grid:
    grid = Grid()
    grid.block()
    return grid


def balances(grid: Grid) -> Counter[str]:
    people = [*grid.farms, *grid.tenants]
    return Counter({key.name: grid.balance(key.public) for key in people})


def earned(grid: Grid, before: Counter[str]) -> dict[str, int]:
    return {name: amount - before[name] for name, amount in balances(grid).items() if amount != before[name]}


def running(grid: Grid, members: list[int], **fields: int) -> bytes:
    """A lease whose next epoch is served in full."""
    lease = grid.deploy(grid.tenants[0], [members], price=PRICE, **fields)[0]
    grid.next_epoch()
    grid.next_epoch()
    grid.next_epoch()
    first = grid.lease(lease).settled_epoch
    assert grid.claim(lease, first, first) == Code.OK
    return lease


def test_a_served_epoch_is_split(grid: Grid) -> None:
    lease = running(grid, [0])
    epoch = grid.lease(lease).settled_epoch
    before, totals = balances(grid), grid.totals
    report = grid.report(grid.nodes[0].public, epoch)
    assert report is not None
    escrow = grid.lease(lease).escrow
    assert grid.claim(lease, epoch, epoch) == Code.OK
    expected = Counter({"farm-0": 85_000})
    for slot in report.witnesses:
        expected[grid.farms[slot // 2].name] += 3_333
    assert earned(grid, before) == dict(expected)
    # The treasury has the rest, remainders with it; the claim's fee comes out of that alone.
    assert (grid.totals.treasury + grid.totals.fees) - (totals.treasury + totals.fees) == 5_001
    assert grid.totals.fees - totals.fees == 5_001
    record = grid.lease(lease)
    assert (escrow - record.escrow, record.settled_epoch) == (100_000, epoch + 1)
    entry = record.settlements[-1]
    assert (entry.epoch, entry.member, entry.term, entry.seen, entry.drawn, entry.paid, entry.refunded) == (
        epoch,
        0,
        1,
        3,
        3,
        100_000,
        0,
    )


def test_a_claims_fee_is_at_most_the_least_fee(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=100 * PRICE)[0]
    for _ in range(3):
        grid.next_epoch()
    fees, sender = grid.totals.fees, grid.balance(grid.faucet.public)
    assert grid.claim(lease, 0, 0) == Code.OK
    assert grid.totals.fees - fees == FEE
    assert grid.balance(grid.faucet.public) == sender


def test_standbys_earn_their_reserve(grid: Grid) -> None:
    lease = running(grid, [0, 2, 4])
    epoch = grid.lease(lease).settled_epoch
    grid.events.clear()
    assert grid.claim(lease, epoch, epoch) == Code.OK
    paid = {
        (event.role, event.node): event.amount
        for event in grid.events
        if isinstance(event, Payment) and event.role in ("holder", "standby")
    }
    assert paid == {
        ("holder", grid.nodes[0].public): 85_000,
        ("standby", grid.nodes[2].public): 17_000,
        ("standby", grid.nodes[4].public): 17_000,
    }
    assert grid.lease(lease).settlements[-1].paid == 140_000


def test_an_unseen_or_absent_holder_is_not_paid(grid: Grid) -> None:
    lease = running(grid, [0])
    tenant = grid.tenants[0].public
    grid.down = {grid.nodes[0].public}
    first = grid.epoch
    grid.next_epoch()
    grid.next_epoch()
    grid.next_epoch()
    grid.claim(lease, grid.lease(lease).settled_epoch, first - 1)
    before = grid.balance(tenant)
    assert grid.claim(lease, first, first) == Code.OK
    assert grid.balance(tenant) - before == 100_000
    entry = grid.lease(lease).settlements[-1]
    assert (entry.seen, entry.paid, entry.refunded) == (0, 0, 100_000)


@pytest.mark.parametrize(("liars", "is_paid"), [(0, True), (1, True), (2, False), (3, False)])
def test_t_of_w_witnesses_must_list_the_node(grid: Grid, liars: int, is_paid: bool) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE)[0]
    grid.next_epoch()
    epoch = grid.epoch
    grid.next_epoch(reports=False)
    drawn = grid.witnesses(grid.nodes[0].public, epoch)
    silent = {grid.node_of_slot(slot).public for slot in drawn[:liars]}
    for node in grid.nodes:
        body = grid.report_body(node.public, epoch)
        if node.public in silent:
            body = msgspec.structs.replace(body, duty_targets=[target for target in body.duty_targets if target != 0])
        grid.ok(node, body, dt=1)
    grid.next_epoch()
    grid.next_epoch()
    grid.claim(lease, 0, 0)
    assert grid.claim(lease, epoch, epoch) == Code.OK
    entry = grid.lease(lease).settlements[-1]
    assert (entry.paid > 0, entry.seen, entry.drawn) == (is_paid, 3 - liars, 3)


@pytest.mark.parametrize(("witnesses", "is_paid"), [(0, True), (1, True), (2, False), (3, False)])
def test_a_service_that_does_not_answer_is_not_paid_and_its_neighbour_is(
    grid: Grid, witnesses: int, is_paid: bool
) -> None:
    """Two leases on one node: the one whose service most witnesses found silent is refunded, the other is paid."""
    dead, alive = grid.deploy(grid.tenants[0], [[0], [0]], price=PRICE)
    slot = grid.lease(dead).members[0].slot
    grid.next_epoch()
    epoch = grid.epoch
    grid.next_epoch(reports=False)
    drawn = grid.witnesses(grid.nodes[0].public, epoch)
    silent_to = {grid.node_of_slot(number).public for number in drawn[:witnesses]}
    for node in grid.nodes:
        body = grid.report_body(node.public, epoch)
        if node.public in silent_to:
            body = msgspec.structs.replace(body, duty_failed=[(0, slot)])
        grid.ok(node, body, dt=1)
    grid.next_epoch()
    grid.next_epoch()
    for lease, expected in ((dead, is_paid), (alive, True)):
        grid.claim(lease, 0, 0)
        assert grid.claim(lease, epoch, epoch) == Code.OK
        entry = grid.lease(lease).settlements[-1]
        assert (entry.paid > 0) == expected
        assert entry.seen == (3 - witnesses if lease == dead else 3)


def test_praise_from_outside_the_draw_counts_for_nothing(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE)[0]
    grid.next_epoch()
    epoch = grid.epoch
    grid.next_epoch(reports=False)
    drawn = set(grid.witnesses(grid.nodes[0].public, epoch))
    for at, node in enumerate(grid.nodes):
        body = grid.report_body(node.public, epoch)
        targets = set(body.duty_targets) - {0} if at in drawn else set(body.duty_targets) | {0}
        grid.ok(node, msgspec.structs.replace(body, duty_targets=sorted(targets)), dt=1)
    grid.next_epoch()
    grid.next_epoch()
    grid.claim(lease, 0, 0)
    grid.claim(lease, epoch, epoch)
    assert grid.lease(lease).settlements[-1].paid == 0


def test_a_clear_bit_is_not_paid(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE)[0]
    grid.served = lambda node, _: node != grid.nodes[0].public
    for _ in range(3):
        grid.next_epoch()
    assert grid.claim(lease, 0, 0) == Code.OK
    assert grid.lease(lease).settlements[-1].paid == 0


def test_only_whole_epochs_in_order_after_their_window(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE)[0]
    for _ in range(4):
        grid.next_epoch()
    assert grid.claim(lease, 1, 2) == Code.WRONG_EPOCH
    assert grid.claim(lease, -1, 2) == Code.WRONG_EPOCH
    assert grid.claim(lease, 0, -1) == Code.WRONG_EPOCH
    assert grid.claim(lease, 0, 24) == Code.TOO_MANY
    assert grid.claim(lease, 0, 3) == Code.OUTSIDE_WINDOW
    assert grid.claim(ZERO, 0, 1) == Code.UNKNOWN_LEASE
    assert grid.claim(lease, 0, 1) == Code.OK
    assert grid.claim(lease, 0, 1) == Code.WRONG_EPOCH
    assert grid.claim(lease, 1, 2) == Code.WRONG_EPOCH
    assert grid.claim(lease, 2, 2) == Code.OK


def test_a_window_that_ends_now_can_be_claimed_now(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE)[0]
    grid.next_epoch()
    end = grid.epoch_record(1).first_ms - 1 + 10_000  # type: ignore[union-attr]
    while grid.now + 1_000 < end - 1:
        grid.block()
    grid.block(dt=end - 2 - grid.now)
    data = grid.tx(grid.faucet, Claim(lease, 0, 0))
    assert grid.block(data, dt=1)[0].code == Code.OUTSIDE_WINDOW
    assert grid.block(data, dt=1)[0].code == Code.OK


def test_the_end_pays_a_part_and_removes_the_lease(grid: Grid) -> None:
    tenant = grid.tenants[0]
    before = balances(grid)
    lease = grid.deploy(tenant, [[0, 2]], price=PRICE, prepaid_ms=25_000)[0]
    assert grid.end_ms(lease) == grid.lease(lease).started_ms + 25_000
    for _ in range(5):
        grid.next_epoch()
    grid.claim_all(lease)
    assert grid.read(keys.lease_key(lease), Lease) is None
    assert not grid.deployments_of(tenant.public)
    # 25 s at 10,000 a second, and the standby from a moment later; one deploy's fee; all deposits and the bounty back.
    spent = -earned(grid, before)["tenant-0"] - FEE
    assert 299_000 < spent <= 300_000
    assert grid.node(grid.nodes[0].public).used.vcpu_milli == 0


def test_an_end_on_the_edge_of_an_epoch_belongs_to_it(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE, prepaid_ms=15_000, accept=False)[0]
    grid.block(dt=GENESIS_MS + 5_000 - grid.now - 1)
    grid.ok(grid.nodes[0], Accept(lease, ZERO), dt=1)
    assert grid.end_ms(lease) == GENESIS_MS + 20_000
    for _ in range(4):
        grid.next_epoch()
    assert grid.claim(lease, 0, 1) == Code.OK
    assert grid.read(keys.lease_key(lease), Lease) is None


def test_closing_pays_to_the_instant(grid: Grid) -> None:
    tenant = grid.tenants[0]
    lease = running(grid, [0])
    before = balances(grid)
    start = grid.lease(lease).settled_ms
    grid.ok(tenant, Close(lease, "bye"))
    record = grid.lease(lease)
    owed = PRICE * (record.closed_ms - record.started_ms) // 3_600_000 - PRICE * start // 3_600_000
    back = record.escrow - owed + record.bounty + record.deposit + grid.preset.record_deposit
    for _ in range(3):
        grid.next_epoch()
    grid.claim_all(lease)
    assert earned(grid, before)["tenant-0"] == back - FEE


def test_a_closed_lease_ends_with_its_last_epoch_even_when_it_is_void(grid: Grid) -> None:
    lease = running(grid, [0])
    grid.next_epoch()
    grid.ok(grid.tenants[0], Close(lease, "bye"))
    closed_in = grid.epoch
    grid.block(dt=40_000)  # the rest of that epoch, and three more, have no block
    grid.next_epoch()
    grid.next_epoch()
    record = grid.epoch_record(closed_in)
    assert record is not None
    assert record.ticks_covered < 5
    first = grid.lease(lease).settled_epoch
    assert grid.claim(lease, first, closed_in) == Code.OK
    assert grid.read(keys.lease_key(lease), Lease) is None


def test_void_epochs_extend_and_pay_nothing(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE, prepaid_ms=30_000)[0]
    end = grid.end_ms(lease)
    grid.next_epoch()
    grid.block(dt=50_000)
    grid.next_epoch()
    assert grid.totals.void_ms == 50_000  # epoch 1, after one block, and 2 to 5
    assert grid.end_ms(lease) == end + 50_000
    for _ in range(5):
        grid.next_epoch()
    grid.events.clear()
    grid.claim_all(lease)
    assert grid.read(keys.lease_key(lease), Lease) is None
    by_epoch: Counter[int] = Counter()
    for event in grid.events:
        if isinstance(event, Payment):
            by_epoch[event.epoch] += event.amount
    assert set(by_epoch) == {0, 6, 7, 8}
    assert sum(by_epoch.values()) == 300_000
    assert by_epoch[6] == by_epoch[7] == 100_000


def test_an_ended_lease_is_not_revived_by_a_void_epoch_after_its_end(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE, prepaid_ms=15_000)[0]
    for _ in range(2):
        grid.next_epoch()  # it ended in epoch 1
    grid.block(dt=100_000)
    for _ in range(3):
        grid.next_epoch()
    grid.events.clear()
    grid.claim_all(lease)
    assert grid.read(keys.lease_key(lease), Lease) is None
    assert {event.epoch for event in grid.events if isinstance(event, Payment)} == {0, 1}


def test_a_claim_that_reaches_past_the_end_stops_there(grid: Grid) -> None:
    """Even into a void epoch, which alone could not say that the lease has ended."""
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE, prepaid_ms=15_000)[0]
    for _ in range(2):
        grid.next_epoch()  # it ended in epoch 1
    grid.block(dt=40_000)
    for _ in range(3):
        grid.next_epoch()
    assert grid.epoch_record(3) is None
    assert grid.claim(lease, 0, 3) == Code.OK
    assert grid.read(keys.lease_key(lease), Lease) is None


def test_epochs_older_than_r_refund_themselves() -> None:
    grid = Grid(preset_with(report_epochs=6))
    grid.block()
    tenant = grid.tenants[0]
    lease = grid.deploy(tenant, [[0]], price=PRICE)[0]
    for _ in range(20):
        grid.next_epoch()
    oldest = grid.epoch - 5
    assert grid.claim(lease, oldest + 1, oldest + 1) == Code.WRONG_EPOCH
    before = grid.balance(tenant.public)
    first = grid.lease(lease).started_ms
    assert grid.claim(lease, 3, oldest) == Code.OK  # any start up to the oldest that lives
    record = grid.lease(lease)
    assert record.settled_epoch == oldest + 1
    start = grid.epoch_record(oldest).first_ms - 1  # type: ignore[union-attr]
    assert grid.balance(tenant.public) - before == PRICE * (start - first) // 3_600_000
    assert record.paid == 100_000


def test_a_claim_of_expired_epochs_alone_moves_on() -> None:
    grid = Grid(preset_with(report_epochs=6))
    grid.block()
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE)[0]
    for _ in range(20):
        grid.next_epoch()
    assert grid.claim(lease, 0, 3) == Code.OK
    assert grid.lease(lease).settled_epoch == grid.epoch - 5
    assert grid.lease(lease).paid == 0


def test_a_lease_forgotten_for_10_000_blocks_ends_in_one_claim() -> None:
    grid = Grid(preset_with(report_epochs=6), is_checked=False)
    grid.block()
    before = grid.balance(grid.tenants[0].public)
    lease = grid.deploy(grid.tenants[0], [[0, 2]], price=PRICE)[0]
    for _ in range(10_000):
        grid.block()
    first = grid.epoch - 5
    assert grid.claim(lease, first, first) == Code.OK
    assert grid.read(keys.lease_key(lease), Lease) is None
    assert grid.balance(grid.tenants[0].public) == before - FEE  # unclaimed for R epochs: the tenant's again


def test_settlements_of_the_last_24_epochs_stay_on_the_lease(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE)[0]
    for _ in range(32):
        grid.next_epoch()
    grid.claim_all(lease)
    epochs = [entry.epoch for entry in grid.lease(lease).settlements]
    assert epochs == list(range(grid.epoch - 26 + 1 - 1, grid.epoch - 1))[-24:]
    assert len(epochs) == 24


def test_a_standby_earns_from_its_acceptance(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0, 2]], price=PRICE, accept=False)[0]
    grid.ok(grid.nodes[0], Accept(lease, ZERO))
    grid.block(dt=4_000)
    grid.ok(grid.nodes[2], Accept(lease, ZERO))
    accepted = grid.now - grid.lease(lease).started_ms
    for _ in range(3):
        grid.next_epoch()
    assert grid.claim(lease, 0, 0) == Code.OK
    record = grid.lease(lease)
    served, reserve = record.settled_ms, PRICE // 5
    earned_reserve = reserve * served // 3_600_000 - reserve * accepted // 3_600_000
    assert record.settlements[-1].paid == PRICE * served // 3_600_000 + earned_reserve


def test_a_standby_that_never_accepted_earns_nothing(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0, 2]], price=PRICE, accept=False)[0]
    grid.ok(grid.nodes[0], Accept(lease, ZERO))
    grid.next_epoch()
    grid.next_epoch()
    grid.next_epoch()
    assert grid.claim(lease, 0, 1) == Code.OK
    entry = grid.lease(lease).settlements[-1]
    assert (entry.paid, entry.refunded) == (100_000, 20_000)


def test_a_lease_that_has_not_started_cannot_be_claimed(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE, accept=False)[0]
    for _ in range(3):
        grid.next_epoch()
    assert grid.claim(lease, 0, 0) == Code.LEASE_NOT_ACTIVE


def test_anyone_may_claim_and_gains_nothing(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0]], price=PRICE)[0]
    for _ in range(3):
        grid.next_epoch()
    before = grid.balance(grid.tenants[1].public)
    assert grid.claim(lease, 0, 1, by=grid.tenants[1]) == Code.OK
    assert grid.balance(grid.tenants[1].public) == before
    assert grid.run(Key("nobody"), Claim(lease, 2, 2)) == Code.UNKNOWN_ACCOUNT


@given(st.integers(0, 10**15), st.integers(2, 15))
def test_shares_sum_to_the_whole(amount: int, witnesses: int) -> None:
    shares = split_payment(MINIMAL, amount, witnesses)
    assert shares.farm + witnesses * shares.each_witness + shares.treasury == amount
    assert min(shares.farm, shares.each_witness, shares.treasury) >= 0
    assert shares.farm == amount * 85 // 100
    assert shares.each_witness * witnesses <= amount // 10


def test_eighty_five_ten_five() -> None:
    assert msgspec.structs.astuple(split_payment(MINIMAL, 100 * TOKEN, 10)) == (85 * TOKEN, TOKEN, 5 * TOKEN)
