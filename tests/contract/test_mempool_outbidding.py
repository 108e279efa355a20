"""Both engines' ways into the mempool while few accounts outbid themselves: who else gets in before the next block."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from abci_peer import ADDRESS, time_of
from engine_fixtures import make_genesis
from kv_application import KvApplication, kv_tx

from freehold.base.limits import MAX_BLOCK_TXS
from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.service import AbciService
from freehold.consensus.admission import Admission
from freehold.consensus.errors import MempoolFullError
from freehold.consensus.mempool import MAX_PER_SENDER, Mempool

BLOCK_BYTES = 1 << 20


class Door:
    """Where transactions come in: `offer` says by which code one was refused, "" for taken; `choose` makes a block."""

    def __init__(self, offer: Callable[[bytes], Awaitable[str]], choose: Callable[[], tuple[bytes, ...]]) -> None:
        self.offer, self.choose = offer, choose

    async def all(self, txs: Iterable[bytes]) -> list[str]:
        return [await self.offer(tx) for tx in txs]


def fail(error: BaseException) -> None:
    raise error


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Door]:
    app, mempool = KvApplication(folder), Mempool()
    with ThreadPoolExecutor(1) as executor:
        admission = Admission(
            app,
            mempool,
            executor,
            height=lambda: 0,
            dropped=lambda _: None,
            added=lambda: None,
            failed=fail,
        )

        async def offer(tx: bytes) -> str:
            try:
                return str((await admission.submit(tx, tx)).code or "")
            except MempoolFullError as error:
                return error.code

        def choose() -> tuple[bytes, ...]:
            return tuple(entry.tx for entry in mempool.select(1, max_txs=MAX_BLOCK_TXS, max_bytes=BLOCK_BYTES))

        yield Door(offer, choose)
        await admission.close()
    app.close()


@asynccontextmanager
async def comet(folder: Path) -> AsyncIterator[Door]:
    app = KvApplication(folder)
    service = AbciService(app, make_genesis(), lambda: 0)

    async def offer(tx: bytes) -> str:
        answer = service.check(wire.RequestCheckTx(tx))
        return answer.log.split("\n")[0] if answer.code else ""

    def choose() -> tuple[bytes, ...]:
        answer = service.handle(wire.RequestPrepareProposal(BLOCK_BYTES, (), 1, time_of(1), ADDRESS))
        assert isinstance(answer, wire.ResponsePrepareProposal)
        return answer.txs[1:]

    yield Door(offer, choose)
    app.close()


def outbid(accounts: int, rounds: int) -> Iterator[bytes]:
    """Each account fills its places, then replaces all of them again and again, just dear enough."""
    fee = 10
    for number in range(rounds + 1):
        for account in range(accounts):
            for nonce in range(MAX_PER_SENDER):
                yield kv_tx(f"rich{account:03}", nonce, "k", f"{number}", fee=fee)
        fee = fee * 11 // 10 + 1


@pytest.mark.parametrize("engine", [embedded, comet])
def test_ten_accounts_that_outbid_themselves_keep_nobody_out(
    tmp_path: Path, engine: Callable[[Path], AbstractAsyncContextManager[Door]]
) -> None:
    async def main() -> None:
        async with engine(tmp_path) as door:
            mine = kv_tx("early", 0, "k", "1", fee=1)
            assert await door.offer(mine) == ""
            answers = await door.all(outbid(10, 10))
            assert answers[:640] == [""] * 640
            assert await door.offer(kv_tx("new", 0, "k", "1", fee=1)) == ""
            again = kv_tx("early", 0, "k", "2", fee=10**6)
            assert await door.offer(again) == ""
            assert again in door.choose() and mine not in door.choose()

    asyncio.run(main())


@pytest.mark.parametrize(("accounts", "is_kept_out"), [(59, False), (60, True)])
def test_sixty_accounts_keep_others_from_replacing_in_the_engines_queue_and_from_nothing_else(
    tmp_path: Path, accounts: int, is_kept_out: bool
) -> None:
    """Each may make 101 of its own leave; a lane stops at 6,001."""

    async def main() -> None:
        async with comet(tmp_path) as door:
            assert await door.offer(kv_tx("early", 0, "k", "1", fee=1)) == ""
            answers = await door.all(outbid(accounts, 2))
            taken = accounts * MAX_PER_SENDER + min(accounts * 101, 6_001)
            assert (answers.count(""), answers.count("mempool_full")) == (taken, len(answers) - taken)
            assert await door.offer(kv_tx("new", 0, "k", "1", fee=1)) == ""
            assert await door.offer(kv_tx("early", 0, "k", "2", fee=10**6)) == ("mempool_full" if is_kept_out else "")
            for lane in "rg":
                assert await door.offer(kv_tx(f"other-{lane}", 0, "k", "1", lane=lane)) == ""

    asyncio.run(main())
