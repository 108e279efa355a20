"""State sync's conversation over the application's socket, with the engine's part played: offers, chunks, liars."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from abci_peer import Connection, init_chain, make_block
from kv_application import KvApplication, kv_tx
from test_abci_server import serving

from freehold.consensus import application as abci
from freehold.consensus import snapshot_restore
from freehold.consensus.abci import message_parts as parts
from freehold.consensus.abci import messages as wire
from freehold.consensus.errors import StorageFullError, storage_full
from freehold.consensus.snapshot_format import decode_metadata, encode_metadata, snapshot_hash
from freehold.consensus.state_store import StateStore
from freehold.consensus.state_sync import SnapshotPlan, StateSync, recover

INTERVAL = 4
VALUE = "v" * 2_000
PEER, LIAR = b"a" * 40, b"b" * 40
Result = abci.ChunkResult

# see test_abci_server
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


async def make_snapshots(connection: Connection, blocks: int) -> tuple[parts.Snapshot, list[bytes]]:
    """A chain with snapshots at every fourth height; gives the newest one and the app hash after each height."""
    await connection.ask(init_chain())
    roots = [b""]
    for height in range(1, blocks + 1):
        txs = [kv_tx(f"s{height}-{n}", 0, f"k{height}-{n}", VALUE) for n in range(12)]
        roots.append(await make_block(connection, height, *txs))
        if height % INTERVAL == 0:
            newest = await wait_for(connection, height)
    return newest, roots


async def wait_for(connection: Connection, height: int) -> parts.Snapshot:
    for _ in range(400):
        answer = await connection.ask(wire.RequestListSnapshots())
        assert isinstance(answer, wire.ResponseListSnapshots)
        if answer.snapshots and answer.snapshots[0].height == height:
            return answer.snapshots[0]
        await asyncio.sleep(0.05)
    raise AssertionError("no snapshot was taken")


async def load(connection: Connection, snapshot: parts.Snapshot) -> list[bytes]:
    chunks = []
    for index in range(snapshot.chunks):
        answer = await connection.ask(wire.RequestLoadSnapshotChunk(snapshot.height, snapshot.format, index))
        assert isinstance(answer, wire.ResponseLoadSnapshotChunk)
        chunks.append(answer.chunk)
    return chunks


async def offer(connection: Connection, snapshot: parts.Snapshot, app_hash: bytes) -> int:
    answer = await connection.ask(wire.RequestOfferSnapshot(snapshot, app_hash))
    assert isinstance(answer, wire.ResponseOfferSnapshot)
    return answer.result


async def apply(connection: Connection, index: int, chunk: bytes, sender: bytes = PEER) -> wire.Response:
    answer = await connection.ask(wire.RequestApplySnapshotChunk(index, chunk, sender))
    assert answer is not None
    return answer


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def accepted() -> wire.Response:
    return wire.ResponseApplySnapshotChunk(Result.ACCEPT)


def renamed(snapshot: parts.Snapshot, **changes: object) -> parts.Snapshot:
    """An offer whose metadata says something else, with a name that fits it."""
    data = encode_metadata(msgspec.structs.replace(decode_metadata(snapshot.metadata), **changes))
    return msgspec.structs.replace(snapshot, metadata=data, hash=snapshot_hash(data))


def test_a_new_node_restores_and_goes_on_though_a_peer_lies(tmp_path: Path) -> None:
    async def main() -> None:
        source = KvApplication(tmp_path / "a", snapshots=SnapshotPlan(INTERVAL, 2), keep_blocks=1)
        target = KvApplication(tmp_path / "b")
        async with AsyncExitStack() as stack:
            _, path = await stack.enter_async_context(serving(tmp_path / "a", source))
            _, new_path = await stack.enter_async_context(serving(tmp_path / "b", target))
            engine, new = await Connection.open(path), await Connection.open(new_path)
            snapshot, roots = await make_snapshots(engine, 10)
            root = roots[8]
            chunks = await load(engine, snapshot)
            assert await offer(new, snapshot, root) == abci.OfferResult.ACCEPT
            poisoned = chunks[0][:-1] + bytes([chunks[0][-1] ^ 1])
            refused = wire.ResponseApplySnapshotChunk(Result.RETRY, (0,), (LIAR,))
            assert await apply(new, 0, poisoned, LIAR) == refused
            longest = bytes(16_000_000 - 100)  # the engine takes no longer one of a peer
            assert await apply(new, 0, longest, LIAR) == refused
            assert target.state.height == 0
            for index, chunk in enumerate(chunks):
                assert await apply(new, index, chunk) == accepted()
            info = await new.ask(wire.RequestInfo())
            assert isinstance(info, wire.ResponseInfo)
            assert (info.last_block_height, info.last_block_app_hash) == (8, root)
            # both make the blocks that follow, and agree; the same store serves reads and proofs
            txs = [kv_tx(f"s9-{n}", 0, f"k9-{n}", VALUE) for n in range(12)]
            assert await make_block(new, 9, *txs) == roots[9]
            assert dict(target.state.items())[b"kv/k8-3"] == VALUE.encode()
            assert not (tmp_path / "b" / "state.restoring").exists()
            assert source.sync.lowest_needed(10) == source.sync.folder.heights()[-1] == 4

    for name in "ab":
        (tmp_path / name).mkdir()
    run(main)


def test_offers_that_are_refused_and_why(tmp_path: Path) -> None:
    async def main() -> None:
        source = KvApplication(tmp_path / "a", snapshots=SnapshotPlan(INTERVAL, 2))
        target = KvApplication(tmp_path / "b")
        async with AsyncExitStack() as stack:
            _, path = await stack.enter_async_context(serving(tmp_path / "a", source))
            server, new_path = await stack.enter_async_context(serving(tmp_path / "b", target))
            engine, new = await Connection.open(path), await Connection.open(new_path)
            snapshot, (*_, root) = await make_snapshots(engine, 4)
            other_root = bytes([root[0] ^ 1]) + root[1:]
            replace = msgspec.structs.replace
            kinds = decode_metadata(snapshot.metadata).kinds
            refused = {
                abci.OfferResult.REJECT_FORMAT: [replace(snapshot, format=2), replace(snapshot, format=0)],
                abci.OfferResult.REJECT_SENDER: [
                    renamed(snapshot, chain_id="kv-2"),
                    renamed(snapshot, height=5),
                    renamed(snapshot, app_hash=other_root),
                    renamed(snapshot, kinds=bytes([1 - kinds[0]]) + kinds[1:]),
                    replace(snapshot, metadata=snapshot.metadata + b"x"),
                    replace(snapshot, metadata=b""),
                    replace(snapshot, hash=b"h" * 5_000),
                    replace(snapshot, chunks=snapshot.chunks + 1),
                    replace(snapshot, height=(1 << 64) - 1),
                ],
            }
            for result, offers in refused.items():
                for one in offers:
                    assert await offer(new, one, root) == result, one
            assert await offer(new, snapshot, other_root) == abci.OfferResult.REJECT_SENDER
            assert await apply(new, 0, b"x") == wire.ResponseApplySnapshotChunk(Result.ABORT)
            assert server.halted is None
            assert not (tmp_path / "b" / "state.restoring").exists()
            # a node that is further refuses an older state
            for height in range(5, 8):
                await make_block(engine, height)
            assert await offer(engine, snapshot, root) == abci.OfferResult.REJECT
            missing = wire.ResponseLoadSnapshotChunk()
            for ask in ((4, 1, 999), (4, 2, 0), (5, 1, 0), (1 << 63, 1, 0)):
                assert await engine.ask(wire.RequestLoadSnapshotChunk(*ask)) == missing
            damaged = tmp_path / "a" / "snapshots" / "4" / "chunk-000000"
            damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
            assert await engine.ask(wire.RequestLoadSnapshotChunk(4, 1, 0)) == missing

    for name in "ab":
        (tmp_path / name).mkdir()
    run(main)


def test_only_the_newest_snapshots_are_kept_and_blocks_since_the_oldest(tmp_path: Path) -> None:
    async def main() -> None:
        app = KvApplication(tmp_path, snapshots=SnapshotPlan(INTERVAL, 2), keep_blocks=1)
        async with serving(tmp_path, app) as (_, path):
            engine = await Connection.open(path)
            await engine.ask(init_chain())
            for height in range(1, 14):
                await make_block(engine, height)
                if height % INTERVAL == 0:
                    await wait_for(engine, height)
            await asyncio.to_thread(app.sync.close)  # the last child has let older ones go
            assert app.sync.folder.heights() == [12, 8]
            assert app.sync.lowest_needed(13) == 8

    run(main)


CHILD = """
import os, signal, sys
from pathlib import Path
from freehold.consensus import storage
from freehold.consensus.snapshot_restore import Restore
from freehold.consensus.snapshot_store import SnapshotFolder
from freehold.consensus.state_store import StateStore

