"""Random validator sets and signers: a hop is accepted exactly when the two shares of power are exceeded."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "light"))

from light_history import BOUNDS, History, genesis_state, make_set, now_at, pinned, run

from freehold.base.errors import NotVerifiedError
from freehold.light.bisection import Bisection
from freehold.light.skipping import NotEnoughTrustError, verify_adjacent, verify_non_adjacent

powers = st.dictionaries(st.integers(0, 7), st.integers(1, 4), min_size=1, max_size=6)
numbers = st.sets(st.integers(0, 7))


def total(chosen: dict[int, int], signers: set[int]) -> int:
    return sum(power for number, power in chosen.items() if number in signers)


@given(powers, powers, powers, numbers)
def test_a_skip_needs_a_third_of_the_trusted_next_set_and_two_thirds_of_its_own(
    first: dict[int, int], trusted: dict[int, int], own: dict[int, int], signers: set[int]
) -> None:
    chain = History([first, trusted, own])
    signers &= set(own)
    root = pinned(chain, 1).with_next_validators(make_set(trusted))
    block = chain.block(3, signers)
    trust = 3 * total(trusted, signers) > sum(trusted.values())
    power = 3 * total(own, signers) > 2 * sum(own.values())
    if trust and power:
        state = verify_non_adjacent(root, block, BOUNDS, now_at(3))
        assert state.verified is not None
        assert (state.height, state.verified.signers.power) == (3, total(own, signers))
        return
    with pytest.raises(NotVerifiedError) as caught:
        verify_non_adjacent(root, block, BOUNDS, now_at(3))
    assert isinstance(caught.value, NotEnoughTrustError) is not trust
    assert caught.value.code == ("not_enough_power" if trust else "not_enough_trust")


@given(powers, powers, powers, numbers)
def test_an_adjacent_hop_needs_the_named_set_and_two_thirds_of_it(
    first: dict[int, int], named: dict[int, int], shown: dict[int, int], signers: set[int]
) -> None:
    root = pinned(History([first, named]), 1)
    signers &= set(shown)
    block = History([first, shown]).block(2, signers)
    if shown == named and 3 * total(shown, signers) > 2 * sum(shown.values()):
        assert verify_adjacent(root, block, BOUNDS, now_at(2)).height == 2
        return
    with pytest.raises(NotVerifiedError) as caught:
        verify_adjacent(root, block, BOUNDS, now_at(2))
    assert caught.value.code == ("not_enough_power" if shown == named else "validator_set_mismatch")


@given(st.lists(powers, min_size=2, max_size=12), st.booleans())
def test_an_honest_chain_is_always_reached_and_every_hop_is_lawful(sets: list[dict[int, int]], offline: bool) -> None:
    chain, target = History(sets), len(sets)
    root = genesis_state(chain) if offline else pinned(chain, 1)
    bisection = Bisection(root, target, BOUNDS, None if offline else now_at(target))
    asked = run(bisection, chain)
    heights = [state.height for state in bisection.trace]
    assert heights == sorted(set(heights))
    assert (heights[0], heights[-1]) == (root.height, target)
    assert len(asked) == len(set(asked)) <= target
    assert set(heights[1:]) <= set(asked)
    for before, after in pairwise(heights):
        vouching, signing = chain.powers(max(before, 1)), set(chain.powers(after))
        assert after == before + 1 or 3 * total(dict(vouching), signing) > sum(vouching.values())
