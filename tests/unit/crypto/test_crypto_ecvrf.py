"""The VRF beside a slow one in plain integers, and all that it must refuse."""

import hashlib
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings

from freehold.base.errors import InvalidInputError
from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.edwards25519 import IDENTITY, D, L, P, decode_any

KEY = PrivateKey.from_seed(bytes(range(32)))
ALPHA = b"freehold test input"
PROOF = ecvrf.prove(KEY, ALPHA)
seeds = st.binary(min_size=32, max_size=32)
# The points of small order and every canonical encoding of them, from a generator of the eight.
TORSION_8 = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa")


class Point(NamedTuple):
    x: int
    y: int

    def plus(self, other: "Point") -> "Point":
        t = D * self.x * other.x * self.y * other.y
        x = (self.x * other.y + self.y * other.x) * pow(1 + t, -1, P) % P
        return Point(x, (self.y * other.y + self.x * other.x) * pow(1 - t, -1, P) % P)

    def times(self, scalar: int) -> "Point":
        result, point = Point(0, 1), self
        while scalar:
            if scalar & 1:
                result = result.plus(point)
            point, scalar = point.plus(point), scalar >> 1
        return result

    @property
    def data(self) -> bytes:
        return (self.y | (self.x & 1) << 255).to_bytes(32, "little")


def point(data: bytes) -> Point:
    decoded = decode_any(data)
    assert decoded is not None
    return Point(*decoded)


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
SMALL = sorted({point(TORSION_8).times(n).data for n in range(8)})


def slow_proof(seed: bytes, gamma_twist: Point, alpha: bytes) -> tuple[bytes, bytes]:
    """By the RFC's steps in integers; `gamma_twist` is added to Gamma, the challenge sought that hides it."""
    expanded = hashlib.sha512(seed).digest()
    x = int.from_bytes(expanded[:32], "little") & (1 << 254) - 8 | 1 << 254
    public = BASE.times(x).data
    h = point(ecvrf._encode_to_curve(public, alpha))
    gamma = h.times(x % L).plus(gamma_twist)
    k = int.from_bytes(hashlib.sha512(expanded[32:] + h.data).digest(), "little") % L
    while True:
        parts = public + h.data + gamma.data + BASE.times(k).data + h.times(k).data
        c = hashlib.sha512(b"\x04\x02" + parts + b"\x00").digest()[:16]
        if gamma_twist.times(int.from_bytes(c, "little") % 8) == Point(0, 1):
            break
        k += 1
    s = (k + int.from_bytes(c, "little") * x) % L
    return public, gamma.data + c + s.to_bytes(32, "little")


@settings(max_examples=10)
@given(seeds, st.binary(max_size=40))
def test_proofs_are_those_of_plain_integers(seed: bytes, alpha: bytes) -> None:
    key = PrivateKey.from_seed(seed)
    proof = ecvrf.prove(key, alpha)
    assert (key.public, proof) == slow_proof(seed, Point(0, 1), alpha)
    output = ecvrf.verify(key.public, alpha, proof)
    assert output == ecvrf.proof_to_hash(proof)
    eight_gamma = point(proof[:32]).times(8)
    assert output == hashlib.sha512(b"\x04\x03" + eight_gamma.data + b"\x00").digest()


@given(seeds, st.binary(max_size=40))
def test_inputs_map_into_the_prime_subgroup(public: bytes, alpha: bytes) -> None:
    assert bindings.crypto_core_ed25519_is_valid_point(ecvrf._encode_to_curve(public, alpha))


@given(st.integers(0, P - 1))
def test_the_map_lands_on_the_curve_with_the_named_sign(u: int) -> None:
    x, y = ecvrf._elligator2(u)
    assert (y * y - (x**3 + 486662 * x * x + x)) % P == 0
    first = -486662 * pow(1 + 2 * u * u, -1, P) % P
    assert y & 1 == (x == first)
    s, t = ecvrf._to_edwards(x, y)
    assert (t * t - s * s - 1 - D * s * s * t * t) % P == 0


