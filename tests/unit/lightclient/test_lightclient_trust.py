"""The light client over real sockets, with validator sets that change: hops, trust modes, memory."""

from pathlib import Path
from typing import Any

import pytest
from light_chain import GENESIS_MS
from light_history import History, now_at
from light_sources import (
    FORGER,
    STILL,
    TOP,
    TRUE,
    Source,
    client_of,
    pin,
    refresh,
    refused,
    store_of,
    true_block,
    with_sources,
)
from lying_server import LyingServer
from rpc_kit import desk_at, run

from freehold.base.errors import InvalidInputError, NotVerifiedError
from freehold.light.trust import CLOCK_DRIFT_MS, GENESIS_TRUST, PinnedTrust, Trust, trust_period_ms
from freehold.light.types import Commit, LightBlock, SignedHeader


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


def test_the_newest_header_is_remembered_between_runs(tmp_path: Path):
    assert refresh(true_block, store=store_of(tmp_path)) == TOP
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]
    source = Source(true_block, TOP + 1)
    assert refresh(source, store=store_of(tmp_path)) == TOP + 1 and source.asked == [None]
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


def test_the_clock_of_a_header_renews_nothing_by_memory(tmp_path: Path):
    """What is remembered is no answer: it has no moment at which it was asked for."""
    refresh(true_block, store=store_of(tmp_path))
    client = client_of("http://127.0.0.1:9", store=store_of(tmp_path))
    assert client.newest is None
    run(client.close())
