"""How rules read and write the state: typed records over a view of bytes, in a transaction that may be dropped.

Invariants: a refused transaction changes nothing; a record is decoded once per block; what the state holds was written
by these rules, so it is not checked for canonical form again. Spec: docs/spec/state.md.
"""

from typing import Any, Final, Protocol, TypeVar, cast

import msgspec

from freehold.base.codec import Record, encode
from freehold.base.decoders import msgpack_decoder
from freehold.base.errors import check

R = TypeVar("R", bound=Record)

_MISSING: Final = object()


class View(Protocol):
    """A map of committed state."""

    def get(self, key: bytes) -> bytes | None:
        """Give the value of a key, or None."""
        ...


def decode_record(data: bytes, kind: type[R]) -> R:
    """Decode a value that the rules themselves wrote.

    Raises:
        InvariantError: the state does not hold what its key promises.
    """
    try:
        return cast(R, msgpack_decoder(kind).decode(data))
    except msgspec.DecodeError as error:
        check(False, "state_record_decodes", kind=kind.__name__, error=str(error))
        raise


def read(view: View, key: bytes, kind: type[R]) -> R | None:
    """Read one record from a view."""
    data = view.get(key)
    return None if data is None else decode_record(data, kind)


class Overlay:
    """Writes above a view, in two layers: the block's, and those of the transaction that is being executed."""

    __slots__ = ("_block", "_clean", "_tx", "_view")

    def __init__(self, view: View) -> None:
        self._view = view
        self._clean: dict[bytes, Record | None] = {}
        self._block: dict[bytes, Record | None] = {}
        self._tx: dict[bytes, Record | None] = {}

    def get(self, key: bytes, kind: type[R]) -> R | None:
        """Give the record at a key as the rules see it now."""
        found: Any = self._tx.get(key, _MISSING)
        if found is not _MISSING:
            return cast("R | None", found)
        found = self._block.get(key, _MISSING)
        if found is not _MISSING:
            return cast("R | None", found)
        found = self._clean.get(key, _MISSING)
        if found is not _MISSING:
            return cast("R | None", found)
        data = self._view.get(key)
        record = None if data is None else decode_record(data, kind)
        self._clean[key] = record
        return record

    def need(self, key: bytes, kind: type[R]) -> R:
        """Give a record that must be there.

        Raises:
            InvariantError: it is not.
        """
        record = self.get(key, kind)
        if record is None:
            check(False, "state_record_exists", key=key.hex(), kind=kind.__name__)
        return cast(R, record)

    def put(self, key: bytes, record: Record) -> None:
        """Write a record."""
        self._tx[key] = record

    def delete(self, key: bytes) -> None:
        """Remove a record."""
        self._tx[key] = None

    def commit(self) -> None:
        """Keep the transaction's writes."""
        self._block.update(self._tx)
        self._tx.clear()

    def rollback(self) -> None:
        """Drop the transaction's writes."""
        self._tx.clear()

    def changes(self) -> dict[bytes, bytes | None]:
        """Give the committed writes of the block as bytes; None removes a key that the view holds."""
        changes: dict[bytes, bytes | None] = {}
        for key, record in self._block.items():
            if record is not None:
                changes[key] = encode(record)
            elif self._view.get(key) is not None:
                changes[key] = None
        return changes
