"""X25519 sealed boxes: anyone seals to a public key, only its holder opens.

A box does not say who sealed it; who must be known signs what is inside (`Purpose.SPEC_BOX_SIGN`). The box key of a
node is apart from its signing key.
    sealed = ephemeral public key (32) || XSalsa20-Poly1305 of the plaintext (+16)
Spec: docs/spec/keys.md. Source: libsodium `crypto_box_seal`.
"""

from typing import Final, Self

from nacl import bindings
from nacl.exceptions import CryptoError

from freehold.base.errors import InvalidInputError, NotVerifiedError, check

SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
OVERHEAD_BYTES: Final = 48


class BoxKey:
    """An X25519 private key; `repr` and `str` hide it.

    Attributes:
        public: the 32-byte public key to which others seal.
    """

    __slots__ = ("_private", "public")

    def __init__(self, public: bytes, private: bytes) -> None:
        self.public = public
        self._private = private

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Make the key of a seed of 32 secret bytes.

        Raises:
            InvariantError: the seed has another length.
        """
        check(len(seed) == SEED_BYTES, "box_seed_length", length=len(seed))
        public, private = bindings.crypto_box_seed_keypair(seed)
        return cls(public, private)

    def open(self, sealed: bytes) -> bytes:
        """Open a box that was sealed to this key.

        Raises:
            NotVerifiedError: sealed to another key, or a changed byte; code `box_not_opened`.
        """
        if len(sealed) < OVERHEAD_BYTES:
            raise NotVerifiedError(f"{len(sealed)} bytes are too short for a sealed box", code="box_not_opened")
        try:
            return bytes(bindings.crypto_box_seal_open(sealed, self.public, self._private))
        except CryptoError:
            raise NotVerifiedError("not sealed to this key, or changed", code="box_not_opened") from None

    def __repr__(self) -> str:
        return f"BoxKey(public={self.public.hex()})"


def seal(public: bytes, plaintext: bytes) -> bytes:
    """Seal bytes to a box key.

    Args:
        public: 32 bytes.
        plaintext: what only the key's holder may read; the box is 48 bytes longer.

    Raises:
        InvalidInputError: not a usable public key (wrong length, or a point of small order); code `bad_box_key`.
    """
    if len(public) != PUBLIC_BYTES:
        raise InvalidInputError(f"a box key has {PUBLIC_BYTES} bytes, not {len(public)}", code="bad_box_key")
    try:
        return bytes(bindings.crypto_box_seal(plaintext, public))
    except CryptoError:
        raise InvalidInputError("a point of small order is no box key", code="bad_box_key") from None
