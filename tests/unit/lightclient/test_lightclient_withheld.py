"""A server whose newest block others cannot judge, for they are behind: it shows what they have, or is left."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from light_history import History, now_at
from light_sources import DESK, STILL, TOP, Block, Source, client_of, store_of
from lying_server import LyingServer, send
from rpc_kit import run

from freehold.base.errors import RefusedError, UnreachableError
from freehold.light.divergence import AttackKind, DivergedError
from freehold.light.headers import header_hash
from freehold.light.types import LightBlock
from freehold.lightclient import trusted_chain
from freehold.lightclient.client import LedgerClient
from freehold.lightclient.trusted_chain import NEVER_PRUNED, THIS_RUN, Comparison, Peer, TrustedChain, WithheldError

FORK = History(STILL.sets, fork=b"faster")
Raw = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Lagging(Source):
    """A server that has got so far, and says so of what lies above."""

    def answer(self, path: str) -> Any:
        heights = parse_qs(urlsplit(path).query).get("height")
        if heights and int(heights[0]) > self.newest:
            return 404, {"code": "height_unknown", "message": "not made yet", "hint": ""}
        return super().answer(path)


class Keeping(Source):
    """A server that shows its newest block, and answers something else when it is asked for another."""

    def __init__(self, block: Block, newest: int, status: int, code: str) -> None:
        super().__init__(block, newest)
        self.instead = status, {"code": code, "message": "not told", "hint": ""}

    def answer(self, path: str) -> Any:
        told = super().answer(path)
        return self.instead if self.asked[-1] is not None else told


Work = Callable[[LedgerClient, LyingServer, LyingServer], Awaitable[Any]]


def with_two(work: Work, primary: Source, witness: Source, history: History = STILL, **fields: Any) -> Any:
    """Run two servers and a client that asks the first one first."""

    async def go() -> Any:
        async with LyingServer(DESK) as one, LyingServer(DESK) as other:
            one.source, other.source = primary.answer, witness.answer
            client = client_of(f"{one.url},{other.url}", history, **fields)
            try:
                return await work(client, one, other)
            finally:
                await client.close()

    return run(go())


def pruned(block: Block, newest: int = TOP) -> Keeping:
    return Keeping(block, newest, 404, "height_pruned")


def still_at(height: int) -> bytes:
    return header_hash(STILL.header(height))


SILENCES = {
    "it cannot serve": (503, "overloaded"),
    "it has no time": (429, "rate_limited"),
    "it denies what it has passed": (404, "height_unknown"),
    "it says that it has pruned a recent block": (404, "height_pruned"),
}


@pytest.mark.parametrize("name", SILENCES)
@pytest.mark.parametrize("history", [FORK, STILL])
def test_who_does_not_show_what_a_witness_has_is_left_for_the_next_server(
    tmp_path: Path, name: str, history: History
) -> None:
    """A fork that nobody could compare is never believed; an honest server with a bad moment costs no more than it."""
    silent, witness = Keeping(history.block, TOP, *SILENCES[name]), Lagging(STILL.block, TOP - NEVER_PRUNED)

    async def work(client: LedgerClient, *_: LyingServer) -> None:
        header = await client.refresh()
        assert header.hash == still_at(TOP - NEVER_PRUNED)
        assert client.comparison is not None and client.comparison.agreed == 0

    with_two(work, silent, witness, store=store_of(tmp_path, STILL))
    assert TOP - NEVER_PRUNED in silent.asked  # it was itself asked, and no other in its place
    assert list(tmp_path.iterdir()) == []  # nothing of it is remembered


@pytest.mark.parametrize("instead", [TOP, 40])
def test_another_block_than_the_one_that_was_asked_for_is_no_answer(instead: int) -> None:
    """Its fork again, or a true block from before it: on both the witness would have nothing to say against it."""

    def forked(height: int) -> LightBlock:
        return (FORK if height > 40 else STILL).block(height)

    class Evading(Source):
        def answer(self, path: str) -> Any:
            return super().answer("/v1/light_block" if "height=" not in path else f"/v1/light_block?height={instead}")

    async def work(client: LedgerClient, *_: LyingServer) -> None:
        assert (await client.refresh()).hash == still_at(TOP - 3)

    with_two(work, Evading(forked), Lagging(STILL.block, TOP - 3))


def test_one_that_never_answers_is_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusted_chain, "OWN_WORD", 0.2)
    told = Source(FORK.block)

    async def work(client: LedgerClient, one: LyingServer, _: LyingServer) -> None:
        async def first_only(writer: asyncio.StreamWriter) -> None:
            if told.asked:
                await asyncio.Event().wait()
            await send(writer, 200, json.dumps(told.answer("/v1/light_block")).encode())

        one.raw = first_only
        assert (await client.refresh()).hash == still_at(TOP - 1)

    with_two(work, Source(FORK.block), Lagging(STILL.block, TOP - 1))


def test_blocks_on_the_way_may_come_from_any_server() -> None:
    """A server with no older blocks, as after a restore, is compared where it has what the witness has."""
    lasting, passing = {n: 10 for n in range(6)}, {n: 10 for n in range(10, 16)}
    history = History([*[lasting] * (TOP - 2), passing, lasting])  # others sign the block before the newest

    class Restored(Source):
        def answer(self, path: str) -> Any:
            told = super().answer(path)
            height = self.asked[-1]
            return (503, {"code": "busy", "message": "", "hint": ""}) if height and height < TOP - 1 else told

    restored, witness = Restored(history.block), Lagging(history.block, TOP - 1)

    async def work(client: LedgerClient, *_: LyingServer) -> None:
        assert (await client.refresh()).height == TOP
        assert client.comparison == Comparison(TOP, 0, 1, 0, 0)

    with_two(work, restored, witness, history)
    assert TOP - 1 in restored.asked and TOP - 2 in witness.asked


def test_what_a_witness_that_is_behind_confirms_is_remembered(tmp_path: Path) -> None:
    async def work(client: LedgerClient, *_: LyingServer) -> None:
        assert (await client.refresh()).height == TOP

    with_two(work, Source(STILL.block), Lagging(STILL.block, TOP - 3), store=store_of(tmp_path, STILL))
    state = store_of(tmp_path, STILL).load()
    assert state is not None and state.height == TOP - 3


def test_what_is_kept_back_is_told_and_what_was_shown_is_not_forgotten() -> None:
    async def primary(height: int | None) -> LightBlock:
        if height is not None:
            raise UnreachableError("no answer", code="server_unreachable")
        return FORK.block(TOP)

    async def witness(height: int | None) -> LightBlock:
        if height is not None and height > TOP - 3:
            raise RefusedError("not made yet", code="height_unknown")
        return STILL.block(TOP - 3 if height is None else height)

    async def work() -> None:
        chain = TrustedChain(STILL.genesis, now_ms=lambda: now_at(TOP))
        liar, honest = Peer("http://liar", primary), Peer("http://honest", witness)
        state = await chain.accept(FORK.block(TOP), liar)
        with pytest.raises(WithheldError) as caught:
            await chain.compare(state, liar, [honest])
        error = caught.value
        assert (error.code, error.exit_code, error.url) == ("block_withheld", 5, liar.url)
        words = f"http://liar shows block {TOP}, and not block {TOP - 3} below it, which http://honest has to compare"
        assert error.message == f"{words}: no answer"
        assert chain.is_comparison_due()
        with pytest.raises(DivergedError, match=THIS_RUN):  # when the true block is seen, both are told
            await chain.accept(STILL.block(TOP), honest)

    run(work())


def test_when_each_server_keeps_something_back_it_is_told() -> None:
    class Hedging(Source):
        """High when it is read from, low when it is a witness, and nothing by height."""

        def __init__(self, *newest: int) -> None:
            super().__init__(FORK.block)
            self.heights = iter(newest)

        def answer(self, path: str) -> Any:
            if path == "/v1/status":
                return {"height": TOP}
            if path == "/v1/light_block":
                self.newest = next(self.heights)
                return super().answer(path)
            is_top = path.endswith(f"height={TOP}")
            return (404 if is_top else 503), {"code": "height_unknown" if is_top else "busy", "message": "", "hint": ""}

    async def work(client: LedgerClient, one: LyingServer, other: LyingServer) -> None:
        with pytest.raises(WithheldError) as caught:
            await client.refresh()
        assert caught.value.url == other.url and one.url in caught.value.message and caught.value.hint
        assert client.newest is None

    with_two(work, Hedging(TOP, TOP - 5), Hedging(TOP - 5, TOP))


def test_a_header_that_nobody_could_compare_is_said_and_compared_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older blocks may be pruned: an honest reader goes on, is told, and finds out as soon as anybody can know."""
    monkeypatch.setattr(trusted_chain, "COMPARE_EVERY_S", 0.0)
    doubts: list[str] = []
    for primary, expected in ((pruned(FORK.block), DivergedError), (pruned(STILL.block), None)):
        witness = Lagging(STILL.block, TOP - NEVER_PRUNED - 1)

        async def work(
            client: LedgerClient,
            one: LyingServer,
            _: LyingServer,
            primary: Keeping = primary,
            witness: Lagging = witness,
            expected: Any = expected,
        ) -> None:
            await client.refresh()
            assert client.comparison == Comparison(TOP, 0, 0, 0, 0, 1)
            assert f"block {TOP} of {one.url} could not be compared" in doubts[-1]
            witness.newest = TOP  # it has come as far; the primary is far ahead again, and shows nothing of it
            primary.newest = TOP + NEVER_PRUNED + 1
            if expected is None:
                assert (await client.refresh()).height == TOP + NEVER_PRUNED + 1
                assert client._chain._agreed is not None and client._chain._agreed.height == TOP
                return
            with pytest.raises(DivergedError) as caught:
                await client.refresh()
            assert caught.value.divergence.primary.header.height == TOP and f"{one.url} says" in caught.value.message

        with_two(work, primary, witness, doubt=doubts.append, now_ms=lambda: now_at(TOP + 2))


