"""Commits and light blocks: what is accepted, and each way to be refused by its code."""

from collections.abc import Callable

import msgspec
import pytest
from light_chain import GENESIS_MS, Chain

from freehold.base.errors import NotVerifiedError
from freehold.crypto.ed25519 import PrivateKey
from freehold.light.genesis import TrustedGenesis
from freehold.light.headers import header_hash, make_validator, make_validator_set
from freehold.light.skipping import check_not_ahead, verify_hop
from freehold.light.trust import CLOCK_DRIFT_MS, GENESIS_TRUST, trust_bounds, trust_genesis, trust_signed
from freehold.light.types import (
    ABSENT_SIG,
    NIL_BLOCK_ID,
    BlockID,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    SignedHeader,
    Timestamp,
    ValidatorSet,
    Version,
)
from freehold.light.verify import Refusal, Signers, VerifiedHeader, check_validator_set, verify_commit

replace = msgspec.structs.replace
FOUR = Chain((10, 10, 10, 10))


def refused(code: Refusal, action: Callable[[], object]) -> None:
    with pytest.raises(NotVerifiedError) as caught:
        action()
    assert caught.value.code == code.value


def from_genesis(block: LightBlock, trusted: TrustedGenesis, now_ms: int | None = None) -> VerifiedHeader:
    """The block on its own, then the one hop that leads to it."""
    trust_signed(block, trusted.chain_id)
    bounds = trust_bounds(GENESIS_TRUST, trusted)
    if now_ms is not None:
        check_not_ahead(block.header, bounds, now_ms)
    verified = verify_hop(trust_genesis(trusted), block, bounds, None).verified
    assert verified is not None
    return verified


def with_commit(block: LightBlock, commit: Commit) -> LightBlock:
    return LightBlock(SignedHeader(block.header, commit), block.validator_set)


def changed_entry(block: LightBlock, index: int, entry: CommitSig) -> LightBlock:
    commit = block.signed_header.commit
    entries = list(commit.signatures)
    entries[index] = entry
    return with_commit(block, replace(commit, signatures=tuple(entries)))


def test_a_block_signed_by_all_is_accepted_at_any_height() -> None:
    for height in (1, 2, 10_000_000):
        verified = from_genesis(FOUR.light_block(height), FOUR.trusted)
        assert (verified.height, verified.signers) == (height, Signers(4, 4, 40, 40))
        assert verified.hash == header_hash(verified.header)
        assert verified.time_ms == GENESIS_MS + height * 1000


@pytest.mark.parametrize(
    ("powers", "signers", "enough"),
    [
        ((10,), {0}, True),
        ((10, 10, 10), {0, 1}, False),  # exactly two thirds
        ((10, 10, 10), {0, 1, 2}, True),
        ((10, 10, 10, 10), {0, 1, 2}, True),
        ((10, 10, 10, 10), {0, 3}, False),
        ((201, 50, 49), {0}, True),
        ((200, 50, 50), {0}, False),
        ((200, 50, 50), {1, 2}, False),
        ((1, 1, 1, 1, 96), {0}, True),  # the set's first is the strongest
    ],
)
def test_more_than_two_thirds_of_power_are_needed(powers: tuple[int, ...], signers: set[int], enough: bool) -> None:
    chain = Chain(powers)
    block = chain.sign(chain.header(5), signers)
    if enough:
        assert from_genesis(block, chain.trusted).signers.count == len(signers)
    else:
        refused(Refusal.NOT_ENOUGH_POWER, lambda: from_genesis(block, chain.trusted))


def test_nil_votes_do_not_count_but_must_verify() -> None:
    block = FOUR.light_block(7)
    block_id = block.signed_header.commit.block_id
    nil = FOUR.entry(3, block.header, block_id, nil=True)
    assert from_genesis(changed_entry(block, 3, nil), FOUR.trusted).signers == Signers(3, 4, 30, 40)
    two = changed_entry(changed_entry(block, 3, nil), 2, FOUR.entry(2, block.header, block_id, nil=True))
    refused(Refusal.NOT_ENOUGH_POWER, lambda: from_genesis(two, FOUR.trusted))
    forged = replace(nil, signature=block.signed_header.commit.signatures[3].signature)
    refused(Refusal.BAD_SIGNATURE, lambda: from_genesis(changed_entry(block, 3, forged), FOUR.trusted))


