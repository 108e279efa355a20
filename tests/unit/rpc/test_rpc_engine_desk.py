"""The desk over an engine: blocks told in order and once, also after falling behind; waits that end with the engine."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from rpc_kit import run

from freehold.base.codec import encode
from freehold.base.errors import InvariantError, RefusedError
from freehold.consensus.application import Event, TxResult
from freehold.consensus.chain import CommittedBlock
from freehold.consensus.embedded import EngineState, EngineStatus
from freehold.consensus.errors import EngineStoppedError
from freehold.ledger.events import Transferred
from freehold.rpc.engine_desk import EngineDesk
from freehold.rpc.eventtext import event_text


def block(height: int) -> CommittedBlock:
    event = Event("transfer", encode(Transferred(b"a" * 32, b"b" * 32, height)))
    return CommittedBlock(
        header=SimpleNamespace(height=height, time=SimpleNamespace(ms=height)),
        hash=bytes([height]) * 32,
        txs=(b"tx%d" % height,),
        results=(TxResult(0, b"", (event,)),),
        app_hash=bytes(32),
        mempool_txs=1,
    )


class StubEngine:
    """Streams that the test feeds: a list of blocks, then an error."""

    def __init__(self, *streams: tuple[list[int], Exception | None]) -> None:
        self.streams = list(streams)
        self.recent: list[int] = []
        self.height = 0

    def status(self) -> EngineStatus:
        return EngineStatus(
            state=EngineState.RUNNING,
            height=self.height,
            time_ms=0,
            block_hash=b"",
            app_hash=bytes(32),
            lowest_height=1,
            mempool_txs=0,
            mempool_bytes=0,
        )

    def recent_blocks(self) -> list[CommittedBlock]:
        return [block(height) for height in reversed(self.recent)]

    def subscribe(self) -> AsyncIterator[CommittedBlock]:
        heights, error = self.streams.pop(0)

        async def stream() -> AsyncIterator[CommittedBlock]:
            for height in heights:
                self.recent.append(height)
                self.height = height
                yield block(height)
            if error is not None:
                raise error
            await asyncio.Event().wait()

        return stream()


def desk_over(engine: Any) -> EngineDesk:
    return EngineDesk(engine, SimpleNamespace(), b"", 8)


STOPPED = EngineStoppedError("full", code="disk_full", hint="free space")


def test_every_block_is_told_once_in_order_even_after_falling_behind():
    async def work() -> list[int]:
        engine = StubEngine(([3], RefusedError("slow", code="subscriber_behind")), ([6], STOPPED))
        engine.recent = [1, 2]
        desk, told = desk_over(engine), list[int]()

        def receive(record):
            told.append(record.height)
            if record.height == 3:
                engine.recent += [4, 5]  # made while the stream was cut

        desk.subscribe(receive)
        await desk.start()
        return told

    assert run(work()) == [1, 2, 3, 4, 5, 6]


def test_those_who_wait_for_a_height_get_it_or_learn_that_it_never_comes():
    async def work() -> None:
        desk = desk_over(StubEngine(([1, 2], STOPPED)))
        first, never = (asyncio.create_task(desk.wait_height(height)) for height in (2, 9))
        await asyncio.sleep(0)
        await desk.start()
        await first
        for waiting in (never, desk.wait_height(10)):
            with pytest.raises(EngineStoppedError) as caught:
                await waiting
            assert caught.value.code == "disk_full"
        await desk.wait_height(2)
        await desk.stop()

    run(work())


def test_a_cancelled_wait_leaves_nothing_behind():
    async def work() -> int:
        desk = desk_over(StubEngine(([], None)))
        waiting = asyncio.create_task(desk.wait_height(5))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return len(desk._waiters)

    assert run(work()) == 0


def test_a_receivers_defect_ends_the_following_and_is_seen():
    def broken(record):
        raise InvariantError("no")

    async def work() -> None:
        desk = desk_over(StubEngine(([1], None)))
        desk.subscribe(broken)
        with pytest.raises(InvariantError):
            await desk.start()

    run(work())


def test_bytes_that_are_no_event_are_a_defect():
    with pytest.raises(InvariantError):
        event_text("transfer", b"\xc1")


def test_standing_says_which_heights_can_be_proven():
    engine = StubEngine()
    desk = desk_over(engine)
    oldest = []
    for height in (0, 1, 8, 9, 100):
        engine.height = height
        oldest.append(desk.standing().oldest_height)
    assert oldest == [1, 1, 1, 2, 93]
