"""A tenant's mailbox on a member: evidence and duty leaves of R epochs, so that a dead node takes no proof along."""

import os
import shutil
import threading
import time
from collections.abc import Set as AbstractSet
from pathlib import Path

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import CodecError
from freehold.base.limits import MAX_EVIDENCE_LEAF_BYTES, MAX_WITNESSES
from freehold.protocol.evidence import ProvenDuty, ProvenEvidence

MAX_PUSHERS = MAX_WITNESSES + 5
_MAX_FILE_BYTES = MAX_EVIDENCE_LEAF_BYTES * MAX_PUSHERS * 2


class _Leaves(Record):
    version: int
    evidence: list[ProvenEvidence]
    duties: list[ProvenDuty]


class Mailboxes:
    """One folder per lease, one file per epoch, written whole; bounded in files and bytes."""

    def __init__(self, folder: Path, keep_epochs: int) -> None:
        self._folder = folder
        self._keep_epochs = keep_epochs
        self._adding = threading.Lock()  # leaves of one epoch arrive from several nodes at once
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def add(self, lease: bytes, epoch: int, evidence: list[ProvenEvidence], duties: list[ProvenDuty]) -> None:
        """Keep leaves of an epoch beside those that are there; repeats and what exceeds the bound are dropped."""
        with self._adding:
            self._add(lease, epoch, evidence, duties)

    def _add(self, lease: bytes, epoch: int, evidence: list[ProvenEvidence], duties: list[ProvenDuty]) -> None:
        kept = self._read(lease, epoch)
        known = {encode(leaf) for leaf in [*kept.evidence, *kept.duties]}
        merged = _Leaves(
            1,
            (kept.evidence + [leaf for leaf in evidence if encode(leaf) not in known])[:MAX_PUSHERS],
            (kept.duties + [leaf for leaf in duties if encode(leaf) not in known])[:MAX_PUSHERS],
        )
        data = encode(merged)
        if len(data) > _MAX_FILE_BYTES:
            return
        folder = self._folder / lease.hex()
        folder.mkdir(mode=0o700, exist_ok=True)
        temporary = folder / f".{epoch}.new"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / str(epoch))
        self._prune(folder, epoch)

    def read(self, lease: bytes, first: int, last: int) -> tuple[list[ProvenEvidence], list[ProvenDuty]]:
        """Leaves of epochs first..last."""
        evidence: list[ProvenEvidence] = []
        duties: list[ProvenDuty] = []
        for epoch in range(first, last + 1):
            leaves = self._read(lease, epoch)
            evidence += leaves.evidence
            duties += leaves.duties
        return evidence, duties

    def remove(self, lease: bytes) -> None:
        """Forget a lease."""
        shutil.rmtree(self._folder / lease.hex(), ignore_errors=True)

    def sweep(self, leases: AbstractSet[bytes], older_than_s: float) -> None:
        """Remove what belongs to none of these leases and has not changed for so long."""
        names = {lease.hex() for lease in leases}
        for folder in self._folder.iterdir():
            if folder.name not in names and time.time() - folder.stat().st_mtime > older_than_s:
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self, lease: bytes, epoch: int) -> _Leaves:
        try:
            return decode((self._folder / lease.hex() / str(epoch)).read_bytes(), _Leaves, max_bytes=_MAX_FILE_BYTES)
        except (FileNotFoundError, CodecError):
            return _Leaves(1, [], [])

    def _prune(self, folder: Path, epoch: int) -> None:
        for path in folder.iterdir():
            if path.name.isdigit() and int(path.name) <= epoch - self._keep_epochs:
                path.unlink(missing_ok=True)
