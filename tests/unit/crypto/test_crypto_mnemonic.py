"""A mistyped mnemonic is told by word; how it was typed does not matter."""

import pytest

from freehold.base.errors import InvalidInputError
from freehold.crypto import mnemonic

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"


@pytest.mark.parametrize("count", mnemonic.WORD_COUNTS)
def test_new_ones_are_valid_and_differ(count: int) -> None:
    one, other = mnemonic.new(count), mnemonic.new(count)
    assert one != other
    assert len(one.split()) == count
    assert mnemonic.validate(one) == one
    assert len(mnemonic.to_seed(one)) == 64


def test_typing_does_not_matter() -> None:
    assert mnemonic.validate(f"  {WORDS.upper()}\n".replace(" ", " \t ")) == WORDS
    assert mnemonic.to_seed(WORDS.title()) == mnemonic.to_seed(WORDS)


def test_a_passphrase_gives_other_keys() -> None:
    assert mnemonic.to_seed(WORDS, "x") != mnemonic.to_seed(WORDS)
    with pytest.raises(InvalidInputError):
        mnemonic.to_seed(WORDS, "x" * 1_025)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (WORDS.replace("sausage", "sausge"), "word 6, 'sausge'", "did you mean 'sausage'?"),
        (WORDS.replace("wave", "12345"), "word 5, '12345'", "wrote down"),
        (WORDS.replace("wave", "w" * 600), "word 5, 'wwww", ""),
        (" ".join(WORDS.split()[:11]), "11 words", "missing"),
        ("", "0 words", "missing"),
        (WORDS.replace("winner thank year", "thank winner year"), "checksum", "swapped"),
        ("legal " * 300, "too long", ""),
    ],
)
def test_what_is_wrong_is_told(text: str, message: str, hint: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        mnemonic.to_seed(text)
    assert caught.value.code == "bad_mnemonic"
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert len(caught.value.message) < 100


def test_known_words_are_not_quoted() -> None:
    with pytest.raises(InvalidInputError) as caught:
        mnemonic.validate(WORDS.replace("yellow", "zoo"))
    assert not set(WORDS.split()) & set(caught.value.message.replace(",", "").split())


@pytest.mark.parametrize("words", [0, 11, 13, 25, -12])
def test_other_lengths_are_refused(words: int) -> None:
    with pytest.raises(InvalidInputError):
        mnemonic.new(words)


def test_other_entropy_and_languages_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        mnemonic.from_entropy(bytes(15))
    with pytest.raises(InvalidInputError) as caught:
        mnemonic.validate(WORDS, "../english")
    assert caught.value.code == "bad_language"
