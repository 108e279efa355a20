"""The application's socket, played to by a stand-in for the engine: order, threads, halts, hostile bytes."""

import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from abci_peer import ADDRESS, Connection, init_chain, make_block, time_of
from engine_fixtures import GENESIS_MS, make_genesis
from kv_application import KvApplication, kv_tx

from freehold.base.errors import InvalidInputError, RefusedError
from freehold.base.limits import MAX_BLOCK_TXS, MAX_TX_BYTES
from freehold.consensus import application as abci
from freehold.consensus.abci import messages as wire
from freehold.consensus.abci.following import Follower, NoFollower
from freehold.consensus.abci.server import AbciServer
from freehold.consensus.abci.service import NO_ROOM, OWN_TX_ROOM_BYTES, AbciService
from freehold.consensus.comet.client import CometClient
from freehold.consensus.errors import storage_full
from freehold.consensus.mempool import Dropped
from freehold.ledger.transactions import tx_id
from freehold.light.ics23 import SMT, CommitmentProof, verify_absence, verify_existence
from freehold.light.types import Timestamp
from freehold.light.wire import encode_varint
from freehold.rpc import comet_desk
from freehold.rpc.errors import status_of


class Timed(KvApplication):
    """Remembers the times of its blocks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.times = [GENESIS_MS - 1]

    def finalize_block(self, request: abci.FinalizeBlockRequest) -> abci.FinalizeBlockResponse:
        self.staged_ms = request.time_ms
        return super().finalize_block(request)

    def commit(self) -> abci.CommitResponse:
        self.times.append(self.staged_ms)
        return super().commit()


@asynccontextmanager
async def serving(
    folder: Path, app: KvApplication | None = None, follower: Follower | None = None
) -> AsyncIterator[tuple[AbciServer, Path]]:
    app = app or Timed(folder)
    last = (lambda: app.times[-1]) if isinstance(app, Timed) else (lambda: 0)
    server = AbciServer(AbciService(app, make_genesis(), last, follower), folder / "abci.sock")
    await server.start()
    try:
        yield server, folder / "abci.sock"
    finally:
        await Connection.close_all()
        await server.stop()
        app.close()


async def make_foreign_block(connection: Connection, height: int) -> None:
    """A block of another proposer, with nothing in it."""
    final = wire.RequestFinalizeBlock((b"!proposer %d" % height,), b"", height, time_of(height), ADDRESS)
    assert isinstance(await connection.ask(final), wire.ResponseFinalizeBlock)
    assert isinstance(await connection.ask(wire.RequestCommit()), wire.ResponseCommit)


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 30))
    gc.collect()  # what is left open is told by the test that left it


def test_a_chain_is_begun_extended_read_and_begun_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (_, path):
            consensus, query = await Connection.open(path), await Connection.open(path)
            assert await query.ask(wire.RequestInfo("0.38.25")) == wire.ResponseInfo("freehold", app_version=1)
            begun = await consensus.ask(init_chain())
            assert await consensus.ask(init_chain()) == begun  # after a crash before the first block
            await make_block(consensus, 1, kv_tx("a", 0, "x", "1"))
            root = await make_block(consensus, 2)
            info = await query.ask(wire.RequestInfo())
            assert isinstance(info, wire.ResponseInfo)
            assert (info.last_block_height, info.last_block_app_hash) == (2, root)
            for key, value in ((b"kv/x", b"1"), (b"kv/none", None)):
                answer = await query.ask(wire.RequestQuery(key, b"/store", 0, prove=True))
                assert isinstance(answer, wire.ResponseQuery)
                assert answer.proof_ops is not None
                (op,) = answer.proof_ops.ops
                assert (op.type, op.key, answer.height) == ("ics23:smt", key, 2)
                proof = CommitmentProof.decode(op.data)
                if value is None:
                    verify_absence(SMT, root, key, proof)
                else:
                    verify_existence(SMT, root, key, value, proof)
        async with serving(tmp_path, KvApplication(tmp_path)) as (_, path):
            query = await Connection.open(path)
            assert await query.ask(wire.RequestInfo()) == info

    run(main)


def test_a_bad_query_is_a_code_and_never_an_exception(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (server, path):
            consensus, query = await Connection.open(path), await Connection.open(path)
            await consensus.ask(init_chain())
            for request in (
                wire.RequestQuery(b"k", b"/other"),
                wire.RequestQuery(b"k", b"\xff\xfe"),
                wire.RequestQuery(b"", b"/store"),
                wire.RequestQuery(bytes(1_025), b"/store"),
                wire.RequestQuery(b"k", b"/store", -1),
                wire.RequestQuery(b"k", b"/store", 99),
                wire.RequestQuery(b"k", b"/store", 99, prove=True),
            ):
                answer = await query.ask(request)
                assert isinstance(answer, wire.ResponseQuery)
                assert (answer.code, answer.codespace) == (1, "freehold")
            assert server.halted is None

    run(main)


def test_answers_leave_in_order_whatever_is_done_first(tmp_path: Path) -> None:
    gate = threading.Event()

    class Slow(KvApplication):
        def check_tx(self, request: abci.CheckTxRequest) -> abci.CheckTxResponse:
            assert gate.wait(10)
            return super().check_tx(request)

    async def main() -> None:
        async with serving(tmp_path, Slow(tmp_path)) as (_, path):
            consensus, mempool = await Connection.open(path), await Connection.open(path)
            await consensus.ask(init_chain())
            txs = [kv_tx(f"s{n}", 0, "x", "1") if n % 3 else b"junk" for n in range(400)]
            mempool.send(*map(wire.RequestCheckTx, txs), wire.RequestEcho("end"), wire.RequestFlush())
            # blocks are made while the checks hang: they are off the consensus path
            await make_block(consensus, 1)
            await make_block(consensus, 2)
            gate.set()
            answers = [await mempool.receive() for _ in range(402)]
            codes = [answer.code for answer in answers[:400] if isinstance(answer, wire.ResponseCheckTx)]
            assert codes == [0 if n % 3 else 1 for n in range(400)]
            assert answers[400:] == [wire.ResponseEcho("end"), wire.ResponseFlush()]

    run(main)


def test_no_check_is_left_waiting_for_another(tmp_path: Path) -> None:
    """The engine waits for all answers before each commit: one that comes only with the next request stops it."""

    async def main() -> None:
        async with serving(tmp_path) as (_, path):
            connections = [await Connection.open(path) for _ in range(4)]
            await connections[0].ask(init_chain())

            async def check(number: int, connection: Connection) -> None:
                for round_ in range(400):
                    tx = kv_tx(f"s{number}", 0, "x", str(round_))
                    assert isinstance(await connection.ask(wire.RequestCheckTx(tx)), wire.ResponseCheckTx)

            async with asyncio.timeout(20):
                await asyncio.gather(*(check(number, one) for number, one in enumerate(connections)))

    run(main)


def test_the_proposer_orders_by_fee_and_nonce_and_leaves_out_what_cannot_go(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (_, path):
            consensus = await Connection.open(path)
            await consensus.ask(init_chain())
            first, second = kv_tx("a", 0, "x", "1", fee=1), kv_tx("a", 1, "x", "2", fee=9)
            rich, again = kv_tx("b", 0, "y", "1", fee=5), kv_tx("a", 0, "x", "3", fee=1)
            report, gap = kv_tx("r", 7, "z", "1", lane="r"), kv_tx("c", 3, "x", "1")
            offered = (second, b"junk", first, gap, rich, again, rich, kv_tx("d", 0, "k", "v", until=0), report)
            request = wire.RequestPrepareProposal(1_000_000, offered, 1, time_of(1), ADDRESS)
            answer = await consensus.ask(request)
            assert answer == wire.ResponsePrepareProposal((b"!proposer 1", report, rich, first, second))
            for room in (OWN_TX_ROOM_BYTES, OWN_TX_ROOM_BYTES + 60, 2_000):
                many = tuple(kv_tx(f"s{n}", 0, "k", "v") for n in range(100))
                answer = await consensus.ask(wire.RequestPrepareProposal(room, many, 1, time_of(1), ADDRESS))
                assert isinstance(answer, wire.ResponsePrepareProposal)
                # as the engine counts: tag, length and content of each
                assert sum(1 + len(encode_varint(len(tx))) + len(tx) for tx in answer.txs) <= room
            huge = wire.RequestPrepareProposal(1_000_000, (bytes(MAX_TX_BYTES + 1),), 1, time_of(1), ADDRESS)
            answer = await consensus.ask(huge)
            assert isinstance(answer, wire.ResponsePrepareProposal) and max(map(len, answer.txs)) < 100

    run(main)


def test_each_lane_has_its_room_in_the_engines_queue_and_in_blocks(tmp_path: Path) -> None:
    """A flood of users' transactions keeps neither reports nor governance out, however old it is."""

    async def main() -> None:
        async with serving(tmp_path) as (_, path):
            consensus, mempool = await Connection.open(path), await Connection.open(path)
            await consensus.ask(init_chain())
            users = [kv_tx(f"s{n}", 0, "x", "1") for n in range(6_200)]
            late = [kv_tx("n", n, "z", "1", lane="r") for n in range(5)] + [kv_tx("g", 0, "z", "1", lane="g")]
            mempool.send(*map(wire.RequestCheckTx, [*users, *late]), wire.RequestFlush())
            answers = [await mempool.receive() for _ in range(len(users) + len(late) + 1)]
            codes = [answer.code for answer in answers[:-1] if isinstance(answer, wire.ResponseCheckTx)]
            room = 6_000  # users' own share of 10,000 and what nobody has reserved
            assert codes == [0] * room + [NO_ROOM] * 200 + [0] * len(late)
            refused = answers[room]
            assert isinstance(refused, wire.ResponseCheckTx) and refused.log.split("\n")[0] == "mempool_full"
            # the engine offers the oldest alone
            offer = wire.RequestPrepareProposal(1_000_000, tuple(users[:5_000]), 1, time_of(1), ADDRESS)
            answer = await consensus.ask(offer)
            assert isinstance(answer, wire.ResponsePrepareProposal) and len(answer.txs) == 1 + MAX_BLOCK_TXS
            assert set(late) < set(answer.txs)

    run(main)


