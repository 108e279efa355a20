"""A disk that is full: of a validator that takes a snapshot, which goes on, and of one that is restored from one."""

import asyncio
import json
import os
import re
from pathlib import Path

import httpx2
import msgspec
import pytest
from faults import seed_of
from restore_variants import BALLAST, FAULT, STRUCK, Fault, Struck
from restoring import (
    CHUNKS,
    INTERVAL,
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
from test_validator_disks import mounted
from validators import Load, Validators, address, check_load, wait_gone, with_validators

from freehold.ledger.bonds import validator_address

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(900)]

MIB = 1 << 20
LEFT = 40 * MIB  # enough for blocks, too little for a snapshot beside them
METRICS_PORT = 9_100
TMPFS = ("-t", "tmpfs", "-o", "size=256m,mode=0700", "tmpfs")


def leave(ballast: Path, free: int) -> None:
    """Take all the room of a file system but so many bytes."""
    with ballast.open("wb", buffering=0) as file:
        while (room := os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize - free) > 0:
            file.write(bytes(min(room, MIB)))


async def measured(name: str) -> float:
    """A number on the metrics' page of the one whose disk is full."""
    async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as http:
        page = (await http.get(f"http://{address(LOST)}:{METRICS_PORT}/metrics")).text
    found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


async def take(net: Validators) -> None:
    rng = seed_of("full disk while a snapshot is taken")
    home = net.homes[LOST]
    with home.rpc_settings_path.open("a") as file:
        file.write(f'metrics = "{address(LOST)}:{METRICS_PORT}"\n')
    await net.start_all()
    await snapshot_stands(net, 0, (LOST,))
    async with Load(rng, [0, 1, 2, LOST]) as load:
        await load.more(10)
        assert await measured("freehold_snapshots_failed_total") == 0
        await asyncio.to_thread(leave, home.folder / BALLAST, LEFT)
        begun, in_flight = await net.height(LOST), len(load.open)
        assert in_flight, "no work is in flight"
        async with asyncio.timeout(RESTORE_S):
            while await measured("freehold_snapshots_failed_total") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        failed_at = await net.height(LOST)
        await net.reach(failed_at + INTERVAL, [LOST])
        await load.more(20)
        await net.agree()
        own = validator_address(net.cards[LOST].validator_key)
        print(f"full from block {begun}, two snapshots dropped by {failed_at}, {len(load.acknowledged)} acknowledged")
        newest = int(await measured("freehold_snapshot_height"))
        assert newest <= begun + 1 and not list((home.data / "snapshots").glob(".new-*"))
        assert await proposed(net, own, begun + 1) > 0, "it proposes no blocks"
        (home.folder / BALLAST).unlink()
        await snapshot_stands(net, failed_at, (LOST,))  # the next one is taken
        daemon = net.daemons[LOST]
    await check_load(net, load)
    told = [line for line in daemon.lines if "was not taken" in json.dumps(line)]
    assert len(told) >= 2 and all("disk_full" in json.dumps(line) for line in told), told


async def proposed(net: Validators, validator: bytes, since: int) -> int:
    """How many blocks a validator has proposed since a height."""
    return sum(who == validator for height, who in net.proposers.items() if height >= since)


async def restore(net: Validators) -> None:
    rng = seed_of("full disk while a snapshot is restored")
    await net.start_all()
    await snapshot_stands(net, 0)
    async with Load(rng, list(OTHERS)) as load:
        await load.more(10)
        await stop(net, LOST)
        await lose_and_join(net)
        folder = net.homes[LOST].folder
        fault = Fault("disk", "chunk", rng.randrange(1, CHUNKS - 1))
        (folder / FAULT).write_bytes(msgspec.json.encode(fault))
        daemon = net.start(LOST, program=(str(VARIANTS), "restoring"))
        code = await asyncio.to_thread(daemon.wait_ended, RESTORE_S)
        found = msgspec.json.decode((folder / STRUCK).read_bytes(), type=Struck)
        assert 0 < found.chunk == fault.chunk < found.chunks - 1 and found.chunks >= CHUNKS, found
        assert load.open, "no work is in flight"
        last = daemon.lines[-1]
        print(f"full with chunk {found.chunk} of {found.chunks} in hand: ended with {code}: {last}")
        assert code == 1 and last["code"] == "disk_full" and "free" in last["hint"], daemon.lines[-3:]
        assert not (folder / "data/state.restoring").exists()
        daemon.close()
        del net.daemons[LOST]
        await asyncio.to_thread(wait_gone, net.homes[LOST])
        (folder / BALLAST).unlink()
        net.start(LOST)
        await net.started(LOST)
        lowest = await caught_up(net)
        assert lowest > 1, "it was not restored from a snapshot"
        print(f"after room was given: first block {lowest}")
    await check_load(net, load)


async def restore_beside_full(net: Validators, chunks: Path) -> None:
    """The engine keeps the chunks that it fetched; that it cannot is not told to the application."""
    seed_of("no room for the engine's chunks")
    await net.start_all()
    await snapshot_stands(net, 0)
    await stop(net, LOST)
    await lose_and_join(net)
    with mounted(chunks, "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs"):
        daemon = net.start(LOST)
        code = await asyncio.to_thread(daemon.wait_ended, RESTORE_S)
        last = daemon.lines[-1]
        print(f"no room for chunks: ended with {code}: {last}")
        assert code == 1 and last["code"] == "disk_full" and "free" in last["hint"], daemon.lines[-3:]
        assert "failed to save chunk" in (net.homes[LOST].engine / "engine.log").read_text()
        daemon.close()
        del net.daemons[LOST]
        await asyncio.to_thread(wait_gone, net.homes[LOST])
    net.start(LOST)
    await net.started(LOST)
    assert await caught_up(net) > 1, "it was not restored from a snapshot"
    await net.stop_all()


def test_a_full_disk_drops_the_snapshot_and_the_validator_goes_on(tmp_path: Path) -> None:
    with mounted(tmp_path / f"v{LOST}", *TMPFS):

        def work(net: Validators) -> object:
            serve_snapshots(net)
            return take(net)

        with_validators(tmp_path, work, app_state=crowded)


def test_a_full_disk_ends_a_restore_with_the_reason_and_room_lets_it_go_on(tmp_path: Path) -> None:
    with mounted(tmp_path / f"v{LOST}", *TMPFS):

        def work(net: Validators) -> object:
            serve_snapshots(net)
            return restore(net)

        with_validators(tmp_path, work, app_state=crowded)


def test_no_room_for_the_chunks_of_the_engine_ends_a_restore_too(tmp_path: Path) -> None:
    def work(net: Validators) -> object:
        serve_snapshots(net)
        return restore_beside_full(net, net.homes[LOST].engine / "chunks")

    with_validators(tmp_path, work, app_state=crowded)
