"""Events of the ledger as text attributes: accounts as `G...`, other ids as hex, numbers in decimal."""

from typing import Any, Final

import msgspec

from freehold.base.decoders import msgpack_decoder
from freehold.base.errors import check
from freehold.base.limits import ID_BYTES
from freehold.crypto.strkey import encode_account
from freehold.indexer.records import BlockEvent
from freehold.ledger.events import Event

_ACCOUNTS: Final = frozenset({"sender", "to", "farm", "tenant", "owner", "challenger"})


def event_text(kind: str, data: bytes) -> BlockEvent:
    """Render an event that the ledger's application encoded.

    Args:
        kind: its tag.
        data: the encoded `freehold.ledger.events.Event`.

    Raises:
        InvariantError: the bytes are no event of the ledger.
    """
    try:
        event = msgpack_decoder(Event).decode(data)
    except msgspec.DecodeError as error:
        check(False, "block_event_decodes", kind=kind, error=str(error))
        raise
    return BlockEvent(kind, {name: _text(name, getattr(event, name)) for name in event.__struct_fields__})


def _text(name: str, value: Any) -> str:
    if isinstance(value, bytes):
        return encode_account(value) if name in _ACCOUNTS and len(value) == ID_BYTES else value.hex()
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
