"""Trust modes and the bisection driver: which heights it asks for, and where it ends."""

from itertools import pairwise

import pytest
from light_history import BOUNDS, DAY_MS, History, genesis_state, now_at, pinned, run

from freehold.base.errors import InvalidInputError, LocalProtocolError, NotVerifiedError
from freehold.light.bisection import Bisection
from freehold.light.skipping import TrustBounds, TrustExpiredError
from freehold.light.trust import GenesisTrust, PinnedTrust, parse_trust, trust_pinned
from freehold.light.types import Timestamp

STILL = History([{0: 1, 1: 1, 2: 1, 3: 1}])
# Each height has one newcomer and one who left: four heights on, nobody is left of a set.
MOVING = History([{n + k: 1 for k in range(4)} for n in range(40)])


def test_without_changes_one_block_is_enough() -> None:
    bisection = Bisection(pinned(STILL, 1), 1_000_000, BOUNDS, now_at(1_000_000))
    assert run(bisection, STILL) == [1_000_000]
    assert [state.height for state in bisection.trace] == [1, 1_000_000]


@pytest.mark.parametrize("offline", [True, False])
def test_changing_sets_are_followed(offline: bool) -> None:
    root = genesis_state(MOVING) if offline else pinned(MOVING, 1)
    bisection = Bisection(root, 37, BOUNDS, None if offline else now_at(37))
    asked = run(bisection, MOVING)
    heights = [state.height for state in bisection.trace]
    assert asked[0] == heights[-1] == 37
    assert len(set(asked)) == len(asked) == bisection.steps
    assert all(0 < after - before <= 3 for before, after in pairwise(heights))


def test_the_trusted_height_itself_asks_for_nothing() -> None:
    root = pinned(STILL, 5)
    bisection = Bisection(root, 5, BOUNDS, now_at(5))
    assert bisection.wanted is None
    assert bisection.trace == (root,)
    with pytest.raises(InvalidInputError) as caught:
        Bisection(root, 4, BOUNDS, now_at(5))
    assert caught.value.code == "below_trusted"


def test_steps_are_bounded() -> None:
    bisection = Bisection(pinned(MOVING, 1), 37, BOUNDS, now_at(37), max_steps=5)
    with pytest.raises(NotVerifiedError) as caught:
        run(bisection, MOVING)
    assert (caught.value.code, bisection.wanted, bisection.steps) == ("too_many_steps", None, 6)


def test_another_height_than_asked_is_refused_and_ends_it() -> None:
    bisection = Bisection(pinned(STILL, 1), 9, BOUNDS, now_at(9))
    with pytest.raises(LocalProtocolError):
        _ = bisection.trace
    with pytest.raises(NotVerifiedError) as caught:
        bisection.feed(STILL.block(8))
    assert caught.value.code == "wrong_height"
    with pytest.raises(LocalProtocolError):
        bisection.feed(STILL.block(9))
    with pytest.raises(LocalProtocolError):
        _ = bisection.trace


def test_a_forger_who_holds_no_trusted_third_is_found_at_the_height_where_it_begins() -> None:
    """It shows an honest chain up to 19, and sets of its own from 20 on."""
    sets = [*MOVING.sets[:19], *({900 + n + k: 1 for k in range(4)} for n in range(21))]
    forged = History(sets, fork=b"forged")
    bisection = Bisection(pinned(MOVING, 1), 37, BOUNDS, now_at(37))
    with pytest.raises(NotVerifiedError) as caught:
        while (height := bisection.wanted) is not None:
            bisection.feed((MOVING if height < 20 else forged).block(height))
    assert caught.value.code == "validator_set_mismatch"


def test_expired_trust_ends_it() -> None:
    root = pinned(STILL, 1)
    bisection = Bisection(root, 9, BOUNDS, root.time.ms + BOUNDS.trust_period_ms)
    with pytest.raises(TrustExpiredError):
        run(bisection, STILL)


def test_offline_less_than_two_thirds_of_trusted_power_reach_no_further_than_the_period() -> None:
    halved = History([{0: 1, 1: 1, 2: 1, 3: 1}, {0: 1, 1: 1, 4: 1, 5: 1}])
    bounds = TrustBounds(trust_period_ms=10_000, clock_drift_ms=0)  # ten blocks
    bisection = Bisection(genesis_state(halved), 100, bounds, None)
    run(bisection, halved)
    heights = [state.height for state in bisection.trace]
    assert 1 < heights[1] < 10 and heights[2:] == [100]  # the same half for the first hop, then everybody
    alone = Bisection(genesis_state(STILL), 100, bounds, None)
    assert run(alone, STILL) == [100]


def test_offline_a_halt_longer_than_the_period_is_crossed() -> None:
    bounds = TrustBounds(trust_period_ms=DAY_MS, clock_drift_ms=0)
    bisection = Bisection(genesis_state(STILL), 9, bounds, None)
    while (height := bisection.wanted) is not None:
        later = 30 * DAY_MS if height >= 5 else 0
        bisection.feed(STILL.block(height, time=Timestamp.from_ms(now_at(height) + later)))
    assert bisection.trace[-1].height == 9


def test_trust_modes_are_read_and_written() -> None:
    pin = PinnedTrust(12, bytes(range(32)))
    assert parse_trust(str(pin)) == parse_trust(str(pin).upper()) == pin
    assert parse_trust(str(GenesisTrust())) == GenesisTrust()
    for text in ("", "Genesis", "0:" + "00" * 32, "1:" + "00" * 31, "1:" + "00" * 33, "-1:" + "00" * 32, "1",
                 "01:" + "00" * 32, f"{2**63}:" + "00" * 32, "1:" + "00" * 32 + "\n", "1:" + "0g" * 32):  # fmt: skip
        with pytest.raises(InvalidInputError) as caught:
            parse_trust(text)
        assert caught.value.code == "bad_trust"


def test_a_pinned_header_must_be_the_named_one_fresh_and_signed() -> None:
    block = STILL.block(5)
    pin = PinnedTrust(5, pinned(STILL, 5).hash)
    assert trust_pinned(pin, block, STILL.chain_id, BOUNDS, now_at(5)).height == 5

    def code(block_height: int = 5, *, signers: set[int] | None = None, chain: str = STILL.chain_id,
             now_ms: int = now_at(5), pin: PinnedTrust = pin) -> str:  # fmt: skip
        with pytest.raises(NotVerifiedError) as caught:
            trust_pinned(pin, STILL.block(block_height, signers), chain, BOUNDS, now_ms)
        return caught.value.code

    assert code(6) == "trust_root_mismatch"
    assert code(pin=PinnedTrust(5, bytes(32))) == "trust_root_mismatch"
    assert code(chain="other-chain") == "wrong_chain"
    assert code(signers={0, 1}) == "not_enough_power"
    assert code(now_ms=now_at(5) + BOUNDS.trust_period_ms) == "trust_expired"
