"""Keys hide themselves, and a machine with another verifier notices."""

import pytest

from freehold.base.errors import InvariantError
from freehold.crypto import ed25519, zip215
from freehold.crypto.ed25519 import PrivateKey, self_test, verify, verify_strict

SEED = bytes(range(32))
KEY = PrivateKey.from_seed(SEED)


def test_a_signature_verifies_by_both_rules() -> None:
    signature = KEY.sign(b"message")
    assert len(signature) == 64
    assert verify(KEY.public, b"message", signature)
    assert verify_strict(KEY.public, b"message", signature)


@pytest.mark.parametrize("rule", [verify, verify_strict])
def test_every_flipped_bit_is_refused(rule: object) -> None:
    assert callable(rule)
    signed = KEY.public + KEY.sign(b"message") + b"message"
    for bit in range(0, len(signed) * 8, 5):
        changed = bytearray(signed)
        changed[bit // 8] ^= 1 << bit % 8
        assert not rule(bytes(changed[:32]), bytes(changed[96:]), bytes(changed[32:96]))


@pytest.mark.parametrize("rule", [verify, verify_strict])
@pytest.mark.parametrize(("public", "signature"), [(31, 64), (33, 64), (0, 64), (32, 63), (32, 65), (32, 0), (33, 63)])
def test_other_lengths_are_refused(rule: object, public: int, signature: int) -> None:
    assert callable(rule)
    whole = KEY.sign(b"message")
    assert not rule((KEY.public + b"\0")[:public], b"message", (whole + b"\0")[:signature])


def test_bytes_do_not_move_between_signature_and_message() -> None:
    signature = KEY.sign(b"message")
    assert not verify(KEY.public, b"essage", signature + b"m")
    assert not verify(KEY.public, signature[-1:] + b"message", signature[:-1])


def test_the_seed_is_hidden() -> None:
    assert SEED.hex() not in repr(KEY) + str(KEY)
    assert repr(SEED) not in repr(KEY)
    assert KEY.public.hex() in repr(KEY)
    assert not hasattr(KEY, "__dict__")
    assert KEY.export_seed() == SEED


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(InvariantError):
        PrivateKey.from_seed(bytes(31))


def test_self_test_passes_here() -> None:
    self_test()


def test_self_test_notices_a_stricter_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip215, "verify", lambda *_: False)
    with pytest.raises(InvariantError, match="zip215"):
        self_test()


def test_self_test_notices_a_looser_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ed25519, "verify_strict", lambda *_: True)
    with pytest.raises(InvariantError, match="self_test"):
        self_test()
