"""What one server tells is compared with what others tell: over real sockets, with validator sets that change."""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from light_history import History, now_at
from light_sources import (
    DESK,
    FORGER,
    STILL,
    TOP,
    TRUE,
    Block,
    Source,
    client_of,
    refresh,
    store_of,
    true_block,
    with_sources,
)
from lying_server import LyingServer, send
from rpc_kit import desk_at, run

from freehold.base.errors import NotVerifiedError
from freehold.light.blocks import LightClientAttackEvidence
from freehold.light.divergence import DivergedError
from freehold.light.types import LightBlock
from freehold.lightclient import trusted_chain
from freehold.lightclient.client import LedgerClient
from freehold.lightclient.trust_store import MAX_EVIDENCE_FILES, TrustStore


def compared(primary: Source | Block, *witnesses: Source | Block, store: TrustStore | None = None) -> LedgerClient:
    async def work(url: str, *others: str) -> LedgerClient:
        client = client_of(",".join((url, *others)), store=store)
        try:
            await client.refresh()
        finally:
            await client.close()
        return client

    client: LedgerClient = with_sources(work, primary, *witnesses)
    return client


def test_other_servers_are_asked_for_the_first_header_and_then_now_and_then(monkeypatch: pytest.MonkeyPatch):
    primary, witness = Source(true_block), Source(true_block)

    async def work(url: str, other: str) -> None:
        client = client_of(f"{url},{other}")
        for height in range(TOP, TOP + 5):
            primary.newest = height
            await client.refresh()
        assert witness.asked == [TOP]
        monkeypatch.setattr(trusted_chain, "COMPARE_EVERY_S", 0.0)
        primary.newest = TOP + 6
        await client.refresh()
        assert witness.asked == [TOP, TOP + 6]
        assert client.comparison is not None and client.comparison.agreed == 1
        await client.close()

    with_sources(work, primary, witness)


def test_at_most_three_other_servers_are_asked_at_a_time():
    witnesses = [Source(true_block) for _ in range(5)]
    client = compared(true_block, *witnesses)
    assert [source.asked for source in witnesses] == [[TOP]] * 3 + [[]] * 2
    assert client.comparison is not None and client.comparison.agreed == 3


