"""ABCI's bytes: what the engine writes is read whatever it adds, and nothing malformed gets further than the frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import CodecError
from freehold.base.limits import KIB
from freehold.base.presets import MAINNET_ELECTIONS
from freehold.consensus.abci import message_parts as parts
from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.commits import (
    MAX_EXTENSION_BYTES,
    AbciMisbehavior,
    AbciValidator,
    CommitInfo,
    ExtendedCommitInfo,
    ExtendedVoteInfo,
    VoteInfo,
)
from freehold.consensus.abci.framing import (
    MAX_FRAME_BYTES,
    FrameBuffer,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from freehold.consensus.comet.configuration import MAX_BLOCK_BYTES
from freehold.light.types import PublicKey, Timestamp
from freehold.light.wire import Kind, encode_varint, length_delimited

ECHO = bytes.fromhex("07 0a05 0a03 616263")
FLUSH = bytes.fromhex("02 1200")


def frames(data: bytes) -> list[bytes]:
    return list(FrameBuffer().feed(data))


def test_the_shortest_messages_have_the_engines_bytes() -> None:
    assert encode_request(wire.RequestEcho("abc")) == ECHO
    assert encode_request(wire.RequestFlush()) == FLUSH
    assert [decode_request(frame) for frame in frames(ECHO + FLUSH)] == [wire.RequestEcho("abc"), wire.RequestFlush()]
    assert encode_response(wire.ResponseFlush()) == bytes.fromhex("02 1a00")
    assert encode_response(wire.ResponseException("x")) == bytes.fromhex("05 0a03 0a01 78")


def test_fields_that_are_not_used_are_passed_over() -> None:
    # RequestFinalizeBlock: txs, decided_last_commit (2), misbehavior (3), hash, height, time, next_validators_hash (7)
    body = b"\x0a\x02hi" + b"\x12\x02\x08\x01" + b"\x22\x01h" + b"\x28\x05" + b"\x32\x02\x08\x07"
    body += b"\x3a\x01n" + b"\x42\x01a" + b"\x8d\x06\x01\x02\x03\x04" + b"\x91\x06" + bytes(8) + b"\x98\x06\x05"
    frame = encode_varint(20 << 3 | 2) + length_delimited(body)
    assert decode_request(frame) == wire.RequestFinalizeBlock(
        txs=(b"hi",), hash=b"h", height=5, time=Timestamp(7), proposer_address=b"a"
    )


def test_votes_and_evidence_have_the_engines_bytes() -> None:
    validator = bytes.fromhex("0a 01 61 18 0a")  # address (1), power (3)
    vote = b"\x0a\x05" + validator + b"\x18\x02"
    extended = b"\x0a\x05" + validator + b"\x1a\x01x" + b"\x22\x01s" + b"\x28\x02"
    fault = b"\x08\x01" + b"\x12\x05" + validator + b"\x18\x07" + b"\x22\x02\x08\x03" + b"\x28\x1e"
    tail = b"\x28\x08" + b"\x32\x02\x08\x07" + b"\x42\x01a"
    member = AbciValidator(b"a", 10)
    final = b"\x12" + length_delimited(b"\x08\x01\x12" + length_delimited(vote)) + b"\x1a" + length_delimited(fault)
    assert wire.RequestFinalizeBlock.decode(final + tail) == wire.RequestFinalizeBlock(
        height=8,
        time=Timestamp(7),
        proposer_address=b"a",
        decided_last_commit=CommitInfo((VoteInfo(member, 2),)),
        misbehavior=(AbciMisbehavior(1, member, 7, Timestamp(3), 30),),
    )
    prepare = b"\x1a" + length_delimited(b"\x12" + length_delimited(extended))
    assert wire.RequestPrepareProposal.decode(prepare + tail) == wire.RequestPrepareProposal(
        height=8,
        time=Timestamp(7),
        proposer_address=b"a",
        local_last_commit=ExtendedCommitInfo((ExtendedVoteInfo(member, b"x", 2),)),
    )


@pytest.mark.parametrize(
    "tail",
    [
        b"\x8d\x06\x01",  # fixed32 cut short
        b"\x91\x06\x01",  # fixed64 cut short
        b"\x92\x06\x05x",  # length beyond the end
        b"\x93\x06",  # a group
        b"\x00\x01",  # field number 0
        b"\x48",  # cut after the tag
        b"\x08\x01",  # a known number written as another type
    ],
)
def test_what_cannot_be_passed_over_is_refused(tail: bytes) -> None:
    body = b"\x42\x01a" + tail
    with pytest.raises(CodecError):
        wire.RequestFinalizeBlock.decode(b"\x32\x00" + body)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x12",  # no length
        b"\x12\x01",  # shorter than it says
        b"\x12\x00\x12\x00",  # two fields of the oneof
        b"\x22\x00",  # SetOption, of an older ABCI
        b"\xaa\x01\x00",  # 21: of a newer one
        b"\x10\x00",  # not a message
    ],
)
def test_a_frame_holds_exactly_one_known_request(frame: bytes) -> None:
    with pytest.raises(CodecError):
        decode_request(frame)


def test_a_long_frame_is_refused_before_it_is_stored() -> None:
    buffer = FrameBuffer(max_bytes=100)
    assert list(buffer.feed(encode_varint(100) + bytes(99))) == []
    assert list(buffer.feed(b"\0")) == [bytes(100)]
    with pytest.raises(CodecError) as error:
        list(buffer.feed(encode_varint(101)))
    assert error.value.code == "oversized"
    with pytest.raises(CodecError):
        list(FrameBuffer().feed(b"\xff" * 5))


def test_a_proposer_reads_a_commit_full_of_long_extensions_that_nobody_was_asked_about() -> None:
    """Late votes are not shown to the application before it proposes; each brings what the engine's messages hold."""
    votes = tuple(ExtendedVoteInfo(AbciValidator(bytes([n]) * 20, 1), bytes(MAX_EXTENSION_BYTES), 2) for n in range(12))
    request = wire.RequestPrepareProposal(height=9, local_last_commit=ExtendedCommitInfo(votes))
    stream, buffer, seen = encode_request(request), FrameBuffer(), list[bytes]()
    for start in range(0, len(stream), 1 << 18):
        seen += buffer.feed(stream[start : start + (1 << 18)])
    assert [decode_request(frame) for frame in seen] == [request]
    assert MAINNET_ELECTIONS.seats * (MAX_EXTENSION_BYTES + KIB) + MAX_BLOCK_BYTES < MAX_FRAME_BYTES


