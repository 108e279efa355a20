"""Ed25519 keys, signatures, and the two rules by which a signature counts.

`verify` is ZIP-215, the rule of consensus (CometBFT): one answer on every machine. It asks libsodium first, which
accepts a strict subset of ZIP-215, and looks again at what that refuses. `verify_strict` is libsodium alone, for
what is no consensus signature: a user's own signature is refused at full speed.

Invariant: `verify_strict(..)` implies `verify(..)`; `self_test` shows corner cases of both.
Spec: docs/spec/keys.md. Source: RFC 8032; ZIP-215.
"""

from typing import Final, Self

from nacl import bindings
from nacl.exceptions import BadSignatureError

from freehold.base.errors import check
from freehold.base.limits import SIGNATURE_BYTES
from freehold.crypto import zip215
from freehold.crypto.corner_cases import CORNER_CASES, RFC8032_SEED, RFC8032_SIGNATURE

SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32


class PrivateKey:
    """An ed25519 private key; `repr` and `str` hide it.

    Attributes:
        public: the 32-byte public key.
    """

    __slots__ = ("_expanded", "public")

    def __init__(self, expanded: bytes) -> None:
        self._expanded = expanded
        self.public = expanded[SEED_BYTES:]

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Make the key of a seed.

        Args:
            seed: 32 secret bytes.

        Raises:
            InvariantError: the seed has another length.
        """
        check(len(seed) == SEED_BYTES, "ed25519_seed_length", length=len(seed))
        _, expanded = bindings.crypto_sign_seed_keypair(seed)
        return cls(expanded)

    def sign(self, message: bytes) -> bytes:
        """Sign a message, which is `hashing.signing_bytes(..)` or a format of CometBFT's.

        Returns:
            The 64-byte signature.
        """
        return bytes(bindings.crypto_sign(message, self._expanded)[:SIGNATURE_BYTES])

    def export_seed(self) -> bytes:
        """Give the 32 secret bytes, for a keystore or for their owner."""
        return self._expanded[:SEED_BYTES]

    def __repr__(self) -> str:
        return f"PrivateKey(public={self.public.hex()})"


def verify_strict(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether libsodium accepts a signature: canonical encodings, no small-order points, no cofactor.

    Args:
        public: 32 bytes; any other length is refused.
        message: what was signed.
        signature: 64 bytes; any other length is refused.
    """
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a consensus signature counts, by ZIP-215.

    A refusal costs up to some ten times an acceptance: callers bound how many refusals one peer may cause.

    Args:
        public: 32 bytes; any other length is refused.
        message: what was signed.
        signature: 64 bytes; any other length is refused.
    """
    if verify_strict(public, message, signature):
        return True
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    return zip215.verify(public, message, signature)


def self_test() -> None:
    """Run corner cases of both rules against this machine's library; a node does so before it takes part in consensus.

    Raises:
        InvariantError: the library decides one of them otherwise, so this machine could fork from the others.
    """
    key = PrivateKey.from_seed(bytes.fromhex(RFC8032_SEED))
    signature = bytes.fromhex(RFC8032_SIGNATURE)
    check(key.sign(b"") == signature, "ed25519_self_test_sign")
    check(verify_strict(key.public, b"", signature), "ed25519_self_test_strict", case="rfc8032")
    check(not verify(key.public, b"x", signature), "ed25519_self_test_zip215", case="rfc8032")
    for case in CORNER_CASES:
        public, message, signature = map(bytes.fromhex, (case.public, case.message, case.signature))
        check(verify_strict(public, message, signature) is case.strict, "ed25519_self_test_strict", case=case.name)
        check(verify(public, message, signature) is case.zip215, "ed25519_self_test_zip215", case=case.name)
