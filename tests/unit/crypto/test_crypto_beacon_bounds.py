"""How far a beacon of VRF outputs can be bent: the page's formulas, against real outputs and every choice there is."""

import hashlib
import re
from collections.abc import Callable
from itertools import combinations
from math import comb, isclose
from pathlib import Path

import pytest

from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey

PAGE = Path(__file__).parents[3] / "docs" / "spec" / "beacon.md"
KEYS = [PrivateKey.from_seed(bytes([number + 1]) * 32) for number in range(7)]
P = 1.1e-4

Mix = Callable[[tuple[bytes, ...]], bytes]


def quorum(n: int) -> int:
    return 2 * n // 3 + 1


def choices(n: int) -> int:
    return sum(comb(n, j) for j in range(quorum(n), n + 1))


def bent(p: float, m: int) -> float:
    return 1 - (1 - p) ** m


def hash_of_all(outputs: tuple[bytes, ...]) -> bytes:
    return hashlib.sha256(b"".join(outputs)).digest()


def smallest(outputs: tuple[bytes, ...]) -> bytes:
    return min(hashlib.sha256(output).digest() for output in outputs)


def reachable(n: int, height: int, mix: Mix) -> set[bytes]:
    """Every beacon that a hostile proposer can make of the outputs of a height."""
    alpha = height.to_bytes(8, "big")
    outputs = [ecvrf.proof_to_hash(ecvrf.prove(key, alpha)) for key in KEYS[:n]]
    return {mix(chosen) for size in range(quorum(n), n + 1) for chosen in combinations(outputs, size)}


@pytest.mark.parametrize("n", [4, 7])
def test_choices_are_counted_right(n: int) -> None:
    assert len(reachable(n, 1, hash_of_all)) == choices(n)
    assert len(reachable(n, 1, smallest)) == n - quorum(n) + 1


def test_a_hostile_proposer_of_four_reaches_what_the_formula_says() -> None:
    """The event: a beacon whose first byte is below 64, p = 1/4; for the smallest, its hash's."""
    heights, p = range(300), 1 / 4
    for mix, m in ((hash_of_all, choices(4)), (smallest, 2)):
        hits = sum(
            any(hashlib.sha256(beacon).digest()[0] < 64 for beacon in reachable(4, height, mix)) for height in heights
        )
        assert abs(hits / len(heights) - bent(p, m)) < 0.08  # three deviations of the mean


def test_the_page_states_what_the_formulas_give() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\S+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) == 5
    for row in rows:
        n = int(row[0])
        assert row[1:] == (str(quorum(n)), str(2 ** ((n - 1) // 3)), str(choices(n)), f"{bent(P, choices(n)):.1e}")
    assert [n - quorum(n) + 1 for n in (4, 10, 100)] == [2, 4, 34]
    assert f"{bent(P, 34):.1e}" == "3.7e-03"


def test_the_mean_of_a_run_of_hostile_proposers() -> None:
    for share in (0.1, 0.2, 1 / 3):
        mean = sum((2 * share) ** k * (1 - share) for k in range(2_000))
        assert isclose(mean, (1 - share) / (1 - 2 * share))
