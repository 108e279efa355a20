"""`kill -9` of each validator in turn under load, at random points: nothing acknowledged is lost, nothing forks."""

import asyncio
from pathlib import Path

import pytest
from faults import seed_of
from validators import Load, Validators, check_load, with_validators

pytestmark = pytest.mark.root


async def kill_in_turn(net: Validators, kills: int) -> None:
    rng = seed_of("validator_kills")
    await net.start_all()
    members = list(range(len(net.homes)))
    async with Load(rng, members) as load:
        held = 0
        for kill in range(kills):
            index = kill % len(members)
            await load.more()
            delay = rng.uniform(0.0, 0.4)
            await asyncio.sleep(delay)  # the point of the kill, by chance
            in_flight, at_it = len(load.open), load.at(index)
            assert in_flight, "no work is in flight"
            held += at_it > 0
            await net.kill(index)
            height = net.check_disk(index).height
            print(f"kill {kill}: v{index} at height {height}, {in_flight} in flight, {at_it} at it")
            await load.more(2)  # the others go on
            net.start(index)
            await net.started(index)
            await net.agree()
    print(f"{len(load.acknowledged)} acknowledged, {load.late} told late, work at the killed one in {held} of {kills}")
    assert len(load.acknowledged) >= 2 * kills
    await check_load(net, load)


@pytest.mark.long
def test_two_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    with_validators(tmp_path, lambda net: kill_in_turn(net, 2))


@pytest.mark.long
@pytest.mark.timeout(1_500)
def test_thirty_two_kills_in_turn_lose_nothing(tmp_path: Path) -> None:
    with_validators(tmp_path, lambda net: kill_in_turn(net, 32))
