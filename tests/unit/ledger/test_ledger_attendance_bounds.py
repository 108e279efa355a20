"""What whoever keeps others from signing gains by it, and what bounds it."""

from fractions import Fraction
from random import Random

import pytest
from attendance_grid import ERAS, make_grid, next_era, record
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from validators_grid import ELECTED, powers

from freehold.base.amounts import TOKEN
from freehold.base.presets import (
    MINIMAL_ATTENDANCE,
)
from freehold.ledger.attendance import choose_absent
from freehold.ledger.elections import elect, in_order


def rounds(members: dict[bytes, int], count: int) -> list[bytes]:
    """Proposers by CometBFT's weighted round robin."""
    total, priority, chosen = sum(members.values()), dict.fromkeys(members, 0), []
    for _ in range(count):
        for key, power in members.items():
            priority[key] += power
        first = max(priority, key=lambda key: (priority[key], key))
        priority[first] -= total
        chosen.append(first)
    return chosen


@pytest.mark.parametrize("away", [0, 4])
def test_proposers_below_a_third_who_leave_out_votes_put_out_nobody(away: int) -> None:
    """Each leaves out all it can: a third, less one; also of a victim that is itself away for a fifth of the time."""
    grid = make_grid(10)
    next_era(grid)
    members = dict(powers(grid))
    hostile, victims = set(sorted(members)[:3]), sorted(members)[-3:]
    for at, proposer in enumerate(rounds(members, 38)):
        grid.away = set(victims) if proposer in hostile else set(victims[:1]) if at % 10 < away // 2 else set()
        grid.block(dt=500)
    assert max(count for _, count in record(grid).missed) >= 11
    next_era(grid, 1)
    assert record(grid).absent == []


def test_half_of_the_proposers_do_put_out_a_victim() -> None:
    grid = make_grid(10)
    next_era(grid)
    members = dict(powers(grid))
    hostile, victim = set(sorted(members)[:6]), max(members)
    for proposer in rounds(members, 38):
        grid.away = {victim} if proposer in hostile else set()
        grid.block(dt=500)
    next_era(grid, 1)
    assert [key for key, _ in record(grid).absent] == [victim]


def share_after_cutting_off(hostile: int, max_absent_permill: int) -> list[Fraction]:
    """The share of a coalition, era after era, in which as many others as can be are left out of every commit."""
    grid = make_grid(
        24,
        replace(MINIMAL_ATTENDANCE, max_absent_permill=max_absent_permill),
        elections=replace(ELECTED, seats=64, max_candidates=128),
    )
    coalition = {key.public for key in grid.validators[:hostile]}
    shares = []
    for _ in range(ERAS):
        members = powers(grid)
        grid.away = set(sorted(members.keys() - coalition)[: (len(members) - 1) // 3])
        next_era(grid)
        members = powers(grid)
        shares.append(Fraction(sum(members[key] for key in members.keys() & coalition), sum(members.values())))
    return shares


@pytest.mark.parametrize(("hostile", "least"), [(5, Fraction(1, 3)), (11, Fraction(2, 3))])
def test_who_cuts_others_off_gains_no_more_than_the_bound(hostile: int, least: Fraction) -> None:
    """Below a quarter nobody comes to a third (and halts), below a half nobody to two thirds (and rewrites)."""
    shares = share_after_cutting_off(hostile, 250)
    assert shares[0] > Fraction(hostile, 24)
    assert max(shares) == Fraction(hostile, 24 - 6) < least
    free = share_after_cutting_off(hostile, 1_000)  # without the bound
    assert free[-1] > least


@pytest.mark.parametrize(("big", "is_out"), [(4, False), (8, True)])
def test_nobody_is_put_out_where_the_cap_would_cut_those_that_stay(big: int, is_out: bool) -> None:
    """With four big ones and a small one left, equal shares would make the small one a fifth of the power."""
    voting = replace(ELECTED, seats=16, cap_permill=200, min_owners=3, min_total_bond=0)
    entries = [(1_000 * TOKEN, bytes([at]), bytes([at])) for at in range(big + 1)] + [(100 * TOKEN, b"s", b"s")]
    power = elect(voting, entries)
    assert power is not None
    gone = choose_absent(voting, MINIMAL_ATTENDANCE, entries, power, [], [bytes([0])])
    assert gone == ([bytes([0])] if is_out else [])


@given(
    stakes=st.lists(st.tuples(st.integers(100, 5_000), st.integers(0, 7)), min_size=4, max_size=16),
    order=st.randoms(use_true_random=False),
    seats=st.integers(4, 16),
    cap=st.integers(150, 334),
)
@settings(max_examples=400, deadline=None)
def test_no_coalition_gains_more_than_the_bound_whatever_is_bonded(
    stakes: list[tuple[int, int]], order: Random, seats: int, cap: int
) -> None:
    """Everybody else signs nothing: a coalition has at most 4/3 of what it had, and whom it seats for those put out.

    Three owners may have 334 permill each, which is 1.002 thirds.
    """
    voting = replace(ELECTED, seats=seats, cap_permill=cap, min_total_bond=0)
    entries = in_order((stake * TOKEN, bytes([at]), bytes([owner])) for at, (stake, owner) in enumerate(stakes))
    power = elect(voting, entries)
    if power is None:
        return
    coalition = {bytes([owner]) for owner in range(8) if order.random() < 0.5}
    owner_of = {key: owner for _, key, owner in entries}
    wanting = [key for key in power if owner_of[key] not in coalition]
    order.shuffle(wanting)
    gone: list[bytes] = []
    for _ in range(3):  # era after era
        rest = [entry for entry in entries if entry[1] not in gone]
        gone += choose_absent(
            voting, MINIMAL_ATTENDANCE, rest, power, gone, [key for key in wanting if key not in gone]
        )
    after = elect(voting, [entry for entry in entries if entry[1] not in gone])
    assert after is not None
    newly = sum(value for key, value in after.items() if key not in power and owner_of[key] in coalition)
    before = sum(value for key, value in power.items() if owner_of[key] in coalition)
    share = Fraction(before + newly, sum(power.values()))
    now = Fraction(sum(value for key, value in after.items() if owner_of[key] in coalition), sum(after.values()))
    assert now <= share * Fraction(4, 3) * Fraction(1_002, 1_000)
    assert sum(power[key] for key in gone) * 4 <= sum(power.values())


def test_exactly_the_bound_may_be_out_and_no_more() -> None:
    """Four of equal power: one of them is a quarter. A second one that stops keeps its seat."""
    grid = make_grid(5, elections=replace(ELECTED, min_owners=2), attendance=replace(MINIMAL_ATTENDANCE))
    first, second = grid.validators[0].public, grid.validators[1].public
    grid.away = {first}
    next_era(grid)
    grid.away = {first, second}
    for _ in range(3):
        next_era(grid)
    assert [key for key, _ in record(grid).absent] == [first]  # 200 permill; two would be 400
    four = make_grid(4)
    four.away = {four.validators[0].public}
    next_era(four)
    assert len(record(four).absent) == 1  # 250
