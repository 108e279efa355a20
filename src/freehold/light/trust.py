"""Where trust begins: the two modes of `--trust`, and the trusted state that each gives.

`genesis`: offline; every hop is checked at its own header's time. Assumes that no past set's keys were ever sold.
`HEIGHT:HASH`: a header that somebody whom the reader believes has named, not older than the trust period. Assumes
less than a third hostile power within that period.

Spec: docs/spec/light-client.md. Source: CometBFT light/client.go (trust options).
"""

import re
from typing import Final

import msgspec

from freehold.base.errors import InvalidInputError, NotVerifiedError
from freehold.light.genesis import TrustedGenesis
from freehold.light.skipping import TrustBounds, TrustedState, check_light_block, check_not_expired
from freehold.light.types import LightBlock
from freehold.light.verify import Refusal, VerifiedHeader, verify_commit

GENESIS: Final = "genesis"
_PINNED = re.compile(r"([1-9][0-9]{0,18}):([0-9A-Fa-f]{64})\Z", re.ASCII)
_MAX_HEIGHT = (1 << 63) - 1


class GenesisTrust(msgspec.Struct, frozen=True):
    """Trust in genesis alone, without a clock."""

    def __str__(self) -> str:
        return GENESIS


class PinnedTrust(msgspec.Struct, frozen=True):
    """Trust in one header, named by height and hash."""

    height: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.height}:{self.hash.hex()}"


Trust = GenesisTrust | PinnedTrust


def parse_trust(text: str) -> Trust:
    """Read a trust mode: `genesis`, or `HEIGHT:HASH` with 64 hex digits.

    Raises:
        InvalidInputError: `bad_trust`.
    """
    if text == GENESIS:
        return GenesisTrust()
    match = _PINNED.match(text)
    if match is None or int(match[1]) > _MAX_HEIGHT:
        raise InvalidInputError(
            "this names no trust", code="bad_trust", hint="write `genesis`, or HEIGHT:HASH with 64 hex digits"
        )
    return PinnedTrust(int(match[1]), bytes.fromhex(match[2]))


def trust_genesis(genesis: TrustedGenesis) -> TrustedState:
    """The state before the first block, whose set genesis names."""
    return TrustedState(
        chain_id=genesis.chain_id,
        height=genesis.initial_height - 1,
        time=genesis.genesis_time,
        next_validators_hash=genesis.validators_hash,
        validators=genesis.validators,
    )


def trust_pinned(
    pinned: PinnedTrust, light_block: LightBlock, chain_id: str, bounds: TrustBounds, now_ms: int
) -> TrustedState:
    """The state of a pinned header, once its light block was fetched.

    Args:
        pinned: height and hash that the reader believes.
        light_block: from any server.
        chain_id: of the reader's genesis.
        bounds: the trust period counts.
        now_ms: the reader's clock.

    Raises:
        TrustExpiredError: the header is older than the trust period.
        NotVerifiedError: another header (`trust_root_mismatch`), or not signed by two thirds of its own set.
    """
    digest = check_light_block(light_block, chain_id)
    header, commit = light_block.signed_header.header, light_block.signed_header.commit
    if header.height != pinned.height or digest != pinned.hash:
        raise NotVerifiedError(
            f"block {header.height} is {digest.hex()}, not the trusted {pinned}",
            code=Refusal.TRUST_ROOT_MISMATCH.value,
            hint="ask another server, and look again at where the HEIGHT:HASH came from",
        )
    check_not_expired(header.time, header.height, bounds, now_ms)
    signers = verify_commit(chain_id, light_block.validator_set, commit.block_id, header.height, commit)
    return TrustedState.of(light_block, VerifiedHeader(header, digest, signers))
