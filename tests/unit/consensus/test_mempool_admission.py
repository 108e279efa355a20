"""The way into the mempool: who is answered, whatever ends at the same moment."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, cast

from freehold.consensus.admission import Admission
from freehold.consensus.application import Application, CheckTxRequest, CheckTxResponse
from freehold.consensus.mempool import Mempool


class Held(Executor):
    """Runs what it was given when the test says so."""

    def __init__(self) -> None:
        self.given: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.given.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run_all(self) -> None:
        while self.given:
            future, call = self.given.pop(0)
            future.set_result(call())


class Accepts:
    """Accepts everything, each of a sender of its own."""

    def check_tx(self, request: CheckTxRequest) -> CheckTxResponse:
        return CheckTxResponse(code=0, sender=request.tx, nonce=0, next_nonce=0, valid_until=10)


def test_what_is_submitted_while_the_last_batches_end_together_is_checked() -> None:
    async def main() -> None:
        held, mempool = Held(), Mempool()

        def fail(error: BaseException) -> None:
            raise error

        admission = Admission(
            cast(Application, Accepts()),
            mempool,
            held,
            height=lambda: 0,
            dropped=lambda _: None,
            added=lambda: None,
            failed=fail,
        )

        async def one_after_another(*txs: bytes) -> None:
            for tx in txs:
                await admission.submit(tx, tx)

        async def settled(count: int) -> None:
            for _ in range(20):  # turns of the loop, more than any step here takes
                await asyncio.sleep(0)
            assert len(held.given) == count

        first = asyncio.create_task(one_after_another(b"a", b"c"))
        await settled(1)
        second = asyncio.create_task(one_after_another(b"b"))
        await settled(2)
        held.run_all()  # both batches end, and before anyone has noticed, c is there
        await settled(1)
        held.run_all()
        await asyncio.gather(first, second)
        assert len(mempool) == 3
        await admission.close()

    asyncio.run(main())
