"""Witnesses compared: agreement, lagging, and each kind of conflict with its evidence."""

import pytest
from light_history import BOUNDS, History, genesis_state, key, now_at, pinned, run

from freehold.base.errors import LocalProtocolError, NotVerifiedError
from freehold.light.bisection import Bisection
from freehold.light.blocks import LightClientAttackEvidence
from freehold.light.divergence import Agreed, AttackKind, Behind, DivergedError, Divergence, WitnessCheck
from freehold.light.headers import address_of
from freehold.light.skipping import TrustedState
from freehold.light.types import Timestamp

SET = {0: 10, 1: 10, 2: 10, 3: 10}
TRUE, FORK = History([SET]), History([SET], fork=b"fork")
MOVING = [{n + k: 1 for k in range(4)} for n in range(40)]


def trace(history: History = TRUE, target: int = 20, root: TrustedState | None = None) -> tuple[TrustedState, ...]:
    bisection = Bisection(root or pinned(TRUE, 1), target, BOUNDS, now_at(target))
    run(bisection, history)
    return bisection.trace


def ask(check: WitnessCheck, history: History) -> object:
    while (height := check.wanted) is not None:
        check.feed(history.block(height))
    return check.answer


def names(evidence: LightClientAttackEvidence | None) -> set[bytes]:
    assert evidence is not None
    assert LightClientAttackEvidence.decode(evidence.encode()) == evidence
    return {member.address for member in evidence.byzantine_validators}


def addresses(*numbers: int) -> set[bytes]:
    return {address_of(key(number).public) for number in numbers}


def test_the_same_header_agrees_whoever_signed_it() -> None:
    check = WitnessCheck(trace(), BOUNDS, now_at(20))
    assert check.wanted == 20
    check.feed(TRUE.block(20, {0, 1, 2}))
    assert check.answer == Agreed(20, trace()[-1].hash)


def test_another_state_is_a_lunatic_attack_of_those_who_signed_it() -> None:
    primary = trace(FORK)
    found = ask(WitnessCheck(primary, BOUNDS, now_at(20)), TRUE)
    assert isinstance(found, Divergence)
    assert (found.kind, found.common_height) == (AttackKind.LUNATIC, 1)
    assert (found.primary, found.witness) == (primary[-1].light_block, TRUE.block(20))
    evidence = found.against_primary
    assert evidence is not None
    assert (evidence.common_height, evidence.total_voting_power, evidence.timestamp) == (1, 40, primary[0].time)
    assert evidence.conflicting_block == found.primary
    assert names(evidence) == names(found.against_witness) == addresses(0, 1, 2, 3)


def test_two_blocks_of_one_round_name_who_signed_both() -> None:
    primary = trace()
    check = WitnessCheck(primary, BOUNDS, now_at(20))
    check.feed(TRUE.block(20, {0, 1, 2}, data_hash=bytes(32)))
    found = check.answer
    assert isinstance(found, Divergence)
    assert found.kind is AttackKind.EQUIVOCATION
    assert names(found.against_primary) == names(found.against_witness) == addresses(0, 1, 2)
    assert found.against_witness is not None
    assert (found.against_witness.common_height, found.against_witness.timestamp) == (20, primary[-1].time)


def test_two_blocks_of_two_rounds_name_nobody() -> None:
    check = WitnessCheck(trace(), BOUNDS, now_at(20))
    check.feed(TRUE.block(20, round_=1, data_hash=bytes(32)))
    found = check.answer
    assert isinstance(found, Divergence)
    assert found.kind is AttackKind.AMNESIA
    assert names(found.against_primary) == set()


