"""One validator's disk fails it: slow, full, or the end of the engine's log gone. The others go on, it comes back."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults import seed_of
from validators import Load, Validators, check_load, engine_pids, with_validators

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(900)]

BLKIO = Path("/sys/fs/cgroup/blkio")
WRITES_PER_S = 20
MIB = 1 << 20


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """A file system of its own at a folder of a validator's home, which is empty."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    subprocess.run(["mount", *arguments, str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def slowed(device: str) -> Iterator[Path]:
    """A control group whose writes to a device are few; gives its file of processes."""
    group = BLKIO / f"freehold-slow-{os.getpid()}"
    group.mkdir()
    try:
        number = Path(device).stat().st_rdev
        limit = f"{os.major(number)}:{os.minor(number)} {WRITES_PER_S}"
        (group / "blkio.throttle.write_iops_device").write_text(limit)
        yield group / "cgroup.procs"
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (BLKIO / "cgroup.procs").write_text(pid)
        group.rmdir()


async def slow(net: Validators, device: str) -> None:
    rng = seed_of("slow disk")
    await net.start_all()
    async with Load(rng, [0, 1, 2]) as load:
        await load.more(10)
        with slowed(device) as group:
            for pid in (net.daemons[3].process.pid, *engine_pids(net.homes[3])):
                group.write_text(str(pid))
            begun, in_flight = await net.height(0), len(load.open)
            assert in_flight, "no work is in flight"
            await net.reach(begun + 15, [0, 1, 2])
            await load.more(20)
            print(f"slow to {WRITES_PER_S} writes/s: others {begun} to {await net.height(0)}, it {await net.height(3)}")
        await net.agree()
    await check_load(net, load)


def test_a_slow_disk_holds_nobody_up(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    made = subprocess.run(["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True)
    device = made.stdout.strip()
    try:
        with mounted(tmp_path / "net/v3", device):
            with_validators(tmp_path / "net", lambda net: slow(net, device))
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def fill(ballast: Path) -> None:
    """Take all the room that is left."""
    with ballast.open("wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(MIB // 4))
            file.flush()


async def full(net: Validators) -> None:
    rng = seed_of("full disk")
    await net.start_all()
    ballast = net.homes[3].folder / "ballast"
    async with Load(rng, [0, 1, 2]) as load:
        await load.more(10)
        assert load.open, "no work is in flight"
        await asyncio.to_thread(fill, ballast)
        daemon = net.daemons[3]
        code = await asyncio.to_thread(daemon.wait_ended, 120)
        last = daemon.lines[-1]
        print(f"full: ended with {code}: {last}")
        assert code == 1 and last["code"] == "disk_full" and last["hint"], last
        daemon.close()
        del net.daemons[3]
        await load.more(10)  # the others go on
        ballast.unlink()
        net.check_disk(3)
        net.start(3)
        await net.started(3)
        await net.agree()
    await check_load(net, load)


def test_a_full_disk_ends_one_validator_with_the_reason(tmp_path: Path) -> None:
    with mounted(tmp_path / "v3", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs"):
        with_validators(tmp_path, full)


async def truncated(net: Validators) -> None:
    rng = seed_of("truncated log")
    await net.start_all()
    async with Load(rng, [0, 1, 2]) as load:
        for index in range(4):
            await load.more(5)
            assert load.open, "no work is in flight"
            load.members = [other for other in range(4) if other != index]
            await net.kill(index)
            wal = net.homes[index].engine / "data/cs.wal/wal"
            size, lost = wal.stat().st_size, rng.randrange(1, 4_096)
            os.truncate(wal, max(0, size - lost))
            print(f"v{index}: the last {lost} of {size} bytes of its log are gone")
            await load.more(5)
            net.start(index)
            await net.started(index)
            await net.agree()
    await check_load(net, load)


def test_a_truncated_log_of_the_engine_is_survived(tmp_path: Path) -> None:
    with_validators(tmp_path, truncated)
