"""The strict protobuf codec: one byte form for each message, every other one refused by its code."""

from typing import ClassVar

import pytest

from freehold.base.errors import CodecError, InvariantError
from freehold.light.types import (
    ABSENT_SIG,
    NIL_BLOCK_ID,
    ZERO_TIME,
    BlockID,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    PublicKey,
    Timestamp,
    Validator,
    ValidatorSet,
    Version,
)
from freehold.light.wire import Field, Kind, Message, decode_varint, encode_varint, length_delimited


class Inner(Message, frozen=True):
    number: int = 0

    FIELDS: ClassVar[tuple[Field, ...]] = (Field(1, "number", Kind.UINT32),)


class Sample(Message, frozen=True):
    count: int = 0
    signed: int = 0
    flag: bool = False
    fixed: int = 0
    raw: bytes = b""
    text: str = ""
    inner: Inner = Inner()
    maybe: Inner | None = None
    many: tuple[Inner, ...] = ()
    blobs: tuple[bytes, ...] = ()
    packed: tuple[int, ...] = ()

    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "count", Kind.UINT64),
        Field(2, "signed", Kind.INT32),
        Field(3, "flag", Kind.BOOL),
        Field(4, "fixed", Kind.SFIXED64),
        Field(5, "raw", Kind.BYTES, limit=4),
        Field(6, "text", Kind.STRING, limit=4),
        Field(7, "inner", Kind.MESSAGE, Inner),
        Field(8, "maybe", Kind.OPTIONAL, Inner),
        Field(9, "many", Kind.REPEATED, Inner, limit=2),
        Field(10, "blobs", Kind.REPEATED_BYTES, limit=2),
        Field(300, "packed", Kind.REPEATED_INT32, limit=3),
    )


FULL = Sample(
    1 << 63, -1, True, -2, b"raw", "text", Inner(7), Inner(), (Inner(), Inner(1)), (b"", b"b"), (0, -1, 5)
)  # fmt: skip


def refused(data: bytes, code: str, kind: type[Message] = Sample) -> None:
    with pytest.raises(CodecError) as caught:
        kind.decode(data)
    assert caught.value.code == code


def test_golden_bytes() -> None:
    assert Sample().encode().hex() == "3a00"
    assert FULL.encode().hex() == (
        "0880808080808080808001"
        "10ffffffffffffffffff01"
        "1801"
        "21feffffffffffffff"
        "2a03726177"
        "320474657874"
        "3a020807"
        "4200"
        "4a004a020801"
        "52005201" + b"b".hex() + "e2120c00ffffffffffffffffff0105"
    )
    for message in (Sample(), FULL):
        assert Sample.decode(message.encode()) == message


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("", "not_canonical"),  # the non-nullable message is missing
        ("08013a00ff", "undecodable"),  # a tag is cut short
        ("3a", "undecodable"),
        ("3a01", "undecodable"),
        ("3a0008", "not_canonical"),  # out of order
        ("3a003a00", "not_canonical"),  # repeated singular
        ("080108013a00", "not_canonical"),
        ("080008013a00", "not_canonical"),
        ("08003a00", "not_canonical"),  # an explicit default
        ("18003a00", "not_canonical"),
        ("2100000000000000003a00", "not_canonical"),
        ("2a003a00", "not_canonical"),
        ("32003a00", "not_canonical"),
        ("0881003a00", "not_canonical"),  # padded varint
        ("88003a00", "not_canonical"),  # padded tag
        ("3a8000", "not_canonical"),  # padded length
        ("18023a00", "undecodable"),  # a bool of two
        ("10ffffffff0f3a00", "undecodable"),  # -1 in 32 bits: protobuf writes ten bytes
        ("1080808080083a00", "undecodable"),  # above int32
        ("08ffffffffffffffffff023a00", "undecodable"),  # above 64 bits
        ("08ffffffffffffffffffff013a00", "undecodable"),
        ("21010203", "undecodable"),
        ("2a05616263646500", "oversized"),
        ("32056162636465", "oversized"),
        ("3202c3283a00", "undecodable"),  # not UTF-8
        ("3a004a004a004a00", "oversized"),
        ("3a00520052005200", "oversized"),
        ("3a00e21200", "not_canonical"),  # an empty packed list
        ("3a00e2120400000000", "oversized"),
        ("0a013a00", "unknown_field"),  # field 1 with another wire type
        ("0b3a000c", "unknown_field"),  # groups
        ("3a005801", "unknown_field"),
        ("00", "unknown_field"),  # field number 0
        ("3a02080000", "not_canonical"),  # nested
    ],
)
def test_every_other_form_is_refused(data: str, code: str) -> None:
    refused(bytes.fromhex(data), code)


