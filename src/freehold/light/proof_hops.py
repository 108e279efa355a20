"""The light blocks of a proof file: a chain of hops from what the reader trusts to the proven heights.

Spec: docs/spec/state-proofs.md.
"""

from collections.abc import Sequence

from freehold.base.errors import CodecError, LocalProtocolError, NotVerifiedError
from freehold.light.genesis import TrustedGenesis
from freehold.light.headers import make_validator_set
from freehold.light.skipping import NotEnoughTrustError, TrustBounds, TrustedState, check_not_ahead, verify_hop
from freehold.light.trust import PinnedTrust, Trust, trust_bounds, trust_genesis, trust_pinned, trust_signed
from freehold.light.types import LightBlock


def verify_hops(
    light_blocks: Sequence[LightBlock], trusted: TrustedGenesis, trust: Trust, now_ms: int | None
) -> tuple[TrustedState, ...]:
    """Verify every light block from the one before it, the first from what is trusted.

    Args:
        light_blocks: at least one, by ascending height.
        trusted: the chain's genesis.
        trust: where trust begins.
        now_ms: the reader's clock; None when there is none to trust, which a pinned header does not allow.

    Returns:
        The trusted states, from the root of trust on.

    Raises:
        CodecError: a validator set is not in normal form.
        NotVerifiedError: with a `Refusal` as code, or `trust_root_missing`.
    """
    bounds = trust_bounds(trust, trusted)
    is_pinned = isinstance(trust, PinnedTrust)
    trace: list[TrustedState] = [] if is_pinned else [trust_genesis(trusted)]
    for block in light_blocks:
        if isinstance(trust, PinnedTrust) and block.header.height <= trust.height:
            if block.header.height < trust.height:
                trust_signed(block, trusted.chain_id)  # proves nothing, and is no place for anything else either
            else:
                trace.append(_pinned(block, trust, trusted, now_ms))
        elif trace:
            trace.append(_hop(trace[-1], block, bounds, now_ms if is_pinned else None))
        if normal_form(block) != block:
            raise CodecError(
                f"the validator set of light block {block.header.height} is not in normal form",
                code="not_canonical",
                hint="export the proof again",
            )
    if not trace:
        raise NotVerifiedError(
            f"the proof does not hold the trusted block {trust}",
            code="trust_root_missing",
            hint="export it with this --trust, or trust genesis",
        )
    if now_ms is not None:
        check_not_ahead(light_blocks[-1].header, bounds, now_ms)
    return tuple(trace)


def _hop(trusted: TrustedState, block: LightBlock, bounds: TrustBounds, now_ms: int | None) -> TrustedState:
    try:
        return verify_hop(trusted, block, bounds, now_ms)
    except NotEnoughTrustError as error:
        trust_signed(block, trusted.chain_id)  # a commit that does not even hold for its own set is told as that
        raise NotVerifiedError(
            error.message,
            code=error.code,
            hint="a light block between is missing, or the validators are made up: have it exported again",
        ) from None


def _pinned(block: LightBlock, pin: PinnedTrust, trusted: TrustedGenesis, now_ms: int | None) -> TrustedState:
    if now_ms is None:
        raise LocalProtocolError("a pinned header needs a clock", code="no_clock")
    return trust_pinned(pin, block, trusted.chain_id, trust_bounds(pin, trusted), now_ms)


def normal_form(block: LightBlock) -> LightBlock:
    """Priorities and proposer of a set are not signed, so a file has them in one form: 0, and the header's proposer."""
    validators = make_validator_set(block.validator_set.validators, block.header.proposer_address)
    return LightBlock(block.signed_header, validators)
