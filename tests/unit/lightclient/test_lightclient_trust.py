"""The light client over real sockets, with validator sets that change: hops, trust modes, memory, other servers."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from light_chain import GENESIS_MS
from light_history import History, now_at
from lying_server import LyingServer, send
from rpc_kit import desk_at, run

from freehold.base.errors import FreeholdError, InvalidInputError, NotVerifiedError
from freehold.light.blocks import LightClientAttackEvidence
from freehold.light.divergence import DivergedError
from freehold.light.headers import header_hash
from freehold.light.trust import CLOCK_DRIFT_MS, GENESIS_TRUST, PinnedTrust, Trust, trust_period_ms
from freehold.light.types import Commit, LightBlock, SignedHeader
from freehold.lightclient import trusted_chain
from freehold.lightclient.client import LedgerClient
from freehold.lightclient.trust_store import MAX_EVIDENCE_FILES, TrustStore

# One leaves and one joins at each height: six heights on, nobody is left.
TRUE = History([{n + k: 10 for k in range(6)} for n in range(60)])
STILL = History([{n: 10 for n in range(6)}])
FORGER = History([{n + k: 10 for k in range(6)} for n in range(200, 260)], fork=b"forged")
TOP = 50
DESK = desk_at(1)
true_block = cache(TRUE.block)
Block = Callable[[int], LightBlock]


class Source:
    """A server of one chain's light blocks; `asked` are the heights that it was asked for, None the newest."""

    def __init__(self, block: Block, newest: int = TOP) -> None:
        self.block = block
        self.newest = newest
        self.asked: list[int | None] = []

    def answer(self, path: str) -> Any:
        heights = parse_qs(urlsplit(path).query).get("height")
        self.asked.append(int(heights[0]) if heights else None)
        height = int(heights[0]) if heights else self.newest
        return {"height": height, "light_block": base64.b64encode(self.block(height).encode()).decode()}


def client_of(url: str, history: History = TRUE, **fields: Any) -> LedgerClient:
    return LedgerClient(url, history.genesis, **{"now_ms": lambda: now_at(TOP), **fields})


def with_sources(work: Callable[..., Awaitable[Any]], *sources: Source | Block) -> Any:
    """Run servers, one for each source, and give the work their URLs."""

    async def go() -> Any:
        servers = [LyingServer(DESK) for _ in sources]
        urls = []
        for server, source in zip(servers, sources, strict=True):
            await server.__aenter__()
            server.source = (source if isinstance(source, Source) else Source(source)).answer
            urls.append(server.url)
        try:
            return await work(*urls)
        finally:
            for server in servers:
                await server.__aexit__(None, None, None)

    return run(go())


def refresh(source: Source | Block, history: History = TRUE, **fields: Any) -> int:
    async def work(url: str) -> int:
        client = client_of(url, history, **fields)
        try:
            return (await client.refresh()).height
        finally:
            await client.close()

    height: int = with_sources(work, source)
    return height


def refused(source: Source | Block, history: History = TRUE, **fields: Any) -> FreeholdError:
    with pytest.raises(FreeholdError) as caught:
        refresh(source, history, **fields)
    return caught.value


def pin(height: int) -> PinnedTrust:
    return PinnedTrust(height, header_hash(TRUE.header(height)))


def test_changing_sets_are_followed_from_genesis_by_bisection():
    source = Source(true_block)
    assert refresh(source) == TOP
    assert source.asked[0] is None and 5 < len(source.asked) < 2 * TOP


def test_a_set_that_does_not_change_needs_one_block():
    source = Source(STILL.block, 1_000)
    assert refresh(source, STILL, now_ms=lambda: now_at(1_000)) == 1_000 and source.asked == [None]


