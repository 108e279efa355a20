"""Where trust begins: the two modes of `--trust`, and the trusted state that each gives.

`genesis`: offline; a skip needs more than two thirds of the set that is trusted, and no clock. Assumes that no two
thirds of any past set ever sold their keys.
`HEIGHT:HASH`: a header that somebody whom the reader believes has named, not older than the trust period; a skip needs
more than a third. Assumes less than a third hostile power within that period.

Spec: docs/spec/light-client.md. Source: CometBFT light/client.go (trust options).
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from freehold.base.errors import InvalidInputError
from freehold.base.presets import ELECTIONS
from freehold.light.genesis import TrustedGenesis
from freehold.light.skipping import TrustBounds, TrustedState, check_light_block, check_not_expired
from freehold.light.types import LightBlock, Validator, ValidatorSet
from freehold.light.verify import Refusal, VerifiedHeader, refuse, verify_commit

GENESIS: Final = "genesis"
_PINNED = re.compile(r"([1-9][0-9]{0,18}):([0-9A-Fa-f]{64})\Z", re.ASCII)
_MAX_HEIGHT = (1 << 63) - 1
CLOCK_DRIFT_MS: Final = 10_000  # CometBFT's default; a node's fence is stricter (docs/spec/leases.md)
_NS_PER_MS = 1_000_000
NO_OWNERS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


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
GENESIS_TRUST: Final = GenesisTrust()


def parse_trust(text: str) -> Trust:
    """Read a trust mode: `genesis`, or `HEIGHT:HASH` with 64 hex digits.

    Raises:
        InvalidInputError: `bad_trust`.
    """
    if text == GENESIS:
        return GENESIS_TRUST
    match = _PINNED.match(text)
    if match is None or int(match[1]) > _MAX_HEIGHT:
        raise InvalidInputError(
            "this names no trust", code="bad_trust", hint="write `genesis`, or HEIGHT:HASH with 64 hex digits"
        )
    return PinnedTrust(int(match[1]), bytes.fromhex(match[2]))


def trust_period_ms(genesis: TrustedGenesis) -> int:
    """How long a header vouches: two thirds of the time for which those who signed it can still be punished.

    That time is the engine's `evidence.max_age_duration` (default 48 h, so trust 32 h), less where bonds end sooner: by
    genesis' elections, or by those that its preset would bring, for an upgrade can begin them and genesis tells not.
    """
    state = genesis.app_state
    punishable_ms = genesis.params.evidence_max_age_ns // _NS_PER_MS
    elections = state.get("elections")
    values = elections.get("values") if isinstance(elections, dict) else None
    unbonding_ms = values.get("unbonding_ms") if isinstance(values, dict) else None
    preset = state.get("preset")
    if unbonding_ms is None and isinstance(preset, str) and preset in ELECTIONS:
        unbonding_ms = ELECTIONS[preset].unbonding_ms
    if type(unbonding_ms) is int and unbonding_ms > 0:
        punishable_ms = min(punishable_ms, unbonding_ms)
    return max(1, punishable_ms * 2 // 3)


def trust_bounds(trust: Trust, genesis: TrustedGenesis) -> TrustBounds:
    """The bounds of a trust mode on a chain."""
    is_offline = isinstance(trust, GenesisTrust)
    return TrustBounds(
        trust_period_ms=trust_period_ms(genesis),
        clock_drift_ms=CLOCK_DRIFT_MS,
        trust_numerator=2 if is_offline else 1,
        trust_denominator=3,
    )


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
    header = light_block.header
    if header.height != pinned.height or digest != pinned.hash:
        refuse(Refusal.TRUST_ROOT_MISMATCH, f"block {header.height} is {digest.hex()}, not the trusted {pinned}")
    check_not_expired(header.time, header.height, bounds, now_ms)
    return trust_signed(light_block, chain_id)


def trust_signed(light_block: LightBlock, chain_id: str) -> TrustedState:
    """The state of a light block that is trusted for another reason, once two thirds of its own set signed it.

    Raises:
        NotVerifiedError: with a `Refusal` as code.
    """
    digest = check_light_block(light_block, chain_id)
    header, commit = light_block.signed_header.header, light_block.signed_header.commit
    signers = verify_commit(chain_id, light_block.validator_set, commit.block_id, header.height, commit)
    return TrustedState.of(light_block, VerifiedHeader(header, digest, signers))


class Forgers(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest group that could have made a verified header up, of the set of one height.

    A party is an owner with all of its validators, where owners are known; else a validator by itself.

    Attributes:
        count: parties of the group.
        parties: of the whole set.
        validators: members of the whole set.
        height: of the set.
        power: of the group.
        total_power: of the set.
        members: public keys of the group's validators, the strongest party's first.
    """

    count: int
    parties: int
    validators: int
    height: int
    power: int
    total_power: int
    members: tuple[bytes, ...]


def fewest_forgers(
    trace: Sequence[TrustedState], bounds: TrustBounds, owners: Mapping[bytes, bytes] = NO_OWNERS
) -> Forgers | None:
    """Who could have forged the end of a trace, together.

    A set on the way can vouch for a set of its own making with more than the trust level of its power, but not for
    the very next height, whose set its header names; the last one can sign another block with more than two thirds.

    Args:
        trace: from what is trusted to the header.
        bounds: the trust level counts.
        owners: of validators, by public key, as far as they are known.

    Returns:
        None when the header itself is what is trusted.
    """
    if len(trace) < 2:
        return None
    level, target = (bounds.trust_numerator, bounds.trust_denominator), trace[-1]
    groups = [fewest_signers(target.validators, target.height, owners)]
    groups += [
        fewest_signers(state.validators, state.height, owners, level)
        for state in trace[:-1]
        if state.height + 1 < target.height
    ]
    return min(groups, key=lambda group: (group.count, -group.height))


def fewest_signers(
    validators: ValidatorSet,
    height: int,
    owners: Mapping[bytes, bytes] = NO_OWNERS,
    level: tuple[int, int] = (2, 3),
) -> Forgers:
    """The fewest parties that hold more than a share of a set's power.

    Args:
        validators: at least one.
        height: of the set.
        owners: of validators, by public key, as far as they are known.
        level: numerator and denominator of the share, below 1.
    """
    parties: dict[bytes, list[Validator]] = {}
    for member in validators.validators:
        key = member.pub_key.ed25519
        parties.setdefault(owners.get(key, key), []).append(member)
    total = sum(member.voting_power for member in validators.validators)
    strongest = sorted(parties.items(), key=lambda party: (-_power(party[1]), party[0]))
    numerator, denominator = level
    power = count = 0
    members: list[bytes] = []
    for _, own in strongest:
        count, power = count + 1, power + _power(own)
        members += [member.pub_key.ed25519 for member in own]
        if power * denominator > total * numerator:
            break
    return Forgers(
        count=count,
        parties=len(parties),
        validators=len(validators.validators),
        height=height,
        power=power,
        total_power=total,
        members=tuple(members),
    )


def _power(members: Sequence[Validator]) -> int:
    return sum(member.voting_power for member in members)
