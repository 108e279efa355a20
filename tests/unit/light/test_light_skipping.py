"""Hops between validator sets: what is accepted, and each way to be refused by its code."""

from collections.abc import Callable

import msgspec
import pytest
from light_history import BLOCK_MS, BOUNDS, History, genesis_state, key, make_set, now_at, pinned, sign

from freehold.base.errors import FreeholdError, InvariantError, LocalProtocolError, NotVerifiedError
from freehold.light.headers import make_validator, make_validator_set, precommit_sign_bytes, validators_hash
from freehold.light.skipping import (
    NotEnoughTrustError,
    TrustBounds,
    TrustedState,
    TrustExpiredError,
    verify_adjacent,
    verify_hop,
    verify_non_adjacent,
)
from freehold.light.types import BlockIDFlag, LightBlock, SignedHeader, Timestamp, ValidatorSet, Version
from freehold.light.verify import Refusal, Signers

replace = msgspec.structs.replace
OLD, NEW = {0: 10, 1: 10, 2: 10}, {0: 10, 1: 10, 3: 10, 4: 10}
CHAIN = History([OLD, OLD, OLD, NEW])  # the set changes at height 4
ROOT = pinned(CHAIN, 1)


def refused(code: Refusal, action: Callable[[], object], kind: type[FreeholdError] = NotVerifiedError) -> None:
    with pytest.raises(kind) as caught:
        action()
    assert caught.value.code == code.value


def hop(block: LightBlock, trusted: TrustedState = ROOT, now_ms: int | None = now_at(1000)) -> TrustedState:
    return verify_hop(trusted, block, BOUNDS, now_ms)


def test_adjacent_hops_follow_the_named_set() -> None:
    state = ROOT
    for height in range(2, 7):
        state = verify_adjacent(state, CHAIN.block(height), BOUNDS, now_at(height))
    assert (state.height, state.validators) == (6, make_set(NEW))
    assert state.verified is not None
    assert state.verified.signers == Signers(4, 4, 40, 40)


def test_an_adjacent_block_of_another_set_is_refused_whoever_signs_it() -> None:
    other = History([OLD, NEW])
    refused(Refusal.VALIDATOR_SET_MISMATCH, lambda: hop(other.block(2)))


def test_a_skip_over_a_change_needs_more_than_a_third_of_the_old_power() -> None:
    reached = verify_non_adjacent(ROOT, CHAIN.block(9), BOUNDS, now_at(9))  # 0 and 1 are still there
    assert reached.height == 9
    with pytest.raises(NotEnoughTrustError) as caught:  # exactly a third of the old power
        hop(CHAIN.block(9, {0, 3, 4}))
    assert (caught.value.code, caught.value.power, caught.value.total_power) == ("not_enough_trust", 10, 30)


@pytest.mark.parametrize("signers", [{0, 1}, {0, 1, 3}, {0, 1, 3, 4}])
def test_a_skip_needs_more_than_two_thirds_of_the_new_power(signers: set[int]) -> None:
    if len(signers) == 2:
        refused(Refusal.NOT_ENOUGH_POWER, lambda: hop(CHAIN.block(9, signers)))
    else:
        assert hop(CHAIN.block(9, signers)).height == 9


def test_exactly_two_thirds_of_the_own_power_are_refused() -> None:
    chain = History([OLD])
    for height in (2, 9):
        refused(Refusal.NOT_ENOUGH_POWER, lambda height=height: hop(chain.block(height, {0, 1}), pinned(chain, 1)))


def test_the_next_set_may_vouch_in_place_of_the_own() -> None:
    chain = History([OLD, {5: 7, 6: 7}])
    root = pinned(chain, 1)
    refused(Refusal.NOT_ENOUGH_TRUST, lambda: hop(chain.block(3), root))
    assert hop(chain.block(3), root.with_next_validators(make_set({5: 7, 6: 7}))).height == 3
    refused(Refusal.VALIDATOR_SET_MISMATCH, lambda: root.with_next_validators(make_set({5: 7, 6: 8})))
    twice = ValidatorSet(make_set(OLD).validators * 2, make_set(OLD).proposer)
    refused(Refusal.BAD_VALIDATOR_SET, lambda: root.with_next_validators(twice))


