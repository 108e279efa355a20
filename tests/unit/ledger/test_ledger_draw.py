"""The draw: deterministic, bound to beacon and target, weighted, and never the same owner too often."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_grid import preset_with

from freehold.base.amounts import TOKEN
from freehold.base.presets import MAINNET, MINIMAL, Preset
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.ledger.draw import draw, is_active, stake_at, threshold_for, weight
from freehold.ledger.records import NodeSlot

BEACON = bytes(range(32))


def row(owner: int, *, stake: int = 400, first: int = 0, last: int = -1, genesis: bool = True) -> NodeSlot:
    return NodeSlot(1, bytes(32), bytes([owner]) * 32, [(first, stake * TOKEN)], first, last, genesis)


def table(rows: list[NodeSlot]) -> Callable[[int], NodeSlot | None]:
    return lambda number: rows[number] if number < len(rows) else None


def run(
    rows: list[NodeSlot],
    preset: Preset = MINIMAL,
    *,
    target: bytes = b"t",
    epoch: int = 9,
    excluded: frozenset[bytes] = frozenset(),
    beacon: bytes = BEACON,
) -> list[int]:
    return draw(
        preset,
        beacon=beacon,
        target=target,
        epoch=epoch,
        slots=len(rows),
        lookup=table(rows),
        excluded=excluded,
    )


def test_candidates_come_from_the_hash_as_the_spec_says() -> None:
    rows = [row(at) for at in range(200)]
    expected: list[int] = []
    for attempt in range(100):
        digest = tagged_hash(Purpose.DRAW, BEACON, b"t", attempt.to_bytes(4, "big"))
        number = int.from_bytes(digest[:8], "big") % 200
        if number not in expected:
            expected.append(number)
    assert run(rows, MAINNET) == expected[:15]


def test_it_depends_on_beacon_and_target() -> None:
    rows = [row(at) for at in range(50)]
    draws = {tuple(run(rows, target=target, beacon=beacon)) for target in (b"a", b"b") for beacon in (BEACON, b"c")}
    assert len(draws) == 4
    assert run(rows) == run(list(rows))


def test_no_rows_no_draw() -> None:
    assert run([]) == []
    assert draw(MINIMAL, beacon=BEACON, target=b"t", epoch=1, slots=0, lookup=table([]), excluded=set()) == []


def test_excluded_owners_and_sleepers_are_never_drawn() -> None:
    rows = [row(1), row(2, first=10), row(3, last=8), row(4, last=9), row(5, first=9), row(6)]
    for at in range(200):
        drawn = run(rows, target=bytes([at]), excluded=frozenset([bytes([1]) * 32]))
        assert set(drawn) <= {3, 4, 5}
        assert len(drawn) == 3


def test_only_the_slots_of_the_epochs_beginning_take_part() -> None:
    rows = [row(at) for at in range(20)]
    for at in range(100):
        drawn = draw(MINIMAL, beacon=BEACON, target=bytes([at]), epoch=9, slots=5, lookup=table(rows), excluded=set())
        assert max(drawn) < 5


@pytest.mark.parametrize(("preset", "ceiling"), [(MINIMAL, 1), (MAINNET, 5)])
def test_one_owner_has_at_most_a_third(preset: Preset, ceiling: int) -> None:
    rows = [row(1) for _ in range(40)] + [row(2 + at) for at in range(60)]
    for at in range(50):
        drawn = run(rows, preset, target=bytes([at]))
        owners = Counter(rows[slot].owner for slot in drawn)
        assert len(drawn) == preset.witnesses
        assert max(owners.values()) <= ceiling


def test_the_ceiling_gives_way_when_nobody_else_is_left() -> None:
    rows = [row(1), row(1), row(1), row(2)]
    for at in range(50):
        drawn = run(rows, target=bytes([at]))
        assert len(drawn) == 3
        assert 3 in drawn[:2]  # the other owner comes before those that were set aside
    assert sorted(run([row(1), row(1)])) == [0, 1]
    assert run([row(1)]) == [0]


def test_a_draw_ends_after_1024_tries() -> None:
    calls = 0

    def lookup(number: int) -> NodeSlot:
        nonlocal calls
        calls += 1
        return row(1, stake=0)

    assert draw(MINIMAL, beacon=BEACON, target=b"t", epoch=1, slots=5, lookup=lookup, excluded=set()) == []
    assert calls == 1_024


def test_a_draw_over_few_rows_ends_early() -> None:
    seen: list[int] = []

    def lookup(number: int) -> NodeSlot:
        seen.append(number)
        return row(number)

    assert len(draw(MAINNET, beacon=BEACON, target=b"t", epoch=1, slots=2, lookup=lookup, excluded=set())) == 2
    assert len(seen) == 2


def test_weight_grows_with_stake_and_age() -> None:
    preset = preset_with(MAINNET, full_age_epochs=720)
    full = weight(row(1), 10_000, preset)
    young = [weight(row(1, genesis=False, first=100), 100 + age, preset) for age in (0, 90, 360, 720, 5_000)]
    assert [value * 8 // full for value in young] == [1, 1, 4, 8, 8]
    assert weight(row(1, stake=100), 9, preset) * 4 == full
    assert weight(row(1, stake=4_000), 9, preset) == full  # above the cap nothing is gained
    assert weight(row(1, genesis=True), 0, preset) == full
    assert weight(row(1, genesis=False, first=5), 3, preset) == 0


def test_stake_counts_from_its_epoch() -> None:
    slot = NodeSlot(1, b"", b"", [(2, 5), (4, 7), (5, 9)], 2, -1, False)
    assert [stake_at(slot, epoch) for epoch in range(7)] == [0, 0, 5, 5, 7, 9, 9]
    assert [is_active(slot, epoch) for epoch in (1, 2, 99)] == [False, True, True]


def test_shares_of_draws_follow_weights() -> None:
    """3,000 draws: a slot with a quarter of the weight is drawn about a quarter as often (5 sigma)."""
    rows = [row(at, stake=400) for at in range(40)] + [row(40 + at, stake=100) for at in range(40)]
    preset = preset_with(witnesses=2, threshold=2)
    counts: Counter[int] = Counter()
    for at in range(3_000):
        counts.update(run(rows, preset, target=at.to_bytes(4, "big")))
    heavy = sum(counts[slot] for slot in range(40))
    total = sum(counts.values())
    assert total == 6_000
    # Drawing without replacement shifts the share a little; for two of eighty it stays below 0.3 %.
    assert abs(heavy / total - 0.8) < 0.003 + 5 * (0.8 * 0.2 / total) ** 0.5
    each = [counts[slot] for slot in range(40)]
    assert min(each) > 60
    assert max(each) < 190


@given(st.integers(0, 20))
def test_thresholds(drawn: int) -> None:
    for preset in (MINIMAL, MAINNET):
        needed = threshold_for(drawn, preset)
        assert needed >= 2
        if drawn >= preset.witnesses:
            assert needed == preset.threshold
        else:
            assert needed == max(2, drawn * 2 // 3 + 1)
            assert needed * 3 > drawn * 2


def test_thresholds_of_small_draws() -> None:
    assert [threshold_for(drawn, MAINNET) for drawn in (0, 1, 2, 3, 4, 5, 9, 14, 15)] == [2, 2, 2, 3, 3, 4, 7, 10, 10]
    assert [threshold_for(drawn, MINIMAL) for drawn in (0, 1, 2, 3)] == [2, 2, 2, 2]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 500)), max_size=12),
    st.binary(min_size=1, max_size=8),
    st.sampled_from([MINIMAL, MAINNET]),
)
def test_a_draw_is_a_list_of_distinct_eligible_slots(
    shape: list[tuple[int, int]], target: bytes, preset: Preset
) -> None:
    rows = [row(owner, stake=stake) for owner, stake in shape]
    drawn = run(rows, preset, target=target, excluded=frozenset([bytes(32)]))
    assert len(set(drawn)) == len(drawn) <= preset.witnesses
    assert all(rows[slot].owner != bytes(32) and stake_at(rows[slot], 9) for slot in drawn)
