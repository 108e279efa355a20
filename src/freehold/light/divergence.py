"""Do the servers tell one story? The header that the primary gave is compared with each witness's; a conflict is kept.

A witness that shows another header at the target height is heard out: its own chain is verified from the same trust,
at the heights of the primary's trace, up to the first height where the two differ. If it verifies, more than a third
of some trusted set signed both stories: the two light blocks stand as evidence in CometBFT's form, one piece against
each side, since the reader cannot know who lies. If it does not verify, the witness is refused by the error that says
why, and counts for nothing.

A witness whose newest block is lower is behind (`Behind`: ask again later), unless that block's time is not before
the target's: then one of the two has broken the order of time.

Spec: docs/spec/light-client.md. Source: CometBFT light/detector.go, types/evidence.go.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from freehold.base.errors import LocalProtocolError, NotVerifiedError, check
from freehold.light.bisection import MAX_STEPS, Asking, Questions, bisect
from freehold.light.blocks import LightClientAttackEvidence
from freehold.light.headers import header_hash, sort_validators
from freehold.light.skipping import TrustBounds, TrustedState, check_light_block
from freehold.light.types import BlockIDFlag, Header, LightBlock, Validator
from freehold.light.verify import Refusal, refuse

_SHOWN_SIGNERS = 8


class AttackKind(StrEnum):
    """How two verified light blocks can conflict. Append-only."""

    LUNATIC = "lunatic"
    EQUIVOCATION = "equivocation"
    AMNESIA = "amnesia"


class Agreed(msgspec.Struct, frozen=True):
    """The witness shows the same header."""

    height: int
    hash: bytes


class Behind(msgspec.Struct, frozen=True):
    """The witness has no block of that height yet: ask again after twice the clock drift and a block's time."""

    height: int


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """Two verified light blocks that cannot both be true.

    Attributes:
        kind: lunatic (a header that no execution gives), equivocation (two blocks signed in one round), amnesia
            (in two rounds; nobody can be named).
        common_height: the last height on which both sides agree.
        primary: the first light block of the primary's that conflicts.
        witness: the witness's, of the same height, or lower when order of time is broken.
        against_primary: evidence for the witness's side of the network; None when only genesis is common to both,
            since evidence names a block.
        against_witness: evidence for the primary's side.
    """

    kind: AttackKind
    common_height: int
    primary: LightBlock
    witness: LightBlock
    against_primary: LightClientAttackEvidence | None
    against_witness: LightClientAttackEvidence | None


class DivergedError(NotVerifiedError):
    """Servers tell different stories; nothing is trusted before somebody has looked.

    Attributes:
        divergence: what they told.
    """

    def __init__(self, divergence: Divergence, primary: str = "one server", witness: str = "another") -> None:
        """Tell both stories.

        Args:
            divergence: what they told.
            primary: who told the primary's, by its URL.
            witness: who told the other.
        """
        sides = ((primary, divergence.primary), (witness, divergence.witness))
        height, other = divergence.primary.header.height, divergence.witness.header.height
        what = (
            f"two different blocks are signed at height {height}"
            if other == height
            else f"block {other} is not older than block {height} above it, and both are signed"
        )
        super().__init__(
            f"{what} ({divergence.kind}): " + "; ".join(f"{who} says {story_text(block)}" for who, block in sides),
            code="diverged",
            hint="keep the evidence file and ask the grid's operators; do not act on either answer",
        )
        self.divergence = divergence


def story_text(block: LightBlock) -> str:
    """One side of a divergence: its block by height, hash and app hash, and who signed it with which power."""
    members, signed = block.validator_set.validators, _signers(block)
    power = sum(member.voting_power for member in members if member.address in signed)
    names = [member.pub_key.ed25519.hex()[:8] for member in members if member.address in signed]
    shown = ", ".join(names[:_SHOWN_SIGNERS]) + (", .." if len(names) > _SHOWN_SIGNERS else "")
    return (
        f"block {block.header.height} {header_hash(block.header).hex()} with app hash {block.header.app_hash.hex()}, "
        f"signed by {len(names)} of {len(members)} validators ({shown}) with {power} of "
        f"{sum(member.voting_power for member in members)} power"
    )


Outcome = Agreed | Behind | Divergence


