"""ECVRF-EDWARDS25519-SHA512-ELL2 (RFC 9381): each key has one output for an input; all can check it, none predict it.

`prove` gives 80 bytes (Gamma, c, s); `verify` gives the 64-byte output or None. The input must be framed by the caller
under a purpose of its own: it is not here.

Stricter than the RFC in one point: key and Gamma must lie in the prime-order subgroup, in canonical encoding, where
the RFC refuses keys of small order alone. What an honest prover makes always does; no other proof has an output.

Secrets meet libsodium's constant-time operations and SHA-512 only: the scalar, the nonce and the seed are multiplied,
added and hashed as bytes, never as Python integers. The map to the curve is computed in integers over public data. What
remains: Python neither wipes nor pins memory, so copies of the seed and the nonce stay in the heap until overwritten.

A key that proves must never sign bare 32-byte messages: ed25519 would draw the nonce that `prove` draws for a point of
those bytes, and two answers under one nonce give the key away. `hashing.signing_bytes` is always longer.

Spec: docs/spec/beacon.md. Source: RFC 9381 section 5, RFC 9380 (edwards25519_XMD:SHA-512_ELL2_NU_).
"""

import hashlib
from typing import Final

from nacl import bindings

from freehold.base.errors import InvalidInputError, check
from freehold.base.limits import KIB
from freehold.crypto.ed25519 import PUBLIC_BYTES, PrivateKey
from freehold.crypto.edwards25519 import IDENTITY, SQRT_M1, L, P, multiply, multiply_base, times_8

PROOF_BYTES: Final = 80
MAX_ALPHA_BYTES: Final = 1 * KIB

_SUITE: Final = b"\x04"
_CHALLENGE, _OUTPUT, _END = b"\x02", b"\x03", b"\x00"
_CHALLENGE_BYTES: Final = 16
_DST: Final = b"ECVRF_edwards25519_XMD:SHA-512_ELL2_NU_" + _SUITE
_J: Final = 486662  # of curve25519, y^2 = x^3 + J x^2 + x


def prove(key: PrivateKey, alpha: bytes) -> bytes:
    """Prove the output of a key for an input.

    Args:
        key: the prover's.
        alpha: the input, framed by the caller, at most 1 KiB.

    Returns:
        The 80-byte proof; `proof_to_hash` gives its output.

    Raises:
        InvalidInputError: `oversized`, the input is too long.
    """
    _check_alpha(alpha)
    expanded = hashlib.sha512(key.export_seed()).digest()
    secret = bytes([expanded[0] & 248]) + expanded[1:31] + bytes([expanded[31] & 127 | 64])
    point = _encode_to_curve(key.public, alpha)
    gamma = _multiply_secret(secret, point)
    nonce = bindings.crypto_core_ed25519_scalar_reduce(hashlib.sha512(expanded[32:] + point).digest())
    commitment = bytes(bindings.crypto_scalarmult_ed25519_base_noclamp(nonce))
    c = _challenge(key.public, point, gamma, commitment, _multiply_secret(nonce, point))
    product = bindings.crypto_core_ed25519_scalar_mul(c + bytes(16), secret)
    return gamma + c + bytes(bindings.crypto_core_ed25519_scalar_add(product, nonce))


def verify(public: bytes, alpha: bytes, proof: bytes) -> bytes | None:
    """Check a proof and give its output.

    Args:
        public: the prover's key, 32 bytes.
        alpha: the input, framed by the caller, at most 1 KiB.
        proof: 80 bytes.

    Returns:
        The 64-byte output; None when the proof does not hold, or anything is not well formed.
    """
    if len(alpha) > MAX_ALPHA_BYTES or not is_valid_key(public):
        return None
    parts = _decode(proof)
    if parts is None:
        return None
    gamma, c, s = parts
    point = _encode_to_curve(public, alpha)
    number = int.from_bytes(c, "little")
    commitment = _subtract(multiply_base(s), multiply(number, public))
    commitment_at_point = _subtract(multiply(s, point), multiply(number, gamma))
    if c != _challenge(public, point, gamma, commitment, commitment_at_point):
        return None
    return _output(gamma)