def test_reads_go_on_from_what_was_verified_and_back_to_older_heights():
    source = Source(true_block)

    async def work(url: str) -> None:
        client = client_of(url)
        await client.refresh()
        source.newest, source.asked = TOP + 1, []
        assert (await client.refresh()).height == TOP + 1 and source.asked == [None]
        assert (await client.light_block(7)).header.height == 7
        hops = await client.hops(await client.light_block(TOP))
        assert [block.header.height for block in hops] == sorted({block.header.height for block in hops})
        assert hops[0].header.height < 4 and hops[-1].header.height < TOP
        await client.close()

    with_sources(work, source)


def test_a_pinned_header_is_where_trust_begins():
    source = Source(true_block)
    assert refresh(source, trust=pin(48)) == TOP
    assert source.asked == [None, 48]

    async def work(url: str) -> None:
        client = client_of(url, trust=pin(48))
        with pytest.raises(InvalidInputError) as caught:
            await client.light_block(47)
        assert caught.value.code == "below_trusted"
        assert (await client.light_block(48)).header.height == 48
        await client.close()

    with_sources(work, source)
    assert refused(source, trust=PinnedTrust(48, bytes(32))).code == "trust_root_mismatch"


# -- refusals, each by its own error ----------------------------------------------------------------------------------


def test_expired_trust_is_refused():
    late = GENESIS_MS + 48_000 + trust_period_ms(TRUE.genesis)
    assert refresh(true_block, trust=pin(48), now_ms=lambda: late - 1) == TOP
    assert refused(true_block, trust=pin(48), now_ms=lambda: late).code == "trust_expired"
    assert refresh(true_block, now_ms=lambda: late) == TOP  # genesis expires never, by its assumption


def test_a_header_from_the_future_is_refused():
    early = GENESIS_MS + TOP * 1000 - CLOCK_DRIFT_MS
    for trust in (GENESIS_TRUST, pin(48)):
        assert refresh(true_block, trust=trust, now_ms=lambda: early + 1) == TOP
        error = refused(true_block, trust=trust, now_ms=lambda: early)
        assert error.code == "header_from_future" and "clock" in error.hint


@pytest.mark.parametrize("trust", [GENESIS_TRUST, pin(45)])
def test_a_chain_of_other_validators_is_refused_where_it_begins(trust: Trust):
    def block(height: int) -> LightBlock:
        return FORGER.block(height) if height > 45 else true_block(height)

    assert refused(block, trust=trust).code == "validator_set_mismatch"


def test_a_set_that_the_header_does_not_name_is_refused():
    def block(height: int) -> LightBlock:
        return LightBlock(true_block(height).signed_header, STILL.block(1).validator_set)

    assert refused(block).code == "validator_set_mismatch"


def test_another_chain_is_refused():
    other = History(TRUE.sets, chain_id="other-chain")
    assert refused(other.block).code == "wrong_chain"


def test_exactly_two_thirds_are_refused():
    def block(height: int) -> LightBlock:
        return STILL.block(height, {0, 1, 2, 3})

    assert refused(block, STILL).code == "not_enough_power"
    assert refresh(lambda height: STILL.block(height, {0, 1, 2, 3, 4}), STILL) == TOP


def test_one_vote_counted_twice_is_refused():
    def block(height: int) -> LightBlock:
        honest = STILL.block(height)
        commit = honest.signed_header.commit
        entries = (commit.signatures[0], commit.signatures[0], *commit.signatures[2:])
        doubled = Commit(commit.height, commit.round, commit.block_id, entries)
        return LightBlock(SignedHeader(honest.header, doubled), honest.validator_set)

    assert refused(block, STILL).code == "double_vote"


def test_a_server_without_the_blocks_between_is_told_apart_from_a_liar():
    desk = desk_at(TOP)
    desk.pruned_below = 20

    async def work() -> str:
        async with LyingServer(desk) as server:
            source = Source(true_block)

            def twist(path: str, answer: Any) -> Any:
                return source.answer(path) if "light_block" in answer else answer

            server.twist = twist
            client = client_of(server.url)
            try:
                await client.refresh()
            except NotVerifiedError as error:
                return error.code
            finally:
                await client.close()
        return ""

    assert run(work()) == "hop_unavailable"


