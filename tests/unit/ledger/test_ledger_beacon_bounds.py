"""How far the beacon can be bent: the page's formulas, against every choice there is and a hostile proposer at play."""

import re
from collections.abc import Sequence
from itertools import combinations
from math import comb
from pathlib import Path

import pytest

from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import Purpose, sha256, tagged_hash
from freehold.ledger.beacons import Voter, take
from freehold.ledger.lottery import most_left_out, ranking

PAGE = Path(__file__).parents[3] / "docs" / "spec" / "beacon.md"
KEYS = [PrivateKey.from_seed(bytes([number + 1]) * 32) for number in range(7)]
P = 1.1e-4


def quorum(n: int) -> int:
    return 2 * n // 3 + 1


def hostile(n: int) -> int:
    return (n - 1) // 3


def hash_choices(n: int) -> int:
    """Of the hash over all outputs, which is not the rule."""
    return sum(comb(n, j) for j in range(quorum(n), n + 1))


def bent(p: float, m: float) -> float:
    return 1 - (1 - p) ** m


def turns(n: int, k: int) -> float:
    """The page's bound on what k hostile turns, each two heights apart, make of a chance, as a multiple of it."""
    m = n - quorum(n) + 1
    foreseen = hostile(n) * m / n
    return sum(m * foreseen**j for j in range(k))


def outputs_of(powers: Sequence[int], height: int) -> list[tuple[Voter, bytes]]:
    alpha = height.to_bytes(8, "big")
    return [
        (Voter(key.public, power, key.public), ecvrf.proof_to_hash(ecvrf.prove(key, alpha)))
        for key, power in zip(KEYS, powers, strict=False)
    ]


def enough(chosen: Sequence[tuple[Voter, bytes]], powers: Sequence[int]) -> bool:
    return 3 * sum(voter.power for voter, _ in chosen) > 2 * sum(powers)


@pytest.mark.parametrize("powers", [[1] * 4, [1] * 7, [6, 1, 1, 1], [4, 3, 2, 2, 1], [1, 1, 1, 1, 8, 8, 8]])
def test_a_hostile_proposer_reaches_a_prefix_of_the_ranking_and_nothing_else(powers: list[int]) -> None:
    most = 0
    for height in range(1, 13):
        outputs = outputs_of(powers, height)
        reached = {
            take("c", height, list(chosen))
            for size in range(1, len(powers) + 1)
            for chosen in combinations(outputs, size)
            if enough(chosen, powers)
        }
        tickets = [(v.validator, v.power, tagged_hash(Purpose.VRF_TICKET, output)) for v, output in outputs]
        by_key = {voter.validator: (voter, output) for voter, output in outputs}
        prefix, left = set(), list(outputs)
        for validator in ranking(tickets):
            if not enough(left, powers):
                break
            prefix.add(take("c", height, [by_key[validator]]))
            left.remove(by_key[validator])
        assert reached == prefix
        assert len(reached) <= most_left_out(powers) + 1
        most = max(most, len(reached))
    if len(set(powers)) == 1:
        assert most == len(powers) - quorum(len(powers)) + 1


class Table:
    """n validators of equal power by hashes in place of VRF outputs; the first `hostile(n)` are the adversary's."""

    def __init__(self, n: int, p: float, salt: int) -> None:
        self.n, self.p, self.salt = n, p, salt

    def ticket(self, seed: bytes, number: int) -> bytes:
        return sha256(b"t%d %d " % (self.salt, number) + seed)

    def beacon(self, seed: bytes, number: int) -> bytes:
        return sha256(b"b%d %d " % (self.salt, number) + seed)

    def suits(self, beacon: bytes) -> bool:
        return int.from_bytes(beacon[:4], "big") < self.p * (1 << 32)

    def options(self, seed: bytes) -> list[bytes]:
        """What a hostile proposer can make the beacon."""
        order = ranking((bytes([n]), 1, self.ticket(seed, n)) for n in range(self.n))
        return [self.beacon(seed, one[0]) for one in order[: self.n - quorum(self.n) + 1]]

    def promise(self, seed: bytes) -> int:
        """How good the adversary's own outputs over a seed are: the best ticket among those that suit it, or -1."""
        own = [n for n in range(hostile(self.n)) if self.suits(self.beacon(seed, n))]
        return max((int.from_bytes(self.ticket(seed, n), "big") for n in own), default=-1)


def plays(n: int, p: float, k: int, games: int) -> float:
    """How often an adversary with k turns, two heights apart, ends with a beacon that suits it."""
    wins = 0
    for game in range(games):
        table = Table(n, p, game)
        seed = b"start"
        for _ in range(k - 1):
            seed = max(table.options(seed), key=table.promise)
        wins += any(table.suits(beacon) for beacon in table.options(seed))
    return wins / games


@pytest.mark.parametrize(("n", "k"), [(4, 1), (4, 2), (4, 3), (7, 1), (7, 2), (10, 2)])
def test_what_an_adversary_at_play_gets(n: int, k: int) -> None:
    p, games = 1 / 64, 1_500
    got = plays(n, p, k, games)
    m = n - quorum(n) + 1
    deviation = (got * (1 - got) / games) ** 0.5
    assert got <= turns(n, k) * p + 3 * deviation
    assert got >= bent(p, m) - 3 * deviation  # it does get what one turn gives
    if k == 1:
        assert abs(got - bent(p, m)) <= 3 * deviation


def test_whoever_withholds_gains_little_however_many_keys_it_has() -> None:
    """Under an honest proposer: own outputs ahead of the first honest one can be kept back, one by one."""
    rounds = 600
    for keys, power in ((1, 10), (2, 5), (10, 1)):  # a third of 30 in all
        total = 0
        for number in range(rounds):
            own = [(b"h%d" % n, power, sha256(b"own %d %d" % (number, n))) for n in range(keys)]
            rest = [(b"r%d" % n, 1, sha256(b"rest %d %d" % (number, n))) for n in range(20)]
            order = ranking(own + rest)
            total += 1 + next(place for place, one in enumerate(order) if one[:1] == b"r")
        assert total / rounds <= 1.5 + 0.11  # 1 / (1 - s) at s = 1/3


def test_the_page_states_what_the_formulas_give() -> None:
    text = PAGE.read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", text, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [4, 7, 10, 16, 31, 64, 100]
    for row in rows:
        n = int(row[0])
        m = n - quorum(n) + 1
        assert most_left_out([1] * n) + 1 == m
        chances = [f"{min(turns(n, k) * P, 1):.1e}" for k in (1, 2, 3)]
        assert row[1:] == (str(quorum(n)), str(m), *chances, f"{bent(P, hash_choices(n)):.1e}")
