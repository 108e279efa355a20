"""Which snapshots stay: the newest, and those that a peer is fetching, for so long as the bound allows."""

import os
import time
from pathlib import Path

import pytest

from freehold.consensus.snapshot_format import SNAPSHOT_FORMAT
from freehold.consensus.snapshot_store import LOADED_S, SnapshotFolder
from freehold.consensus.snapshot_writer import take_snapshot
from freehold.consensus.state_store import StateStore

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