def test_a_validator_counts_once() -> None:
    chain = Chain((10, 10, 10, 10))
    block = chain.sign(chain.header(7), {0, 1})
    again = block.signed_header.commit.signatures[0]
    refused(Refusal.DOUBLE_VOTE, lambda: from_genesis(changed_entry(block, 2, again), chain.trusted))
    stranger = replace(again, validator_address=bytes(20))
    refused(Refusal.WRONG_SIGNER, lambda: from_genesis(changed_entry(block, 2, stranger), chain.trusted))


def test_a_wrong_signature_is_refused_even_when_enough_are_right() -> None:
    block = FOUR.light_block(7)
    entry = block.signed_header.commit.signatures[3]
    bad = replace(entry, signature=bytes([entry.signature[0] ^ 1]) + entry.signature[1:])
    refused(Refusal.BAD_SIGNATURE, lambda: from_genesis(changed_entry(block, 3, bad), FOUR.trusted))
    late = replace(entry, timestamp=Timestamp(entry.timestamp.seconds + 1))
    refused(Refusal.BAD_SIGNATURE, lambda: from_genesis(changed_entry(block, 3, late), FOUR.trusted))


def test_a_commit_for_something_else_is_refused() -> None:
    block, other = FOUR.light_block(7), FOUR.light_block(8)
    commit = block.signed_header.commit
    other_block = with_commit(block, other.signed_header.commit)
    refused(Refusal.WRONG_COMMIT, lambda: from_genesis(other_block, FOUR.trusted))
    moved = with_commit(block, replace(commit, height=8))
    refused(Refusal.WRONG_COMMIT, lambda: from_genesis(moved, FOUR.trusted))
    later_round = with_commit(block, replace(commit, round=1))
    refused(Refusal.BAD_SIGNATURE, lambda: from_genesis(later_round, FOUR.trusted))
    short = with_commit(block, replace(commit, signatures=commit.signatures[:3]))
    refused(Refusal.WRONG_COMMIT, lambda: from_genesis(short, FOUR.trusted))
    longer = with_commit(block, replace(commit, signatures=(*commit.signatures, ABSENT_SIG)))
    refused(Refusal.WRONG_COMMIT, lambda: from_genesis(longer, FOUR.trusted))
    parts = replace(commit, block_id=BlockID(commit.block_id.hash, PartSetHeader(2, bytes(32))))
    refused(Refusal.BAD_SIGNATURE, lambda: from_genesis(with_commit(block, parts), FOUR.trusted))
    refused(Refusal.WRONG_COMMIT, lambda: verify_commit("c", FOUR.validators, NIL_BLOCK_ID, 7, commit))
    refused(Refusal.WRONG_COMMIT, lambda: verify_commit("c", FOUR.validators, BlockID(bytes(32)), 7, commit))


def test_signatures_of_another_chain_are_refused() -> None:
    twin = Chain((10, 10, 10, 10), chain_id="other-chain")
    refused(Refusal.WRONG_CHAIN, lambda: from_genesis(twin.light_block(7), FOUR.trusted))
    header = replace(twin.header(7), chain_id=FOUR.trusted.chain_id)
    refused(Refusal.BAD_SIGNATURE, lambda: from_genesis(twin.sign(header), FOUR.trusted))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": Version(10)}, Refusal.BAD_HEADER),
        ({"proposer_address": b""}, Refusal.BAD_HEADER),
        ({"height": 0}, Refusal.BAD_HEADER),
        ({"time": Timestamp.from_ms(GENESIS_MS - 1)}, Refusal.TIME_NOT_AFTER),
        ({"validators_hash": bytes(32)}, Refusal.VALIDATOR_SET_MISMATCH),
        ({"validators_hash": b""}, Refusal.VALIDATOR_SET_MISMATCH),
    ],
)
def test_headers_that_are_signed_and_still_wrong(change: dict[str, object], code: Refusal) -> None:
    header: Header = replace(FOUR.header(7), **change)
    refused(code, lambda: from_genesis(FOUR.sign(header), FOUR.trusted))


