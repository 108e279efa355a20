"""Variants of the daemon that restore, or serve who restores, otherwise than shipped; see `variant_daemon.py`.

A fault waits in `DIR/restore_fault` and strikes once; what was under way is then written to `DIR/restore_struck`.
"""

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Final

import msgspec
from validators import engine_pids, wait_gone

from freehold.consensus import application as abci
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.ledger_application import LedgerApplication
from freehold.consensus.snapshot_format import SNAPSHOT_FORMAT, chunk_hash
from freehold.consensus.snapshot_restore import Restore, Step
from freehold.consensus.snapshot_store import SnapshotFolder
from freehold.consensus.state_store import StateStore
from freehold.consensus.state_sync import StateSync

FAULT, STRUCK, BALLAST = "restore_fault", "restore_struck", "ballast"
LATER_FORMAT: Final = SNAPSHOT_FORMAT + 1
CHUNK_STEPS: Final = (
    "chunk",  # one has come, nothing of it is written
    "chunked",  # it is written, the engine not told
)
END_STEPS: Final = (
    "whole",  # the last one is written, the state not exchanged
    "restored",  # the state is exchanged, the engine not told
    "told",  # the engine asks for the height of the restored state, to take it over
    "first",  # the first block after it is executed, not committed
)


class Fault(msgspec.Struct, frozen=True):
    """What is to happen while a snapshot is restored.

    Attributes:
        who: `application` or `engine` dies by SIGKILL; `disk` becomes full.
        step: one of the above.
        chunk: its index, for the steps of a chunk.
        delay_ms: after the step; 0 for at once.
    """

    who: str
    step: str
    chunk: int = 0
    delay_ms: int = 0


class Struck(msgspec.Struct, frozen=True):
    """What was under way: `chunk` of `chunks` was in hand, of the snapshot of a height."""

    step: str
    chunk: int
    chunks: int
    height: int


class _Restoring:
    """A daemon's home, and how far its restore is."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.height = self.chunks = self.chunk = 0
        self.is_restored = False

    def apply(self, restore: Restore, index: int, chunk: bytes) -> Step:
        self.height, self.chunks, self.chunk = restore.metadata.height, len(restore.metadata.chunks), index
        self.strike("chunk")
        step = _APPLY(restore, index, chunk)
        self.strike("whole" if index + 1 == self.chunks else "chunked")
        return step

    def replace(self, state: StateStore, folder: Path) -> None:
        _REPLACE(state, folder)
        self.is_restored = True
        self.strike("restored")

    def strike(self, step: str) -> None:
        """Let the fault happen if it waits for this step."""
        path = self.home / FAULT
        try:
            fault = msgspec.json.decode(path.read_bytes(), type=Fault)
        except FileNotFoundError:
            return
        if fault.step != step or (step in CHUNK_STEPS and fault.chunk != self.chunk):
            return
        path.unlink()
        (self.home / STRUCK).write_bytes(msgspec.json.encode(Struck(step, self.chunk, self.chunks, self.height)))
        act = {"application": die, "engine": self.kill_engine, "disk": self.fill}[fault.who]
        if fault.delay_ms:
            threading.Timer(fault.delay_ms / 1_000, act).start()
        else:
            act()

    def kill_engine(self) -> None:
        own = OperatorHome(self.home)
        for pid in engine_pids(own):
            os.kill(pid, signal.SIGKILL)
        wait_gone(own)

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.home / BALLAST).open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4_096))


_APPLY, _REPLACE = Restore.apply, StateStore.replace


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def break_restores(home: Path) -> type[LedgerApplication]:
    """Have faults strike while this daemon restores; gives its application."""
    restoring = _Restoring(home)
    Restore.apply = lambda restore, index, chunk: restoring.apply(restore, index, chunk)
    StateStore.replace = lambda state, folder: restoring.replace(state, folder)

    class Breaking(LedgerApplication):
        def info(self) -> abci.InfoResponse:
            if restoring.is_restored:
                restoring.strike("told")
            return super().info()

        def finalize_block(self, request: abci.FinalizeBlockRequest) -> abci.FinalizeBlockResponse:
            response = super().finalize_block(request)
            if restoring.is_restored:
                restoring.strike("first")
            return response

    return Breaking


def offer_later_format() -> None:
    """Serve snapshots as a later release would: under a format that this one does not know."""
    listed, load = StateSync.listed, SnapshotFolder.load

    def later(self: StateSync) -> tuple[abci.Snapshot, ...]:
        return tuple(msgspec.structs.replace(one, format=LATER_FORMAT) for one in listed(self))

    def load_later(self: SnapshotFolder, height: int, format_: int, index: int) -> bytes | None:
        return load(self, height, SNAPSHOT_FORMAT, index) if format_ == LATER_FORMAT else None

    StateSync.listed, SnapshotFolder.load = later, load_later


def believe_chunks() -> None:
    """Take every chunk as if its hash were the one in the metadata; the canary of poisoned chunks."""

    def apply(self: Restore, index: int, chunk: bytes) -> Step:
        hashes = list(self.metadata.chunks)
        hashes[index] = chunk_hash(chunk)
        self.metadata = msgspec.structs.replace(self.metadata, chunks=hashes)
        return _APPLY(self, index, chunk)

    Restore.apply = apply
