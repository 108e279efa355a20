"""The curve edwards25519: what ZIP-215 and the VRF need of it beside libsodium's group operations.

libsodium's operations take canonical encodings of points of the prime-order subgroup only. Decoding of anything else,
and the multiplication by the cofactor that brings a point into that subgroup, are done here in plain integers: on
public data alone, for they take time that depends on it. Scalar multiplication is libsodium's, in constant time.

Source: RFC 8032 section 5.1 (decoding, point arithmetic).
"""

from typing import Final

from nacl import bindings

P: Final = 2**255 - 19  # the field
L: Final = 2**252 + 27742317777372353535851937790883648493  # the order of the prime subgroup
D: Final = -121665 * pow(121666, -1, P) % P
SQRT_M1: Final = pow(2, (P - 1) // 4, P)
IDENTITY: Final = (1).to_bytes(32, "little")


def decode_any(data: bytes) -> tuple[int, int] | None:
    """Decode a point, canonical or not; None when y is not on the curve."""
    number = int.from_bytes(data, "little")
    sign = number >> 255
    y = (number & ((1 << 255) - 1)) % P
    y2 = y * y % P
    u, v = (y2 - 1) % P, (D * y2 + 1) % P
    v3 = v * v * v % P
    x = u * v3 * pow(u * v3 * v3 * v, (P - 5) // 8, P) % P  # (u/v)^((p+3)/8)
    vx2 = v * x * x % P
    if vx2 == -u % P:
        x = x * SQRT_M1 % P
    elif vx2 != u:
        return None
    return (P - x if x & 1 != sign else x), y


def times_8(point: tuple[int, int]) -> bytes:
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


def multiply(scalar: int, point: bytes) -> bytes:
    """Multiply a point of the prime-order subgroup; libsodium refuses identities, so they are seen here."""
    if scalar == 0 or point == IDENTITY:
        return IDENTITY
    return bytes(bindings.crypto_scalarmult_ed25519_noclamp(scalar.to_bytes(32, "little"), point))


def multiply_base(scalar: int) -> bytes:
    """Multiply the base point."""
    if scalar == 0:
        return IDENTITY
    return bytes(bindings.crypto_scalarmult_ed25519_base_noclamp(scalar.to_bytes(32, "little")))
