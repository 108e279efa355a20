"""History over HTTP: pages with cursors while blocks are made, look-ups, refusals; the index is a real one."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from rpc_kit import OWNERS, TENANT, Face, FakeDesk, desk_at

from freehold.crypto.strkey import encode_account
from freehold.indexer.databases import SqliteDatabase
from freehold.indexer.errors import IndexUnavailableError
from freehold.indexer.follower import IndexFollower
from freehold.indexer.records import BlockRecord
from freehold.indexer.store import Index
from freehold.ledger.events import Transferred
from freehold.rpc import archive
from freehold.rpc.archive import Archive

SENDER, TO = encode_account(TENANT.public), encode_account(OWNERS[0].public)


class Kept(FakeDesk):
    """A desk that reads its old blocks again."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[int, BlockRecord] = {}
        self.subscribe(lambda block: self.records.update({block.height: block}))

    async def block_range(self) -> tuple[int, int]:
        return min(self.height, 1), self.height

    async def block_record(self, height: int) -> BlockRecord:
        return self.records[height]

    def pay(self, amount: int) -> None:
        self.events = [Transferred(TENANT.public, OWNERS[0].public, amount)]
        self.make_block()


def ask(folder: Path, work: Callable[[Face, Kept, IndexFollower], Awaitable[Any]], desk: Kept | None = None) -> Any:
    async def go() -> Any:
        kept = desk or Kept()
        index = Index(SqliteDatabase(folder / "history.sqlite"), "test")
        follower = IndexFollower(index, kept, lambda event, fields: pytest.fail(f"{event} {fields}"))
        kept.subscribe(follower.receive)
        async with Face(kept) as face:
            face.service.archive.close()
            face.service.archive = Archive(index, follower)
            follower.start()
            await reach(follower, kept.height)
            try:
                return await work(face, kept, follower)
            finally:
                await follower.stop()

    return asyncio.run(go())


async def reach(follower: IndexFollower, height: int) -> None:
    async with asyncio.timeout(20):
        while follower.indexed < height:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("limit", [1, 3])
def test_pages_neither_skip_nor_repeat_while_blocks_are_made(tmp_path, limit):
    desk = Kept()
    for amount in range(1, 21):
        desk.pay(amount)

    async def work(face: Face, desk: Kept, follower: IndexFollower) -> list[int]:
        amounts, cursor = [], ""
        while True:
            path = f"/v1/history?subject={TO}&limit={limit}&cursor={cursor}"
            answer = (await face.get(path)).json()
            amounts += [int(event["attributes"]["amount"]) for event in answer["events"]]
            cursor = answer["next_cursor"]
            if not cursor:
                assert answer["indexed"] == [{"first": 1, "last": desk.height}]
                return amounts
            desk.pay(1_000)
            desk.make_block()
            await reach(follower, desk.height)

    assert ask(tmp_path, work, desk) == list(range(20, 0, -1))


def test_old_blocks_and_their_transactions_are_found(tmp_path):
    desk = Kept()
    desk.pay(7)
    for _ in range(3):
        desk.make_block()
    id_ = desk.records[1].txs[0].id.hex()

    async def work(face: Face, desk: Kept, follower: IndexFollower) -> None:
        assert face.service.history.outcome(bytes.fromhex(id_)) is None  # only the index knows it
        tx = (await face.get(f"/v1/history/tx/{id_}")).json()
        assert (tx["height"], tx["code_name"], tx["position"]) == (1, "OK", 0)
        assert tx["events"] == [{"kind": "transfer", "attributes": {"sender": SENDER, "to": TO, "amount": "7"}}]
        assert (await face.get(f"/v1/tx/{id_}")).json()["height"] == 1
        by_height = (await face.get("/v1/history/block/1")).json()
        by_hash = (await face.get(f"/v1/history/block/{by_height['hash']}")).json()
        assert by_hash == by_height and by_height["txs"][0]["tx_id"] == id_
        page = (await face.get("/v1/history/blocks?limit=2")).json()
        assert [row["height"] for row in page["blocks"]] == [desk.height, desk.height - 1]
        rest = (await face.get(f"/v1/history/blocks?limit=1&cursor={page['next_cursor']}")).json()
        assert [row["height"] for row in rest["blocks"]] == [desk.height - 2]
        schemas = (await face.get("/openapi.json")).json()["components"]["schemas"]
        for name, answer in (("HistoryTxAnswer", tx), ("HistoryBlockAnswer", by_hash), ("HistoryBlocksAnswer", rest)):
            schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
            jsonschema_rs.validator_for(schema).validate(answer)

    ask(tmp_path, work, desk)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/history?subject=x", 400, "bad_request"),
        ("/v1/history?subject=%27%3B+DROP+TABLE+blocks%3B+--", 400, "bad_request"),
        ("/v1/history?subject=" + ",".join(["a" * 64] * 13), 400, "bad_request"),
        ("/v1/history?subject=" + "a" * 2_000, 400, "oversized"),
        ("/v1/history?cursor=AAAAAAAAAAAAAAAAAA", 400, "bad_cursor"),
        ("/v1/history?cursor=x", 400, "bad_request"),
        ("/v1/history?limit=1001", 400, "bad_request"),
        ("/v1/history?limit=1e3", 400, "bad_request"),
        ("/v1/history?since_ms=-1", 400, "bad_request"),
        ("/v1/history?since_ms=9223372036854775808", 400, "bad_request"),
        ("/v1/history/block/0", 400, "bad_id"),
        ("/v1/history/block/999", 404, "unknown_block"),
        ("/v1/history/block/" + "9" * 400, 400, "bad_id"),
        ("/v1/history/tx/" + "0" * 64, 404, "unknown_tx"),
        ("/v1/history/tx/" + "0" * 63 + "'", 400, "bad_id"),
    ],
)
def test_what_is_refused(tmp_path, path, status, code):
    async def work(face: Face, desk: Kept, follower: IndexFollower) -> None:
        desk.pay(1)
        await reach(follower, 1)
        response = await face.get(path)
        expected = 413 if code == "oversized" else status
        assert (response.status_code, response.json()["code"]) == (expected, code), response.text
        assert len((await face.get("/v1/history")).json()["events"]) == 1

    ask(tmp_path, work)


