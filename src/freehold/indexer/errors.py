"""What can be wrong with an index; none of it concerns the ledger."""

from freehold.base.errors import FreeholdError, UnreachableError


class IndexUnavailableError(UnreachableError):
    """The index does not answer now: it is opening, its database is away, or its disk is full."""


class IndexDamagedError(FreeholdError):
    """What stands in the index cannot be read, or follows another chain: it is made anew from blocks."""


class IndexNewerError(FreeholdError):
    """The index was written by a later release; it is left alone."""
