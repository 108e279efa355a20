"""Paths are hardened and bounded; the branches of one mnemonic never meet."""

import pytest

from freehold.base.errors import InvalidInputError
from freehold.crypto import slip10

SEED = bytes(range(64))


@pytest.mark.parametrize(
    "path",
    ["", "m/", "m/0", "m/0'/1", "n/0'", "m/0''", "m/-1'", "m/00'", "m/2147483648'", "m/9999999999'", "m/0'\n", "m/٣'",
     "m" + "/0'" * 11, "m" + "/0'" * 100_000, "m/0h", "M/0'"],
)  # fmt: skip
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        slip10.derive(SEED, path)
    assert caught.value.code == "bad_path"


def test_paths_are_read() -> None:
    assert slip10.parse_path("m") == []
    assert slip10.parse_path("m/44'/148'/2147483647'") == [44, 148, 2147483647]


def test_branches_differ() -> None:
    paths = [
        path.format(index=index)
        for path in (slip10.ACCOUNT_PATH, slip10.ENDPOINT_PATH, slip10.STORE_PATH)
        for index in range(3)
    ]
    assert len({slip10.derive(SEED, path).public for path in paths}) == 9


def test_the_number_of_the_other_branch_is_our_name() -> None:
    assert slip10.parse_path(slip10.ENDPOINT_PATH.format(index=0))[0].to_bytes(4, "big") == b"FREE"


@pytest.mark.parametrize("length", [0, 15, 65])
def test_other_seeds_are_refused(length: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        slip10.derive(bytes(length), "m")
    assert caught.value.code == "bad_seed"


def test_secrets_are_hidden() -> None:
    secret = slip10.derive_secret(SEED, "m/0'")
    assert repr(secret) == str(secret) == "Secret(..)"
    assert f"{secret}" == "Secret(..)"
