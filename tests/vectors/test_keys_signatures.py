"""Ed25519 against public vectors: RFC 8032, speccheck's corner cases, noble's small-order cases under ZIP-215."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from freehold.crypto.ed25519 import PrivateKey, verify, verify_strict

# RFC 8032 section 7.1: secret, public, message, signature
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


def load(name: str) -> Any:
    folder = os.environ.get("FREEHOLD_VECTORS")
    if not folder:
        pytest.skip(f"FREEHOLD_VECTORS is not set: {name} did not run")
    return json.loads((Path(folder) / name).read_text())


def check_rfc8032(secret: str, public: str, message: str, signature: str) -> None:
    key = PrivateKey.from_seed(bytes.fromhex(secret))
    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    for rule in (verify, verify_strict):
        assert rule(key.public, bytes.fromhex(message), bytes.fromhex(signature))
        assert not rule(key.public, bytes.fromhex(message) + b"x", bytes.fromhex(signature))


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC8032)
def test_rfc8032_facts(secret: str, public: str, message: str, signature: str) -> None:
    check_rfc8032(secret, public, message, signature)


def test_rfc8032_all() -> None:
    vectors = load("keys/ed25519_rfc8032.json")["vectors"]
    assert len(vectors) == 5
    for vector in vectors:
        check_rfc8032(vector["secret"], vector["public"], vector["message"], vector["signature"])


def test_speccheck_all() -> None:
    cases = load("keys/ed25519_speccheck.json")["cases"]
    verdicts = {
        case["i"]: verify(*(bytes.fromhex(case[field]) for field in ("pub_key", "message", "signature")))
        for case in cases
    }
    assert {number for number, accepted in verdicts.items() if accepted} == {0, 1, 2, 3, 4, 5, 9, 10, 11}
    assert {number for number, accepted in verdicts.items() if not accepted} == {6, 7, 8}


def test_small_order_points_all() -> None:
    vectors = load("keys/ed25519_zip215_noble.json")["vectors"]
    assert len(vectors) == 196
    for vector in vectors:
        public, signature = bytes.fromhex(vector["vk_bytes"]), bytes.fromhex(vector["sig_bytes"])
        assert verify(public, b"Zcash", signature) is vector["valid_zip215"] is True
        assert not verify_strict(public, b"Zcash", signature)


def test_small_order_point_fact() -> None:
    identity_not_canonical = bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")
    assert verify(identity_not_canonical, b"Zcash", identity_not_canonical + bytes(32))
    assert not verify_strict(identity_not_canonical, b"Zcash", identity_not_canonical + bytes(32))