source, target, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

renames = []
real = Path.rename
def rename(self, other):
    if point == f"before-rename-{len(renames)}":
        die()
    renames.append(other)
    return real(self, other)

with StateStore.open(target / "state", 4) as state:
    folder = SnapshotFolder(source / "snapshots")
    metadata = folder.listed()[0][1]
    restore = Restore(target / "state", metadata)
    for index in range(len(metadata.chunks)):
        if point == f"chunk-{index}":
            die()
        restore.apply(index, folder.load(metadata.height, 1, index))
    Path.rename = rename
    state.replace(restore.folder)
    if point == "after":
        die()
"""


@pytest.mark.parametrize(
    ("point", "height"), [("chunk-0", 0), ("before-rename-0", 0), ("before-rename-1", 0), ("after", 4)]
)
def test_a_kill_during_a_restore_leaves_nothing_or_all(tmp_path: Path, point: str, height: int) -> None:
    source, target = tmp_path / "a", tmp_path / "b"

    async def main() -> None:
        app = KvApplication(source, snapshots=SnapshotPlan(INTERVAL, 2))
        async with serving(source, app) as (_, path):
            await make_snapshots(await Connection.open(path), 4)

    source.mkdir()
    run(main)
    done = subprocess.run([sys.executable, "-c", CHILD, str(source), str(target), point], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    recover(target / "state")
    with StateStore.open(target / "state", 4) as state:
        assert state.height == height
    assert names(target) == ["state"]


def test_a_full_disk_during_a_restore_leaves_the_state_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        app = KvApplication(tmp_path / "a", snapshots=SnapshotPlan(INTERVAL, 2))
        async with serving(tmp_path / "a", app) as (_, path):
            engine = await Connection.open(path)
            snapshot, (*_, root) = await make_snapshots(engine, 4)
            chunks = await load(engine, snapshot)
        real = snapshot_restore.Storage

        class Full(real):  # type: ignore[misc, valid-type]
            def write(self, *_: object) -> None:
                raise storage_full(self.path)

        with StateStore.open(tmp_path / "b" / "state", 4) as state:
            sync = StateSync(state, tmp_path / "b" / "state", "kv-1")
            offered = abci.Snapshot(**msgspec.structs.asdict(snapshot))
            with monkeypatch.context() as patch:
                patch.setattr(snapshot_restore, "Storage", Full)
                assert sync.offer(offered, root) == abci.OfferResult.ACCEPT
                with pytest.raises(StorageFullError):
                    sync.apply(0, chunks[0], "peer")
            assert (state.height, names(tmp_path / "b")) == (0, ["state"])
            # with room again, the same offer is restored
            assert sync.offer(offered, root) == abci.OfferResult.ACCEPT
            assert {sync.apply(index, chunk, "peer").result for index, chunk in enumerate(chunks)} == {Result.ACCEPT}
            assert state.height == 4

    (tmp_path / "a").mkdir()
    run(main)