def test_what_was_replaced_leaves_the_engines_queue_when_it_is_rechecked(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[Dropped] = []

        class Follows(NoFollower):
            def left(self, tx: bytes, dropped: Dropped) -> None:
                told.append(dropped)

        async with serving(tmp_path, follower=Follows()) as (_, path):
            consensus, mempool = await Connection.open(path), await Connection.open(path)
            await consensus.ask(init_chain())
            old, new, dear = kv_tx("a", 0, "x", "1"), kv_tx("a", 0, "x", "2", fee=9), kv_tx("a", 0, "x", "3", fee=10)
            assert await mempool.ask(wire.RequestCheckTx(old)) == wire.ResponseCheckTx()
            assert await mempool.ask(wire.RequestCheckTx(new)) == wire.ResponseCheckTx()
            refused = await mempool.ask(wire.RequestCheckTx(kv_tx("a", 0, "x", "4", fee=9)))
            assert isinstance(refused, wire.ResponseCheckTx) and refused.code == NO_ROOM
            error = comet_desk._no_room(refused.log)  # what the RPC says of it
            assert error.code == "fee_too_low_to_replace" and error.hint == "offer at least 10 to replace it"
            assert status_of(error) == 403
            offer = wire.RequestPrepareProposal(1_000_000, (old, new), 1, time_of(1), ADDRESS)
            assert await consensus.ask(offer) == wire.ResponsePrepareProposal((b"!proposer 1", new))
            assert await mempool.ask(wire.RequestCheckTx(dear)) == wire.ResponseCheckTx()
            await make_foreign_block(consensus, 1)  # without any of them; then the engine rechecks
            codes = []
            for tx in (old, new, dear):
                answer = await mempool.ask(wire.RequestCheckTx(tx, wire.CheckTxType.RECHECK))
                assert isinstance(answer, wire.ResponseCheckTx)
                codes.append(answer.code)
            assert codes == [NO_ROOM, NO_ROOM, 0] and [gone.code for gone in told] == ["replaced", "replaced"]
            # what the engine does not recheck is not there any more
            await make_foreign_block(consensus, 2)
            last = await consensus.ask(wire.RequestPrepareProposal(1_000_000, (), 3, time_of(3), ADDRESS))
            assert last == wire.ResponsePrepareProposal((b"!proposer 3", dear))
            await make_foreign_block(consensus, 3)
            last = await consensus.ask(wire.RequestPrepareProposal(1_000_000, (), 4, time_of(4), ADDRESS))
            assert last == wire.ResponsePrepareProposal((b"!proposer 4",))

    run(main)


class Accepting(CometClient):
    """An engine that takes whatever it is given; what it says of it is played by the test."""

    async def submit(self, tx: bytes) -> tuple[int, str]:
        return 0, ""


def test_who_waits_for_what_left_the_engines_queue_is_told_until_it_is_offered_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with Accepting(tmp_path / "rpc.sock") as client:
            desk = comet_desk.CometDesk(client, make_genesis(), b"", keep_heights=8, tick_ms=1_000)
            await desk._read_back(0)  # there is nothing before this run
            async with serving(tmp_path, follower=desk) as (_, path):
                consensus, mempool = await Connection.open(path), await Connection.open(path)
                await consensus.ask(init_chain())
                old, new = kv_tx("a", 1, "x", "1"), kv_tx("a", 1, "x", "2", fee=9)  # both wait for nonce 0
                waiting = asyncio.create_task(desk.wait_committed(tx_id(old)))
                for tx in (old, new):
                    assert await mempool.ask(wire.RequestCheckTx(tx)) == wire.ResponseCheckTx()
                await make_foreign_block(consensus, 1)  # without any of them; then the engine rechecks
                await mempool.ask(wire.RequestCheckTx(old, wire.CheckTxType.RECHECK))
                with pytest.raises(RefusedError) as told:
                    await waiting
                assert told.value.code == "tx_replaced"
                with pytest.raises(RefusedError):  # also of one who asks too late
                    await desk.wait_committed(tx_id(old))
                assert (await desk.submit(old)).code == 0  # it waits again: what was said holds no more
                again = asyncio.create_task(desk.wait_committed(tx_id(old)))
                final = wire.RequestFinalizeBlock((b"!proposer 2", old), b"", 2, time_of(2), ADDRESS)
                await consensus.ask(final)
                await consensus.ask(wire.RequestCommit())
                told_now = await again
                assert (told_now.height, told_now.code) == (2, 2)  # a block holds it, where it is too early
                assert (await desk.submit(old)).code == 0
                with pytest.raises(TimeoutError):  # this is no answer to whoever offers it again
                    await asyncio.wait_for(desk.wait_committed(tx_id(old)), 0.05)

    run(main)


def test_a_strangers_or_markless_block_is_rejected(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (server, path):
            consensus = await Connection.open(path)
            await consensus.ask(init_chain())
            rejected = wire.ResponseProcessProposal(wire.Status.REJECT)
            mark = b"!proposer 1"
            assert await consensus.ask(wire.RequestProcessProposal((mark,), 1, time_of(1), bytes(20))) == rejected
            assert await consensus.ask(wire.RequestProcessProposal((b"x",), 1, time_of(1), ADDRESS)) == rejected
            junk = wire.RequestProcessProposal((mark, *[b"j"] * 200_000), 1, time_of(1), ADDRESS)
            assert isinstance(await consensus.ask(junk), wire.ResponseProcessProposal)
            assert server.halted is None

    run(main)


def test_block_times_are_whole_milliseconds_that_always_grow(tmp_path: Path) -> None:
    async def main() -> None:
        app = Timed(tmp_path)
        async with serving(tmp_path, app) as (_, path):
            consensus = await Connection.open(path)
            await consensus.ask(init_chain())
            second = GENESIS_MS // 1_000 + 1
            given = [
                (0, 0),
                (second, 100),
                (second, 900_000),
                (second, 1_500_000),
                (second, 1_999_999),
                (second + 1, 0),
            ]
            for height, (seconds, nanos) in enumerate(given, 1):
                moment = Timestamp(seconds, nanos) if seconds else Timestamp.from_ms(GENESIS_MS)
                await make_block(consensus, height, time=moment)
        start = second * 1_000
        assert app.times[1:] == [GENESIS_MS, start, start + 1, start + 2, start + 3, start + 1_000]

    run(main)


def test_another_genesis_halts_with_the_reason(tmp_path: Path) -> None:
    async def main() -> None:
        for number, request in enumerate((init_chain(chain_id="kv-2"), init_chain(b'{"a":1}'), init_chain(b"{"))):
            folder = tmp_path / str(number)
            folder.mkdir()
            async with serving(folder) as (server, path):
                connection = await Connection.open(path)
                answer = await connection.ask(request)
                assert isinstance(answer, wire.ResponseException)
                assert "another genesis" in answer.error
                assert (await server.wait_halted()).code == "other_genesis"

    run(main)


def test_a_full_disk_is_told_and_nothing_is_answered_afterwards(tmp_path: Path) -> None:
    class Full(KvApplication):
        def commit(self) -> abci.CommitResponse:
            if self.state.height >= 1:
                raise storage_full(tmp_path)
            return super().commit()

    async def main() -> None:
        async with serving(tmp_path, Full(tmp_path)) as (server, path):
            consensus, query = await Connection.open(path), await Connection.open(path)
            await consensus.ask(init_chain())
            await make_block(consensus, 1)
            await consensus.ask(wire.RequestFinalizeBlock((b"!proposer 2",), b"", 2, time_of(2), ADDRESS))
            answer = await consensus.ask(wire.RequestCommit())
            assert isinstance(answer, wire.ResponseException)
            assert "no space is left" in answer.error
            assert (await server.wait_halted()).code == "disk_full"
            assert isinstance(await query.ask(wire.RequestInfo()), wire.ResponseException)
            late = await Connection.open(path)
            assert await late.receive() is None

    run(main)


@pytest.mark.parametrize("where", ["check", "finalize"])
def test_a_defect_halts(tmp_path: Path, where: str) -> None:
    class Broken(KvApplication):
        def check_tx(self, request: abci.CheckTxRequest) -> abci.CheckTxResponse:
            raise ZeroDivisionError

        def finalize_block(self, request: abci.FinalizeBlockRequest) -> abci.FinalizeBlockResponse:
            raise ZeroDivisionError

    async def main() -> None:
        async with serving(tmp_path, Broken(tmp_path)) as (server, path):
            connection = await Connection.open(path)
            await connection.ask(init_chain())
            request: wire.Request = wire.RequestCheckTx(b"x")
            if where == "finalize":
                request = wire.RequestFinalizeBlock((), b"", 1, time_of(1), ADDRESS)
            answer = await connection.ask(request)
            assert isinstance(answer, wire.ResponseException)
            assert (await server.wait_halted()).code == "engine_halted"

    run(main)


@pytest.mark.parametrize("noise", [b"\xff" * 8, b"\x01\x00", b"\x02\xaa\x01", encode_varint(1 << 30)])
def test_noise_ends_with_an_exception(tmp_path: Path, noise: bytes) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (server, path):
            connection = await Connection.open(path)
            connection.send(wire.RequestEcho("before"))
            connection.writer.write(noise)
            assert await connection.receive() == wire.ResponseEcho("before")
            assert isinstance(await connection.receive(), wire.ResponseException)
            assert await connection.receive() is None
            assert (await server.wait_halted()).code in ("oversized", "undecodable", "unknown_message")

    run(main)


def test_an_engine_that_vanishes_and_returns_replays(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as (server, path):
            first = await Connection.open(path)
            await first.ask(init_chain())
            await make_block(first, 1)
            mark = (b"!proposer 2",)
            before = await first.ask(wire.RequestFinalizeBlock(mark, b"", 2, time_of(2), ADDRESS))
            first.send(wire.RequestCheckTx(b"x"))
            await first.close()  # before Commit
            second = await Connection.open(path)
            info = await second.ask(wire.RequestInfo())
            assert isinstance(info, wire.ResponseInfo)
            assert info.last_block_height == 1
            assert await second.ask(wire.RequestFinalizeBlock(mark, b"", 2, time_of(2), ADDRESS)) == before
            assert await second.ask(wire.RequestCommit()) == wire.ResponseCommit()
            assert server.halted is None

    run(main)


def test_a_connection_that_arrives_while_the_server_stops_is_closed(tmp_path: Path) -> None:
    async def main(turns: int) -> None:
        async with serving(tmp_path / str(turns)) as (server, path):
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(path))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await server.stop()

    for turns in range(8):
        (tmp_path / str(turns)).mkdir()
        run(lambda turns=turns: main(turns))  # type: ignore[misc]


def test_a_socket_of_an_earlier_run_is_replaced_and_a_long_path_refused(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "abci.sock").write_bytes(b"")
        async with serving(tmp_path) as (_, path):
            assert path.stat().st_mode & 0o077 == 0
        assert not path.exists()

    run(main)
    with pytest.raises(InvalidInputError) as error:
        AbciServer(None, Path("/tmp/" + "x" * 100))  # type: ignore[arg-type]
    assert error.value.code == "path_too_long"
