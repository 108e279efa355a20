"""One validator's whole clock is an hour off: ahead and behind are told while it goes on, behind before it starts."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from faults import seed_of
from shifted_clock import Shift, build_shifted_engine, remove_shared
from validators import Load, Validators, ask, check_load, with_validators

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(900)]

PROGRAM = (str(Path(__file__).with_name("variant_daemon.py")), "clock")
HOUR_MS = 3_600_000
TOLD_S = 120.0
LAG_MS = 15_000  # of headers, on a loaded machine


async def noticed(net: Validators, index: int, code: str | None) -> dict[str, Any] | None:
    """Wait until a validator's status has that notice, or none."""
    async with asyncio.timeout(TOLD_S):
        while True:
            net.check_alive(index)
            if await net.height(index) > 0:
                notice = (await ask(index, "/v1/status"))["notice"]
                if (None if notice is None else notice["code"]) == code:
                    return notice  # type: ignore[no-any-return]
            await asyncio.sleep(0.1)


async def told(net: Validators, code: str, where: str) -> None:
    """Wait until the last validator alone tells of its clock, and see that no header follows it."""
    begun = time.monotonic()
    notice = await noticed(net, 3, code)
    assert notice is not None and notice["hint"]
    off = re.search(rf"clock is (\d+) s {where}", notice["message"])
    assert off is not None and abs(int(off[1]) - HOUR_MS // 1_000) < LAG_MS // 1_000, notice
    status = [await ask(index, "/v1/status") for index in range(4)]
    assert [row["notice"] for row in status[:3]] == [None] * 3
    behind_ms = time.time() * 1_000 - status[0]["time_ms"]
    assert abs(behind_ms) < LAG_MS, f"headers lag by {behind_ms:.0f} ms"
    print(f"after {time.monotonic() - begun:.1f} s: {notice['message']}; headers are {behind_ms:.0f} ms old")


async def hour_off(net: Validators, engine: Path, shift: Shift, pids: list[int]) -> None:
    rng = seed_of("clock off")
    for index in range(4):
        daemon = net.start(index, **({} if index < 3 else {"program": PROGRAM, **shift.environment(engine)}))
        pids.append(daemon.process.pid)
    for index in range(4):
        await net.started(index)
    async with Load(rng, list(range(4))) as load:
        await load.more(5)
        await told(net, "clock_ahead", "ahead")
        line = await asyncio.to_thread(net.daemons[3].wait_for, "notice")
        assert line["code"] == "clock_ahead" and line["level"] == "warning", line
        shift.set(-HOUR_MS)
        await told(net, "clock_behind", "behind")
        await load.more(5)
        assert load.open, "no work is in flight"
        await net.kill(3)
        before = net.check_disk(3)
        with net.start(3, program=PROGRAM, **shift.environment(engine)) as daemon:
            pids.append(daemon.process.pid)
            assert await asyncio.to_thread(daemon.wait_ended) == 2
            last = daemon.lines[-1]
            assert last["code"] == "clock_behind" and last["hint"], last
        after = net.check_disk(3)
        assert (after.height, after.app_hash) == (before.height, before.app_hash)
        net.start(3)
        await net.started(3)
        height = await net.agree()
        await net.reach(height + 20, range(4))  # more than are compared
        assert await noticed(net, 3, None) is None
        await net.agree()
    print(f"{len(load.acknowledged)} acknowledged")
    await check_load(net, load)


def test_a_clock_that_is_an_hour_off_is_told_and_moves_no_header(tmp_path: Path) -> None:
    engine = build_shifted_engine(tmp_path / "engine")
    shift, pids = Shift(tmp_path, HOUR_MS), list[int]()
    try:
        with_validators(tmp_path / "net", lambda net: hour_off(net, engine, shift, pids))
    finally:
        remove_shared(pids)