def test_a_fork_that_only_runs_ahead_in_height_is_caught_by_the_order_of_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The witness never gets so high; but its clock does, and a lower block that is not older is no lag."""
    monkeypatch.setattr(trusted_chain, "COMPARE_EVERY_S", 0.0)
    high = 10 * TOP

    def crowded(height: int) -> Any:
        return FORK.block(height, time=STILL.header(TOP - 40 + height // 10).time)

    primary, witness = pruned(crowded, high), Lagging(STILL.block, TOP - 1)

    async def work(client: LedgerClient, *_: LyingServer) -> None:
        await client.refresh()
        assert client.comparison is not None and client.comparison.apart == 1
        primary.newest, witness.newest = high + 100, TOP + 10
        with pytest.raises(DivergedError) as caught:
            await client.refresh()
        assert caught.value.divergence.kind is AttackKind.LUNATIC
        assert f"block {TOP + 10} is not older than block {high}" in caught.value.message

    with_two(work, primary, witness, now_ms=lambda: now_at(TOP + 10))


def test_no_doubt_is_told_when_somebody_agrees(tmp_path: Path) -> None:
    doubts: list[str] = []

    async def work() -> None:
        async with LyingServer(DESK) as one, LyingServer(DESK) as behind, LyingServer(DESK) as other:
            sources = (pruned(STILL.block), Lagging(STILL.block, 5), Source(STILL.block))
            for server, source in zip((one, behind, other), sources, strict=True):
                server.source = source.answer
            client = client_of(f"{one.url},{behind.url},{other.url}", STILL, doubt=doubts.append)
            await client.refresh()
            assert client.comparison == Comparison(TOP, 1, 0, 0, 0, 1)
            await client.close()

    run(work())
    assert doubts == []


@pytest.mark.parametrize(("asked_later", "expected"), [("http://third", TOP), ("http://ahead", 0)])
def test_who_gave_a_header_does_not_confirm_it_later(tmp_path: Path, asked_later: str, expected: int) -> None:
    """The reader has turned to another server by then, and the first one is among those that are asked."""

    def peer(url: str, *shown: int) -> Peer:
        async def fetch(height: int | None) -> LightBlock:
            if height is None or height in shown:
                return STILL.block(height or max(shown))
            known = height < max(shown)
            raise RefusedError("not told", code="height_pruned" if known else "height_unknown")

        return Peer(url, fetch)

    async def silent_above(height: int | None) -> LightBlock:
        if height != TOP:
            raise UnreachableError("no answer", code="server_unreachable")
        return STILL.block(TOP)

    async def work() -> None:
        chain = TrustedChain(STILL.genesis, store=store_of(tmp_path, STILL), now_ms=lambda: now_at(TOP + 1))
        ahead, later = peer("http://ahead", TOP), peer("http://later", TOP + 1)
        await chain.compare(await chain.accept(STILL.block(TOP), ahead), ahead, [peer("http://behind", TOP - 20)])
        assert chain.comparison == Comparison(TOP, 0, 0, 0, 0, 1)
        witness = Peer(asked_later, silent_above)
        await chain.compare(await chain.accept(STILL.block(TOP + 1), later), later, [witness])
        await chain.save(is_compared=True)

    run(work())
    state = store_of(tmp_path, STILL).load()
    assert (0 if state is None else state.height) == expected
