"""A secret encrypted under a passphrase, as one line of JSON: the wallet file.

Argon2id makes a key of the passphrase, XChaCha20-Poly1305 seals the secret with the whole header (format, KDF and its
parameters, salt) as associated data. On reading, the parameters are bounded before any memory is taken, so that a
hostile file cannot ask for gigabytes or hours.
Spec: docs/spec/keys.md.
"""

import unicodedata
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from msgspec import Meta, Struct

from freehold.base.decoders import json_decoder
from freehold.base.errors import InvalidInputError, NotVerifiedError
from freehold.base.limits import KIB
from freehold.crypto import aead
from freehold.crypto.entropy import random_bytes

FORMAT: Final = "freehold-keystore/1"
MAX_BLOB_BYTES: Final = 64 * KIB
MAX_SECRET_BYTES: Final = 16 * KIB
MAX_PASSPHRASE_BYTES: Final = 1_024
SALT_BYTES: Final = 16
MAX_MEMORY_KIB: Final = 256 * 1024
MAX_ITERATIONS: Final = 10
MAX_LANES: Final = 4


class Kdf(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of Argon2id; the default costs 64 MiB and some 0.2 s.

    Attributes:
        memory_kib: memory in KiB.
        iterations: passes over it.
        lanes: degree of parallelism.
    """

    memory_kib: Annotated[int, Meta(ge=64, le=MAX_MEMORY_KIB)] = 64 * 1024
    iterations: Annotated[int, Meta(ge=1, le=MAX_ITERATIONS)] = 3
    lanes: Annotated[int, Meta(ge=1, le=MAX_LANES)] = 1
    name: str = "argon2id"


STRONG: Final = Kdf()
WEAK_FOR_TESTS: Final = Kdf(memory_kib=64, iterations=1)  # never for a secret that matters


class _Header(Struct, frozen=True, forbid_unknown_fields=True):
    kdf: Kdf
    salt: Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
    format: str = FORMAT
    cipher: str = "xchacha20-poly1305"


class _Blob(Struct, frozen=True, forbid_unknown_fields=True):
    header: _Header
    sealed: bytes


_json = msgspec.json.Encoder(order="sorted")
_blob = json_decoder(_Blob)


def seal_keystore(secret: bytes, passphrase: str, *, kdf: Kdf = STRONG) -> bytes:
    """Encrypt a secret.

    Args:
        secret: 1 to 16 KiB.
        passphrase: 1 to 1,024 bytes of UTF-8.
        kdf: cost of guessing; tests alone lower it.

    Returns:
        JSON text of one line, ending with a newline; to be written with mode 0600.

    Raises:
        InvalidInputError: the secret is empty or too long (`bad_secret`), or the passphrase is (`bad_passphrase`).
    """
    if not 1 <= len(secret) <= MAX_SECRET_BYTES:
        raise InvalidInputError(f"a secret of {len(secret)} bytes cannot be kept", code="bad_secret")
    header = _Header(kdf=kdf, salt=random_bytes(SALT_BYTES))
    sealed = aead.seal(_key(passphrase, header), secret, _json.encode(header))
    return _json.encode(_Blob(header, sealed)) + b"\n"


def open_keystore(blob: bytes, passphrase: str) -> bytes:
    """Decrypt what `seal_keystore` made.

    Raises:
        InvalidInputError: not a keystore or parameters out of bounds (`bad_keystore`); another passphrase, or a
            changed byte, which cannot be told apart (`bad_passphrase`).
    """
    header, sealed = _parse(blob)
    try:
        return aead.unseal(_key(passphrase, header), sealed, _json.encode(header))
    except NotVerifiedError:
        raise InvalidInputError(
            "the passphrase is wrong, or the wallet file was changed",
            code="bad_passphrase",
            hint="try again; without the passphrase only the mnemonic brings the keys back",
        ) from None


def _parse(blob: bytes) -> tuple[_Header, bytes]:
    hint = "use the file that `freehold wallet new` wrote, or restore it from the mnemonic"
    if len(blob) > MAX_BLOB_BYTES:
        raise InvalidInputError(f"{len(blob)} bytes are too many for a wallet file", code="bad_keystore", hint=hint)
    try:
        value = _blob.decode(blob)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInputError("not a wallet file, or damaged", code="bad_keystore", hint=hint) from None
    header = value.header
    if (header.format, header.cipher, header.kdf.name) != (FORMAT, "xchacha20-poly1305", "argon2id"):
        raise InvalidInputError(
            "a wallet file of a form that this version does not know",
            code="bad_keystore",
            hint="update freehold, or restore from the mnemonic",
        )
    return header, value.sealed


def _key(passphrase: str, header: _Header) -> bytes:
    raw = unicodedata.normalize("NFKD", passphrase).encode("utf-8", "surrogatepass")
    if not 1 <= len(raw) <= MAX_PASSPHRASE_BYTES:
        raise InvalidInputError(
            "an empty passphrase protects nothing" if not raw else "the passphrase is too long",
            code="bad_passphrase",
            hint=f"use 1 to {MAX_PASSPHRASE_BYTES} bytes; machines name a file in FREEHOLD_PASSPHRASE_FILE",
        )
    kdf = header.kdf
    return Argon2id(
        salt=header.salt,
        length=aead.KEY_BYTES,
        iterations=kdf.iterations,
        lanes=kdf.lanes,
        memory_cost=kdf.memory_kib,
    ).derive(raw)
