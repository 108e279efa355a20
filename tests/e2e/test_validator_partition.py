"""Validators cut off from each other by rules in their namespaces: halves halt, three of four go on, nothing forks."""

import asyncio
from pathlib import Path

import pytest
from faults import seed_of
from validators import Load, Validators, check_load, with_validators

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(900)]

STANDSTILL_S = 8.0
HEAL_S = 120.0


def cut(net: Validators, here: list[int], there: list[int]) -> None:
    """Drop all packets between two groups, at both ends."""
    for one, others in ((here, there), (there, here)):
        for index in one:
            net.net.cut(index, others)


def heal(net: Validators, members: list[int]) -> None:
    """Let packets pass again."""
    for index in members:
        net.net.heal(index)


async def halves(net: Validators) -> None:
    rng = seed_of("partition 2|2")
    await net.start_all()
    members = list(range(4))
    async with Load(rng, members) as load:
        for turn in range(2):
            await load.more(5)
            rng.shuffle(members)
            here, there = sorted(members[:2]), sorted(members[2:])
            cut(net, here, there)
            in_flight, acknowledged = len(load.open), len(load.acknowledged)
            assert in_flight, "no work is in flight"
            await asyncio.sleep(2)  # a block that both halves had voted for may still be finished
            before = [await net.height(index) for index in range(4)]
            await asyncio.sleep(STANDSTILL_S)  # what is shown is that nothing happens
            after = [await net.height(index) for index in range(4)]
            print(f"turn {turn}: cut {here}|{there} with {in_flight} in flight; heights {before}, later {after}")
            assert before == after, "a half went on"
            assert len(load.acknowledged) - acknowledged <= in_flight
            heal(net, list(range(4)))
            await net.reach(max(after) + 3, range(4), HEAL_S)
            await load.more(5)
            await net.agree()
    await check_load(net, load)


async def three_of_four(net: Validators) -> None:
    rng = seed_of("partition 3|1")
    await net.start_all()
    async with Load(rng, list(range(4))) as load:
        for turn in range(2):
            await load.more(5)
            alone = rng.randrange(4)
            others = [index for index in range(4) if index != alone]
            cut(net, [alone], others)
            in_flight = len(load.open)
            assert in_flight, "no work is in flight"
            load.members = others
            begun = await net.height(others[0])
            await net.reach(begun + 10, others)
            await load.more(5)
            left_at = await net.height(alone)
            assert left_at <= begun + 2, "the one that is cut off went on"
            heal(net, list(range(4)))
            went_on = await net.height(others[0])
            await net.reach(went_on, [alone], HEAL_S)
            load.members = list(range(4))
            print(
                f"turn {turn}: v{alone} alone at {left_at}, the others at {went_on}, {in_flight} in flight; caught up"
            )
            await net.agree()
    await check_load(net, load)


def test_halves_halt_and_heal_without_a_fork(tmp_path: Path) -> None:
    with_validators(tmp_path, halves)


def test_three_go_on_and_the_one_catches_up(tmp_path: Path) -> None:
    with_validators(tmp_path, three_of_four)
