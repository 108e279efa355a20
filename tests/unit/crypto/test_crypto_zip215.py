"""The ZIP-215 verifier against a slow one that does all of its curve arithmetic in plain integers."""

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.crypto.ed25519 import PrivateKey, verify_strict
from freehold.crypto.edwards25519 import L, P
from freehold.crypto.zip215 import verify

D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    t = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + t, -1, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, P) % P
    return x, y


def multiply(scalar: int, point: Point) -> Point:
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result


def decode(data: bytes) -> Point | None:
    y, sign = int.from_bytes(data, "little") & (1 << 255) - 1, data[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    for root in (x, x * pow(2, (P - 1) // 4, P) % P):
        if root * root % P == square:
            return (-root % P if root & 1 != sign else root), y % P
    return None


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def reference(public: bytes, message: bytes, signature: bytes) -> bool:
    s = int.from_bytes(signature[32:], "little")
    a, r = decode(public), decode(signature[:32])
    if s >= L or a is None or r is None:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little")
    return multiply(8 * s, BASE) == add(multiply(8, r), multiply(8 * k, a))


_base = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
BASE: Point = _base if _base is not None else IDENTITY
# A generator of the 8 points of small order (speccheck, case 0), and every encoding of each, canonical or not.
_torsion = decode(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"))
TORSION = [multiply(n, _torsion if _torsion is not None else IDENTITY) for n in range(8)]
ENCODINGS = [
    data
    for y, sign in itertools.product(sorted({y + p for _, y in TORSION for p in (0, P) if y + p < 1 << 255}), (0, 1))
    for data in [(y | sign << 255).to_bytes(32, "little")]
    if decode(data) is not None
]


def signature_of(r: bytes, s: int) -> bytes:
    return r + s.to_bytes(32, "little")


def test_the_reference_knows_the_small_points() -> None:
    assert len(set(TORSION)) == 8
    assert len(ENCODINGS) == 14  # squared: the 196 of the public vectors
    assert multiply(L, BASE) == IDENTITY


@pytest.mark.parametrize("public", ENCODINGS)
def test_small_points_in_every_encoding(public: bytes) -> None:
    for r in ENCODINGS:
        assert verify(public, b"m", signature_of(r, 0))
        assert not verify(public, b"m", signature_of(r, 1))
        assert not verify(public, b"m", signature_of(r, L))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, L - 1),
    st.integers(0, L - 1),
    st.integers(0, 7),
    st.integers(0, 7),
    st.binary(max_size=40),
    st.sampled_from([0, 0, 1, L - 1, L]),
)
def test_points_with_a_small_component(a: int, r: int, t: int, u: int, message: bytes, error: int) -> None:
    public, r_bytes = encode(add(multiply(a, BASE), TORSION[t])), encode(add(multiply(r, BASE), TORSION[u]))
    k = int.from_bytes(hashlib.sha512(r_bytes + public + message).digest(), "little")
    s = (r + k * a) % L + (error if error == L else 0)
    signature = signature_of(r_bytes, s if error == L else (s + error) % L)
    assert verify(public, message, signature) is reference(public, message, signature) is (error == 0)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(0, 2 * L))
def test_any_bytes_are_judged_alike(public: bytes, r: bytes, s: int) -> None:
    signature = signature_of(r, s)
    assert verify(public, b"m", signature) is reference(public, b"m", signature)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_what_libsodium_accepts_zip215_accepts(seed: bytes, message: bytes) -> None:
    key = PrivateKey.from_seed(seed)
    signature = key.sign(message)
    assert verify_strict(key.public, message, signature)
    assert verify(key.public, message, signature)
