"""What every engine must do for those who use it; run here against the embedded one."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from engine_fixtures import VALIDATOR, FakeClock, make_genesis
from kv_application import KvApplication, kv_tx

from freehold.base.errors import InvalidInputError, RefusedError, UnreachableError
from freehold.base.limits import MAX_TX_BYTES
from freehold.consensus.application import CheckTxRequest, CheckTxResponse, QueryRequest
from freehold.consensus.chain import CommittedBlock
from freehold.consensus.embedded import EmbeddedEngine, EngineState
from freehold.consensus.errors import (
    EngineStoppedError,
    FolderInUseError,
    HeightUnavailableError,
    MempoolFullError,
    storage_full,
)
from freehold.consensus.timing import Clock, Pace
from freehold.consensus.waiters import QUEUE_BLOCKS, Subscription
from freehold.crypto.hashing import sha256
from freehold.light.ics23 import SMT, CommitmentProof, verify_absence, verify_existence
from freehold.light.skipping import verify_hop
from freehold.light.trust import GENESIS_TRUST, trust_bounds, trust_genesis

QUICK = Pace(tick_ms=40, min_block_gap_ms=5)
SLOW = Pace(tick_ms=3_600_000, min_block_gap_ms=1)  # blocks on demand alone, but for the first


def engine_at(
    folder: Path,
    *,
    pace: Pace = SLOW,
    clock: Clock | None = None,
    trace: Callable[[str], None] = lambda _: None,
    application: Callable[[Path], KvApplication] = KvApplication,
) -> EmbeddedEngine:
    return EmbeddedEngine(folder, make_genesis(), VALIDATOR, application, pace, clock=clock, trace=trace)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(main(), 30)

    asyncio.run(bounded())


async def block_at(blocks: Subscription, height: int) -> CommittedBlock:
    async for block in blocks:
        if block.height >= height:
            return block
    raise AssertionError("the stream ended")


def test_an_acknowledged_transaction_is_final_and_soon_provable(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine_at(tmp_path) as engine:
            blocks = engine.subscribe()
            tx = kv_tx("a", 0, "x", "1")
            assert (await engine.submit(tx)).code == 0
            done = await engine.wait_committed(sha256(tx))
            assert done.result.data == b"x"
            assert engine.find_tx(sha256(tx)) == done
            assert (await engine.query(QueryRequest(b"kv/x", done.height))).value == b"1"
            # no more transactions come, and yet the next block does: it holds the app hash
            await block_at(blocks, done.height + 1)
            read = await engine.read([b"kv/x", b"kv/none"])
            genesis = make_genesis()
            bounds = trust_bounds(GENESIS_TRUST, genesis)
            verified = verify_hop(trust_genesis(genesis), read.light_block, bounds, None).verified
            assert verified is not None
            assert verified.height == read.height + 1 >= done.height + 1
            present, absent = (CommitmentProof.decode(value.proof) for value in read.values)
            verify_existence(SMT, verified.app_hash, b"kv/x", b"1", present)
            verify_absence(SMT, verified.app_hash, b"kv/none", absent)
            # and then there is rest until the tick
            assert engine.status().height == done.height + 1
            assert engine.status().mempool_txs == 0

    run(main)


def test_blocks_come_on_the_tick(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine_at(tmp_path, pace=QUICK) as engine:
            blocks = engine.subscribe()
            heights = [(await anext(blocks)).height for _ in range(4)]
            assert heights == list(range(heights[0], heights[0] + 4))
            blocks.close()
            with pytest.raises(StopAsyncIteration):
                while True:
                    await anext(blocks)

    run(main)


def test_many_at_once_are_all_committed_in_order_of_nonce(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine_at(tmp_path, pace=Pace(tick_ms=50, min_block_gap_ms=1)) as engine:
            txs = [kv_tx(f"s{n % 10}", n // 10, f"k{n % 10}", str(n)) for n in range(300)]
            answers = await asyncio.gather(*(engine.submit(tx) for tx in txs))
            assert {answer.code for answer in answers} == {0}
            done = await asyncio.gather(*(engine.wait_committed(sha256(tx)) for tx in txs))
            assert {tx.result.code for tx in done} == {0}
            for n in range(10):
                places = [(tx.height, tx.index) for tx in done[n::10]]
                assert places == sorted(places)

    run(main)


def test_the_same_bytes_may_be_offered_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine_at(tmp_path) as engine:
            tx = kv_tx("a", 0, "x", "1")
            first, second = await asyncio.gather(engine.submit(tx), engine.submit(tx))
            assert first.code == second.code == 0
            done = await engine.wait_committed(sha256(tx))
            assert (await engine.submit(tx)).log == f"already in block {done.height}"
            assert await engine.wait_committed(sha256(tx)) == done
            other = await engine.submit(kv_tx("a", 0, "x", "2"))
            assert other.code == 2

    run(main)


def test_refusals_are_values_and_lack_of_room_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine_at(tmp_path) as engine:
            assert (await engine.submit(b"junk")).code == 1
            with pytest.raises(InvalidInputError) as oversized:
                await engine.submit(bytes(MAX_TX_BYTES + 1))
            assert oversized.value.code == "oversized"
            with pytest.raises(MempoolFullError) as far:
                await engine.submit(kv_tx("a", 1_000, "x", "1"))
            assert far.value.code == "nonce_too_far"
            with pytest.raises(UnreachableError) as late:
                await engine.wait_committed(b"unknown", timeout_s=0.01)
            assert late.value.code == "commit_timeout"

    run(main)


def test_who_waits_for_a_replaced_transaction_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine_at(tmp_path) as engine:
            old, new = kv_tx("a", 1, "x", "old", fee=10), kv_tx("a", 1, "x", "new", fee=20)
            await engine.submit(old)
            waiting = asyncio.create_task(engine.wait_committed(sha256(old)))
            await asyncio.sleep(0)
            await engine.submit(new)
            with pytest.raises(RefusedError) as error:
                await waiting
            assert error.value.code == "tx_replaced"
            with pytest.raises(RefusedError):  # also of one who asks too late
                await engine.wait_committed(sha256(old))
            assert engine.is_waiting(sha256(new))

    run(main)


def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    tx = kv_tx("a", 0, "x", "1")

    async def first() -> None:
        async with engine_at(tmp_path) as engine:
            await engine.submit(tx)
            await engine.wait_committed(sha256(tx))

    async def second() -> None:
        async with engine_at(tmp_path) as engine:
            done = engine.find_tx(sha256(tx))
            assert done is not None
            assert (await engine.submit(tx)).code == 0
            assert [event.kind for event in done.result.events] == ["set"]
            assert (await engine.block(done.height)).results[done.index] == done.result
            blocks = engine.subscribe()
            # one that was offered, not committed, before the stop is simply offered again
            await engine.submit(kv_tx("a", 1, "y", "2"))
            assert (await anext(blocks)).height > done.height
            newest = engine.recent_blocks(2)
            assert newest[0].height == newest[1].height + 1

    run(first)
    run(second)


def test_heights_that_are_not_there_are_told_apart(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine_at(
            tmp_path, pace=QUICK, application=lambda path: KvApplication(path, keep_blocks=3)
        ) as engine:
            blocks = engine.subscribe()
            await block_at(blocks, 8)
            for asked, code in ((99, "height_unknown"), (1, "height_pruned"), (0, "height_pruned")):
                for call in (engine.light_block(asked), engine.block(asked), engine.read([b"x"], height=asked)):
                    with pytest.raises(HeightUnavailableError) as error:
                        await call
                    assert error.value.code == code

    run(main)


def test_a_second_engine_on_one_folder_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine_at(tmp_path):
            with pytest.raises(FolderInUseError) as error:
                engine_at(tmp_path)
            assert error.value.code == "folder_in_use"
        async with engine_at(tmp_path) as again:
            assert again.status().state is EngineState.RUNNING

    run(main)


def test_a_clock_set_back_stops_blocks_until_it_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freehold.consensus.embedded.CLOCK_RETRY_S", 0.005)

    async def main() -> None:
        clock = FakeClock()
        async with engine_at(tmp_path, clock=clock) as engine:
            blocks = engine.subscribe()
            first = await anext(blocks)
            clock.wall -= 60_000
            clock.monotonic += 5
            tx = kv_tx("a", 0, "x", "1")
            await engine.submit(tx)
            while engine.status().state is not EngineState.CLOCK_BEHIND:  # noqa: ASYNC110 - it only shows in the status
                await asyncio.sleep(0.001)
            status = engine.status()
            assert status.code == "clock_behind"
            assert "set the clock" in status.message
            assert status.height == first.height
            clock.wall += 60_000
            assert (await engine.wait_committed(sha256(tx))).height == first.height + 1
            assert engine.status().state is EngineState.RUNNING

    run(main)


@pytest.mark.parametrize("step", ["proposal_saved", "vote_recorded", "vote_signed", "block_final"])
def test_a_full_disk_halts_and_acknowledges_nothing(tmp_path: Path, step: str) -> None:
    tx = kv_tx("a", 0, "x", "1")
    full = False

    def trace(name: str) -> None:
        if full and name == step:
            raise storage_full(tmp_path)

    async def main() -> None:
        nonlocal full
        async with engine_at(tmp_path, trace=trace) as engine:
            blocks = engine.subscribe()
            await anext(blocks)
            full = True
            await engine.submit(tx)
            with pytest.raises(EngineStoppedError) as error:
                await engine.wait_committed(sha256(tx))
            assert error.value.code == "disk_full"
            status = await engine.wait_ended()
            assert (status.state, status.code) == (EngineState.HALTED, "disk_full")
            with pytest.raises(EngineStoppedError):
                await engine.submit(kv_tx("b", 0, "y", "1"))
            with pytest.raises(EngineStoppedError):
                while True:
                    await anext(blocks)
            with pytest.raises(EngineStoppedError):
                engine.subscribe()
            assert (await engine.light_block()).header.height == 1  # what is final can still be read
        full = False
        async with engine_at(tmp_path, trace=trace) as engine:
            # a block that was signed for becomes final after all; nothing else could have
            assert (await engine.wait_committed(sha256(tx))).height == 2

    run(main)


def test_a_defect_of_the_application_halts_the_engine(tmp_path: Path) -> None:
    class Broken(KvApplication):
        def check_tx(self, request: CheckTxRequest) -> CheckTxResponse:
            if request.tx == b"poison":
                raise ZeroDivisionError
            return super().check_tx(request)

    async def main() -> None:
        async with engine_at(tmp_path, application=Broken) as engine:
            with pytest.raises(asyncio.CancelledError):
                await engine.submit(b"poison")
            status = await engine.wait_ended()
            assert (status.state, status.code) == (EngineState.HALTED, "engine_halted")
            assert "ZeroDivisionError" in status.message

    run(main)


def test_a_slow_subscriber_is_let_go_and_told(tmp_path: Path) -> None:
    async def main() -> None:
        async with engine_at(tmp_path, pace=Pace(tick_ms=1, min_block_gap_ms=1)) as engine:
            slow, quick = engine.subscribe(), engine.subscribe()
            await block_at(quick, QUEUE_BLOCKS + 3)
            seen = 0
            with pytest.raises(RefusedError) as error:
                async for _ in slow:
                    seen += 1
            assert error.value.code == "subscriber_behind"
            assert seen == QUEUE_BLOCKS

    run(main)


def test_stopping_tells_those_who_wait(tmp_path: Path) -> None:
    async def main() -> None:
        engine = engine_at(tmp_path)
        await engine.start()
        blocks = engine.subscribe()
        await anext(blocks)
        tx = kv_tx("a", 1, "x", "1")  # a gap before it: it waits
        await engine.submit(tx)
        waiting = asyncio.create_task(engine.wait_committed(sha256(tx)))
        await asyncio.sleep(0)
        await engine.stop()
        with pytest.raises(EngineStoppedError):
            await waiting
        assert engine.status().state is EngineState.STOPPED
        await engine.stop()

    run(main)
