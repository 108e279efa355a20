"""The wallet file opens with its passphrase alone, and a hostile one costs nothing."""

import json
import time
from typing import Any

import pytest

from freehold.base.errors import InvalidInputError
from freehold.crypto.keystore import STRONG, WEAK_FOR_TESTS, Kdf, open_keystore, seal_keystore

SECRET = b"thirty-two secret bytes of a key"
PASSPHRASE = "correct horse"
BLOB = seal_keystore(SECRET, PASSPHRASE, kdf=WEAK_FOR_TESTS)
# Golden: made once by this format's first version; it must open for ever.
GOLDEN = (
    b'{"header":{"cipher":"xchacha20-poly1305","format":"freehold-keystore/1","kdf":{"iterations":1,"lanes'
    b'":1,"memory_kib":64,"name":"argon2id"},"salt":"zd/QBWF+yY8jecDM7tmlkg=="},"sealed":"02m6BQN2cqd7PCFp'
    b'lrKo0hZYLArzCUPVb5C6SFJgLIWOq/iRqO8selQ6Us25W4Fd34so05f3HNcCQypzE7UTOcbHoBQIOrDY"}'
)


def code_of(blob: bytes, passphrase: str = PASSPHRASE) -> str:
    with pytest.raises(InvalidInputError) as caught:
        open_keystore(blob, passphrase)
    assert caught.value.hint
    assert SECRET.decode() not in caught.value.message
    return caught.value.code


def changed(**header: Any) -> bytes:
    value = json.loads(BLOB)
    for name, item in header.items():
        target = value["header"]["kdf"] if name in value["header"]["kdf"] else value["header"]
        target[name] = item
    return json.dumps(value).encode()


def test_round_trip() -> None:
    assert open_keystore(BLOB, PASSPHRASE) == SECRET
    assert SECRET not in BLOB
    assert seal_keystore(SECRET, PASSPHRASE, kdf=WEAK_FOR_TESTS) != BLOB


def test_the_first_version_opens_for_ever() -> None:
    assert open_keystore(GOLDEN, PASSPHRASE) == SECRET


def test_the_default_cost() -> None:
    assert Kdf(memory_kib=64 * 1024, iterations=3, lanes=1) == STRONG
    blob = seal_keystore(SECRET, "p")
    assert json.loads(blob)["header"]["kdf"] == {"iterations": 3, "lanes": 1, "memory_kib": 65536, "name": "argon2id"}
    assert open_keystore(blob, "p") == SECRET


def test_passphrases_are_compared_in_one_unicode_form() -> None:
    blob = seal_keystore(SECRET, "caf\u00e9", kdf=WEAK_FOR_TESTS)
    assert open_keystore(blob, "cafe\u0301") == SECRET


@pytest.mark.parametrize("passphrase", ["Correct horse", "correct horse ", "", "x" * 1_025])
def test_another_passphrase(passphrase: str) -> None:
    assert code_of(BLOB, passphrase) == "bad_passphrase"


@pytest.mark.parametrize("passphrase", ["", "x" * 1_025])
def test_a_useless_passphrase_seals_nothing(passphrase: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        seal_keystore(SECRET, passphrase, kdf=WEAK_FOR_TESTS)
    assert caught.value.code == "bad_passphrase"


@pytest.mark.parametrize("secret", [b"", bytes(16 * 1024 + 1)])
def test_a_secret_is_bounded(secret: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        seal_keystore(secret, "p", kdf=WEAK_FOR_TESTS)
    assert caught.value.code == "bad_secret"


@pytest.mark.parametrize(
    "header",
    [
        {"memory_kib": 4 * 1024 * 1024},
        {"memory_kib": 256 * 1024 + 1},
        {"memory_kib": 0},
        {"memory_kib": -1},
        {"memory_kib": 1 << 70},
        {"memory_kib": 64.5},
        {"iterations": 11},
        {"iterations": 0},
        {"lanes": 5},
        {"lanes": 0},
        {"name": "scrypt"},
        {"format": "freehold-keystore/2"},
        {"cipher": "none"},
        {"salt": ""},
        {"salt": "AAAA"},
        {"extra": 1},
    ],
)
def test_a_hostile_header_costs_no_memory_and_no_time(header: dict[str, Any]) -> None:
    started = time.process_time()
    assert code_of(changed(**header)) == "bad_keystore"
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("header", [{"memory_kib": 72}, {"iterations": 2}, {"salt": "AAAAAAAAAAAAAAAAAAAAAA=="}])
def test_the_header_is_authenticated(header: dict[str, Any]) -> None:
    assert code_of(changed(**header)) == "bad_passphrase"


def test_damage_is_told() -> None:
    for blob in (b"", b"{}", b"null", b"\xff", BLOB[:-5], b"[" * 60_000, BLOB + b" " * 70_000, BLOB * 2):
        assert code_of(blob) == "bad_keystore"


def test_no_flipped_byte_opens_to_something_else() -> None:
    for at in range(len(BLOB)):
        blob = BLOB[:at] + bytes([BLOB[at] ^ 1]) + BLOB[at + 1 :]
        try:
            assert open_keystore(blob, PASSPHRASE) == SECRET  # such as a space for the last newline
        except InvalidInputError as error:
            assert error.code in ("bad_keystore", "bad_passphrase")
