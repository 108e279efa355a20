"""Authenticated encryption: XChaCha20-Poly1305, with a nonce that no caller chooses.

Every sealing draws a fresh 24-byte nonce and puts it in front: so long a nonce may be random under one key for ever
(a repetition after 2^80 sealings has a chance of 2^-33), and there is no counter to lose in a crash or a copy.
    sealed = nonce (24) || ciphertext || tag (16)
Spec: docs/spec/keys.md. Source: draft-irtf-cfrg-xchacha, by libsodium.
"""

from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

from freehold.base.errors import NotVerifiedError, check
from freehold.crypto.entropy import random_bytes

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24
OVERHEAD_BYTES: Final = NONCE_BYTES + 16


def seal(key: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt and authenticate.

    Args:
        key: 32 secret bytes.
        plaintext: what is hidden.
        associated: what is authenticated with it and not hidden; a tag of the use at least.

    Returns:
        Sealed bytes, 40 longer than the plaintext.
    """
    check(len(key) == KEY_BYTES, "aead_key_length", length=len(key))
    nonce = random_bytes(NONCE_BYTES)
    return nonce + bytes(bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, associated, nonce, key))


def unseal(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Decrypt what `seal` made with the same key and associated data.

    Raises:
        NotVerifiedError: another key, other associated data, or a changed byte; code `not_authentic`.
    """
    check(len(key) == KEY_BYTES, "aead_key_length", length=len(key))
    if len(sealed) < OVERHEAD_BYTES:
        raise NotVerifiedError(f"{len(sealed)} bytes are too short to be sealed", code="not_authentic")
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return bytes(bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, associated, nonce, key))
    except CryptoError:
        raise NotVerifiedError("sealed bytes do not open: another key, or changed", code="not_authentic") from None
