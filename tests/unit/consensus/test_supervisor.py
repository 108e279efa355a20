"""The engine's supervisor, over small children: started again, stopped, its log bounded while it runs."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from freehold.consensus.comet import supervisor as supervisor_module
from freehold.consensus.comet.supervisor import MAX_STARTS, Supervisor
from freehold.consensus.errors import StorageDamagedError, StorageFullError

LIMIT_S = 20.0


def supervise(supervisor: Supervisor, work: Callable[[], Awaitable[None]]) -> None:
    async def go() -> None:
        task = asyncio.create_task(supervisor.run())
        try:
            async with asyncio.timeout(LIMIT_S):
                await work()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert supervisor.pid is None

    asyncio.run(go())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def test_a_killed_child_is_started_again_and_stopped_at_the_end(tmp_path: Path) -> None:
    supervisor = Supervisor(["sleep", "1000"], tmp_path / "log")
    pids = []

    async def work() -> None:
        for starts in (1, 2):
            await until(lambda starts=starts: supervisor.starts == starts)  # type: ignore[misc]
            pids.append(supervisor.pid)
            os.kill(int(supervisor.pid or 0), signal.SIGKILL)
        await until(lambda: supervisor.starts == 3)

    supervise(supervisor, work)
    assert len(set(pids)) == 2


def test_what_a_killed_child_has_left_is_cleared_before_the_next(tmp_path: Path) -> None:
    left = tmp_path / "left"
    program = f"if [ -e $LEFT ]; then echo again > {tmp_path}/seen; fi; echo x > $LEFT; exec sleep 1000"
    supervisor = Supervisor(
        ["sh", "-c", program],
        tmp_path / "log",
        environment={"LEFT": str(left)},
        clear=lambda: left.unlink(missing_ok=True),
    )

    async def work() -> None:
        for starts in (1, 2):
            await until(lambda starts=starts: supervisor.starts == starts and left.exists())  # type: ignore[misc]
            os.kill(int(supervisor.pid or 0), signal.SIGKILL)
        await until(lambda: supervisor.starts == 3 and left.exists())

    supervise(supervisor, work)
    assert not (tmp_path / "seen").exists()


def test_what_an_engine_says_is_heard_where_its_log_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "MAX_PAUSE_S", 0.01)
    failing = ["sh", "-c", "echo begun; echo 'CONSENSUS FAILURE!!! no space left on device'; exec sleep 1000"]
    supervisor = Supervisor(failing, Path("/dev/full"))

    async def work() -> None:
        with pytest.raises(StorageFullError):
            await supervisor.run()

    asyncio.run(asyncio.wait_for(work(), LIMIT_S))
    assert supervisor.starts == MAX_STARTS


@pytest.mark.parametrize(
    "words",
    [
        "error on replay: expected height 8 but last stored abci responses was at height 7",
        "error on replay: app block height (9) is higher than core (8)",
    ],
)
def test_a_state_of_a_later_block_than_the_engine_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(supervisor_module, "MAX_PAUSE_S", 0.01)
    supervisor = Supervisor(["sh", "-c", f"echo 'ERROR: failed to create node: {words}'; exit 1"], tmp_path / "log")
    with pytest.raises(StorageDamagedError) as error:
        asyncio.run(asyncio.wait_for(supervisor.run(), LIMIT_S))
    assert error.value.code == "state_ahead" and words in error.value.message


def test_the_log_is_cut_under_a_child_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    command = ["sh", "-c", "while :; do echo a line of the engine; sleep 0.001; done"]
    supervisor = Supervisor(command, path, max_log_bytes=2_000)
    sizes = [0]

    async def work() -> None:
        while sum(later < before for before, later in pairwise(sizes)) < 3:
            sizes.append(path.stat().st_size if path.exists() else 0)
            await asyncio.sleep(0.005)

    supervise(supervisor, work)
    assert supervisor.starts == 1
    assert b"\0" not in path.read_bytes()  # appended: no hole where the cut part was
