"""A forger who holds two thirds of the power or less, and every honest signature ever made, gets nothing believed.

Entries of the forged commit are drawn from the forger's true signatures on the forged block and from honest ones for
other blocks, heights, rounds, chains and for nothing, under any validator's name; powers, order and places of the set
are drawn too.
"""

import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "light"))

from light_chain import Tree
from light_history import History, genesis_state, key, make_set, now_at, pinned

from freehold.base.errors import CodecError, FreeholdError, InvalidInputError, NotVerifiedError
from freehold.light.headers import address_of, header_hash, precommit_sign_bytes, validators_hash
from freehold.light.proof_file import verify_proof_file, write_proof_file
from freehold.light.skipping import verify_hop
from freehold.light.trust import GENESIS_TRUST, PinnedTrust, trust_bounds
from freehold.light.types import (
    ABSENT_SIG,
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    SignedHeader,
    ValidatorSet,
)

POWERS = {0: 4, 1: 3, 2: 2, 3: 2, 4: 1}  # of 12: the forger holds up to 8
FORGERS = {0, 1, 4}
CHAIN = History([POWERS])
OTHER = History([POWERS], chain_id="other-chain")
TREE = Tree({f"key{n}".encode(): b"forged" for n in range(5)})
TARGET = 6
SMALL_ORDER = bytes([1]) + bytes(31)  # the neutral point: a signature by it fits any message, for keys of small order
assert 3 * sum(POWERS[number] for number in FORGERS) <= 2 * sum(POWERS.values())


@cache
def signature(number: int, chain_id: str, height: int, round_: int, voted: BlockID | None, at_ms: int) -> bytes:
    time = replace(CHAIN.header(height).time, seconds=CHAIN.header(height).time.seconds + at_ms)
    return key(number).sign(precommit_sign_bytes(chain_id, height, round_, voted, time))


def block_id(header: Header) -> BlockID:
    return BlockID(header_hash(header), PartSetHeader(1, bytes(32)))


KINDS = ("own", "true block", "other height", "other round", "other chain", "nil", "zero", "small order", "absent")


def entry(kind: str, signer: int, name: int, flag: BlockIDFlag, header: Header, round_: int) -> CommitSig:
    """One line of the commit: `signer` made the signature, `name` stands beside it."""
    if kind == "absent":
        return ABSENT_SIG
    height, true = header.height, block_id(CHAIN.header(TARGET))
    signed = {
        "true block": lambda: signature(signer, CHAIN.chain_id, height, round_, true, 0),
        "other height": lambda: signature(signer, CHAIN.chain_id, height - 1, round_, true, 0),
        "other round": lambda: signature(signer, CHAIN.chain_id, height, round_ + 1, true, 0),
        "other chain": lambda: signature(signer, OTHER.chain_id, height, round_, true, 0),
        "nil": lambda: signature(signer, CHAIN.chain_id, height, round_, None, 0),
        "zero": lambda: bytes(64),
        "small order": lambda: SMALL_ORDER + bytes(32),
    }
    if kind == "own":
        if signer not in FORGERS:
            return ABSENT_SIG  # nobody gives it a signature on this block
        voted = None if flag == BlockIDFlag.NIL else block_id(header)
        message = precommit_sign_bytes(header.chain_id, height, round_, voted, header.time)
        made = key(signer).sign(message)
    else:
        made = signed[kind]()
    return CommitSig(flag, address_of(key(name).public), header.time, made)


numbers = st.sampled_from(sorted(POWERS))
flags = st.sampled_from([BlockIDFlag.COMMIT, BlockIDFlag.COMMIT, BlockIDFlag.NIL])
kinds = st.sampled_from(KINDS + ("own",) * 6)


