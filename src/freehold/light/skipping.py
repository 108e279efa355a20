"""Verification by hops: from a trusted height to a higher one, while validator sets change.

An adjacent hop (the next height) needs the set that the trusted header named and more than two thirds of it. A
skipping hop (any other height) needs signatures of more than a third of the trusted set's power, so that at least one
honest member vouches, and more than two thirds of the new set's. A skip that fails for want of trust alone
(`NotEnoughTrustError`) says that a height between has to be looked at first: see `freehold.light.bisection`.

One difference from CometBFT: all signatures of the commit must verify, where it stops at enough. What is accepted
here is a subset of what it accepts, and every commit that is kept as evidence is whole.

Spec: docs/spec/light-client.md. Source: CometBFT light/verifier.go, types/validation.go `VerifyCommitLightTrusting`.
"""

from typing import Self

import msgspec

from freehold.base.errors import LocalProtocolError, NotVerifiedError, check
from freehold.light.headers import header_hash, validators_hash
from freehold.light.types import ADDRESS_BYTES, BLOCK_PROTOCOL, BlockIDFlag, Header, LightBlock, Timestamp, ValidatorSet
from freehold.light.verify import Refusal, VerifiedHeader, check_validator_set, next_step, refuse, verify_commit

_NS_PER_MS = 1_000_000


class NotEnoughTrustError(NotVerifiedError):
    """A skip is not vouched for by enough of the trusted set: look at a height between.

    Attributes:
        power: of the trusted set's members that signed.
        total_power: of the trusted set.
    """

    def __init__(self, height: int, power: int, total_power: int) -> None:
        super().__init__(
            f"{power} of {total_power} power that is trusted signed block {height}",
            code=Refusal.NOT_ENOUGH_TRUST.value,
            hint=next_step(Refusal.NOT_ENOUGH_TRUST),
        )
        self.power = power
        self.total_power = total_power


class TrustExpiredError(NotVerifiedError):
    """What is trusted is older than the trust period: its validators may have left and can no longer be punished."""


class TrustBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How far trust reaches.

    Attributes:
        trust_period_ms: a header older than this vouches for nothing; shorter than the unbonding time.
        clock_drift_ms: how far a header may be ahead of this machine's clock.
        trust_numerator: of the share of the trusted power that must be exceeded in a skip.
        trust_denominator: of that share, which lies between 1/3 and 1.
    """

    trust_period_ms: int
    clock_drift_ms: int
    trust_numerator: int = 1
    trust_denominator: int = 3

    def __post_init__(self) -> None:
        numerator, denominator = self.trust_numerator, self.trust_denominator
        check(0 < denominator <= 3 * numerator <= 3 * denominator, "trust_level", level=f"{numerator}/{denominator}")
        check(self.trust_period_ms > 0 and self.clock_drift_ms >= 0, "trust_bounds", period=self.trust_period_ms)


class TrustedState(msgspec.Struct, frozen=True, kw_only=True):
    """What is trusted at one height, and who may vouch from there.

    Attributes:
        chain_id: of the chain.
        height: of the trusted block; one below the first block's for genesis.
        time: of its header, or genesis' own.
        next_validators_hash: the set of the next height.
        validators: the set of this height or of the next; a skip needs a share of its power.
        light_block: the trusted block; None for genesis.
        verified: its header with its signers; None for genesis.
    """

    chain_id: str
    height: int
    time: Timestamp
    next_validators_hash: bytes
    validators: ValidatorSet
    light_block: LightBlock | None = None
    verified: VerifiedHeader | None = None

    @property
    def hash(self) -> bytes:
        """The header's hash; empty for genesis."""
        return self.verified.hash if self.verified is not None else b""

    @classmethod
    def of(cls, light_block: LightBlock, verified: VerifiedHeader) -> Self:
        """The state after a light block was verified; its own set vouches."""
        header = verified.header
        return cls(
            chain_id=header.chain_id,
            height=header.height,
            time=header.time,
            next_validators_hash=header.next_validators_hash,
            validators=light_block.validator_set,
            light_block=light_block,
            verified=verified,
        )

    def with_next_validators(self, validators: ValidatorSet) -> "TrustedState":
        """Let the next height's set vouch, which is one step fresher.

        Raises:
            NotVerifiedError: `validator_set_mismatch`, `bad_validator_set`.
        """
        check_validator_set(validators)
        if validators_hash(validators.validators) != self.next_validators_hash:
            refuse(Refusal.VALIDATOR_SET_MISMATCH, f"header {self.height} names other validators for the next height")
        return msgspec.structs.replace(self, validators=validators)