def test_two_stories_are_kept_as_evidence_and_nothing_is_believed(tmp_path: Path):
    """Two thirds of the validators signed both: the reader cannot know who lies."""
    fork = History(TRUE.sets, fork=b"other")

    def forked(height: int) -> LightBlock:
        return fork.block(height) if height > 40 else true_block(height)

    with pytest.raises(DivergedError) as caught:
        compared(true_block, forked, store=store_of(tmp_path))
    error = caught.value
    assert (error.code, error.exit_code) == ("diverged", 5)
    (path,) = tmp_path.iterdir()  # and no memory of a header that is in doubt
    assert str(path) in error.hint
    document = json.loads(path.read_bytes())
    assert document["format"] == "freehold-divergence/1" and document["kind"] == "lunatic"
    for side in ("primary", "witness"):
        LightBlock.decode(base64.b64decode(document[side]["light_block"]))
        evidence = LightClientAttackEvidence.decode(base64.b64decode(document[side]["evidence"]))
        assert len(evidence.byzantine_validators) == 5  # of the six of height 40, who signed 41
    with pytest.raises(DivergedError):
        compared(true_block, forked, store=store_of(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


def test_after_a_divergence_nothing_more_is_read():
    fork = History(TRUE.sets, fork=b"other")

    async def work(url: str, other: str) -> None:
        client = client_of(f"{url},{other}")
        for _ in range(3):
            with pytest.raises(DivergedError):
                await client.refresh()
        assert client.newest is None
        await client.close()

    with_sources(work, true_block, fork.block)


def test_evidence_is_bounded(tmp_path: Path):
    for number in range(MAX_EVIDENCE_FILES):
        (tmp_path / f"divergence-{number}-x.json").write_bytes(b"")
    fork = History(TRUE.sets, fork=b"other")
    with pytest.raises(DivergedError) as caught:
        compared(true_block, fork.block, store=store_of(tmp_path))
    assert "could not be kept" in caught.value.hint
    assert len(list(tmp_path.glob("divergence-*"))) == MAX_EVIDENCE_FILES


def test_a_witness_that_cries_wolf_counts_for_nothing():
    client = compared(true_block, FORGER.block, lambda height: STILL.block(height, {0, 1}), true_block)
    assert client.comparison == trusted_chain.Comparison(TOP, 1, 0, 0, 2)


def test_a_witness_that_is_silent_or_away_delays_a_little_and_refuses_nothing():
    async def go() -> LedgerClient:
        async with LyingServer(DESK) as primary, LyingServer(DESK) as silent:
            primary.source = Source(true_block).answer

            async def forever(_: object) -> None:
                await asyncio.Event().wait()

            silent.raw = forever
            client = client_of(f"{primary.url},{silent.url},http://127.0.0.1:9", timeout_s=8.0)
            await client.refresh()
            await client.close()
            return client

    client = run(go())
    assert client.comparison == trusted_chain.Comparison(TOP, 0, 0, 2, 0)


def test_a_witness_that_drips_another_story_is_silent():
    """It shows another header at once, and what would prove it slowly: a node's fence must not wait for that."""
    fork = History(TRUE.sets, fork=b"other")
    dripped: list[str] = []

    async def go() -> LedgerClient:
        async with LyingServer(DESK) as primary, LyingServer(DESK) as dripping:
            primary.source = Source(true_block).answer
            dripping.source = Source(lambda height: fork.block(height) if height > 40 else true_block(height)).answer

            async def drip(path: str) -> None:
                if not path.endswith(f"={TOP}"):
                    dripped.append(path)
                    await asyncio.sleep(0.8)

            dripping.slow = drip
            client = client_of(f"{primary.url},{dripping.url}", timeout_s=1.0)
            await client.refresh()
            await client.close()
            return client

    assert run(go()).comparison == trusted_chain.Comparison(TOP, 0, 0, 1, 0)
    assert 1 <= len(dripped) <= 2, "it was heard for longer than four times a word"


def test_a_witness_that_is_behind_is_no_liar():
    behind = desk_at(4)
    desk = desk_at(9)

    async def go() -> LedgerClient:
        async with LyingServer(desk) as primary, LyingServer(behind) as witness:
            client = LedgerClient(f"{primary.url},{witness.url}", desk.trusted, now_ms=lambda: now_at(10))
            await client.refresh()
            await client.close()
            return client

    client = run(go())
    assert client.comparison == trusted_chain.Comparison(9, 0, 1, 0, 0)


def lagging(block: Block, newest: int) -> Callable[[str], Any]:
    """A server that has got so far, and says so of what lies above."""
    source = Source(block, newest)

    def answer(path: str) -> Any:
        heights = parse_qs(urlsplit(path).query).get("height")
        if heights and int(heights[0]) > newest:
            return 404, {"code": "height_unknown", "message": "not made yet", "hint": ""}
        return source.answer(path)

    return answer


def compared_with_a_laggard(primary: Callable[[str], Any], witness: Callable[[str], Any]) -> LedgerClient:
    async def go() -> LedgerClient:
        async with LyingServer(DESK) as one, LyingServer(DESK) as other:
            one.source, other.source = primary, witness
            client = client_of(f"{one.url},{other.url}", STILL)
            try:
                await client.refresh()
            finally:
                await client.close()
            return client

    client: LedgerClient = run(go())
    return client


def test_a_fork_that_runs_ahead_of_the_witness_is_found_where_both_have_blocks():
    fork = History(STILL.sets, fork=b"faster")
    for ahead in (1, 20):
        with pytest.raises(DivergedError) as caught:
            compared_with_a_laggard(Source(fork.block).answer, lagging(STILL.block, TOP - ahead))
        assert caught.value.divergence.primary.header.height == TOP - ahead
    honest = compared_with_a_laggard(Source(STILL.block).answer, lagging(STILL.block, TOP - 20))
    assert honest.comparison == trusted_chain.Comparison(TOP, 0, 1, 0, 0)


def test_a_fork_is_compared_with_others_also_when_its_server_leaves_the_blocks_between_to_them():
    """Who gave a block is never its own witness, whoever's turn it is by then."""
    fork = History(TRUE.sets, fork=b"other")

    def only_the_newest(path: str) -> Any:
        if "height=" in path:
            return 503, {"code": "overloaded", "message": "ask another", "hint": ""}
        return Source(fork.block).answer(path)

    async def go() -> None:
        async with LyingServer(DESK) as liar, LyingServer(DESK) as honest:
            liar.source, honest.source = only_the_newest, Source(true_block).answer
            client = client_of(f"{liar.url},{honest.url}")
            with pytest.raises(DivergedError) as caught:
                await client.refresh()
            assert caught.value.message.index(liar.url) < caught.value.message.index(honest.url)
            await client.close()

    run(go())


def test_a_fork_is_compared_with_others_also_when_another_read_has_left_its_server():
    fork = History(STILL.sets, fork=b"other")

    async def go() -> None:
        async with LyingServer(DESK) as liar, LyingServer(DESK) as honest:
            is_asked, has_turned = asyncio.Event(), asyncio.Event()

            async def forked(writer: asyncio.StreamWriter) -> None:
                waits_for = has_turned if is_asked.is_set() else asyncio.Event()  # the first read gets no answer
                is_asked.set()
                await waits_for.wait()
                await send(writer, 200, json.dumps(Source(fork.block).answer("/v1/light_block")).encode())

            def true(path: str) -> Any:
                if path == "/v1/status":  # of the first read, which waits for this server to catch up
                    has_turned.set()
                    return {"height": -1}
                return Source(STILL.block).answer(path)

            liar.raw, honest.source = forked, true
            client = client_of(f"{liar.url},{honest.url}", STILL)
            first = asyncio.create_task(client.refresh(timeout_s=0.6))
            await is_asked.wait()
            with pytest.raises(DivergedError) as caught:
                await client.refresh()
            assert caught.value.message.index(liar.url) < caught.value.message.index(honest.url)
            await asyncio.gather(first, return_exceptions=True)
            await client.close()

    run(go())


def test_a_fork_that_an_earlier_run_was_told_is_found_when_others_are_asked(tmp_path: Path):
    fork = History(TRUE.sets, fork=b"other")
    assert refresh(fork.block, store=store_of(tmp_path)) == TOP  # one server alone: nobody to contradict it
    later = [Source(true_block, TOP + 1), Source(true_block, TOP + 1)]
    with pytest.raises(DivergedError) as caught:
        compared(*later, store=store_of(tmp_path))
    assert caught.value.message.count(trusted_chain.EARLIER_RUN) == 1
    assert str(store_of(tmp_path).path) in caught.value.hint and len(list(tmp_path.glob("divergence-*"))) == 1
    store_of(tmp_path).path.unlink()
    later = [Source(true_block, TOP + 1), Source(true_block, TOP + 1)]
    assert compared(*later, store=store_of(tmp_path)).newest is not None
    # Once remembered and agreed with, the next run asks for it once more, and for the newest.
    later = [Source(true_block, TOP + 2), Source(true_block, TOP + 2)]
    compared(*later, store=store_of(tmp_path))
    assert later[1].asked == [TOP + 1, TOP + 2]


def test_a_liar_is_named_and_left_for_the_next_server():
    other = History(STILL.sets, chain_id="other-chain")

    async def work(liar: str, honest: str) -> None:
        client = client_of(f"{liar},{honest}", STILL)
        with pytest.raises(NotVerifiedError) as caught:
            await client.refresh()
        assert caught.value.code == "wrong_chain" and liar in caught.value.message and caught.value.hint
        assert (await client.refresh()).height == TOP
        await client.close()

    with_sources(work, other.block, STILL.block)


def test_what_others_have_not_confirmed_is_not_remembered(tmp_path: Path):
    compared(true_block, FORGER.block, store=store_of(tmp_path))
    assert list(tmp_path.iterdir()) == []
    compared(true_block, true_block, store=store_of(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1
