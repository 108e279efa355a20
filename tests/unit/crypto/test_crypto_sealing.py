"""Boxes and AEAD open for the right key and untouched bytes alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import InvalidInputError, InvariantError, NotVerifiedError
from freehold.crypto import aead, box

KEY = bytes(range(32))
BOX = box.BoxKey.from_seed(KEY)


@given(st.binary(max_size=300), st.binary(max_size=50))
def test_aead_round_trip(plaintext: bytes, associated: bytes) -> None:
    sealed = aead.seal(KEY, plaintext, associated)
    assert len(sealed) == len(plaintext) + aead.OVERHEAD_BYTES
    assert aead.unseal(KEY, sealed, associated) == plaintext


def test_aead_never_repeats_a_nonce() -> None:
    assert len({aead.seal(KEY, b"same", b"")[: aead.NONCE_BYTES] for _ in range(1_000)}) == 1_000


def test_aead_refuses_every_change() -> None:
    sealed = aead.seal(KEY, b"text", b"use")
    cases = [
        (bytes(32), sealed, b"use"),
        (KEY, sealed, b"other"),
        (KEY, sealed[:-1], b"use"),
        (KEY, sealed + b"x", b"use"),
    ]
    cases += [(KEY, sealed[:at], b"use") for at in range(len(sealed))]
    cases += [(KEY, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], b"use") for at in range(len(sealed))]
    for key, data, associated in cases:
        with pytest.raises(NotVerifiedError) as caught:
            aead.unseal(key, data, associated)
        assert caught.value.code == "not_authentic"


def test_aead_is_the_published_one() -> None:
    # draft-irtf-cfrg-xchacha-03, appendix A.3.1
    key, nonce = bytes(range(0x80, 0xA0)), bytes(range(0x40, 0x58))
    associated = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = bytes.fromhex(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
        "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
    )
    assert aead.unseal(key, nonce + sealed, associated) == plaintext


def test_keys_have_32_bytes() -> None:
    for call in (lambda: aead.seal(bytes(31), b"", b""), lambda: aead.unseal(bytes(33), bytes(40), b"")):
        with pytest.raises(InvariantError):
            call()
    with pytest.raises(InvariantError):
        box.BoxKey.from_seed(bytes(31))


@given(st.binary(max_size=300))
def test_box_round_trip(plaintext: bytes) -> None:
    sealed = box.seal(BOX.public, plaintext)
    assert len(sealed) == len(plaintext) + box.OVERHEAD_BYTES
    assert BOX.open(sealed) == plaintext


def test_box_refuses_every_change() -> None:
    sealed = box.seal(BOX.public, b"text")
    changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    for data in (b"", sealed[:47], sealed[:-1], sealed + b"x", *changed):
        with pytest.raises(NotVerifiedError) as caught:
            BOX.open(data)
        assert caught.value.code == "box_not_opened"
    with pytest.raises(NotVerifiedError):
        box.BoxKey.from_seed(bytes(32)).open(sealed)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33), bytes(32), (1).to_bytes(32, "little")])
def test_box_refuses_a_useless_key(public: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        box.seal(public, b"text")
    assert caught.value.code == "bad_box_key"


def test_box_keys_are_hidden() -> None:
    assert KEY.hex() not in repr(BOX) + str(BOX)
    assert repr(BOX) == f"BoxKey(public={BOX.public.hex()})"