def verify_hop(trusted: TrustedState, light_block: LightBlock, bounds: TrustBounds, now_ms: int | None) -> TrustedState:
    """Verify a light block from a trusted state, by the kind of hop that its height asks for.

    Args:
        trusted: where trust comes from.
        light_block: what is verified.
        bounds: trust period, clock drift, trust level.
        now_ms: the reader's clock; None offline, see `verify_adjacent` and `verify_non_adjacent`.

    Raises:
        NotEnoughTrustError: a skip that is not vouched for; a height between may be.
        TrustExpiredError: the trusted state is too old.
        NotVerifiedError: refused for good, with a `Refusal` as code.
    """
    if light_block.header.height == trusted.height + 1:
        return verify_adjacent(trusted, light_block, bounds, now_ms)
    return verify_non_adjacent(trusted, light_block, bounds, now_ms)


def verify_adjacent(
    trusted: TrustedState, light_block: LightBlock, bounds: TrustBounds, now_ms: int | None
) -> TrustedState:
    """Verify the block of the next height: by exactly the set that was named for it.

    Args:
        trusted: the height below.
        light_block: what is verified.
        bounds: trust period and clock drift.
        now_ms: the reader's clock. None offline: then neither period nor drift is checked, since the set is known
            and a chain may halt for longer than the period.

    Raises:
        TrustExpiredError: the trusted state is too old.
        NotVerifiedError: with a `Refusal` as code.
        LocalProtocolError: the heights are not adjacent.
    """
    header = light_block.header
    if header.height != trusted.height + 1:
        raise LocalProtocolError(f"{header.height} does not follow {trusted.height}", code="wrong_hop")
    if now_ms is not None:
        _check_period(trusted, bounds, now_ms * _NS_PER_MS)
    digest = _check_block(trusted, light_block, bounds, now_ms)
    if header.validators_hash != trusted.next_validators_hash:
        refuse(Refusal.VALIDATOR_SET_MISMATCH, f"header {trusted.height} names other validators for the next height")
    return _with_own_set(light_block, digest)


def verify_non_adjacent(
    trusted: TrustedState, light_block: LightBlock, bounds: TrustBounds, now_ms: int | None
) -> TrustedState:
    """Verify a block further up: a share of the trusted set's power and two thirds of its own must have signed.

    Args:
        trusted: a lower height, not the one just below.
        light_block: what is verified.
        bounds: trust period, clock drift, trust level.
        now_ms: the reader's clock. None offline: then the hop is checked at the new header's own time, so that it
            spans less than the trust period, unless more than two thirds of the trusted power signed.

    Raises:
        NotEnoughTrustError: not more than the trust level signed.
        TrustExpiredError: the trusted state is too old.
        NotVerifiedError: with a `Refusal` as code.
        LocalProtocolError: the heights are adjacent.
    """
    header = light_block.header
    if header.height == trusted.height + 1:
        raise LocalProtocolError(f"{header.height} follows {trusted.height}", code="wrong_hop")
    if now_ms is not None:
        _check_period(trusted, bounds, now_ms * _NS_PER_MS)
    digest = _check_block(trusted, light_block, bounds, now_ms)
    power, total = _trusted_power(trusted.validators, light_block)
    if now_ms is None and power * 3 <= total * 2:
        _check_period(trusted, bounds, header.time.ns)
    if power * bounds.trust_denominator <= total * bounds.trust_numerator:
        raise NotEnoughTrustError(header.height, power, total)
    return _with_own_set(light_block, digest)


def check_light_block(light_block: LightBlock, chain_id: str) -> bytes:
    """Check all of a light block but its signatures and its place in the chain.

    Returns:
        The header's hash.

    Raises:
        NotVerifiedError: with a `Refusal` as code.
    """
    header, commit = light_block.signed_header.header, light_block.signed_header.commit
    members, proposer = light_block.validator_set.validators, light_block.validator_set.proposer
    if header.chain_id != chain_id:
        refuse(
            Refusal.WRONG_CHAIN,
            f"the header is of chain {header.chain_id!r}, not of {chain_id!r}",
        )
    if header.version.block != BLOCK_PROTOCOL or len(header.proposer_address) != ADDRESS_BYTES or header.height < 1:
        refuse(Refusal.BAD_HEADER, "the header has another block version, no height or no proposer")
    check_validator_set(light_block.validator_set)
    if not any(proposer.address == member.address and proposer.pub_key == member.pub_key for member in members):
        refuse(Refusal.BAD_VALIDATOR_SET, "the proposer is no member of the validator set")
    if validators_hash(members) != header.validators_hash:
        refuse(Refusal.VALIDATOR_SET_MISMATCH, f"header {header.height} names other validators than came with it")
    if commit.height != header.height:
        refuse(Refusal.WRONG_COMMIT, f"the commit of height {commit.height} is not for header {header.height}")
    digest = header_hash(header)
    if digest != commit.block_id.hash:
        refuse(Refusal.BAD_HEADER_HASH, f"the commit is not for the header of height {header.height}")
    return digest


