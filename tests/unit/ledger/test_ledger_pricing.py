"""Prices: integers, monotone, no cliffs; the defects of the ThreeFold Grid's formulas, each by name."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from ledger_grid import Grid, preset_with

from freehold.base.amounts import TOKEN
from freehold.base.presets import MAINNET, MINIMAL
from freehold.ledger.pricing import (
    HOUR_MS,
    cost_between,
    lease_charge,
    lease_cost,
    price_per_hour,
    reserve_per_hour,
)
from freehold.ledger.records import EpochRecord
from freehold.ledger.schedule import is_covered
from freehold.ledger.settlement import split_payment
from freehold.ledger.transactions import Offer, Resources

OFFERS = st.builds(Offer, *[st.integers(0, 10**12)] * 3)
SIZES = st.builds(Resources, st.integers(1, 10**6), st.integers(1, 10**7), st.integers(0, 10**8))
TIMES = st.integers(0, 10**12)
PRICES = st.integers(0, 10**15)


def test_a_price_is_rounded_up_once() -> None:
    assert price_per_hour(Offer(1000, 1024, 1024), Resources(1, 1, 1)) == 3
    assert price_per_hour(Offer(1, 1, 1), Resources(1, 1, 1)) == 1
    assert price_per_hour(Offer(1, 0, 0), Resources(1001, 1, 0)) == 2
    assert price_per_hour(Offer(2 * TOKEN, TOKEN, 0), Resources(1500, 512, 10)) == 3 * TOKEN + TOKEN // 2
    assert price_per_hour(Offer(0, 0, 0), Resources(1, 1, 1)) == 0


@given(OFFERS, SIZES, st.integers(0, 10**6), st.sampled_from(["vcpu_milli", "memory_mib", "disk_mib"]))
def test_more_never_costs_less(offer: Offer, size: Resources, more: int, field: str) -> None:
    values = {name: getattr(size, name) for name in size.__struct_fields__}
    larger = Resources(**(values | {field: values[field] + more}))
    assert price_per_hour(offer, larger) >= price_per_hour(offer, size)


@given(OFFERS, SIZES, SIZES)
def test_a_split_into_smaller_contracts_changes_nothing(offer: Offer, one: Resources, two: Resources) -> None:
    """ThreeFold's discount looked at each contract alone: a hundred small ones were cheaper than one."""
    both = Resources(one.vcpu_milli + two.vcpu_milli, one.memory_mib + two.memory_mib, one.disk_mib + two.disk_mib)
    whole = price_per_hour(offer, both)
    parts = price_per_hour(offer, one) + price_per_hour(offer, two)
    assert whole <= parts <= whole + 1


@given(PRICES, TIMES, TIMES, TIMES)
def test_splitting_time_changes_nothing(price: int, a: int, b: int, c: int) -> None:
    first, second, third = sorted((a, b, c))
    assert cost_between(price, first, second) + cost_between(price, second, third) == cost_between(price, first, third)
    assert cost_between(price, first, second) >= 0


@given(PRICES, st.integers(0, 4), TIMES, TIMES)
def test_a_leases_cost_is_its_parts(price: int, standbys: int, a: int, b: int) -> None:
    first, last = sorted((a, b))
    reserve = reserve_per_hour(MINIMAL, price)
    assert lease_cost(price, reserve, standbys, first, last) == cost_between(price, first, last) + standbys * (
        cost_between(reserve, first, last)
    )
    assert reserve * 5 <= price


def test_an_hour_costs_the_price() -> None:
    assert cost_between(7 * TOKEN, 0, HOUR_MS) == 7 * TOKEN
    assert cost_between(7 * TOKEN, HOUR_MS, 3 * HOUR_MS) == 14 * TOKEN


def test_charges() -> None:
    grid = Grid(is_checked=False)
    alone = lease_charge(MINIMAL, grid.order([0], price=10 * TOKEN))
    assert (alone.escrow, alone.bounty, alone.deposit) == (10 * TOKEN, 0, TOKEN // 10)
    with_two = lease_charge(MINIMAL, grid.order([0, 2, 4], price=10 * TOKEN))
    assert (with_two.escrow, with_two.bounty, with_two.total) == (14 * TOKEN, TOKEN, 15 * TOKEN + TOKEN // 10)


# The seven defects of the ThreeFold Grid's formulas (found by reading them) cannot be written here.


def test_defect_1_a_bound_in_percent_is_compared_with_percent() -> None:
    """There `permill < 95` let 9.5 % of uptime earn 100 %."""

    def record(ticks: int) -> EpochRecord:
        return EpochRecord(1, 0, 1, 0, 0, b"", ticks, 0, 0)

    assert [is_covered(MAINNET, record(ticks)) for ticks in (0, 68, 359, 360, 720)] == [False] * 3 + [True] * 2
    assert not is_covered(preset_with(void_percent=100), record(9))


@given(st.integers(1, 64), st.integers(1, 10**5), st.integers(1, 10**5))
def test_defect_2_memory_is_counted_once_and_ties_are_no_cliff(vcpus: int, gib: int, disk: int) -> None:
    """There memory was multiplied by GiB twice, and a tie of two minima weighed nothing."""
    offer = Offer(1_000, 1_000, 1_000)
    assert price_per_hour(offer, Resources(vcpus * 1_000, gib * 1_024, disk * 1_024)) == 1_000 * (vcpus + gib + disk)


@given(st.integers(1, 10**9), st.integers(2, 100))
def test_defect_4_a_volume_is_not_multiplied_by_how_often_it_is_reported(price: int, reports: int) -> None:
    """There reporting half as often billed twice."""
    edges = [HOUR_MS * at // reports for at in range(reports + 1)]
    assert sum(cost_between(price, a, b) for a, b in pairwise(edges)) == price


def test_defects_5_and_6_the_price_paid_is_the_leases_own() -> None:
    """There a policy was hard-coded, and the receipt printed another price than was used."""
    grid = Grid()
    grid.block()
    cheap, dear = grid.deploy(grid.tenants[0], [[0], [2]], price=36 * TOKEN), None
    assert dear is None
    for _ in range(4):
        grid.next_epoch()
    before = grid.lease(cheap[0]).escrow
    grid.claim(cheap[0], 0, 1)
    record = grid.lease(cheap[0])
    assert before - record.escrow == sum(entry.paid + entry.refunded for entry in record.settlements)
    assert record.settlements[-1].paid == record.price_per_hour // 360


def test_defect_7_a_node_is_not_paid_on_its_own_word() -> None:
    grid = Grid()
    grid.block()
    lease = grid.deploy(grid.tenants[0], [[0]], price=36 * TOKEN)[0]
    grid.next_epoch(reports=False)
    grid.ok(grid.nodes[0], grid.report_body(grid.nodes[0].public, 0))  # nobody else speaks
    grid.next_epoch(reports=False)
    grid.next_epoch(reports=False)
    grid.claim(lease, 0, 0)
    assert grid.lease(lease).paid == 0


def test_defect_3_rewards_have_no_threshold_of_balance() -> None:
    assert split_payment(MINIMAL, 100, 2).farm * 100 == split_payment(MINIMAL, 10_000, 2).farm