def test_heights_below_the_initial_one_are_refused() -> None:
    chain = Chain(initial_height=100)
    from_genesis(chain.light_block(100), chain.trusted)
    refused(Refusal.HEIGHT_NOT_ABOVE, lambda: from_genesis(chain.light_block(99), chain.trusted))


@pytest.mark.parametrize(
    "field",
    ["last_commit_hash", "data_hash", "consensus_hash", "app_hash", "last_results_hash", "evidence_hash", "time"],
)
def test_every_field_of_the_header_is_signed(field: str) -> None:
    block = FOUR.light_block(7)
    header = replace(block.header, **{field: Timestamp.from_ms(GENESIS_MS) if field == "time" else bytes([1]) * 32})
    forged = LightBlock(SignedHeader(header, block.signed_header.commit), block.validator_set)
    refused(Refusal.BAD_HEADER_HASH, lambda: from_genesis(forged, FOUR.trusted))


def test_the_clock_bounds_a_header_when_there_is_one() -> None:
    block = FOUR.light_block(60)
    from_genesis(block, FOUR.trusted)
    from_genesis(block, FOUR.trusted, GENESIS_MS + 60_000 - CLOCK_DRIFT_MS + 1)
    refused(
        Refusal.HEADER_FROM_FUTURE,
        lambda: from_genesis(block, FOUR.trusted, GENESIS_MS + 60_000 - CLOCK_DRIFT_MS),
    )


def test_other_validators_are_refused() -> None:
    stranger = make_validator(PrivateKey.from_seed(bytes(32)).public, 10)
    block = FOUR.light_block(7)
    swapped = LightBlock(block.signed_header, make_validator_set([*FOUR.validators.validators[:3], stranger]))
    refused(Refusal.VALIDATOR_SET_MISMATCH, lambda: from_genesis(swapped, FOUR.trusted))
    members = FOUR.validators.validators
    proposed = LightBlock(block.signed_header, ValidatorSet(members, stranger))
    refused(Refusal.BAD_VALIDATOR_SET, lambda: from_genesis(proposed, FOUR.trusted))
    renamed = ValidatorSet((replace(members[0], address=bytes(20)), *members[1:]), members[0])
    refused(Refusal.BAD_VALIDATOR_SET, lambda: from_genesis(LightBlock(block.signed_header, renamed), FOUR.trusted))


def test_malformed_validator_sets() -> None:
    members = Chain((30, 20, 10)).validators.validators

    def bad(*items: object) -> None:
        refused(Refusal.BAD_VALIDATOR_SET, lambda: check_validator_set(ValidatorSet(items, members[0])))  # type: ignore[arg-type]

    assert check_validator_set(ValidatorSet(members, members[0])) == 60
    bad()
    bad(members[0], members[0], members[1])
    bad(members[1], members[0], members[2])
    bad(replace(members[0], voting_power=0))
    bad(replace(members[0], voting_power=-1))
    bad(replace(members[0], voting_power=1 << 61))
    bad(replace(members[0], address=members[1].address))


def test_small_order_signatures_count_only_by_zip_215() -> None:
    """All-zero keys of order 4 accept crafted signatures under ZIP-215; the verdict must not depend on the library."""
    weak = make_validator(bytes(32), 10)  # y = 0, a point of order 4
    validators = make_validator_set([weak])
    header = Chain().header(7)
    block_id = BlockID(header_hash(header), PartSetHeader(1, bytes(32)))
    identity = bytes([1]) + bytes(31)
    entry = CommitSig(2, weak.address, header.time, identity + bytes(32))
    commit = Commit(7, 0, block_id, (entry,))
    assert verify_commit("any", validators, block_id, 7, commit).count == 1
