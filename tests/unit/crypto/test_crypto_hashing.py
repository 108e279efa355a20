"""Purposes keep apart what framing and tags must keep apart."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import InvalidInputError, InvariantError
from freehold.crypto.hashing import Purpose, Sha256, blake3, sha256, signing_bytes, tagged_hash

HASHES = [purpose for purpose in Purpose if not purpose.is_signed]
SIGNATURES = [purpose for purpose in Purpose if purpose.is_signed]
parts = st.lists(st.binary(max_size=6), max_size=4)


def frame(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


@given(st.sampled_from(HASHES), parts, st.sampled_from(HASHES), parts)
def test_hashes_are_equal_only_for_equal_purpose_and_parts(
    purpose: Purpose, some: list[bytes], other_purpose: Purpose, others: list[bytes]
) -> None:
    same = tagged_hash(purpose, *some) == tagged_hash(other_purpose, *others)
    assert same == ((purpose, some) == (other_purpose, others))


def test_the_layout_is_the_one_of_the_spec() -> None:
    expected = hashlib.sha256(frame(b"freehold hash: spec/1") + frame(b"salt") + frame(b"")).digest()
    assert tagged_hash(Purpose.SPEC, b"salt", b"") == expected
    signed = frame(b"freehold signed message: tx/1") + frame(b"chain") + frame(b"body")
    assert signing_bytes(Purpose.TX_SIGN, "chain", b"body") == signed


@given(st.sampled_from(SIGNATURES), parts)
def test_signed_bytes_depend_on_the_chain(purpose: Purpose, some: list[bytes]) -> None:
    one, other = signing_bytes(purpose, "a", *some), signing_bytes(purpose, "b", *some)
    assert one != other


@pytest.mark.parametrize("purpose", SIGNATURES)
def test_signed_bytes_are_longer_than_a_hash(purpose: Purpose) -> None:
    assert len(signing_bytes(purpose, "a")) > 32


@pytest.mark.parametrize("chain_id", ["", "x" * 51, "é" * 26])
def test_a_chain_id_is_bounded(chain_id: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        signing_bytes(Purpose.TX_SIGN, chain_id)
    assert caught.value.code == "bad_chain_id"


def test_a_purpose_serves_one_use() -> None:
    with pytest.raises(InvariantError):
        tagged_hash(Purpose.TX_SIGN)
    with pytest.raises(InvariantError):
        signing_bytes(Purpose.TX_ID, "chain")


def test_no_two_purposes_share_a_prefix() -> None:
    assert len({purpose.prefix for purpose in Purpose}) == len(list(Purpose))


@given(st.lists(st.binary(max_size=50)))
def test_a_stream_hashes_like_its_bytes(pieces: list[bytes]) -> None:
    stream = Sha256()
    for piece in pieces:
        stream.update(memoryview(piece))
    assert stream.digest() == sha256(b"".join(pieces))


def test_blake3_of_nothing() -> None:
    # BLAKE3 test_vectors.json, input_len 0
    assert blake3(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