def check_not_expired(header_time: Timestamp, height: int, bounds: TrustBounds, now_ms: int) -> None:
    """Check that a trusted header is younger than the trust period.

    Raises:
        TrustExpiredError: `trust_expired`.
    """
    _check_age(header_time, height, bounds, now_ms * _NS_PER_MS)


def check_not_ahead(header: Header, bounds: TrustBounds, now_ms: int) -> None:
    """Check that a header is not from the future, beyond the clock drift.

    Raises:
        NotVerifiedError: `header_from_future`.
    """
    if header.time.ns >= (now_ms + bounds.clock_drift_ms) * _NS_PER_MS:
        refuse(
            Refusal.HEADER_FROM_FUTURE,
            f"header {header.height} is {header.time.ms - now_ms} ms ahead of this machine's clock",
        )


def _check_period(trusted: TrustedState, bounds: TrustBounds, now_ns: int) -> None:
    _check_age(trusted.time, trusted.height, bounds, now_ns)


def _check_age(time: Timestamp, height: int, bounds: TrustBounds, now_ns: int) -> None:
    if time.ns + bounds.trust_period_ms * _NS_PER_MS <= now_ns:
        raise TrustExpiredError(
            f"trusted header {height} is older than the trust period of {bounds.trust_period_ms // 1000} s",
            code=Refusal.TRUST_EXPIRED.value,
            hint=next_step(Refusal.TRUST_EXPIRED),
        )


def _check_block(trusted: TrustedState, light_block: LightBlock, bounds: TrustBounds, now_ms: int | None) -> bytes:
    header = light_block.header
    digest = check_light_block(light_block, trusted.chain_id)
    if header.height <= trusted.height:
        refuse(Refusal.HEIGHT_NOT_ABOVE, f"height {header.height} is not above the trusted {trusted.height}")
    _check_order_of_time(trusted, header)
    if now_ms is not None:
        check_not_ahead(header, bounds, now_ms)
    return digest


def _check_order_of_time(trusted: TrustedState, header: Header) -> None:
    # The first block carries genesis' own time; between two blocks time must move.
    early = header.time.ns < trusted.time.ns if trusted.light_block is None else header.time.ns <= trusted.time.ns
    if early:
        refuse(Refusal.TIME_NOT_AFTER, f"the time of header {header.height} is not after that of {trusted.height}")


def _trusted_power(trusted: ValidatorSet, light_block: LightBlock) -> tuple[int, int]:
    """Power of the trusted members that signed, each counted once, and of all; `verify_commit` checks signatures after.

    Counting first costs no signature check for a skip that will be bisected. An entry counts under its own key only:
    it stands at its validator's index of the new set, and the trusted set holds that very key.
    """
    commit, members = light_block.signed_header.commit, light_block.validator_set.validators
    if len(commit.signatures) != len(members):
        refuse(Refusal.WRONG_COMMIT, f"the commit has {len(commit.signatures)} entries for {len(members)} validators")
    powers = {member.pub_key.ed25519: member.voting_power for member in trusted.validators}
    seen: set[bytes] = set()
    power = 0
    for member, entry in zip(members, commit.signatures, strict=True):
        if entry.block_id_flag != BlockIDFlag.COMMIT:
            continue
        if entry.validator_address in seen:
            refuse(Refusal.DOUBLE_VOTE, f"validator {entry.validator_address.hex()} stands twice in the commit")
        seen.add(entry.validator_address)
        if entry.validator_address != member.address:
            refuse(Refusal.WRONG_SIGNER, f"the entry of validator {member.address.hex()} names another")
        power += powers.get(member.pub_key.ed25519, 0)
    return power, sum(powers.values())


def _with_own_set(light_block: LightBlock, digest: bytes) -> TrustedState:
    header, commit = light_block.signed_header.header, light_block.signed_header.commit
    signers = verify_commit(header.chain_id, light_block.validator_set, commit.block_id, header.height, commit)
    return TrustedState.of(light_block, VerifiedHeader(header, digest, signers))
