"""Which snapshots stay: the newest, and those that a peer is fetching, for so long as the bound allows."""

import errno
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from freehold.consensus.snapshot_format import SNAPSHOT_FORMAT
from freehold.consensus.snapshot_store import LOADED_S, SnapshotFolder
from freehold.consensus.snapshot_writer import take_snapshot
from freehold.consensus.state_store import StateStore
from freehold.consensus.state_sync import SnapshotPlan, StateSync

KEEP = 2


def grown(folder: Path, heights: int) -> SnapshotFolder:
    """A folder with a snapshot of each height from 1; none pruned."""
    snapshots = SnapshotFolder(folder / "snapshots")
    with StateStore.open(folder / "state", 16) as state:
        for height in range(heights + 1):
            state.stage(height, {b"key": str(height).encode()})
            state.commit()
    for height in range(1, heights + 1):
        take_snapshot(folder / "state", snapshots, "chain", height=height, keep=heights)
    return snapshots


def test_a_snapshot_that_a_peer_fetches_outlives_newer_ones(tmp_path: Path) -> None:
    server = grown(tmp_path, 5)
    assert server.load(3, SNAPSHOT_FORMAT, 0) is not None
    assert server.load(2, SNAPSHOT_FORMAT + 1, 0) is None  # what is not there is not being fetched
    assert server.load(2, SNAPSHOT_FORMAT, 1) is None
    SnapshotFolder(server.path).prune(KEEP)  # the one who prunes is a process of its own
    assert server.heights() == [5, 4, 3]
    assert server.load(3, SNAPSHOT_FORMAT, 0) is not None


def test_it_goes_when_the_peer_has_asked_for_nothing_for_a_while(tmp_path: Path) -> None:
    server = grown(tmp_path, 5)
    server.load(3, SNAPSHOT_FORMAT, 0)
    long_ago = time.time() - LOADED_S - 1
    os.utime(server.path / "3" / "loaded", (long_ago, long_ago))
    server.prune(KEEP)
    assert server.heights() == [5, 4]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_peer_that_fetches_without_end_holds_no_more_than_as_many_again(tmp_path: Path, keep: int) -> None:
    server = grown(tmp_path, 8)
    for height in server.heights():
        server.load(height, SNAPSHOT_FORMAT, 0)
    server.prune(keep)
    assert server.heights() == list(range(8, 8 - 2 * keep, -1))


def test_what_another_thread_reads_meanwhile_stops_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = grown(tmp_path, 3)
    assert server.find(3) is not None

    class Heights(list[int]):
        def __contains__(self, height: object) -> bool:
            assert server.find(2) is not None  # as a peer that loads a chunk
            return super().__contains__(height)

    monkeypatch.setattr(server, "heights", lambda: Heights([3, 2, 1]))
    assert [metadata.height for _, metadata in server.listed()] == [3, 2, 1]


def test_a_snapshot_that_cannot_be_begun_is_counted_and_the_next_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process to be had: the blocks that it would have needed are not kept for it for ever."""
    start, tries = subprocess.Popen, list[int]()

    def scarce(*arguments: Any, **options: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", scarce)
    with StateStore.open(tmp_path / "state", 16) as state:
        sync = StateSync(state, tmp_path / "state", "chain", SnapshotPlan(interval=1))
        for height in (0, 1, 2):
            state.stage(height, {b"key": str(height).encode()})
            state.commit()
            if height:
                sync.committed()
                taker = sync._taker
                if taker is not None:
                    taker.join(30)
                assert sync.lowest_needed(9) == (9 if height == 1 else 2)
        assert sync.standing() == (2, 1)
        sync.close()