def proof_to_hash(proof: bytes) -> bytes:
    """The 64-byte output of a proof that this process made or has verified.

    Raises:
        InvalidInputError: `bad_vrf_proof`, not the bytes of a proof.
    """
    parts = _decode(proof)
    if parts is None:
        raise InvalidInputError("these bytes are no VRF proof", code="bad_vrf_proof")
    return _output(parts[0])


def is_valid_key(public: bytes) -> bool:
    """Whether a key is canonical, of the prime-order subgroup, and not of small order: one output for each input.

    Args:
        public: 32 bytes; any other length is refused.
    """
    return len(public) == PUBLIC_BYTES and bool(bindings.crypto_core_ed25519_is_valid_point(public))


def _check_alpha(alpha: bytes) -> None:
    if len(alpha) > MAX_ALPHA_BYTES:
        raise InvalidInputError(f"a VRF input has at most {MAX_ALPHA_BYTES} bytes", code="oversized")


def _decode(proof: bytes) -> tuple[bytes, bytes, int] | None:
    if len(proof) != PROOF_BYTES:
        return None
    gamma, c, s = proof[:32], proof[32:48], int.from_bytes(proof[48:], "little")
    if s >= L or not bindings.crypto_core_ed25519_is_valid_point(gamma):
        return None
    return gamma, c, s


def _output(gamma: bytes) -> bytes:
    return hashlib.sha512(_SUITE + _OUTPUT + multiply(8, gamma) + _END).digest()


def _challenge(*points: bytes) -> bytes:
    return hashlib.sha512(_SUITE + _CHALLENGE + b"".join(points) + _END).digest()[:_CHALLENGE_BYTES]


def _subtract(left: bytes, right: bytes) -> bytes:
    return bytes(bindings.crypto_core_ed25519_sub(left, right))


def _multiply_secret(scalar: bytes, point: bytes) -> bytes:
    # A point of eight or fewer would be a collision of SHA-512 with zero; libsodium refuses it.
    check(point != IDENTITY, "vrf_point")
    return bytes(bindings.crypto_scalarmult_ed25519_noclamp(scalar, point))


def _encode_to_curve(public: bytes, alpha: bytes) -> bytes:
    """Map key and input to a point of the prime-order subgroup, encoded. Source: RFC 9381 section 5.4.1.2."""
    return times_8(_to_edwards(*_elligator2(_hash_to_field(public + alpha))))


def _hash_to_field(message: bytes) -> int:
    """One field element from 48 uniform bytes. Source: RFC 9380 sections 5.2, 5.3.1 with SHA-512."""
    suffix = _DST + bytes([len(_DST)])
    first = hashlib.sha512(bytes(128) + message + (48).to_bytes(2, "big") + b"\x00" + suffix).digest()
    return int.from_bytes(hashlib.sha512(first + b"\x01" + suffix).digest()[:48], "big") % P


def _elligator2(u: int) -> tuple[int, int]:
    """A point of curve25519 from a field element. Source: RFC 9380 section 6.7.1."""
    denominator = (1 + 2 * u * u) % P or 1  # never 0: -1/2 is no square in this field
    x1 = -_J * pow(denominator, -1, P) % P
    y1 = _root(_curve25519(x1))
    if y1 is not None:
        return x1, y1 if y1 & 1 else -y1 % P
    x2 = (-x1 - _J) % P
    return x2, _even(_root(_curve25519(x2)))


def _curve25519(x: int) -> int:
    return (x * x * x + _J * x * x + x) % P


def _root(number: int) -> int | None:
    root = pow(number, (P + 3) // 8, P)
    if root * root % P == number:
        return root
    root = root * SQRT_M1 % P
    return root if root * root % P == number else None


def _even(root: int | None) -> int:
    check(root is not None, "square_root_exists")
    number = root or 0
    return -number % P if number & 1 else number


_C1: Final = _even(_root(-(_J + 2) % P))


def _to_edwards(s: int, t: int) -> tuple[int, int]:
    """From curve25519 to edwards25519; the two exceptional points go to the identity. Source: RFC 9380 appendix D.1."""
    if t == 0 or s == P - 1:
        return 0, 1
    inverse = pow(t * (s + 1), -1, P)
    return _C1 * s * (s + 1) * inverse % P, (s - 1) * t * inverse % P
