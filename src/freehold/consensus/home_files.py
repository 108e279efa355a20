"""The small files of a ledger's home, read within a bound; a key that others may read is refused, as ssh does."""

import os
import stat
from pathlib import Path

from freehold.base.errors import InvalidInputError
from freehold.crypto.ed25519 import SEED_BYTES, PrivateKey


def read_file(path: Path, max_bytes: int, *, private: bool = False) -> bytes:
    """Read a file of a home.

    Args:
        path: of the file.
        max_bytes: that it may have.
        private: whether nobody but its owner may be able to read it.

    Raises:
        InvalidInputError: `missing_file`, `open_key`, `oversized`.
    """
    try:
        with path.open("rb") as file:
            if private and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise InvalidInputError(
                    f"{path} can be read by other users", code="open_key", hint=f"run: chmod 600 {path}"
                )
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror}",
            code="missing_file",
            hint="see --home; a validator's home is made with `freehold ledger init`",
        ) from None
    if len(data) > max_bytes:
        raise InvalidInputError(
            f"{path} has more than {max_bytes} bytes", code="oversized", hint="restore it from its backup or its maker"
        )
    return data


def read_key(path: Path) -> PrivateKey:
    """Read a private key's file: 32 raw bytes.

    Raises:
        InvalidInputError: it is missing, has not 32 bytes, or others may read it.
    """
    seed = read_file(path, SEED_BYTES, private=True)
    if len(seed) != SEED_BYTES:
        raise InvalidInputError(
            f"{path} holds {len(seed)} bytes, a key has {SEED_BYTES}",
            code="bad_key",
            hint="restore it from its backup; never make up a new one for the same genesis",
        )
    return PrivateKey.from_seed(seed)
