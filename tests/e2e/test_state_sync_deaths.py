"""`kill -9` while a validator is restored from a snapshot of many chunks: of its application, or of its engine alone.

It dies with a chunk in hand, between the restored state and the engine's taking it over, and before the first block.
Then the shipped daemon is started on what is left, and must join: equal application hashes at equal heights.
"""

import asyncio
import random
from pathlib import Path

import msgspec
import pytest
from faults import seed_of
from restore_variants import CHUNK_STEPS, END_STEPS, FAULT, STRUCK, Fault, Struck
from restoring import (
    CHUNKS,
    LOST,
    OTHERS,
    RESTORE_S,
    VARIANTS,
    caught_up,
    crowded,
    lose_and_join,
    serve_snapshots,
    snapshot_stands,
    stop,
)
from validators import Load, Validators, check_load, wait_gone, with_validators

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(1_500)]

MAX_DELAY_MS = 120  # after the engine heard of the restored state: it takes it over meanwhile


def faults(rng: random.Random, who: str) -> list[Fault]:
    """Every step once, and the taking over at three moments; in an order by chance."""
    found = [Fault(who, step, rng.randrange(1, CHUNKS - 1)) for step in CHUNK_STEPS]
    found += [Fault(who, step) for step in END_STEPS]
    found += [Fault(who, "told", delay_ms=rng.randint(1, MAX_DELAY_MS)) for _ in range(3)]
    rng.shuffle(found)
    return found


async def struck(net: Validators) -> Struck:
    """Wait until the fault has happened; what was under way."""
    path = net.homes[LOST].folder / STRUCK
    async with asyncio.timeout(RESTORE_S):
        while not path.exists():
            if LOST in net.daemons:
                net.check_alive(LOST)
            await asyncio.sleep(0.02)
    found = msgspec.json.decode(path.read_bytes(), type=Struck)
    path.unlink()
    return found


def check_in_flight(fault: Fault, found: Struck) -> None:
    assert found.step == fault.step and found.chunks >= CHUNKS, found
    if fault.step in CHUNK_STEPS:
        assert 0 < found.chunk == fault.chunk < found.chunks - 1, found
    else:
        assert found.chunk == found.chunks - 1, found


async def die(net: Validators, who: str) -> None:
    rng = seed_of(f"restore deaths of the {who}")
    await net.start_all()
    await snapshot_stands(net, 0)
    async with Load(rng, list(OTHERS)) as load:
        await load.more(10)
        for fault in faults(rng, who):
            await stop(net, LOST)
            newest = await lose_and_join(net)
            home = net.homes[LOST].folder
            (home / FAULT).write_bytes(msgspec.json.encode(fault))
            daemon = net.start(LOST, program=(str(VARIANTS), "restoring"))
            if who == "application":
                await net.buried(LOST, daemon)
            found = await struck(net)
            print(f"struck: {fault}, {found}")
            check_in_flight(fault, found)
            assert load.open, "no work is in flight"
            partial = (home / "data/state.restoring").exists()
            assert who != "application" or partial == (fault.step in (*CHUNK_STEPS, "whole")), fault
            how = await come_back(net, who)
            lowest = await caught_up(net)
            assert lowest > 1, "it was not restored from a snapshot"
            print(
                f"{who} at {fault.step}+{fault.delay_ms} ms, chunk {found.chunk} of {found.chunks} of {found.height}:"
                f" {how}, first block {lowest}, joined at {newest}"
            )
    await check_load(net, load)


async def come_back(net: Validators, who: str) -> str:
    """Start the shipped daemon; where the engine alone died, only if the daemon could not go on with a new one."""
    if who == "application":
        net.start(LOST)
        await net.started(LOST)
        return "started again"
    daemon = net.daemons[LOST]
    target = max([await net.height(index) for index in OTHERS])
    async with asyncio.timeout(RESTORE_S):
        while daemon.process.poll() is None and await net.height(LOST) < target:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    if daemon.process.poll() is None:
        return "went on with a new engine"
    code = await asyncio.to_thread(daemon.wait_ended)
    last = daemon.lines[-1]
    print(f"ended with {code}: {last}")
    assert code == 1 and last["code"] == "restore_cut_off" and last["hint"], last
    daemon.close()
    await asyncio.to_thread(wait_gone, net.homes[LOST])
    net.start(LOST)
    await net.started(LOST)
    return "ended with restore_cut_off, started again"


def run(folder: Path, who: str) -> None:
    def work(net: Validators) -> object:
        serve_snapshots(net)
        return die(net, who)

    with_validators(folder, work, app_state=crowded)


def test_the_application_dies_while_it_restores(tmp_path: Path) -> None:
    run(tmp_path, "application")


def test_the_engine_dies_while_it_restores(tmp_path: Path) -> None:
    run(tmp_path, "engine")
