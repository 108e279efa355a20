"""Peers whose snapshots are of a later format: who joins says so and what to do, and takes one that it can read."""

import asyncio
import json
from pathlib import Path

import pytest
from faults import seed_of
from restore_variants import LATER_FORMAT
from restoring import (
    LOST,
    OTHERS,
    RESTORE_S,
    VARIANTS,
    caught_up,
    crowded,
    halted,
    lose_and_join,
    serve_snapshots,
    snapshot_stands,
    stop,
)
from validators import Load, Validators, check_load, with_validators

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(900)]


def told(net: Validators, words: str) -> bool:
    """Whether the engine of the one that joins has printed something."""
    return words in (net.homes[LOST].engine / "engine.log").read_text()


async def join(net: Validators) -> None:
    rng = seed_of("snapshots of a later format")
    await net.start_all()
    await snapshot_stands(net, 0)
    for index in OTHERS:
        await net.kill(index)
        net.start(index, program=(str(VARIANTS), "later"))
        await net.started(index)
    async with Load(rng, list(OTHERS)) as load:
        await load.more(10)
        await stop(net, LOST)
        await lose_and_join(net)
        daemon = net.start(LOST)
        await net.started(LOST)
        async with asyncio.timeout(RESTORE_S):
            while not (said := await halted(LOST)):  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        print(f"all peers of format {LATER_FORMAT}: {said}")
        assert said["code"] == "snapshot_version" and "another version" in said["message"], said
        assert "install the release" in said["hint"] and "all blocks" in said["hint"], said
        assert await net.height(LOST) == 0 and daemon.process.poll() is None
        assert told(net, "Snapshot format rejected") and not told(net, "Snapshot accepted")
        assert load.open, "no work is in flight"

        await net.kill(2)  # one peer is the shipped program again; the others are not, and nobody touches who joins
        net.start(2)
        await net.started(2)
        lowest = await caught_up(net)
        assert lowest > 1 and not await halted(LOST)
        print(f"beside one peer of format {LATER_FORMAT - 1}: restored, first block {lowest}")

        await stop(net, LOST)  # and from the start: theirs is refused, the other one taken
        (net.homes[LOST].engine / "engine.log").unlink()
        await lose_and_join(net)
        daemon = net.start(LOST)
        await net.started(LOST)
        lowest = await caught_up(net)
        assert lowest > 1 and told(net, "Snapshot format rejected") and told(net, "Snapshot restored")
        print(f"one peer of three from the start: restored, first block {lowest}")
    await check_load(net, load)
    assert any(f"format {LATER_FORMAT} is not known here" in json.dumps(line) for line in daemon.lines), daemon.lines


def test_snapshots_of_a_later_format_are_named_and_another_peers_is_used(tmp_path: Path) -> None:
    def work(net: Validators) -> object:
        serve_snapshots(net)
        return join(net)

    with_validators(tmp_path, work, app_state=crowded)