# -- memory between runs ----------------------------------------------------------------------------------------------


def store_of(folder: Path, history: History = TRUE, trust: Trust = GENESIS_TRUST) -> TrustStore:
    return TrustStore(folder, history.genesis, trust)


def test_the_newest_header_is_remembered_between_runs(tmp_path: Path):
    assert refresh(true_block, store=store_of(tmp_path)) == TOP
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]
    source = Source(true_block, TOP + 1)
    assert refresh(source, store=store_of(tmp_path)) == TOP + 1 and source.asked == [None]
    # A lower height is verified from below, and takes nothing back.
    assert refresh(Source(true_block, 3), store=store_of(tmp_path)) == 3
    state = store_of(tmp_path).load()
    assert state is not None and state.height == TOP + 1


def test_each_trust_mode_remembers_by_itself(tmp_path: Path):
    refresh(true_block, store=store_of(tmp_path))
    assert store_of(tmp_path, trust=pin(48)).load() is None
    refresh(true_block, trust=pin(48), store=store_of(tmp_path, trust=pin(48)))
    assert len(list(tmp_path.iterdir())) == 2
    late = GENESIS_MS + TOP * 1000 + trust_period_ms(TRUE.genesis)
    error = refused(
        Source(true_block, TOP + 1), trust=pin(48), store=store_of(tmp_path, trust=pin(48)), now_ms=lambda: late
    )
    assert error.code == "trust_expired"


def test_a_damaged_memory_is_refused_with_what_to_do(tmp_path: Path):
    refresh(true_block, store=store_of(tmp_path))
    path = store_of(tmp_path).path
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:-9],
        whole.replace(b"/1", b"/2"),
        b"{}",
        whole[:400] + b"A" + whole[401:],
        b"\xff" * 99,
    ):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInputError) as caught:
            client_of("http://127.0.0.1:9", store=store_of(tmp_path))
        assert caught.value.code == "trust_damaged" and "remove that file" in caught.value.hint
        assert path.read_bytes() == damaged
    path.write_bytes(whole)
    assert store_of(tmp_path).load() is not None


def test_the_memory_of_another_chain_is_refused(tmp_path: Path):
    other = History(TRUE.sets, chain_id="other-chain")
    refresh(other.block, other, store=store_of(tmp_path, other))
    (path,) = tmp_path.iterdir()
    path.rename(store_of(tmp_path).path)
    with pytest.raises(InvalidInputError) as caught:
        store_of(tmp_path).load()
    assert caught.value.code == "trust_other_chain"


def test_a_home_that_cannot_be_written_stops_no_read(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    assert refresh(true_block, store=store_of(tmp_path / "file" / "light")) == TOP


# -- other servers ----------------------------------------------------------------------------------------------------


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


def test_a_primary_that_keeps_back_what_the_witness_has_is_refused():
    def only_the_newest(path: str) -> Any:
        if "height=" in path:
            return 404, {"code": "height_pruned", "message": "not kept", "hint": ""}
        return Source(STILL.block).answer(path)

    with pytest.raises(NotVerifiedError) as caught:
        compared_with_a_laggard(only_the_newest, lagging(STILL.block, TOP - trusted_chain.NEVER_PRUNED))
    assert caught.value.code == "hop_unavailable" and "http://127" in caught.value.message
    # Older ones may be pruned by now: the witness is too far behind to say anything.
    client = compared_with_a_laggard(only_the_newest, lagging(STILL.block, TOP - trusted_chain.NEVER_PRUNED - 1))
    assert client.comparison == trusted_chain.Comparison(TOP, 0, 1, 0, 0)


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


def test_the_clock_of_a_header_renews_nothing_by_memory(tmp_path: Path):
    """What is remembered is no answer: it has no moment at which it was asked for."""
    refresh(true_block, store=store_of(tmp_path))
    client = client_of("http://127.0.0.1:9", store=store_of(tmp_path))
    assert client.newest is None
    run(client.close())
