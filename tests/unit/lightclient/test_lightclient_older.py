"""What was verified is never taken back: older states are refused, waited out, or left for a server that has newer."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from light_history import History, now_at
from light_sources import (
    STILL,
    TOP,
    Block,
    Source,
    client_of,
    refresh,
    refused,
    store_of,
    with_sources,
)
from lying_server import LyingServer
from rpc_kit import TENANT, desk_at, run

from freehold.base.errors import UnreachableError
from freehold.ledger import keys
from freehold.light.divergence import AttackKind, DivergedError
from freehold.light.skipping import TrustedState
from freehold.light.trust import GENESIS_TRUST, trust_signed
from freehold.lightclient.servers import CATCH_UP_S, StaleStateError
from freehold.lightclient.trust_store import TrustStore
from freehold.lightclient.trusted_chain import EARLIER_RUN

KEY = keys.account_key(TENANT.public)


def remembers(folder: Path, height: int = TOP, history: History = STILL) -> TrustStore:
    """A home in which an earlier run has verified a height."""
    store_of(folder, history).save(signed(history, height))
    return store_of(folder, history)


def signed(history: History, height: int) -> TrustedState:
    return trust_signed(history.block(height), history.chain_id)


def remembered(folder: Path, history: History = STILL) -> int:
    state = store_of(folder, history).load()
    assert state is not None
    return state.height


class Climbing(Source):
    """A server that is catching up: it stands higher each time that it is asked where it stands."""

    def answer(self, path: str) -> Any:
        self.newest += path == "/v1/status"
        return super().answer(path)


class Pretending(Source):
    """A server that says that it has caught up, and tells what it likes."""

    def answer(self, path: str) -> Any:
        return {"height": 1 << 40} if path == "/v1/status" else super().answer(path)


def newest_of(*sources: Source, limit_s: float = 10.0, store: TrustStore | None = None) -> int:
    async def work(*urls: str) -> int:
        client = client_of(",".join(urls), STILL, store=store)
        try:
            return (await client.refresh(timeout_s=limit_s)).height
        finally:
            await client.close()

    height: int = with_sources(work, *sources)
    return height


@pytest.mark.parametrize("kind", [Source, Pretending])
def test_a_newest_header_below_the_remembered_one_is_refused(tmp_path: Path, kind: type[Source]) -> None:
    began = time.monotonic()
    with pytest.raises(StaleStateError) as caught:
        newest_of(kind(STILL.block, TOP - 7), store=remembers(tmp_path), limit_s=0.5)
    assert (caught.value.code, caught.value.exit_code) == ("stale_state", 5)
    assert f"stands at block {TOP - 7}, 7 below" in caught.value.message
    assert str(store_of(tmp_path, STILL).path) in caught.value.hint
    assert time.monotonic() - began < CATCH_UP_S / 2  # a node's short limit counts
    assert remembered(tmp_path) == TOP


def test_a_state_below_the_remembered_header_is_refused_and_an_older_one_may_be_asked_for(tmp_path: Path) -> None:
    desk = desk_at(9)
    TrustStore(tmp_path, desk.trusted, GENESIS_TRUST).save(
        trust_signed(desk.sign(desk.header(9)), desk.trusted.chain_id)
    )

    async def work() -> None:
        behind = desk_at(4)
        async with LyingServer(
            behind, timeout_s=0.5, store=TrustStore(tmp_path, desk.trusted, GENESIS_TRUST)
        ) as server:
            with pytest.raises(StaleStateError, match="stands at block 4, 5 below"):
                await server.client.read([KEY])
            assert server.client.newest is None
        async with LyingServer(desk, store=TrustStore(tmp_path, desk.trusted, GENESIS_TRUST)) as server:
            assert (await server.client.read([KEY], 3)).at.height == 3
            assert (await server.client.light_block(2)).header.height == 2
            assert server.client.newest is None  # neither says what is newest
            assert (await server.client.read([KEY])).at.height == 9

    run(work())


def test_the_same_height_is_not_older(tmp_path: Path) -> None:
    assert newest_of(Source(STILL.block, TOP), store=remembers(tmp_path)) == TOP


def test_a_server_that_catches_up_is_waited_for(tmp_path: Path) -> None:
    assert newest_of(Climbing(STILL.block, TOP - 5), store=remembers(tmp_path)) == TOP


def test_the_next_server_is_asked_when_one_is_behind(tmp_path: Path) -> None:
    assert newest_of(Source(STILL.block, TOP - 5), Source(STILL.block), store=remembers(tmp_path)) == TOP
    with pytest.raises(StaleStateError) as caught:
        newest_of(Source(STILL.block, TOP - 5), Source(STILL.block, TOP - 2), store=remembers(tmp_path), limit_s=1.0)
    assert "50" in caught.value.message
    for words in ("stands at block 45, 5 below", "stands at block 48, 2 below"):
        assert words in caught.value.message


def test_one_address_with_several_servers_behind_it_is_asked_again(tmp_path: Path) -> None:
    class Balanced(Source):
        """Every third answer is of a server that stands where it should; nobody knows which one says its status."""

        def answer(self, path: str) -> Any:
            if path == "/v1/status":
                return {"height": TOP}
            self.newest = TOP - 1 if len(self.asked) % 3 < 2 else TOP
            return super().answer(path)

    assert newest_of(Balanced(STILL.block), store=remembers(tmp_path)) == TOP


def test_within_a_run_a_lower_header_is_refused_too() -> None:
    source = Source(STILL.block)

    async def work(url: str) -> None:
        client = client_of(url, STILL)
        first = await client.refresh()
        source.newest = TOP - 1
        with pytest.raises(StaleStateError):
            await client.refresh(timeout_s=0.3)
        assert client.newest is first
        await client.close()

    with_sources(work, source)


def test_silence_is_not_called_old(tmp_path: Path) -> None:
    async def work() -> None:
        client = client_of("http://127.0.0.1:9", STILL, store=remembers(tmp_path))
        with pytest.raises(UnreachableError):
            await client.refresh()
        await client.close()

    run(work())


@settings(max_examples=12, deadline=None)
@given(heights=st.lists(st.integers(1, 12), min_size=2, max_size=8))
def test_whatever_heights_a_server_shows_no_read_goes_back(heights: list[int]) -> None:
    source = Pretending(STILL.block, 1)

    async def work(url: str) -> None:
        client = client_of(url, STILL)
        highest = 0
        for height in heights:
            source.newest = height
            try:
                told = (await client.refresh(timeout_s=0.01 if height < highest else 10.0)).height
            except (StaleStateError, UnreachableError):
                told = highest
                assert height < highest
            assert told == max(highest, height)
            highest = told
        await client.close()

    with_sources(work, source)


# -- time rises with the height ---------------------------------------------------------------------------------------


def crowded(height: int) -> Any:
    """A forged chain that is high and young: a hundred blocks in the time of ten."""
    return FAST.block(height, time=STILL.header(max(height // 10, 1)).time)


FAST = History(STILL.sets, fork=b"fast")


def test_a_lower_block_that_is_not_older_is_another_story(tmp_path: Path) -> None:
    assert refresh(Source(crowded, 100), STILL, store=store_of(tmp_path, STILL)) == 100
    error = refused(Source(STILL.block, 11), STILL, store=store_of(tmp_path, STILL))
    assert isinstance(error, DivergedError) and error.divergence.kind is AttackKind.LUNATIC
    assert "block 11 is not older than block 100" in error.message and EARLIER_RUN in error.message
    assert f"{store_of(tmp_path, STILL).path} remembers the one" in error.hint
    assert len(list(tmp_path.glob("divergence-100-*"))) == 1
    # One that is older could be of the same story: it is old, and no more can be said of it.
    older = refused(Source(STILL.block, 9), STILL, store=store_of(tmp_path, STILL), timeout_s=0.5)
    assert isinstance(older, StaleStateError)


def test_a_block_of_the_same_time_is_not_older_and_history_is_held_to_it_too(tmp_path: Path) -> None:
    store = remembers(tmp_path, 100, _At(crowded))

    async def work(url: str) -> None:
        client = client_of(url, STILL, store=store)
        assert (await client.light_block(9)).header.height == 9
        with pytest.raises(DivergedError):
            await client.light_block(10)
        await client.close()

    with_sources(work, Source(STILL.block))


class _At(History):
    """A history whose blocks are made by a function."""

    def __init__(self, block: Block) -> None:
        super().__init__(STILL.sets)
        self._block = block

    def block(self, height: int, *_: Any, **__: Any) -> Any:
        return self._block(height)


# -- commands that share a home ---------------------------------------------------------------------------------------


def test_a_slower_command_takes_nothing_back_that_a_faster_one_remembers(tmp_path: Path) -> None:
    slow, fast = store_of(tmp_path, STILL), store_of(tmp_path, STILL)
    assert slow.load() is None and fast.load() is None
    fast.save(signed(STILL, 40))
    slow.save(signed(STILL, 30))
    assert remembered(tmp_path) == 40


@settings(max_examples=20, deadline=None)
@given(heights=st.lists(st.integers(1, 30), min_size=2, max_size=8))
def test_the_highest_of_many_commands_is_remembered(
    tmp_path_factory: pytest.TempPathFactory, heights: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("home")
    stores = [store_of(folder, STILL) for _ in heights]
    states = [signed(STILL, height) for height in heights]
    begin = threading.Barrier(len(heights))

    def save(store: TrustStore, state: TrustedState) -> None:
        begin.wait()
        store.save(state)

    threads = [threading.Thread(target=save, args=pair) for pair in zip(stores, states, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert remembered(folder) == max(heights) and len(list(folder.iterdir())) == 1


def test_a_memory_that_was_damaged_meanwhile_stands_and_stops_no_read(tmp_path: Path) -> None:
    store = remembers(tmp_path)

    async def work(url: str) -> int:
        client = client_of(url, STILL, store=store_of(tmp_path, STILL), now_ms=lambda: now_at(TOP + 1))
        store.path.write_bytes(b"{}")
        try:
            return (await client.refresh()).height
        finally:
            await client.close()

    assert with_sources(work, Source(STILL.block, TOP + 1)) == TOP + 1
    assert store.path.read_bytes() == b"{}"
