"""Every purpose for which Freehold hashes or signs bytes, and the framing under them.

Invariants: a purpose has a versioned tag; each part is preceded by its length; signed bytes hold the chain id and are
longer than a bare hash, so no signature over them can be one over a Stellar transaction hash.
Spec: docs/spec/hashes.md.

A new purpose is a new member of `Purpose`, here and nowhere else; a changed meaning is a new version of its tag. Tags
are never reused or edited: `tests/vectors/test_keys_hashing.py` holds their bytes.
"""

import hashlib
from enum import Enum

import blake3 as _blake3

from freehold.base.errors import InvalidInputError, check
from freehold.base.limits import MAX_CHAIN_ID_BYTES

HASH_BYTES = 32

_HASH_DOMAIN = b"freehold hash: "
_SIGN_DOMAIN = b"freehold signed message: "


def _frame(part: bytes) -> bytes:
    return len(part).to_bytes(4, "big") + part


class Purpose(Enum):
    """What a hash or a signature is for: kind (`hash` or `sign`) and versioned tag.

    Attributes:
        is_signed: whether `signing_bytes` takes it (else `tagged_hash` does).
        prefix: the framed tag that goes in front of the parts.
    """

    # ledger
    TX_SIGN = "sign", "tx/1"
    TX_ID = "hash", "tx-id/1"
    DEPLOYMENT_ID = "hash", "deployment-id/1"
    LEASE_ID = "hash", "lease-id/1"
    CHALLENGE_ID = "hash", "challenge-id/1"
    # beacon and draws
    BEACON = "hash", "beacon/1"
    BEACON_SIGN = "sign", "beacon/1"
    VRF_INPUT = "sign", "vrf-input/1"
    VRF_TICKET = "hash", "vrf-ticket/1"
    VRF_BEACON = "hash", "vrf-beacon/1"
    VRF_GENESIS = "hash", "vrf-genesis/1"
    VRF_POSSESSION = "hash", "vrf-possession/1"
    DRAW = "hash", "draw/1"
    PROBE_DRAW = "hash", "probe-draw/1"
    NODE_SLOT = "hash", "node-slot/1"
    # specs
    SPEC = "hash", "spec/1"
    SPEC_BOX_SIGN = "sign", "spec-box/1"
    IMAGE_PROOF = "hash", "image-proof/1"
    # reports
    REPORT_LEAF = "hash", "report-leaf/1"
    DUTY_LEAF = "hash", "duty-leaf/1"
    EVIDENCE_LEAF = "hash", "evidence-leaf/1"
    PROBE_SIGN = "sign", "probe/1"
    # keys
    NODE_POSSESSION = "sign", "node-possession/1"
    ENDPOINT_SIGN = "sign", "endpoint/1"
    VALIDATOR_POSSESSION = "sign", "validator-possession/1"
    UPGRADE_SIGN = "sign", "upgrade/1"
    REQUEST_SIGN = "sign", "request/1"
    # Merkle mountain ranges
    MMR_INNER = "hash", "mmr-inner/1"
    MMR_ROOT = "hash", "mmr-root/1"
    # snapshots of the state
    SNAPSHOT = "hash", "snapshot/1"
    SNAPSHOT_CHUNK = "hash", "snapshot-chunk/1"

    is_signed: bool
    prefix: bytes

    def __init__(self, kind: str, tag: str) -> None:
        self.is_signed = kind == "sign"
        self.prefix = _frame((_SIGN_DOMAIN if self.is_signed else _HASH_DOMAIN) + tag.encode("ascii"))


def tagged_hash(purpose: Purpose, *parts: bytes) -> bytes:
    """Hash parts under a purpose: SHA-256 over the framed tag and each framed part.

    Args:
        purpose: a hash purpose.
        parts: any number, each below 2^32 bytes.

    Raises:
        InvariantError: the purpose is for signatures.
    """
    check(not purpose.is_signed, "purpose_is_for_hashes", purpose=purpose.name)
    return hashlib.sha256(purpose.prefix + b"".join(map(_frame, parts))).digest()


def signing_bytes(purpose: Purpose, chain_id: str, *parts: bytes) -> bytes:
    """Build the bytes that are signed: the framed tag, the framed chain id, each framed part.

    Args:
        purpose: a signing purpose.
        chain_id: 1 to 50 bytes of UTF-8.
        parts: any number, each below 2^32 bytes.

    Raises:
        InvalidInputError: the chain id is empty or too long.
        InvariantError: the purpose is for hashes.
    """
    check(purpose.is_signed, "purpose_is_for_signatures", purpose=purpose.name)
    chain = chain_id.encode("utf-8")
    if not 1 <= len(chain) <= MAX_CHAIN_ID_BYTES:
        raise InvalidInputError(
            f"a chain id has 1 to {MAX_CHAIN_ID_BYTES} bytes, not {len(chain)}", code="bad_chain_id"
        )
    return purpose.prefix + _frame(chain) + b"".join(map(_frame, parts))


def sha256(data: bytes) -> bytes:
    """Hash bytes with plain SHA-256, for formats of others (CometBFT, OCI digests, ICS-23)."""
    return hashlib.sha256(data).digest()


class Sha256:
    """SHA-256 of a stream, for bytes that do not fit in memory."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = hashlib.sha256()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next piece."""
        self._state.update(data)

    def digest(self) -> bytes:
        """Give the 32-byte hash of all pieces so far."""
        return self._state.digest()


def blake3(data: bytes) -> bytes:
    """Hash bytes with BLAKE3, 32 bytes: fast content addresses, never consensus."""
    return _blake3.blake3(data).digest()
