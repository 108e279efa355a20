"""Errors of the engine and its storage; each halts the node or refuses one request, as its class says."""

from freehold.base.errors import FreeholdError, RefusedError


class StorageError(FreeholdError):
    """The data folder cannot be read or written as asked; the node stops, nothing more is acknowledged."""


class StorageFullError(StorageError):
    """No room is left on the disk, or in the largest map that the store may grow to."""


class StorageDamagedError(StorageError):
    """What is on disk contradicts itself: a root, a version, a missing record."""


class FolderInUseError(StorageError):
    """Another process holds the data folder."""


class HeightUnavailableError(RefusedError):
    """The height asked for is not kept any more (`height_pruned`) or not made yet (`height_unknown`)."""


class EngineStoppedError(FreeholdError):
    """The engine has halted or is closing; nothing is accepted."""


class MempoolFullError(RefusedError):
    """No room for this transaction now."""


def storage_full(path: object, cause: object = "") -> StorageFullError:
    """Build the error of a full disk under a path, with the system's own words when there are any."""
    words = f" ({cause})" if cause else ""
    return StorageFullError(
        f"no space is left for {path}: nothing was acknowledged, the node stops{words}",
        code="disk_full",
        hint="free space on that disk, then start the node again; it goes on where it stopped, a restore begins anew",
    )
