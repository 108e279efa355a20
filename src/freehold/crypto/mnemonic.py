"""BIP-39 mnemonics: the words from which everything of a tenant comes back, and errors that name the wrong word.

Words are English unless another list is named. Text is normalised (NFKD), lower-cased and split at white space
before it is looked at, so how a person typed it does not matter.
Spec: docs/spec/keys.md. Source: BIP-39, by the `mnemonic` package.
"""

import difflib
import unicodedata
from functools import cache
from typing import Final

from mnemonic import Mnemonic

from freehold.base.errors import InvalidInputError
from freehold.crypto.entropy import random_bytes

WORD_COUNTS: Final = (12, 15, 18, 21, 24)
MAX_TEXT_LENGTH: Final = 1_024
MAX_PASSPHRASE_LENGTH: Final = 1_024
ENGLISH: Final = "english"
LANGUAGES: Final = (
    *(ENGLISH, "chinese_simplified", "chinese_traditional", "czech", "french", "italian", "japanese", "korean"),
    *("portuguese", "russian", "spanish", "turkish"),
)


def new(words: int = 24) -> str:
    """Make a new English mnemonic from fresh entropy.

    Args:
        words: 12, 15, 18, 21 or 24.

    Raises:
        InvalidInputError: another number of words.
    """
    if words not in WORD_COUNTS:
        raise InvalidInputError(f"a mnemonic has 12, 15, 18, 21 or 24 words, not {words}", code="bad_mnemonic")
    return from_entropy(random_bytes(words * 4 // 3))


def from_entropy(entropy: bytes, language: str = ENGLISH) -> str:
    """Write entropy as words.

    Args:
        entropy: 16, 20, 24, 28 or 32 secret bytes.
        language: one of `LANGUAGES`.

    Raises:
        InvalidInputError: another length, or no such language.
    """
    if len(entropy) not in (16, 20, 24, 28, 32):
        raise InvalidInputError(f"{len(entropy)} bytes of entropy make no mnemonic", code="bad_mnemonic")
    return str(_list(language).to_mnemonic(entropy))


def validate(text: str, language: str = ENGLISH) -> str:
    """Check a mnemonic and give it back in its normal form, words separated by one space.

    Args:
        text: what a person typed.
        language: one of `LANGUAGES`.

    Raises:
        InvalidInputError: wrong number of words, an unknown word (named, with the nearest one), or a wrong checksum.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise InvalidInputError("too long for a mnemonic", code="bad_mnemonic")
    words = unicodedata.normalize("NFKD", text).lower().split()
    wordlist = _list(language).wordlist
    for place, word in enumerate(words, start=1):
        if word not in wordlist:
            near = difflib.get_close_matches(word[:40], wordlist, n=1, cutoff=0.6)
            raise InvalidInputError(
                f"word {place}, {word[:40]!r}, is not in the word list",
                code="bad_mnemonic",
                hint=f"did you mean {near[0]!r}?" if near else "compare it with what you wrote down",
            )
    if len(words) not in WORD_COUNTS:
        raise InvalidInputError(
            f"{len(words)} words; a mnemonic has 12, 15, 18, 21 or 24",
            code="bad_mnemonic",
            hint="a word is missing or written twice",
        )
    normal = " ".join(words)
    if not _list(language).check(normal):
        raise InvalidInputError(
            "every word is known, but together they fail the checksum",
            code="bad_mnemonic",
            hint="two words are swapped, or one is another word of the list: compare with what you wrote down",
        )
    return normal


def to_seed(text: str, passphrase: str = "", language: str = ENGLISH) -> bytes:
    """Derive the 64-byte seed of a valid mnemonic.

    Args:
        text: the words.
        passphrase: BIP-39's optional extra word; another one gives other keys, and none is wrong.
        language: one of `LANGUAGES`.

    Raises:
        InvalidInputError: as `validate`, or the passphrase is too long.
    """
    if len(passphrase) > MAX_PASSPHRASE_LENGTH:
        raise InvalidInputError(f"longer than {MAX_PASSPHRASE_LENGTH} characters", code="bad_passphrase")
    return bytes(Mnemonic.to_seed(validate(text, language), passphrase))


@cache
def _list(language: str) -> Mnemonic:
    if language not in LANGUAGES:  # the package makes a file name of it
        raise InvalidInputError(
            f"no word list {language[:40]!r}", code="bad_language", hint=f"use one of {', '.join(LANGUAGES)}"
        )
    words = [unicodedata.normalize("NFKD", word) for word in Mnemonic(language).wordlist]
    return Mnemonic(language, wordlist=words)