@st.composite
def forgeries(draw: st.DrawFn) -> LightBlock:
    """A light block whose state is the forger's."""
    header = CHAIN.header(TARGET, app_hash=TREE.root)
    members = list(make_set(POWERS).validators)
    change = draw(st.sampled_from(["none", "none", "powers", "fewer", "own", "order", "twice"]))
    if change == "powers":
        at = draw(st.integers(0, len(members) - 1))
        members[at] = replace(members[at], voting_power=draw(st.sampled_from([0, 1, 100, (1 << 63) - 1])))
    elif change == "fewer":
        members = [member for member in members if draw(st.booleans())] or members[:1]
    elif change == "own":
        members = list(make_set({number: POWERS[number] for number in FORGERS}).validators)
    elif change == "order":
        members = draw(st.permutations(members))
    elif change == "twice":
        members.append(members[draw(st.integers(0, len(members) - 1))])
    if draw(st.booleans()):
        named = validators_hash(members)
        header = replace(header, validators_hash=named, next_validators_hash=named)
    header = replace(header, proposer_address=members[0].address)
    round_ = draw(st.integers(0, 1))
    by_address = {address_of(key(number).public): number for number in POWERS}
    entries = []
    for member in members:
        own = by_address[member.address]
        signer, name = (
            draw(st.sampled_from([own, own, own, draw(numbers)])),
            draw(st.sampled_from([own, own, own, draw(numbers)])),
        )
        entries.append(entry(draw(kinds), signer, name, draw(flags), header, round_))
    if draw(st.integers(0, 5)) == 0:
        entries.append(entries[0])
    commit = Commit(header.height, round_, block_id(header), tuple(entries))
    return LightBlock(SignedHeader(header, commit), ValidatorSet(tuple(members), members[0]))


def refused(block: LightBlock) -> list[FreeholdError]:
    """By a hop from genesis and from the pinned header just below, and in a proof file under both.

    Further below more than a third would vouch for a set of its own: what a pin assumes nobody hostile to hold.
    """
    bounds = trust_bounds(GENESIS_TRUST, CHAIN.genesis)
    pin = PinnedTrust(TARGET - 1, header_hash(CHAIN.header(TARGET - 1)))
    found = []
    with pytest.raises((NotVerifiedError, CodecError)) as caught:
        verify_hop(genesis_state(CHAIN), LightBlock.decode(block.encode()), bounds, None)
    found.append(caught.value)
    with pytest.raises((NotVerifiedError, CodecError)) as caught:
        verify_hop(
            pinned(CHAIN, TARGET - 1), LightBlock.decode(block.encode()), trust_bounds(pin, CHAIN.genesis), now_at(7)
        )
    found.append(caught.value)
    try:
        data = write_proof_file(
            CHAIN.genesis, [block], [TREE.statement(TARGET, b"key1")], hops=[CHAIN.block(TARGET - 1)]
        )
    except InvalidInputError:
        return found  # it has no form that a file could hold
    for trust in (GENESIS_TRUST, pin):
        with pytest.raises((NotVerifiedError, CodecError)) as caught:
            verify_proof_file(data, CHAIN.genesis, now_at(7), trust=trust)
        found.append(caught.value)
    return found


@given(forgeries())
def test_a_forger_gets_nothing_believed(block: LightBlock) -> None:
    for error in refused(block):
        assert error.message and error.code
        assert error.hint or isinstance(error, CodecError)


def test_the_same_forgery_is_believed_once_one_more_validator_joins() -> None:
    """The measure of the test above: with the next key it is a true fork, and verifies."""
    header = CHAIN.header(TARGET, app_hash=TREE.root)
    block = CHAIN.block(TARGET, FORGERS | {2}, app_hash=TREE.root)
    data = write_proof_file(CHAIN.genesis, [block], [TREE.statement(TARGET, b"key1")])
    assert verify_proof_file(data, CHAIN.genesis).value(TARGET, b"key1") == b"forged"
    short = CHAIN.block(TARGET, FORGERS, app_hash=TREE.root)
    assert short.header == header and {error.code for error in refused(short)} == {
        "not_enough_power",
        "not_enough_trust",
    }
