"""Every decoder of the light floor: round trips, one byte form, and no exception but its own on any input."""

from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.base.errors import CodecError, InvalidInputError, NotVerifiedError
from freehold.light.blocks import (
    Block,
    Data,
    DuplicateVoteEvidence,
    Evidence,
    EvidenceList,
    LightClientAttackEvidence,
    Vote,
)
from freehold.light.canonical import CanonicalVote, ExecTxResult, HashedParams, SimpleValidator
from freehold.light.genesis import format_time, genesis_document, parse_genesis, parse_time
from freehold.light.ics23 import (
    IAVL,
    SMT,
    TENDERMINT,
    CommitmentProof,
    ExistenceProof,
    InnerOp,
    LeafOp,
    NonExistenceProof,
    verify_absence,
    verify_existence,
)
from freehold.light.proof_file import verify_proof_file
from freehold.light.types import (
    ABSENT_SIG,
    BlockID,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    PublicKey,
    SignedHeader,
    Timestamp,
    Validator,
    ValidatorSet,
    Version,
)
from freehold.light.wire import Message, decode_varint, encode_varint

T = TypeVar("T")
FAST = settings(deadline=None, max_examples=30)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def optional(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | strategy


def tuples(strategy: st.SearchStrategy[T], least: int = 0) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(strategy, min_size=least, max_size=3).map(tuple)


hashes = st.just(b"") | exactly(32)
natural64 = st.integers(0, (1 << 63) - 1)
natural32 = st.integers(0, (1 << 31) - 1)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
uint64 = st.integers(0, (1 << 64) - 1)
times = st.builds(Timestamp, st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999))
part_sets = st.builds(PartSetHeader, st.integers(0, (1 << 32) - 1), hashes)
block_ids = st.builds(BlockID, hashes, part_sets)
headers = st.builds(
    Header,
    st.builds(Version, uint64, uint64),
    st.text(max_size=12),
    natural64,
    times,
    block_ids,
    *[hashes] * 5,
    st.binary(max_size=64),
    *[hashes] * 2,
    st.just(b"") | exactly(20),
)
entries = st.just(ABSENT_SIG) | st.builds(CommitSig, st.sampled_from([2, 3]), exactly(20), times, exactly(64))
commits = st.builds(
    Commit, natural64, natural32, block_ids.filter(lambda block: not block.is_nil), tuples(entries, 1)
) | st.builds(Commit, st.just(0), natural32, block_ids, tuples(entries))
validators = st.builds(Validator, exactly(20), exactly(32).map(PublicKey), natural64, int64)
sets = st.builds(ValidatorSet, tuples(validators, 1), validators, st.just(0))
light_blocks = st.builds(LightBlock, st.builds(SignedHeader, headers, commits), sets)
votes = st.builds(
    Vote,
    natural32,
    natural64,
    natural32,
    block_ids,
    times,
    st.binary(max_size=20),
    natural32,
    *[st.binary(max_size=64)] * 3,
)
evidence = st.builds(Evidence, st.builds(DuplicateVoteEvidence, votes, votes, int64, int64, times)) | st.builds(
    Evidence,
    st.none(),
    st.builds(LightClientAttackEvidence, light_blocks, int64, tuples(validators), int64, times),
)
blocks = st.builds(
    Block,
    headers,
    st.builds(Data, tuples(st.binary(max_size=40))),
    st.builds(EvidenceList, tuples(evidence)),
    optional(commits),
)
canonical_votes = st.builds(CanonicalVote, natural32, int64, int64, optional(block_ids), times, st.text(max_size=12))
small_enum = st.integers(0, 9)
leaves = st.builds(LeafOp, small_enum, small_enum, small_enum, small_enum, st.binary(max_size=12))
steps = st.builds(InnerOp, small_enum, st.binary(max_size=46), st.binary(max_size=34))
filled = st.binary(min_size=1, max_size=40)
exists = st.builds(ExistenceProof, filled, filled, optional(leaves), tuples(steps))
smt_steps = st.builds(
    lambda left, sibling: InnerOp(1, b"\x01", sibling) if left else InnerOp(1, b"\x01" + sibling, b""),
    st.booleans(),
    exactly(32) | st.just(bytes(32)),
)
smt_exists = st.builds(ExistenceProof, filled, filled, st.just(SMT.leaf_spec), tuples(smt_steps))
nonexists = st.builds(NonExistenceProof, filled, exists, optional(exists)) | st.builds(
    NonExistenceProof, filled, optional(smt_exists), smt_exists
)
proofs = st.builds(CommitmentProof, exists | smt_exists) | st.builds(CommitmentProof, st.none(), nonexists)

