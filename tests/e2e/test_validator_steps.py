"""The application of a validator dies between each pair of the engine's calls and its replies; the engine replays.

The canary persists before Commit: death between the two leaves a state that the engine cannot come back to.
"""

import re
from pathlib import Path

import pytest
from faults import seed_of
from validators import EndedByItselfError, Load, Validators, check_load, with_validators
from variant_daemon import STEPS

from freehold.base.presets import MINIMAL
from freehold.consensus.state_store import StateStore

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(1_500)]

BACK_S = 120.0
VARIANTS = Path(__file__).with_name("variant_daemon.py")


async def die_at_steps(net: Validators, kills: int, variant: str = "points", steps: tuple[str, ...] = STEPS) -> None:
    rng = seed_of(f"validator_steps {variant}")
    await net.start_all()
    members = list(range(len(net.homes)))
    for index in members:  # each anew, as the variant
        await net.kill(index)
        net.start(index, program=(str(VARIANTS), variant))
        await net.started(index)
    await net.agree()
    async with Load(rng, members) as load:
        for kill in range(kills):
            step, index = steps[kill % len(steps)], rng.choice(members)
            await load.more(2)
            (net.homes[index].folder / "die_at").write_text(step)
            daemon = net.daemons[index]
            await net.buried(index, daemon)
            in_flight = len(load.open)
            assert in_flight, "no work is in flight"
            height = net.check_disk(index).height
            print(f"kill {kill}: v{index} at step {step} above height {height}, {in_flight} in flight")
            net.start(index, program=(str(VARIANTS), variant))
            await net.started(index)
            await net.reach(height + 2, [index], BACK_S)
            await net.agree()
    print(f"{len(load.acknowledged)} acknowledged, {load.late} told late, {kills} deaths")
    await check_load(net, load)


def test_twenty_five_deaths_between_calls_and_replies(tmp_path: Path) -> None:
    with_validators(tmp_path, lambda net: die_at_steps(net, 25))


def test_canary_an_application_that_persists_before_commit_is_caught(tmp_path: Path) -> None:
    """The engine cannot replay a block that is on disk and whose result it never had: it says the two heights."""
    with pytest.raises(EndedByItselfError) as caught:
        with_validators(tmp_path, lambda net: die_at_steps(net, 1, "early", ("finalized",)))
    ended = caught.value
    print(f"caught: v{ended.index} ended with {ended.code}: {ended.last}")
    assert ended.code == 1 and ended.last["code"] == "state_ahead" and ended.last["hint"], ended.last
    told = re.search(r"expected height (\d+) but last stored abci responses was at height (\d+)", ended.last["message"])
    assert told is not None, ended.last
    with StateStore.open(tmp_path / f"v{ended.index}/data/state", MINIMAL.state_heights) as state:
        assert state.height == int(told[1]) == int(told[2]) + 1
