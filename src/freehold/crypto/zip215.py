"""ZIP-215 verification of what libsodium refuses: `[8][s]B = [8]R + [8][k]A`, any encoding of a curve point.

ZIP-215 accepts encodings of A and R that are not canonical (y >= p, or the sign bit set with x = 0) and points with a
small-order component; only s must be canonical (s < L). libsodium's group operations refuse such points, so A and R
are decoded by `edwards25519` and multiplied by 8 first: what is left lies in the prime-order subgroup, where libsodium
computes.

Used by `ed25519.verify` alone. Everything here is public data: no operation needs constant time.
Source: https://zips.z.cash/zip-0215.
"""

import hashlib

from nacl import bindings

from freehold.base.limits import SIGNATURE_BYTES
from freehold.crypto.edwards25519 import L, decode_any, multiply, multiply_base, times_8


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
    a_point, r_point = decode_any(public), decode_any(r_bytes)
    if a_point is None or r_point is None:
        return False
    k = int.from_bytes(hashlib.sha512(r_bytes + public + message).digest(), "little") % L
    right = bindings.crypto_core_ed25519_add(times_8(r_point), multiply(k, times_8(a_point)))
    return bool(multiply_base(8 * s % L) == right)