def test_input_is_bounded_before_it_is_read() -> None:
    with pytest.raises(CodecError) as caught:
        Sample.decode(bytes(101), max_bytes=100)
    assert caught.value.code == "oversized"


def test_values_that_do_not_fit_are_our_own_fault() -> None:
    for message in (Sample(count=-1), Sample(count=1 << 64), Sample(signed=1 << 31), Sample(fixed=1 << 63)):
        with pytest.raises(InvariantError):
            message.encode()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, (1 << 32) - 1, (1 << 63), (1 << 64) - 1])
def test_varints(value: int) -> None:
    raw = encode_varint(value)
    assert decode_varint(raw + b"rest", 0, len(raw) + 4) == (value, len(raw))
    assert length_delimited(b"x" * 200)[:2] == b"\xc8\x01"


def test_empty_parts_that_cometbft_writes() -> None:
    assert NIL_BLOCK_ID.encode().hex() == "1200"
    assert ZERO_TIME.encode().hex() == "088092b8c398feffffff01"
    assert ABSENT_SIG.encode().hex() == "08011a0b088092b8c398feffffff01"
    assert Version(11).encode().hex() == "080b"
    assert Commit().encode().hex() == "1a021200"
    assert Timestamp().encode() == b""


def test_times() -> None:
    assert Timestamp.from_ms(1_767_225_600_123) == Timestamp(1_767_225_600, 123_000_000)
    assert Timestamp(1, 999_999_999).ms == 1999
    for bad in (Timestamp(0, -1), Timestamp(0, 1_000_000_000), Timestamp(253_402_300_800), Timestamp(-62_135_596_801)):
        refused(bad.encode(), "bad_time", Timestamp)


KEY = PublicKey(bytes(32))
MEMBER = Validator(bytes(20), KEY, 1)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (PartSetHeader(1, bytes(31)), "bad_length"),
        (BlockID(bytes(20)), "bad_length"),
        (Header(data_hash=bytes(31)), "bad_length"),
        (Header(proposer_address=bytes(19)), "bad_length"),
        (Header(height=-1), "bad_height"),
        (Header(chain_id="x" * 51), "oversized"),
        (Header(app_hash=bytes(65)), "oversized"),
        (CommitSig(0), "bad_commit"),
        (CommitSig(4), "bad_commit"),
        (CommitSig(1, signature=bytes(64)), "bad_commit"),
        (CommitSig(1, timestamp=Timestamp()), "bad_commit"),
        (CommitSig(2), "bad_length"),
        (CommitSig(2, bytes(20), signature=bytes(63)), "bad_length"),
        (CommitSig(2, bytes(20), signature=bytes(65)), "oversized"),
        (Commit(-1), "bad_commit"),
        (Commit(1, -1), "bad_commit"),
        (Commit(1, 0, NIL_BLOCK_ID, (ABSENT_SIG,)), "bad_commit"),
        (Commit(1, 0, BlockID(bytes(32))), "bad_commit"),
        (PublicKey(bytes(31)), "bad_length"),
        (PublicKey(b""), "bad_length"),
        (Validator(bytes(20), KEY, -1), "bad_validator"),
        (ValidatorSet((), MEMBER), "bad_validator"),
        (ValidatorSet((MEMBER,), MEMBER, 1), "not_canonical"),
    ],
)
def test_what_the_tables_cannot_say_is_checked(message: Message, code: str) -> None:
    refused(message.encode(), code, type(message))


def test_other_kinds_of_key_are_refused() -> None:
    refused(b"\x12\x20" + bytes(32), "unknown_field", PublicKey)  # secp256k1
    refused(b"", "not_canonical", PublicKey)
    refused(b"", "not_canonical", LightBlock)