def test_without_an_index_history_says_so():
    async def work() -> None:
        async with Face(desk_at(2)) as face:
            response = await face.get("/v1/history")
            assert (response.status_code, response.json()["code"]) == (404, "no_history")
            assert (await face.get("/v1/tx/" + "0" * 64)).json()["code"] == "unknown_tx"

    asyncio.run(work())


def test_damage_that_a_reader_meets_is_mended(tmp_path):
    desk = Kept()
    for amount in range(1, 6):
        desk.pay(amount)
    told: list[str] = []

    async def work(face: Face, desk: Kept, follower: IndexFollower) -> None:
        follower._report = lambda event, fields: told.append(event)
        with follower._index._database.write() as transaction:
            transaction.run("DELETE FROM txs")
        response = await face.get("/v1/history")
        assert (response.status_code, response.json()["code"]) == (503, "index_rebuilding")
        async with asyncio.timeout(20):
            while (await face.get("/v1/history")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await reach(follower, 5)
        assert len((await face.get("/v1/history")).json()["events"]) == 5 and told == ["index_rebuilding"]

    ask(tmp_path, work, desk)


def test_a_database_that_hangs_holds_up_history_alone(tmp_path, monkeypatch):
    """Its questions are refused in bounded time, few wait at once, and all else is answered meanwhile."""
    monkeypatch.setattr(archive, "READ_S", 0.2)
    monkeypatch.setattr(archive, "SILENT_S", 1.0)
    desk = Kept()
    desk.pay(7)

    async def work(face: Face, desk: Kept, follower: IndexFollower) -> None:
        index, ask = follower._index, follower._index.events
        go_on, abandoned = threading.Event(), []

        def hang(*arguments: Any, **named: Any) -> Any:
            assert go_on.wait(20)
            return ask(*arguments, **named)

        index.events, index.abandon_read = hang, lambda: abandoned.append(True)
        asked = [asyncio.create_task(face.get("/v1/history")) for _ in range(archive.MAX_WAITING + 10)]
        await asyncio.sleep(0)
        for _ in range(20):
            desk.make_block()
            status = await asyncio.wait_for(face.get("/v1/status"), 1)
            assert status.json()["height"] == desk.height
        refused = [task for task in asked if task.done()]
        assert {task.result().json()["code"] for task in refused} == {"index_busy"} and len(refused) == 9
        assert face.service.archive._reader._work_queue.qsize() <= 1
        first = await asyncio.wait_for(asked[0], 5)
        assert (first.status_code, first.json()["code"]) == (503, "index_slow") and abandoned
        go_on.set()
        assert {(await task).json()["code"] for task in asked[1:]} == {"index_busy", "index_slow"}
        async with asyncio.timeout(20):
            while (await face.get("/v1/history")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    ask(tmp_path, work, desk)


def test_a_transaction_is_told_of_at_once_while_the_database_hangs(tmp_path, monkeypatch):
    """One that is new to a few: it waits a moment for history, and after the first silence not at all."""
    monkeypatch.setattr(archive, "READ_S", 1.0)
    monkeypatch.setattr(archive, "SILENT_S", 60.0)
    desk = Kept()
    desk.pay(7)

    async def work(face: Face, desk: Kept, follower: IndexFollower) -> None:
        index, read = follower._index, threading.Event()
        index.tx, index.abandon_read = lambda _: read.wait(20), read.set
        loop = asyncio.get_running_loop()

        async def took(path: str, code: str) -> float:
            begun = loop.time()
            answer = (await face.get(path)).json()
            assert answer["code"] == code and answer["hint"], answer
            if code == "unknown_tx":
                assert "history of older ones does not answer now" in answer["hint"]
            return loop.time() - begun

        unknown = "/v1/tx/" + "0" * 64
        assert await took(unknown, "unknown_tx") < archive.READ_S
        async with asyncio.timeout(20):
            while not read.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await took("/v1/history", "index_slow") < archive.PATIENCE_S
        assert await took(unknown, "unknown_tx") < archive.PATIENCE_S

    ask(tmp_path, work, desk)


def test_who_waits_for_a_new_transaction_needs_no_history(tmp_path):
    desk = Kept()
    desk.pay(7)

    async def work(face: Face, desk: Kept, follower: IndexFollower) -> None:
        def away(id_: bytes) -> Any:
            raise IndexUnavailableError("away", code="index_unavailable")

        follower._index.tx = away
        response = await face.get("/v1/tx/" + "0" * 64)
        assert (response.status_code, response.json()["code"]) == (404, "unknown_tx")
        assert (await face.get("/v1/history/tx/" + "0" * 64)).status_code == 503

    ask(tmp_path, work, desk)