class WitnessCheck(Questions[Outcome]):
    """Compares one witness with a verified trace; asks for the witness's light blocks, the target's first."""

    def __init__(
        self, trace: Sequence[TrustedState], bounds: TrustBounds, now_ms: int | None, *, max_steps: int = MAX_STEPS
    ) -> None:
        """Begin.

        Args:
            trace: of the primary's, from a `Bisection`, at least two states.
            bounds: as they were for the primary.
            now_ms: the reader's clock; None offline.
            max_steps: light blocks that may be asked for.
        """
        check(len(trace) >= 2, "trace_has_a_hop", length=len(trace))
        self._trace = tuple(trace)
        self._bounds = bounds
        self._now_ms = now_ms
        super().__init__(_compare(self._trace, bounds, now_ms), max_steps)

    def feed_newest(self, light_block: LightBlock) -> None:
        """Take the witness's newest light block, when it has none of the target's height.

        Raises:
            NotVerifiedError: the block is refused, so that the witness counts for nothing.
        """
        target = self._trace[-1]
        if self.wanted != target.height or self.steps:
            raise LocalProtocolError("the target was asked for before", code="not_wanted")
        if light_block.header.height >= target.height:
            self.feed(light_block)
            return
        check_light_block(light_block, target.chain_id)
        self.steps, self.wanted = 1, None
        self._asking.close()
        if light_block.header.time.ns < target.time.ns:
            self._answer = Behind(light_block.header.height)
            return
        if light_block.header.height <= self._trace[0].height:
            refuse(
                Refusal.HEIGHT_NOT_ABOVE,
                "the witness's newest block is no higher than what is trusted, and yet not older than the target",
            )
        self._asking = _examine(self._trace, light_block, self._bounds, self._now_ms)
        self._advance(None)


def find_divergence(common: TrustedState, primary: LightBlock, witness: LightBlock) -> Divergence:
    """Put a conflict of two verified light blocks into evidence.

    Args:
        common: the last state on which both agree.
        primary: verified from `common`.
        witness: verified from `common`, another block.
    """
    return Divergence(
        kind=_kind(primary, witness),
        common_height=common.height,
        primary=primary,
        witness=witness,
        against_primary=_evidence(common.light_block, conflicting=primary, trusted=witness),
        against_witness=_evidence(common.light_block, conflicting=witness, trusted=primary),
    )


def _compare(trace: tuple[TrustedState, ...], bounds: TrustBounds, now_ms: int | None) -> Asking[Outcome]:
    target = trace[-1]
    block = yield target.height
    if check_light_block(block, target.chain_id) == target.hash:
        return Agreed(target.height, target.hash)
    return (yield from _examine(trace, block, bounds, now_ms))


def _examine(
    trace: tuple[TrustedState, ...], newest: LightBlock, bounds: TrustBounds, now_ms: int | None
) -> Asking[Outcome]:
    """Verify the witness's chain along the trace up to the first difference; `newest` differs, or breaks time."""
    common, top = trace[0], newest.header.height
    for state in trace[1:]:
        primary = _block_of(state)
        height = min(state.height, top)
        known = newest if height == top else None
        reached = (yield from bisect(common, height, bounds, now_ms, known))[-1]
        if reached.hash != state.hash:  # as they also do when the newest block is lower
            return find_divergence(common, primary, _block_of(reached))
        common = reached
    # The target's own block was seen to differ, and it is the last that is compared.
    raise LocalProtocolError("the trace holds no difference", code="bad_trace")


def _block_of(state: TrustedState) -> LightBlock:
    if state.light_block is None:
        raise LocalProtocolError("only the first state of a trace may lack its block", code="bad_trace")
    return state.light_block


def _is_lunatic(conflicting: Header, trusted: Header) -> bool:
    """Whether fields differ that execution alone decides: no correct validator would sign both."""
    return (
        conflicting.validators_hash != trusted.validators_hash
        or conflicting.next_validators_hash != trusted.next_validators_hash
        or conflicting.consensus_hash != trusted.consensus_hash
        or conflicting.app_hash != trusted.app_hash
        or conflicting.last_results_hash != trusted.last_results_hash
    )


def _kind(one: LightBlock, other: LightBlock) -> AttackKind:
    if one.header.height != other.header.height or _is_lunatic(one.header, other.header):
        return AttackKind.LUNATIC
    same_round = one.signed_header.commit.round == other.signed_header.commit.round
    return AttackKind.EQUIVOCATION if same_round else AttackKind.AMNESIA


def _evidence(
    common: LightBlock | None, *, conflicting: LightBlock, trusted: LightBlock
) -> LightClientAttackEvidence | None:
    base = common if _is_lunatic(conflicting.header, trusted.header) else trusted
    if base is None:
        return None
    signed = _signers(conflicting)
    if base is common:
        guilty = [member for member in common.validator_set.validators if member.address in signed]
    elif conflicting.signed_header.commit.round == trusted.signed_header.commit.round:
        both = signed & _signers(trusted)
        guilty = [member for member in conflicting.validator_set.validators if member.address in both]
    else:
        guilty = []
    return LightClientAttackEvidence(
        conflicting,
        base.header.height,
        _plain(guilty),
        sum(member.voting_power for member in base.validator_set.validators),
        base.header.time,
    )


def _signers(block: LightBlock) -> set[bytes]:
    entries = block.signed_header.commit.signatures
    return {entry.validator_address for entry in entries if entry.block_id_flag == BlockIDFlag.COMMIT}


def _plain(members: Sequence[Validator]) -> tuple[Validator, ...]:
    return sort_validators(msgspec.structs.replace(member, proposer_priority=0) for member in members)
