"""The one rule by which a validator never contradicts itself: what it signed last is on disk before it signs.

The decision is pure (`decide`); `SignerState` keeps the record in a file of its own, replaced atomically and synced
with its folder, so that it survives even when the block store is restored from an older copy.
Spec: docs/spec/embedded-engine.md. Source: CometBFT privval/file.go (`CheckHRS`, `signVote`).
"""

from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import CodecError, LocalProtocolError
from freehold.consensus.errors import StorageDamagedError, StorageError
from freehold.consensus.storage import write_file

FORMAT: Final = 1
MAX_FILE_BYTES: Final = 4096


class Signer(Protocol):
    """A validator's key; `freehold.crypto.ed25519.PrivateKey` is one."""

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """Sign; the same message gives the same 64 bytes."""


class LastSigned(Record):
    """The newest vote that was, or was about to be, signed."""

    format: int
    height: int
    round: int
    block_hash: bytes
    time_ms: int  # of the vote
    sign_bytes: bytes


class Decision(Enum):
    """What to do with a wish to sign."""

    SIGN = "sign"  # newer than anything signed: record, then sign
    REPEAT = "repeat"  # the very vote on record: sign its bytes again


def decide(last: LastSigned | None, wish: LastSigned) -> Decision:
    """Decide whether a vote may be signed.

    Args:
        last: the vote on record.
        wish: the vote that is to be signed.

    Raises:
        LocalProtocolError: it would contradict or precede the vote on record.
    """
    if last is None or (wish.height, wish.round) > (last.height, last.round):
        return Decision.SIGN
    same_place = (wish.height, wish.round) == (last.height, last.round)
    if same_place and wish.block_hash == last.block_hash and wish.sign_bytes == last.sign_bytes:
        return Decision.REPEAT
    raise LocalProtocolError(
        f"refused to sign block {wish.block_hash.hex()[:16]} at height {wish.height}: block"
        f" {last.block_hash.hex()[:16]} at height {last.height} was signed before",
        code="would_equivocate",
        hint="the data folder is older than the signer's record, or runs twice: restore the newest copy",
    )


class SignerState:
    """The record on disk.

    Attributes:
        last: the vote on record, None before the first.
    """

    def __init__(self, path: Path) -> None:
        """Read the record.

        Args:
            path: its file; it need not exist.

        Raises:
            StorageDamagedError: the file is there but not whole.
            StorageError: it cannot be read.
        """
        self._path = path
        self.last: LastSigned | None = None
        try:
            data = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise StorageError(f"the signer's record {path} cannot be read: {error}", code="storage_failed") from error
        if data:
            self.last = _decode(path, data)

    def record(self, wish: LastSigned) -> Decision:
        """Decide, and have a new vote on disk when this returns.

        Raises:
            LocalProtocolError: the vote may not be signed.
            StorageError: it could not be recorded; it must not be signed.
        """
        decision = decide(self.last, wish)
        if decision is Decision.SIGN:
            body = encode(wish)
            write_file(self._path, sha256(body).digest() + body)
            self.last = wish
        return decision


def _decode(path: Path, data: bytes) -> LastSigned:
    body = data[32:]
    try:
        last = decode(body, LastSigned, max_bytes=MAX_FILE_BYTES)
    except CodecError:
        last = None
    if last is None or last.format != FORMAT or sha256(body).digest() != data[:32]:
        raise StorageDamagedError(
            f"the signer's record {path} is damaged",
            code="signer_record_damaged",
            hint="do not delete it while the chain lives: restore it, or another block could be signed at its height",
        )
    return last
