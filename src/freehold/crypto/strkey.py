"""Stellar StrKey text for the two kinds of key that Freehold shows: `G...` (public) and `S...` (secret seed).

    text = base32(version byte || 32 bytes || crc16 of both, little end first), 56 characters, no padding
Invariant: one text per key; what decodes re-encodes to itself. A refused text is never quoted: it may be a secret.
Spec: docs/spec/keys.md. Source: SEP-0023.
"""

import base64
import binascii
from functools import lru_cache
from typing import Final

from freehold.base.errors import InvalidInputError, check

_PAYLOAD_BYTES: Final = 32
_TEXT_LENGTH: Final = 56
_ACCOUNT: Final = 6 << 3  # "G"
_SEED: Final = 18 << 3  # "S"
MAX_REMEMBERED: Final = 8_192  # accounts' texts: the same ones are told of again and again; never seeds
_LETTERS: Final = {_ACCOUNT: "G", _SEED: "S"}


@lru_cache(MAX_REMEMBERED)
def encode_account(public: bytes) -> str:
    """Write a 32-byte public key as `G...`."""
    return _encode(_ACCOUNT, public)


def decode_account(text: str) -> bytes:
    """Read `G...` into 32 bytes.

    Raises:
        InvalidInputError: not a well-formed account; code `bad_account`.
    """
    return _decode(_ACCOUNT, text, "bad_account", "an account is G and 55 letters or digits")


def encode_seed(seed: bytes) -> str:
    """Write a 32-byte secret seed as `S...`."""
    return _encode(_SEED, seed)


def decode_seed(text: str) -> bytes:
    """Read `S...` into 32 secret bytes.

    Raises:
        InvalidInputError: not a well-formed seed; code `bad_seed`.
    """
    return _decode(_SEED, text, "bad_seed", "a secret key is S and 55 letters or digits")


def _encode(version: int, payload: bytes) -> str:
    check(len(payload) == _PAYLOAD_BYTES, "strkey_payload_length", length=len(payload))
    body = bytes([version]) + payload
    return base64.b32encode(body + _checksum(body)).decode("ascii")


def _decode(version: int, text: str, code: str, hint: str) -> bytes:
    if version == _ACCOUNT and text[:1] == "S" and len(text) == _TEXT_LENGTH:
        raise InvalidInputError(
            "this is a secret key (S...), where an account (G...) is wanted",
            code=code,
            hint="keep it to yourself; if it was typed where others can read it, move to a new key",
        )
    if len(text) != _TEXT_LENGTH:
        raise InvalidInputError(f"{len(text)} characters, not the {_TEXT_LENGTH} of a key", code=code, hint=hint)
    if text[0] != _LETTERS[version]:
        raise InvalidInputError(f"does not begin with {_LETTERS[version]}", code=code, hint=hint)
    try:
        data = base64.b32decode(text)
    except (binascii.Error, ValueError):
        raise InvalidInputError("holds a character that no key has", code=code, hint=hint) from None
    body, checksum = data[:-2], data[-2:]
    if body[0] != version or len(body) != 1 + _PAYLOAD_BYTES:
        raise InvalidInputError("is another kind of key", code=code, hint=hint)
    if checksum != _checksum(body):
        raise InvalidInputError("its checksum is wrong: a letter was mistyped", code=code, hint=hint)
    return body[1:]


def _checksum(body: bytes) -> bytes:
    return binascii.crc_hqx(body, 0).to_bytes(2, "little")  # CRC-16/XMODEM