def test_the_first_height_where_the_stories_part_is_found() -> None:
    true = History(MOVING)
    # From 15 on those who were validators at 15 tell another story.
    fork = History([*MOVING[:14], *([MOVING[14]] * 26)], fork=b"fork")
    primary = trace(true, 30, pinned(true, 1))
    check = WitnessCheck(primary, BOUNDS, now_at(30))
    while (height := check.wanted) is not None:
        check.feed((true if height < 15 else fork).block(height))
    found = check.answer
    assert isinstance(found, Divergence)
    heights = [state.height for state in primary]
    first = min(height for height in heights if height >= 15)
    assert found.primary.header.height == found.witness.header.height == first
    assert found.common_height == heights[heights.index(first) - 1]
    assert names(found.against_witness) <= addresses(*true.powers(found.common_height))
    assert names(found.against_witness)


def test_a_witness_whose_story_does_not_verify_counts_for_nothing() -> None:
    check = WitnessCheck(trace(), BOUNDS, now_at(20))
    with pytest.raises(NotVerifiedError) as caught:
        check.feed(FORK.block(20, {0, 1}))
    assert caught.value.code == "not_enough_power"
    strangers = History([{7: 1, 8: 1}])
    with pytest.raises(NotVerifiedError) as caught:
        ask(WitnessCheck(trace(), BOUNDS, now_at(20)), strangers)
    assert caught.value.code == "validator_set_mismatch"


def test_a_witness_that_lags_is_asked_again() -> None:
    check = WitnessCheck(trace(), BOUNDS, now_at(20))
    check.feed_newest(TRUE.block(18))
    assert (check.wanted, check.answer) == (None, Behind(18))
    caught_up = WitnessCheck(trace(), BOUNDS, now_at(20))
    caught_up.feed_newest(TRUE.block(20))
    assert isinstance(caught_up.answer, Agreed)
    with pytest.raises(LocalProtocolError):
        caught_up.feed_newest(TRUE.block(20))


@pytest.mark.parametrize("primary_target", [20, 2_000])
def test_a_primary_that_runs_ahead_in_height_but_not_in_time_is_found(primary_target: int) -> None:
    """The witness's newest block is lower, and yet not older: order of time is broken."""
    primary = trace(TRUE, 10)
    ahead = Bisection(primary[-1], primary_target, BOUNDS, now_at(20))
    ahead.feed(FORK.block(primary_target, time=Timestamp.from_ms(now_at(11))))
    whole = (*primary, *ahead.trace[1:])
    equal = WitnessCheck(whole, BOUNDS, now_at(20))
    equal.feed_newest(TRUE.block(15, time=whole[-1].time))
    assert equal.wanted is not None or isinstance(equal.answer, Divergence)
    check = WitnessCheck(whole, BOUNDS, now_at(20))
    check.feed_newest(TRUE.block(15))
    while (height := check.wanted) is not None:
        check.feed(TRUE.block(height))
    found = check.answer
    assert isinstance(found, Divergence)
    assert (found.kind, found.common_height) == (AttackKind.LUNATIC, 10)
    assert (found.primary.header.height, found.witness.header.height) == (primary_target, 15)
    assert names(found.against_primary) == addresses(0, 1, 2, 3)


def test_a_newest_block_below_what_is_trusted_proves_nothing() -> None:
    primary = trace(TRUE, 20, pinned(TRUE, 10))
    check = WitnessCheck(primary, BOUNDS, now_at(20))
    with pytest.raises(NotVerifiedError) as caught:
        check.feed_newest(FORK.block(9, time=Timestamp.from_ms(now_at(30))))
    assert caught.value.code == "height_not_above"


def test_from_genesis_a_conflict_is_kept_without_evidence_for_full_nodes() -> None:
    bisection = Bisection(genesis_state(TRUE), 20, BOUNDS, None)
    run(bisection, FORK)
    found = ask(WitnessCheck(bisection.trace, BOUNDS, None), TRUE)
    assert isinstance(found, Divergence)
    assert (found.common_height, found.against_primary, found.against_witness) == (0, None, None)


def test_the_error_names_the_height_and_holds_what_was_told() -> None:
    found = ask(WitnessCheck(trace(FORK), BOUNDS, now_at(20)), TRUE)
    assert isinstance(found, Divergence)
    error = DivergedError(found)
    assert (error.code, error.divergence) == ("diverged", found)
    assert "20" in str(error)
    assert error.hint