def test_a_higher_trust_level_asks_for_more() -> None:
    bounds = TrustBounds(
        trust_period_ms=BOUNDS.trust_period_ms, clock_drift_ms=0, trust_numerator=2, trust_denominator=3
    )
    with pytest.raises(NotEnoughTrustError):  # two of three is exactly two thirds
        verify_non_adjacent(ROOT, CHAIN.block(9), bounds, now_at(10))


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 4), (4, 3), (0, 1), (1, 0), (-1, -3)])
def test_trust_levels_outside_a_third_to_one_are_refused(numerator: int, denominator: int) -> None:
    with pytest.raises(InvariantError):
        TrustBounds(trust_period_ms=1, clock_drift_ms=0, trust_numerator=numerator, trust_denominator=denominator)


def test_expired_trust_is_refused_at_the_very_moment() -> None:
    at = ROOT.time.ms + BOUNDS.trust_period_ms
    for height in (2, 9):
        block = CHAIN.block(height)
        assert hop(block, now_ms=at - 1).height == height
        refused(Refusal.TRUST_EXPIRED, lambda block=block: hop(block, now_ms=at), TrustExpiredError)


def test_offline_a_skip_is_checked_at_its_own_time_and_a_halt_is_no_expiry() -> None:
    late = Timestamp.from_ms(ROOT.time.ms + BOUNDS.trust_period_ms)
    just = Timestamp.from_ms(late.ms - 1)
    assert hop(CHAIN.block(9, time=just), now_ms=None).height == 9
    refused(Refusal.TRUST_EXPIRED, lambda: hop(CHAIN.block(9, time=late), now_ms=None), TrustExpiredError)
    assert hop(CHAIN.block(2, time=late), now_ms=None).height == 2


def test_a_header_from_the_future_is_refused_to_the_nanosecond() -> None:
    now_ms = 1_800_000_000_000
    border = Timestamp.from_ms(now_ms + BOUNDS.clock_drift_ms)
    below = Timestamp(border.seconds - 1, 999_999_999)
    bounds = TrustBounds(trust_period_ms=10**13, clock_drift_ms=BOUNDS.clock_drift_ms)
    for height in (2, 9):
        assert verify_hop(ROOT, CHAIN.block(height, time=below), bounds, now_ms).height == height
        block = CHAIN.block(height, time=border)
        refused(Refusal.HEADER_FROM_FUTURE, lambda block=block: verify_hop(ROOT, block, bounds, now_ms))


def test_time_and_height_must_move() -> None:
    for height in (2, 9):
        for time in (ROOT.time, Timestamp.from_ms(ROOT.time.ms - 1)):
            refused(Refusal.TIME_NOT_AFTER, lambda h=height, t=time: hop(CHAIN.block(h, time=t)))
        assert hop(CHAIN.block(height, time=Timestamp(ROOT.time.seconds, ROOT.time.nanos + 1))).height == height
    five = pinned(CHAIN, 5)
    for height in (5, 4, 1):
        time = Timestamp.from_ms(five.time.ms + BLOCK_MS)
        refused(Refusal.HEIGHT_NOT_ABOVE, lambda h=height, t=time: hop(CHAIN.block(h, time=t), five))


def test_the_first_block_may_carry_genesis_own_time() -> None:
    root = genesis_state(CHAIN)
    assert (root.height, root.hash) == (0, b"")
    assert hop(CHAIN.block(1, time=root.time), root).height == 1
    assert hop(CHAIN.block(9, {0, 1, 3}), root).height == 9
    early = Timestamp.from_ms(root.time.ms - 1)
    refused(Refusal.TIME_NOT_AFTER, lambda: hop(CHAIN.block(1, time=early), root))


def test_genesis_of_another_chain_is_refused() -> None:
    other = History([OLD], chain_id="other-chain")
    for height in (2, 9):
        refused(Refusal.WRONG_CHAIN, lambda height=height: hop(other.block(height)))


def test_forged_sets_are_refused() -> None:
    block = CHAIN.block(9)
    stranger = make_validator(key(99).public, 10)
    swapped = make_validator_set([*block.validator_set.validators[:3], stranger])
    refused(Refusal.VALIDATOR_SET_MISMATCH, lambda: hop(LightBlock(block.signed_header, swapped)))
    stronger = make_validator_set([replace(m, voting_power=11) for m in block.validator_set.validators])
    refused(Refusal.VALIDATOR_SET_MISMATCH, lambda: hop(LightBlock(block.signed_header, stronger)))
    members = block.validator_set.validators
    proposed = ValidatorSet(members, stranger)
    refused(Refusal.BAD_VALIDATOR_SET, lambda: hop(LightBlock(block.signed_header, proposed)))
    # A set of the forger's own, under a header that it signs itself: nobody who is trusted vouches.
    refused(Refusal.NOT_ENOUGH_TRUST, lambda: hop(History([OLD, {7: 1_000_000, 8: 1}]).block(9)))
    twice = ValidatorSet((members[0], *members[:3]), members[0])
    header = CHAIN.header(9, validators_hash=validators_hash(twice.validators))
    forged = LightBlock(sign(header, NEW).signed_header, twice)
    refused(Refusal.BAD_VALIDATOR_SET, lambda: hop(forged))