MESSAGES: dict[type[Message], st.SearchStrategy[Message]] = {
    Timestamp: times,
    Header: headers,
    Commit: commits,
    ValidatorSet: sets,
    LightBlock: light_blocks,
    Vote: votes,
    EvidenceList: st.builds(EvidenceList, tuples(evidence)),
    Block: blocks,
    CanonicalVote: canonical_votes,
    SimpleValidator: st.builds(SimpleValidator, exactly(32).map(PublicKey), int64),
    HashedParams: st.builds(HashedParams, int64, int64),
    ExecTxResult: st.builds(ExecTxResult, st.integers(0, (1 << 32) - 1), st.binary(max_size=40), int64, int64),
    CommitmentProof: proofs,
}


def mutated(raw: bytes, data: st.DataObject) -> bytes:
    """Flip, cut, double or insert at one to three places."""
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        how = data.draw(st.integers(0, 3))
        if how == 0 and at < len(raw):
            raw = raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :]
        elif how == 1:
            raw = raw[:at] + raw[at + data.draw(st.integers(1, 8)) :]
        elif how == 2:
            raw = raw[:at] + raw[at : at + data.draw(st.integers(1, 40))] + raw[at:]
        else:
            raw = raw[:at] + data.draw(st.binary(min_size=1, max_size=6)) + raw[at:]
    return raw


def read_strictly(kind: type[Message], raw: bytes) -> None:
    try:
        message = kind.decode(raw)
    except CodecError:
        return
    assert message.encode() == raw, "two byte forms of one message"


@pytest.mark.parametrize("kind", MESSAGES)
@FAST
@given(data=st.data())
def test_messages_come_back_as_they_were(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[kind])
    assert kind.decode(message.encode()) == message


@pytest.mark.parametrize("kind", MESSAGES)
@FAST
@given(data=st.data())
def test_changed_messages_are_refused_or_have_one_form(kind: type[Message], data: st.DataObject) -> None:
    read_strictly(kind, mutated(data.draw(MESSAGES[kind]).encode(), data))


@pytest.mark.long
@pytest.mark.parametrize("kind", MESSAGES)
@settings(deadline=None, max_examples=2_000)
@given(data=st.data())
def test_many_changed_messages_are_refused_or_have_one_form(kind: type[Message], data: st.DataObject) -> None:
    read_strictly(kind, mutated(data.draw(MESSAGES[kind]).encode(), data))


@pytest.mark.parametrize("kind", MESSAGES)
@FAST
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_refused_or_have_one_form(kind: type[Message], raw: bytes) -> None:
    read_strictly(kind, raw)


@FAST
@given(value=uint64)
def test_varints_come_back(value: int) -> None:
    raw = encode_varint(value)
    assert decode_varint(raw, 0, len(raw)) == (value, len(raw))


@FAST
@given(proof=proofs, spec=st.sampled_from([SMT, IAVL, TENDERMINT]), root=exactly(32), key=st.binary(max_size=40))
def test_made_up_proofs_are_never_accepted(proof: CommitmentProof, spec: object, root: bytes, key: bytes) -> None:
    exist = proof.exist
    with pytest.raises(NotVerifiedError):
        verify_existence(spec, root, exist.key if exist else key, exist.value if exist else b"v", proof)  # type: ignore[arg-type]
    with pytest.raises(NotVerifiedError):
        verify_absence(spec, root, key, proof)  # type: ignore[arg-type]


GENESIS = genesis_document(
    chain_id="fuzz", genesis_time=Timestamp(1_767_225_600), validators=[(bytes(32), 1, "v")], app_state={"a": [1]}
)
TRUSTED = parse_genesis(GENESIS)


@FAST
@given(data=st.data())
def test_a_changed_genesis_is_refused_or_read(data: st.DataObject) -> None:
    try:
        parse_genesis(mutated(GENESIS, data))
    except InvalidInputError:
        return


@FAST
@given(
    app_state=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | int64 | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    ),
    time=times,
    power=st.integers(1, 1 << 50),
)
def test_genesis_documents_come_back(app_state: dict[str, object], time: Timestamp, power: int) -> None:
    data = genesis_document(chain_id="c", genesis_time=time, validators=[(bytes(32), power, "n")], app_state=app_state)
    trusted = parse_genesis(data)
    assert (trusted.app_state, trusted.genesis_time) == (app_state, time)
    assert trusted.validators.validators[0].voting_power == power
    assert parse_time(format_time(time)) == time


@FAST
@given(data=st.data())
def test_made_up_proof_files_are_refused(data: st.DataObject) -> None:
    start = (
        b'{"chain_id":"fuzz","format":"freehold-proof/1","light_blocks":["CgA="],"proofs":[{"commitment_proof":"CgA="'
    )
    sample = start + b',"height":1,"key":"00","value":""}],"witness":["AA=="]}'
    with pytest.raises((CodecError, NotVerifiedError)):
        verify_proof_file(mutated(sample, data), TRUSTED)