@given(
    st.lists(st.binary(max_size=300), max_size=6),
    st.lists(st.integers(1, 40), min_size=1, max_size=40),
)
def test_frames_come_out_however_the_bytes_are_cut(contents: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(length_delimited(content) for content in contents)
    buffer, seen, start = FrameBuffer(), list[bytes](), 0
    for cut in [*cuts, len(stream)]:
        seen += buffer.feed(stream[start : start + cut])
        start = min(start + cut, len(stream))
    assert seen == contents


@given(st.binary(max_size=200))
def test_noise_is_refused_or_read_and_never_anything_else(noise: bytes) -> None:
    for read in (decode_request, decode_response):
        try:
            read(noise)
        except CodecError:
            continue


@given(
    st.binary(max_size=300) | st.sampled_from([bytes(127), bytes(128), bytes(16_383), bytes(16_384)]),
    st.sampled_from([b"", b"\x10\x01", b"\x10\x00", b"\x10\x02", b"\x18\x01", b"\x10", b"\x10\x01\x10\x01"]),
    st.binary(max_size=3),
    st.integers(0, 6),
)
def test_a_check_is_read_as_every_other_message_is(tx: bytes, kind: bytes, noise: bytes, at: int) -> None:
    body = b"\x0a" + length_delimited(tx) + kind
    body = body[:at] + noise + body[at + len(noise) :]
    frame = encode_varint(8 << 3 | 2) + length_delimited(body)
    try:
        expected: wire.Request | str = wire.RequestCheckTx.decode(body)
    except CodecError as error:
        expected = error.code
    try:
        found: wire.Request | str = decode_request(frame)
    except CodecError as error:
        found = error.code
    assert found == expected


def test_messages_survive_a_round_trip() -> None:
    messages: list[wire.Request] = [
        wire.RequestInitChain(
            Timestamp(5, 6), "chain", (parts.ValidatorUpdate(PublicKey(bytes(32)), 10),), b"{}", initial_height=1
        ),
        wire.RequestQuery(b"\xff", b"/store\xff", -1, prove=True),
        wire.RequestCheckTx(b"tx", wire.CheckTxType.RECHECK),
        wire.RequestPrepareProposal(1_000, (b"a", b"", b"b"), 7, Timestamp(1), bytes(20)),
        wire.RequestVerifyVoteExtension(bytes(32), bytes(20), 9, b"ext"),
    ]
    for message in messages:
        (frame,) = frames(encode_request(message))
        assert decode_request(frame) == message
    events = (parts.AbciEvent("set", (parts.EventAttribute("data", "00"),)),)
    answer = wire.ResponseFinalizeBlock((parts.ExecTxResult(3, b"d", events), parts.ExecTxResult()), bytes(32))
    (frame,) = frames(encode_response(answer))
    assert decode_response(frame) == answer
    assert {kind for kind in wire.REQUESTS.values()} == {
        decode_request(_empty(number)).__class__ for number in _plain()
    }


def _plain() -> list[int]:
    return list(wire.REQUESTS)


def _empty(number: int) -> bytes:
    """The shortest form of a request: gogoproto writes its time and its last commit even when they are empty."""
    nested = [field.number for field in wire.REQUESTS[number].FIELDS if field.kind is Kind.MESSAGE]
    body = b"".join(encode_varint(field << 3 | 2) + b"\0" for field in nested)
    return encode_varint(number << 3 | 2) + length_delimited(body)