def test_a_trusted_name_counts_only_with_its_own_key() -> None:
    block, name = CHAIN.block(9), make_validator(key(2).public, 10).address
    members = tuple(replace(m, address=name) if m.pub_key.ed25519 == key(3).public else m
                    for m in block.validator_set.validators)  # fmt: skip
    forged = ValidatorSet(members, members[0])
    refused(Refusal.BAD_VALIDATOR_SET, lambda: hop(LightBlock(block.signed_header, forged)))


def with_entries(block: LightBlock, changes: dict[int, int]) -> LightBlock:
    """Entry `b` put at place `a`, for each a: b."""
    commit = block.signed_header.commit
    entries = list(commit.signatures)
    for to, source in changes.items():
        entries[to] = commit.signatures[source]
    commit = replace(commit, signatures=tuple(entries))
    return LightBlock(SignedHeader(block.header, commit), block.validator_set)


def test_a_validator_counts_once() -> None:
    block = CHAIN.block(9)
    refused(Refusal.DOUBLE_VOTE, lambda: hop(with_entries(block, {1: 0})))
    refused(Refusal.WRONG_SIGNER, lambda: hop(with_entries(block, {0: 1, 1: 0})))
    short = replace(block.signed_header.commit, signatures=block.signed_header.commit.signatures[:3])
    refused(Refusal.WRONG_COMMIT, lambda: hop(LightBlock(SignedHeader(block.header, short), block.validator_set)))


def test_votes_for_nil_do_not_vouch() -> None:
    """The old 0 and 1 say nil, so that nobody who is trusted signed the block."""
    block = CHAIN.block(9)
    entries = list(block.signed_header.commit.signatures)
    old = {make_validator(key(number).public, 10).address: key(number) for number in (0, 1)}
    for index, entry in enumerate(entries):
        if entry.validator_address in old:
            message = precommit_sign_bytes(CHAIN.chain_id, 9, 0, None, entry.timestamp)
            signature = old[entry.validator_address].sign(message)
            entries[index] = replace(entry, block_id_flag=BlockIDFlag.NIL, signature=signature)
    commit = replace(block.signed_header.commit, signatures=tuple(entries))
    refused(Refusal.NOT_ENOUGH_TRUST, lambda: hop(LightBlock(SignedHeader(block.header, commit), block.validator_set)))


def test_signatures_are_verified_on_every_hop() -> None:
    for height in (2, 9):
        block = CHAIN.block(height)
        commit = block.signed_header.commit
        entry = commit.signatures[0]
        bad = replace(entry, signature=bytes([entry.signature[0] ^ 1]) + entry.signature[1:])
        commit = replace(commit, signatures=(bad, *commit.signatures[1:]))
        forged = LightBlock(SignedHeader(block.header, commit), block.validator_set)
        refused(Refusal.BAD_SIGNATURE, lambda forged=forged: hop(forged))


def test_malformed_headers_are_refused() -> None:
    refused(Refusal.BAD_HEADER, lambda: hop(CHAIN.block(9, version=Version(10))))
    refused(Refusal.BAD_HEADER, lambda: hop(CHAIN.block(9, proposer_address=b"")))
    block = CHAIN.block(9)
    later = SignedHeader(block.header, replace(block.signed_header.commit, height=10))
    refused(Refusal.WRONG_COMMIT, lambda: hop(LightBlock(later, block.validator_set)))
    moved = SignedHeader(replace(block.header, app_hash=bytes(32)), block.signed_header.commit)
    refused(Refusal.BAD_HEADER_HASH, lambda: hop(LightBlock(moved, block.validator_set)))


def test_the_wrong_kind_of_hop_is_our_own_fault() -> None:
    for action in (verify_adjacent, verify_non_adjacent):
        height = 9 if action is verify_adjacent else 2
        with pytest.raises(LocalProtocolError):
            action(ROOT, CHAIN.block(height), BOUNDS, None)
