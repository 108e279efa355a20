"""ZIP-215 verification of what libsodium refuses: `[8][s]B = [8]R + [8][k]A`, any encoding of a curve point.

ZIP-215 accepts encodings of A and R that are not canonical (y >= p, or the sign bit set with x = 0) and points with a
small-order component; only s must be canonical (s < L). libsodium's group operations refuse such points, so A and R
are decoded here and multiplied by 8 first: what is left lies in the prime-order subgroup, where libsodium computes.

Used by `ed25519.verify` alone. Everything here is public data: no operation needs constant time.
Source: https://zips.z.cash/zip-0215; RFC 8032 section 5.1 (decoding, point arithmetic).
"""

import hashlib
from typing import Final

from nacl import bindings

from freehold.base.limits import SIGNATURE_BYTES

P: Final = 2**255 - 19  # the field
L: Final = 2**252 + 27742317777372353535851937790883648493  # the order of the prime subgroup
_D: Final = -121665 * pow(121666, -1, P) % P
_SQRT_M1: Final = pow(2, (P - 1) // 4, P)
_IDENTITY: Final = (1).to_bytes(32, "little")


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether ZIP-215 accepts a signature.

    Args:
        public: 32 bytes.
        message: what was signed.
        signature: 64 bytes.
    """
    r_bytes = signature[:32]
    s = int.from_bytes(signature[32:SIGNATURE_BYTES], "little")
    if s >= L:
        return False
    a_point, r_point = _decode(public), _decode(r_bytes)
    if a_point is None or r_point is None:
        return False
    k = int.from_bytes(hashlib.sha512(r_bytes + public + message).digest(), "little") % L
    right = bindings.crypto_core_ed25519_add(_times_8(r_point), _multiply(k, _times_8(a_point)))
    return bool(_multiply_base(8 * s % L) == right)


def _decode(data: bytes) -> tuple[int, int] | None:
    """Decode a point, canonical or not; None when y is not on the curve."""
    number = int.from_bytes(data, "little")
    sign = number >> 255
    y = (number & ((1 << 255) - 1)) % P
    y2 = y * y % P
    u, v = (y2 - 1) % P, (_D * y2 + 1) % P
    v3 = v * v * v % P
    x = u * v3 * pow(u * v3 * v3 * v, (P - 5) // 8, P) % P  # (u/v)^((p+3)/8)
    vx2 = v * x * x % P
    if vx2 == -u % P:
        x = x * _SQRT_M1 % P
    elif vx2 != u:
        return None
    return (P - x if x & 1 != sign else x), y


def _times_8(point: tuple[int, int]) -> bytes:
    """Multiply by the cofactor and encode canonically: the result lies in the prime-order subgroup."""
    x, y, z = *point, 1
    for _ in range(3):  # doubling in projective coordinates, a = -1 (dbl-2008-bbjlp)
        b = (x + y) * (x + y) % P
        c, d = x * x % P, y * y % P
        f = d - c
        j = f - 2 * z * z
        x, y, z = (b - c - d) * j % P, -f * (c + d) % P, f * j % P
    inverse = pow(z, -1, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _multiply(scalar: int, point: bytes) -> bytes:
    """Multiply a point of the prime-order subgroup; libsodium refuses identities, so they are seen here."""
    if scalar == 0 or point == _IDENTITY:
        return _IDENTITY
    return bytes(bindings.crypto_scalarmult_ed25519_noclamp(scalar.to_bytes(32, "little"), point))


def _multiply_base(scalar: int) -> bytes:
    """Multiply the base point."""
    if scalar == 0:
        return _IDENTITY
    return bytes(bindings.crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(32, "little")))