def test_exceptional_points_map_to_the_identity() -> None:
    assert ecvrf._to_edwards(0, 0) == ecvrf._to_edwards(P - 1, 5) == (0, 1)


def test_every_flipped_bit_is_refused() -> None:
    assert ecvrf.verify(KEY.public, ALPHA, PROOF) is not None
    for index in range(len(PROOF) * 8):
        changed = bytearray(PROOF)
        changed[index // 8] ^= 1 << index % 8
        assert ecvrf.verify(KEY.public, ALPHA, bytes(changed)) is None


def test_a_proof_is_for_one_key_and_one_input() -> None:
    other = PrivateKey.from_seed(bytes(32))
    assert ecvrf.verify(other.public, ALPHA, PROOF) is None
    for alpha in (b"", ALPHA + b"\x00", ALPHA[:-1]):
        assert ecvrf.verify(KEY.public, alpha, PROOF) is None
    assert ecvrf.prove(KEY, ALPHA) == PROOF  # no randomness: nothing to grind


@pytest.mark.parametrize("public", SMALL, ids=range(8))
def test_keys_and_gammas_of_small_order_are_refused(public: bytes) -> None:
    """With such a key the output would be the same for every input, and anybody's."""
    assert not ecvrf.is_valid_key(public)
    assert ecvrf.verify(public, ALPHA, PROOF) is None
    for proof in (public + PROOF[32:], public + bytes(48)):
        assert ecvrf.verify(KEY.public, ALPHA, proof) is None
        with pytest.raises(InvalidInputError):
            ecvrf.proof_to_hash(proof)


def test_points_with_a_small_component_are_refused() -> None:
    """The RFC would take this key and this Gamma; the output would not change, but the proof's bytes would."""
    twist = next(small for small in map(point, SMALL) if small.times(4) != Point(0, 1))
    public, twisted = slow_proof(bytes(range(32)), twist, ALPHA)
    assert public == KEY.public
    assert twisted[:32] != PROOF[:32]
    assert point(twisted[:32]).times(8) == point(PROOF[:32]).times(8)
    assert ecvrf.verify(public, ALPHA, twisted) is None
    assert not ecvrf.is_valid_key(point(public).plus(twist).data)


def test_encodings_that_are_not_canonical_are_refused() -> None:
    s = int.from_bytes(PROOF[48:], "little")
    for changed in (s + L, L):
        assert ecvrf.verify(KEY.public, ALPHA, PROOF[:48] + changed.to_bytes(32, "little")) is None
    for y in (P, P + 1, P + 3):  # what is not below p, whatever it decodes to
        for sign in (0, 1):
            data = (y | sign << 255).to_bytes(32, "little")
            assert not ecvrf.is_valid_key(data)
            assert ecvrf.verify(KEY.public, ALPHA, data + PROOF[32:]) is None


def test_lengths_are_bounded() -> None:
    long = bytes(ecvrf.MAX_ALPHA_BYTES)
    assert ecvrf.verify(KEY.public, long, ecvrf.prove(KEY, long)) is not None
    assert ecvrf.verify(KEY.public, long + b"\x00", PROOF) is None
    with pytest.raises(InvalidInputError) as caught:
        ecvrf.prove(KEY, long + b"\x00")
    assert caught.value.code == "oversized"
    for proof in (b"", PROOF[:-1], PROOF + b"\x00"):
        assert ecvrf.verify(KEY.public, ALPHA, proof) is None
        with pytest.raises(InvalidInputError) as caught:
            ecvrf.proof_to_hash(proof)
        assert caught.value.code == "bad_vrf_proof"
    for public in (b"", KEY.public[:-1], KEY.public + b"\x00", IDENTITY):
        assert not ecvrf.is_valid_key(public)
        assert ecvrf.verify(public, ALPHA, PROOF) is None


def test_the_seed_is_not_in_the_proof_or_in_errors() -> None:
    assert KEY.export_seed() not in PROOF
    with pytest.raises(InvalidInputError) as caught:
        ecvrf.prove(KEY, bytes(2_000))
    assert KEY.export_seed().hex() not in repr(caught.value)
