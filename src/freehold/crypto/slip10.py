"""SLIP-0010 derivation of ed25519 keys from a seed, and the paths of all keys of one mnemonic.

Only hardened steps exist on this curve: a child key says nothing about its parent or siblings.
Spec: docs/spec/keys.md. Source: SLIP-0010; SEP-0005 (accounts).
"""

import hashlib
import hmac
import re
from typing import Final, NamedTuple

from freehold.base.errors import InvalidInputError
from freehold.crypto.ed25519 import PrivateKey

# Accounts lie where every Stellar wallet looks. All else lies under Freehold's own number, "FREE" in ASCII, so that no
# Stellar wallet shows an endpoint key as an account.
ACCOUNT_PATH: Final = "m/44'/148'/{index}'"
ENDPOINT_PATH: Final = "m/1179796805'/0'/{index}'"  # the tenant's p2p endpoint key
STORE_PATH: Final = "m/1179796805'/1'/{index}'"  # kept for the store secret; nothing uses it yet

HARDENED: Final = 1 << 31
MAX_DEPTH: Final = 10
_PATH = re.compile(r"m(?:/(?:0|[1-9][0-9]{0,9})')*\Z", re.ASCII)


class Secret(NamedTuple):
    """A derived key with its chain code; both are secret and hidden from `repr`.

    Attributes:
        seed: 32 bytes, the ed25519 seed.
        chain_code: 32 bytes.
    """

    seed: bytes
    chain_code: bytes

    def __repr__(self) -> str:
        return "Secret(..)"


def derive(seed: bytes, path: str) -> PrivateKey:
    """Derive the key at a path, such as `ACCOUNT_PATH.format(index=0)`.

    Args:
        seed: 16 to 64 bytes, as `mnemonic.to_seed` gives.
        path: `m` and hardened steps, at most 10.

    Raises:
        InvalidInputError: not such a path, or the seed's length is out of range.
    """
    return PrivateKey.from_seed(derive_secret(seed, path).seed)


def derive_secret(seed: bytes, path: str) -> Secret:
    """Derive the secret bytes and chain code at a path; arguments and errors as for `derive`."""
    if not 16 <= len(seed) <= 64:
        raise InvalidInputError(f"a seed of {len(seed)} bytes, not 16 to 64", code="bad_seed")
    secret = _split(b"ed25519 seed", seed)
    for step in parse_path(path):
        data = b"\x00" + secret.seed + (step | HARDENED).to_bytes(4, "big")
        secret = _split(secret.chain_code, data)
    return secret


def parse_path(path: str) -> list[int]:
    """Read a path into its steps, without the hardening bit.

    Raises:
        InvalidInputError: not `m` and at most 10 hardened steps below 2^31.
    """
    steps = [int(step[:-1]) for step in path.split("/")[1:]] if len(path) <= 200 and _PATH.match(path) else [HARDENED]
    if len(steps) > MAX_DEPTH or any(step >= HARDENED for step in steps):
        raise InvalidInputError(
            f"{path[:80]!r} is not a path of hardened steps",
            code="bad_path",
            hint="write it as m/44'/148'/0': every step ends with an apostrophe",
        )
    return steps


def _split(key: bytes, data: bytes) -> Secret:
    digest = hmac.digest(key, data, hashlib.sha512)
    return Secret(digest[:32], digest[32:])
