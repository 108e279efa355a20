"""From a trusted state to a target height in as few hops as the validator sets allow: a sans-io driver.

The target is tried first; where too little trusted power vouches for it, a height between is asked for, and so on.
Blocks that could not be trusted yet are kept, at most one for each halving, and tried again after each success.

    bisection = Bisection(trusted, target, bounds, now_ms)
    while (height := bisection.wanted) is not None:
        bisection.feed(fetch(height))
    bisection.trace[-1]        # the target, trusted

A refusal (any `NotVerifiedError`) ends the driver; its caller drops the server and starts anew with another.
Spec: docs/spec/light-client.md. Source: CometBFT light/client.go `verifySkipping`.
"""

from collections.abc import Generator
from typing import Final, Generic, TypeVar

from freehold.base.errors import InvalidInputError, LocalProtocolError
from freehold.light.skipping import NotEnoughTrustError, TrustBounds, TrustedState, TrustExpiredError, verify_hop
from freehold.light.types import LightBlock
from freehold.light.verify import Refusal, refuse

MAX_STEPS: Final = 1_000
# A pivot a little above the middle: sets change slowly, so the further a hop reaches the better.
_PIVOT_NUMERATOR, _PIVOT_DENOMINATOR = 9, 16

T = TypeVar("T")
Asking = Generator[int, LightBlock, T]  # yields the height wanted, is sent its light block, returns what was found


class Questions(Generic[T]):
    """Runs an `Asking`: says which height is wanted, takes light blocks, holds the answer.

    Attributes:
        wanted: the height to fetch; None when there is an answer, or after a refusal.
        steps: light blocks taken so far.
    """

    def __init__(self, asking: Asking[T], max_steps: int) -> None:
        self._asking = asking
        self._max_steps = max_steps
        self._answer: T | None = None
        self.steps = 0
        self.wanted: int | None = None
        self._advance(None)

    @property
    def answer(self) -> T:
        """What was found.

        Raises:
            LocalProtocolError: nothing yet.
        """
        if self._answer is None:
            raise LocalProtocolError("there is no answer yet", code="not_done")
        return self._answer

    def feed(self, light_block: LightBlock) -> None:
        """Take the light block of the wanted height.

        Raises:
            NotVerifiedError: it is of another height, refused, or one more than the bound allows.
            LocalProtocolError: none was wanted.
        """
        wanted, self.wanted = self.wanted, None
        if wanted is None:
            raise LocalProtocolError("no light block was asked for", code="not_wanted")
        self.steps += 1
        if self.steps > self._max_steps:
            refuse(Refusal.TOO_MANY_STEPS, f"{self._max_steps} light blocks did not reach the target")
        if light_block.header.height != wanted:
            refuse(Refusal.WRONG_HEIGHT, f"asked for block {wanted}, was given {light_block.header.height}")
        self._advance(light_block)

    def _advance(self, light_block: LightBlock | None) -> None:
        try:
            self.wanted = next(self._asking) if light_block is None else self._asking.send(light_block)
        except StopIteration as stop:
            self._answer = stop.value


class Bisection(Questions[tuple[TrustedState, ...]]):
    """Verifies a target height from a trusted state; the answer is the trace of all states on the way."""

    def __init__(
        self,
        trusted: TrustedState,
        target_height: int,
        bounds: TrustBounds,
        now_ms: int | None,
        *,
        max_steps: int = MAX_STEPS,
    ) -> None:
        """Begin.

        Args:
            trusted: where trust comes from.
            target_height: at least the trusted height.
            bounds: trust period, clock drift, trust level.
            now_ms: the reader's clock; None offline (trust in genesis), where hops are checked at their own times.
            max_steps: light blocks that may be asked for.

        Raises:
            InvalidInputError: `below_trusted`, the target is below what is trusted.
        """
        if target_height < trusted.height:
            raise InvalidInputError(
                f"height {target_height} is below the trusted {trusted.height}",
                code="below_trusted",
                hint="trust genesis or an older HEIGHT:HASH",
            )
        super().__init__(bisect(trusted, target_height, bounds, now_ms), max_steps)

    @property
    def trace(self) -> tuple[TrustedState, ...]:
        """All trusted states in order: the first was given, the last is the target."""
        return self.answer


def bisect(
    trusted: TrustedState,
    target_height: int,
    bounds: TrustBounds,
    now_ms: int | None,
    known: LightBlock | None = None,
) -> Asking[tuple[TrustedState, ...]]:
    """Ask for light blocks until the target is trusted.

    Args:
        trusted: where trust comes from.
        target_height: at least the trusted height.
        bounds: trust period, clock drift, trust level.
        now_ms: the reader's clock; None offline.
        known: the target's light block when it was fetched before.

    Returns:
        The trace: `trusted`, the states between, the target.
    """
    trace = [trusted]
    if target_height == trusted.height:
        return tuple(trace)
    pending = [known if known is not None else (yield target_height)]  # heights descend; the target stays first
    at = 0
    while pending:
        try:
            reached = verify_hop(trace[-1], pending[at], bounds, now_ms)
        except NotEnoughTrustError:
            at += 1
        except TrustExpiredError:
            if now_ms is not None:
                raise
            at += 1  # offline only the hop was too long
        else:
            trace.append(reached)
            del pending[at:]
            at = 0
        if at and at == len(pending):
            gap = pending[-1].header.height - trace[-1].height
            pending.append((yield trace[-1].height + gap * _PIVOT_NUMERATOR // _PIVOT_DENOMINATOR))
    return tuple(trace)
