"""One text per key; nothing else is read, and a refused text is not quoted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import InvalidInputError, InvariantError
from freehold.crypto.strkey import decode_account, decode_seed, encode_account, encode_seed

KEY = bytes(range(32))
ACCOUNT, SEED = encode_account(KEY), encode_seed(KEY)


@given(st.binary(min_size=32, max_size=32))
def test_round_trip(key: bytes) -> None:
    assert decode_account(encode_account(key)) == key
    assert decode_seed(encode_seed(key)) == key
    assert encode_account(key)[0] == "G"
    assert encode_seed(key)[0] == "S"


@given(st.integers(0, 55), st.characters(max_codepoint=0x2FF))
def test_one_changed_character_is_refused(place: int, letter: str) -> None:
    changed = ACCOUNT[:place] + letter + ACCOUNT[place + 1 :]
    if changed == ACCOUNT:
        return
    with pytest.raises(InvalidInputError) as caught:
        decode_account(changed)
    assert caught.value.code == "bad_account"


@pytest.mark.parametrize(
    "text",
    ["", "G", ACCOUNT.lower(), f" {ACCOUNT}", f"{ACCOUNT}\n", ACCOUNT[:-1], f"{ACCOUNT[:-1]}=", f"{ACCOUNT}====", SEED,
     "٣" * 56, "G" + "A" * 100_000],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        decode_account(text)
    assert caught.value.code == "bad_account"
    assert caught.value.hint


def test_a_secret_in_place_of_an_account_is_told_and_not_quoted() -> None:
    with pytest.raises(InvalidInputError, match="secret key") as caught:
        decode_account(SEED)
    assert SEED[1:20] not in caught.value.message + caught.value.hint
    with pytest.raises(InvalidInputError) as caught:
        decode_seed(SEED[:-1] + "A")
    assert SEED[1:20] not in caught.value.message + caught.value.hint


def test_an_account_is_no_seed() -> None:
    with pytest.raises(InvalidInputError) as caught:
        decode_seed(ACCOUNT)
    assert caught.value.code == "bad_seed"


def test_a_key_has_32_bytes() -> None:
    with pytest.raises(InvariantError):
        encode_account(bytes(31))
