"""Mnemonic to keys against public vectors: BIP-39, SLIP-0010, SEP-0005, and StrKey's SEP-0023."""

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from freehold.base.errors import InvalidInputError
from freehold.crypto import mnemonic, slip10, strkey
from freehold.crypto.ed25519 import PrivateKey

# SEP-0005, the test case with BIP-39's twelve "abandon" words
ABOUT = "abandon " * 11 + "about"
ABOUT_SEED = (
    "5eb00bbddcf069084889a8ab9155568165f5c453ccb85e70811aaed6f6da5fc1"
    "9a5ac40b389cd370d086206dec8aa6c43daea6690f20ad3d8d48b2d2ce9e38e4"
)
ABOUT_KEYS = [
    (
        "GB3JDWCQJCWMJ3IILWIGDTQJJC5567PGVEVXSCVPEQOTDN64VJBDQBYX",
        "SBUV3MRWKNS6AYKZ6E6MOUVF2OYMON3MIUASWL3JLY5E3ISDJFELYBRZ",
    ),
    (
        "GDVSYYTUAJ3ACHTPQNSTQBDQ4LDHQCMNY4FCEQH5TJUMSSLWQSTG42MV",
        "SCHDCVCWGAKGIMTORV6K5DYYV3BY4WG3RA4M6MCBGJLHUCWU2MC6DL66",
    ),
]
# SLIP-0010, ed25519, seed 000102..0f: path, chain code, private key
SLIP10_SEED = bytes(range(16))
SLIP10 = [
    (
        "m",
        "90046a93de5380a72b5e45010748567d5ea02bbf6522f979e05c0d8d8ca9fffb",
        "2b4be7f19ee27bbf30c667b642d5f4aa69fd169872f8fc3059c08ebae2eb19e7",
    ),
    (
        "m/0'",
        "8b59aa11380b624e81507a27fedda59fea6d0b779a778918a2fd3590e16e9c69",
        "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3",
    ),
]
# SEP-0023: the valid account, and texts that no reader may take for one
VALID = "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ"
VALID_BYTES = "3f0c34bf93ad0d9971d04ccc90f705511c838aad9734a4a2fb0d7a03fc7fe89a"
INVALID = [
    "GAAAAAAAACGC6",
    "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZA",
    "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJUACUSI",
    "G47QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVP2I",
]


def load(name: str) -> Any:
    folder = os.environ.get("FREEHOLD_VECTORS")
    if not folder:
        pytest.skip(f"FREEHOLD_VECTORS is not set: {name} did not run")
    return json.loads((Path(folder) / name).read_text())


def check_keys(seed: bytes, path: str, public: str, secret: str) -> None:
    key = slip10.derive(seed, path)
    assert strkey.encode_account(key.public) == public
    assert strkey.encode_seed(key.export_seed()) == secret
    assert strkey.decode_account(public) == key.public
    assert PrivateKey.from_seed(strkey.decode_seed(secret)).public == key.public


def test_sep0005_facts() -> None:
    seed = mnemonic.to_seed(ABOUT)
    assert seed.hex() == ABOUT_SEED
    for index, (public, secret) in enumerate(ABOUT_KEYS):
        check_keys(seed, slip10.ACCOUNT_PATH.format(index=index), public, secret)


def test_sep0005_all() -> None:
    cases = load("keys/sep0005.json")["cases"]
    assert len(cases) == 5
    for case in cases:
        seed = mnemonic.to_seed(case["mnemonic"], case["passphrase"])
        assert seed.hex() == case["seed"]
        assert slip10.derive_secret(seed, "m/44'/148'").seed.hex() == case["parent_key"]
        for key in case["keys"]:
            check_keys(seed, key["path"], key["public"], key["secret"])


@pytest.mark.parametrize(("path", "chain_code", "private"), SLIP10)
def test_slip0010_facts(path: str, chain_code: str, private: str) -> None:
    secret = slip10.derive_secret(SLIP10_SEED, path)
    assert (secret.chain_code.hex(), secret.seed.hex()) == (chain_code, private)


def test_slip0010_all() -> None:
    vectors = [vector for vector in load("keys/slip0010.json")["vectors"] if vector["curve"] == "ed25519"]
    assert len(vectors) == 12
    for vector in vectors:
        seed = bytes.fromhex(vector["seed"])
        secret = slip10.derive_secret(seed, vector["path"])
        assert (secret.chain_code.hex(), secret.seed.hex()) == (vector["chain_code"], vector["private"])
        assert "00" + slip10.derive(seed, vector["path"]).public.hex() == vector["public"]


def test_bip39_all() -> None:
    data = load("keys/bip39_trezor.json")
    english = [tuple(case[field] for field in ("entropy", "mnemonic", "seed")) for case in data["english"]]
    others = [(language, tuple(case[:3])) for language, cases in data["others"].items() for case in cases]
    everything = [("english", case) for case in english] + others
    assert {language for language, _ in everything} == set(mnemonic.LANGUAGES)
    assert len(everything) == 12 * 24
    for language, (entropy, words, seed) in everything:
        # vectors and lists differ in Unicode form; BIP-39 compares after NFKD
        written = mnemonic.from_entropy(bytes.fromhex(entropy), language)
        assert unicodedata.normalize("NFKD", written) == unicodedata.normalize("NFKD", words)
        assert written == words or language != "english"
        assert mnemonic.to_seed(words, data["passphrase"], language).hex() == seed


def test_sep0023_facts() -> None:
    assert strkey.decode_account(VALID).hex() == VALID_BYTES
    assert strkey.encode_account(bytes.fromhex(VALID_BYTES)) == VALID
    for text in INVALID:
        with pytest.raises(InvalidInputError):
            strkey.decode_account(text)


def test_sep0023_all() -> None:
    data = load("keys/sep0023.json")
    assert (len(data["valid"]), len(data["invalid"])) == (8, 15)
    supported = 0
    for case in data["valid"]:
        if case["type"] == "KEY_TYPE_ED25519":
            supported += 1
            assert case["binary"] == "00000000" + strkey.decode_account(case["strkey"]).hex()
            continue
        for decode in (strkey.decode_account, strkey.decode_seed):
            with pytest.raises(InvalidInputError):
                decode(case["strkey"])
    assert supported == 1
    for case in data["invalid"]:
        for decode in (strkey.decode_account, strkey.decode_seed):
            with pytest.raises(InvalidInputError):
                decode(case["strkey"])
