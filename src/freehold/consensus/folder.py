"""The data folder of an engine, held by one process at a time."""

import fcntl
import os
from pathlib import Path
from typing import Self

from freehold.consensus.errors import FolderInUseError, StorageError


class FolderLock:
    """A lock that ends with the process, however it ends."""

    def __init__(self, folder: Path) -> None:
        """Take the lock, making the folder when it is missing.

        Raises:
            FolderInUseError: another engine holds it.
            StorageError: the folder cannot be used.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"the data folder {folder} cannot be used: {error}",
                code="storage_failed",
                hint="check the path and its owner",
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise FolderInUseError(
                f"another engine runs on {folder}",
                code="folder_in_use",
                hint="stop it first; two engines on one folder would sign against each other",
            ) from None

    def release(self) -> None:
        """Give the folder back."""
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
