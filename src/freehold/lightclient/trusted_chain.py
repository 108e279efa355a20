"""Which headers a client believes: reached by hops from a root of trust, remembered, compared with other servers'.

Every header is verified by skipping from the highest trusted one below it, with heights between when the validator
sets changed too much. The servers only deliver light blocks. Once two servers are caught telling two stories that both
verify, nothing more is believed in this process. Spec: docs/spec/light-client.md.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from freehold.base.errors import InvalidInputError, NotVerifiedError, RefusedError, UnreachableError
from freehold.light.bisection import MAX_STEPS, Questions, bisect
from freehold.light.divergence import Agreed, Behind, DivergedError, Divergence, WitnessCheck, find_divergence
from freehold.light.genesis import TrustedGenesis
from freehold.light.headers import header_hash
from freehold.light.skipping import TrustedState, check_not_ahead, check_not_expired
from freehold.light.trust import GENESIS_TRUST, PinnedTrust, Trust, trust_bounds, trust_genesis, trust_pinned
from freehold.light.types import LightBlock
from freehold.lightclient.servers import wall_ms
from freehold.lightclient.trust_store import TrustStore

HOPS_TIMEOUT_S: Final = 60.0  # for all the blocks between, from one server
COMPARE_EVERY_S: Final = 60.0
COMPARE_TIMEOUT_S: Final = 2.0  # for a server's word on one header; a silent one delays a read no longer
OWN_WORD: Final = 2  # times as long for whose header it is: it has just answered, and is left when it does not
STORY: Final = 4  # times as long for the whole story of one whose word differs: also its proof must not cost a fence
MAX_WITNESSES: Final = 3  # compared with at a time, in turn
MAX_STATES: Final = 64
NEVER_PRUNED: Final = 10  # newest blocks that every server keeps
HOP_UNAVAILABLE: Final = "hop_unavailable"
EARLIER_RUN: Final = "what an earlier run verified"
THIS_RUN: Final = "what this run verified before"

Fetch = Callable[[int | None], Awaitable[LightBlock]]  # a height, or None for the newest


@dataclass(frozen=True)
class Peer:
    """A server that may be asked for light blocks.

    Attributes:
        url: of the server.
        fetch: asks it.
        between: asks for blocks on the way to its own, which any server may give; None for `fetch`.
    """

    url: str
    fetch: Fetch
    between: Fetch | None = None


@dataclass(frozen=True)
class Comparison:
    """What other servers said of one header: how many of them what."""

    height: int
    agreed: int
    behind: int  # show the same block at their own newest height, or have none above what was agreed on before
    silent: int
    refused: int  # told something that does not verify
    apart: int = 0  # behind by so much that whose block is compared says to have pruned what they have


class WithheldError(NotVerifiedError):
    """A server shows a newest block, and not one below it that another server has to compare.

    Attributes:
        url: of the server.
    """

    def __init__(self, url: str, target: int, height: int, witness: str, why: str) -> None:
        """Say what is kept back.

        Args:
            url: of the server.
            target: the height of the block that it showed.
            height: of the one that it does not show.
            witness: the URL of the server that shows that one.
            why: in words.
        """
        super().__init__(
            f"{url} shows block {target}, and not block {height} below it, which {witness} has to compare: {why}",
            code="block_withheld",
        )
        self.url = url


class TrustedChain:
    """See the module. Safe for concurrent use in one event loop.

    Attributes:
        comparison: the last one with other servers; None before.
    """

    def __init__(
        self,
        genesis: TrustedGenesis,
        trust: Trust = GENESIS_TRUST,
        store: TrustStore | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """Begin.

        Args:
            genesis: of the chain.
            trust: where trust begins.
            store: where the newest light block is remembered; None: nowhere.
            now_ms: the wall clock.

        Raises:
            InvalidInputError: what is remembered is damaged, or of another chain.
        """
        self.comparison: Comparison | None = None
        self._genesis = genesis
        self._trust = trust
        self._bounds = trust_bounds(trust, genesis)
        self._store = store
        self._now_ms = now_ms
        self._root = None if isinstance(trust, PinnedTrust) else trust_genesis(genesis)
        self._states: dict[int, TrustedState] = {}
        self._remembered = store.load() if store is not None else None
        self._is_memory_compared = False  # to be done once: an earlier run may have asked one server alone
        self._agreed = self._remembered  # the last that no other server has spoken against
        if self._remembered is not None:
            self._states[self._remembered.height] = self._remembered
        self._compared_at: float | None = None
        self._compared = 0
        self._unconfirmed: tuple[TrustedState, str] | None = None  # compared last and not agreed with; who gave it
        self._diverged: DivergedError | None = None

    @property
    def remembered_height(self) -> int:
        """Of what an earlier run verified; 0 without memory."""
        return 0 if self._remembered is None else self._remembered.height

    @property
    def memory(self) -> Path | None:
        """The file that remembers; None without."""
        return None if self._store is None else self._store.path

    async def accept(self, block: LightBlock, peer: Peer) -> TrustedState:
        """Verify a light block.

        Args:
            block: as a server gave it.
            peer: that server, which also gives the blocks between, or says who does.

        Returns:
            The trusted state of its height; its light block may have other signatures than the given one.

        Raises:
            NotVerifiedError: it does not verify; `DivergedError` when two blocks of its height do, or when it is not
                older than a verified block above it.
            UnreachableError: the blocks between did not come in time.
            InvalidInputError: `below_trusted`.
        """
        if self._diverged is not None:
            raise self._diverged
        height = block.header.height
        known = self._states.get(height)
        if known is not None and known.hash == header_hash(block.header):
            return known
        if isinstance(self._trust, PinnedTrust) and height == self._trust.height:
            return self._keep(self._pinned(self._trust, block))
        fetch = peer.between or peer.fetch
        base = await self._base(height, fetch)
        trace = await self._hops(base, block, fetch)
        known = self._states.get(height)  # again: another read may have been faster
        if known is not None and known.light_block is not None and known.hash != trace[-1].hash:
            self._conflict(find_divergence(base, known.light_block, block), self._teller(known), peer.url)
        above = min((other for other in self._states if other > height), default=None)
        if above is not None:
            self._check_order(base, block, self._states[above], peer)
        for state in trace[1:]:
            self._keep(state)
        return trace[-1]

    async def trace_to(self, block: LightBlock, peer: Peer) -> tuple[TrustedState, ...]:
        """The hops from the root of trust itself to a light block, for a proof that others can check.

        Raises:
            NotVerifiedError: it does not verify.
            UnreachableError: the blocks between did not come in time.
        """
        root = self._root if self._root is not None else await self._fetch_root(peer.fetch)
        return (root,) if root.height == block.header.height else await self._hops(root, block, peer.fetch)

    def is_comparison_due(self) -> bool:
        """Whether other servers should be asked: of the first header, then once in `COMPARE_EVERY_S`."""
        return self._compared_at is None or time.monotonic() - self._compared_at >= COMPARE_EVERY_S

    async def compare(
        self, state: TrustedState, primary: Peer, witnesses: Sequence[Peer], limit_s: float = COMPARE_TIMEOUT_S
    ) -> None:
        """Compare a trusted header with what other servers show; at most `MAX_WITNESSES` of them.

        One with which nobody agreed, for they were behind, is compared once more with the next one: a server that makes
        up blocks faster than the others is caught when they have come as far, in height or in time.

        Args:
            state: of the header.
            primary: who gave it; it must itself answer what is asked of it.
            witnesses: the others.
            limit_s: for their word on one header, and `STORY` times as long for the proof of another; who takes longer
                is silent.

        Raises:
            DivergedError: another server tells another story, which also verifies; the evidence is kept.
            WithheldError: the primary does not show what a witness has.
        """
        trace = self._trace_to(state)
        if len(trace) < 2 or not witnesses:
            return  # nothing newer than what others agreed with; the next header is compared
        self._compared_at = time.monotonic()
        start, self._compared = self._compared, self._compared + 1
        chosen = [witnesses[(start + n) % len(witnesses)] for n in range(min(MAX_WITNESSES, len(witnesses)))]
        await self._compare_memory(chosen, limit_s)
        try:
            _, answers = await asyncio.gather(
                self._compare_unconfirmed([primary, *chosen], limit_s),
                asyncio.gather(*(self._ask(primary, witness, trace, limit_s) for witness in chosen)),
            )
        except WithheldError:
            self._compared_at = None  # whoever is asked now is compared too
            raise
        for witness, answer in zip(chosen, answers, strict=True):
            if isinstance(answer, Divergence):
                self._conflict(answer, primary.url, witness.url)
        counts = [sum(answer == kind or type(answer) is kind for answer in answers) for kind in _KINDS]
        self.comparison = Comparison(state.height, *counts)
        if self.comparison.agreed:
            self._agree(state)
        else:
            self._unconfirmed = state, primary.url

    def _agree(self, state: TrustedState) -> None:
        if self._agreed is None or state.height > self._agreed.height:
            self._agreed = state

    def _trace_to(self, state: TrustedState) -> list[TrustedState]:
        """What is known from the last state on which others agreed up to this one."""
        common = self._agreed or self._root
        between = [known for height, known in sorted(self._states.items()) if height < state.height]
        if common is None:
            return [*between, state]
        if state.height <= common.height:
            return []
        return [common, *(known for known in between if known.height > common.height), state]

    async def save(self, *, is_compared: bool) -> None:
        """Remember the newest header: the newest that others agreed with, when others are asked.

        Args:
            is_compared: whether there are others.
        """
        newest = self._agreed if is_compared else max(self._states.values(), key=lambda s: s.height, default=None)
        if self._store is None or newest is None or self._diverged is not None:
            return
        try:
            await asyncio.to_thread(self._store.save, newest)
        except (OSError, InvalidInputError):
            return  # a read-only home, or one damaged meanwhile: the next run begins lower, or says so

    def _check_order(self, base: TrustedState, block: LightBlock, above: TrustedState, peer: Peer) -> None:
        """Time rises with the height: a lower block that is not older belongs to another story.

        Without this whoever could sign a high block once would make the truth look old for ever.

        Raises:
            DivergedError: so it is.
        """
        if above.light_block is not None and block.header.time.ns >= above.time.ns:
            self._conflict(find_divergence(base, above.light_block, block), self._teller(above), peer.url)

    def _teller(self, known: TrustedState) -> str:
        remembered = self._remembered
        return EARLIER_RUN if remembered is not None and known.hash == remembered.hash else THIS_RUN

    async def _base(self, height: int, fetch: Fetch) -> TrustedState:
        below = max((known for known in self._states if known < height), default=None)
        if below is not None:
            return self._states[below]
        root = self._root if self._root is not None else await self._fetch_root(fetch)
        if root.height >= height:
            raise InvalidInputError(
                f"height {height} is below the trusted {root.height}",
                code="below_trusted",
                hint="trust genesis or an older HEIGHT:HASH",
            )
        return root

    async def _fetch_root(self, fetch: Fetch) -> TrustedState:
        pin = self._trust
        if not isinstance(pin, PinnedTrust):
            return trust_genesis(self._genesis)
        block = await self._fetch_hop(fetch, pin.height)
        return self._keep(self._pinned(pin, block))

    def _pinned(self, pin: PinnedTrust, block: LightBlock) -> TrustedState:
        self._root = trust_pinned(pin, block, self._genesis.chain_id, self._bounds, self._now_ms())
        return self._root

    async def _hops(self, base: TrustedState, block: LightBlock, fetch: Fetch) -> tuple[TrustedState, ...]:
        now_ms = self._now_ms()
        is_offline = not isinstance(self._trust, PinnedTrust)
        check_not_ahead(block.header, self._bounds, now_ms)
        if not is_offline:
            check_not_expired(base.time, base.height, self._bounds, now_ms)
        asking = bisect(base, block.header.height, self._bounds, None if is_offline else now_ms, block)
        questions = Questions(asking, MAX_STEPS)
        try:
            async with asyncio.timeout(HOPS_TIMEOUT_S):
                while (wanted := questions.wanted) is not None:
                    questions.feed(await self._fetch_hop(fetch, wanted))
        except TimeoutError:
            raise UnreachableError(
                f"the blocks between {base.height} and {block.header.height} did not come in time",
                code="hops_timeout",
                hint="name another server in FREEHOLD_RPC, or trust a newer HEIGHT:HASH",
            ) from None
        return questions.answer

    async def _fetch_hop(self, fetch: Fetch, height: int) -> LightBlock:
        try:
            return await fetch(height)
        except RefusedError as error:
            raise NotVerifiedError(
                f"the server does not give block {height}, which is needed on the way: {error.message}",
                code=HOP_UNAVAILABLE,
                hint="ask a server that keeps older blocks, or trust a newer HEIGHT:HASH (FREEHOLD_TRUST)",
            ) from None

    def _keep(self, state: TrustedState) -> TrustedState:
        self._states[state.height] = state
        if len(self._states) > MAX_STATES:
            lowest = min(self._states)
            if self._agreed is None or lowest != self._agreed.height:
                del self._states[lowest]
            else:  # the last that others agreed with stays
                del self._states[sorted(self._states)[1]]
        return state

    async def _compare_memory(self, witnesses: Sequence[Peer], limit_s: float) -> None:
        """Ask others, once, for the block that an earlier run ended with: it may have been told a fork.

        Raises:
            DivergedError: another server tells another story of that height.
        """
        remembered = self._remembered
        if self._is_memory_compared or remembered is None or self._root is None:
            return
        self._is_memory_compared = True
        if remembered.height <= self._root.height:
            return
        trace = (self._root, remembered)
        answers = await asyncio.gather(*(self._hear_or_not(witness, trace, limit_s) for witness in witnesses))
        for witness, answer in zip(witnesses, answers, strict=True):
            if isinstance(answer, Divergence):
                self._conflict(answer, EARLIER_RUN, witness.url)

    async def _compare_unconfirmed(self, peers: Sequence[Peer], limit_s: float) -> None:
        """Ask others than who gave it again of a header that nobody agreed with; who agrees now confirms it.

        Raises:
            DivergedError: somebody has come as far, and tells another story.
        """
        pending, self._unconfirmed = self._unconfirmed, None
        if pending is None:
            return
        state, url = pending
        trace, others = self._trace_to(state), [peer for peer in peers if peer.url != url]
        if len(trace) < 2:
            return
        answers = await asyncio.gather(*(self._hear_or_not(peer, trace, limit_s) for peer in others))
        for peer, answer in zip(others, answers, strict=True):
            if isinstance(answer, Divergence):
                self._conflict(answer, url, peer.url)
        if any(isinstance(answer, Agreed) for answer in answers):
            self._agree(state)

    async def _ask(self, primary: Peer, witness: Peer, trace: Sequence[TrustedState], limit_s: float) -> "_Answer":
        answer = await self._hear_or_not(witness, trace, limit_s)
        if not isinstance(answer, Behind) or answer.height <= trace[0].height:
            return answer
        # What the witness has is compared too: a primary that makes up blocks faster than others would get away.
        state = await self._at(answer.height, trace[-1].height, primary, witness, limit_s)
        if state is None:
            return _APART
        below = [known for known in trace if known.height < state.height]
        earlier = await self._hear_or_not(witness, [*below, state], limit_s)
        if isinstance(earlier, Agreed):
            self._agree(state)
            return answer
        return _SILENT if isinstance(earlier, Behind) else earlier

    async def _at(self, height: int, target: int, primary: Peer, witness: Peer, limit_s: float) -> TrustedState | None:
        """The primary's verified block of a height that a witness has; None when it may have pruned it.

        Raises:
            NotVerifiedError: it does not verify; `WithheldError`: the primary keeps it back, or is silent about it.
        """
        try:
            async with asyncio.timeout(OWN_WORD * limit_s):
                block = await primary.fetch(height)
                if block.header.height == height:
                    return await self.accept(block, primary)
                why = f"it shows block {block.header.height} in its place"
        except TimeoutError:
            why = "it does not answer"
        except UnreachableError as error:
            why = error.message
        except (RefusedError, NotVerifiedError) as error:
            if error.code in ("height_pruned", HOP_UNAVAILABLE) and target - height > NEVER_PRUNED:
                return None
            if isinstance(error, NotVerifiedError) and error.code != HOP_UNAVAILABLE:
                raise
            why = error.message
        raise WithheldError(primary.url, target, height, witness.url, why)

    async def _hear_or_not(self, witness: Peer, trace: Sequence[TrustedState], limit_s: float) -> "_Answer":
        try:
            return await self._hear(witness, trace, limit_s)
        except (TimeoutError, UnreachableError, RefusedError):
            return _SILENT
        except NotVerifiedError:
            return _REFUSED

    async def _hear(self, witness: Peer, trace: Sequence[TrustedState], limit_s: float) -> Agreed | Behind | Divergence:
        """Let a witness say what it has at a trace's end, and prove it when that is another block."""
        now_ms = self._now_ms() if isinstance(self._trust, PinnedTrust) else None
        questions = WitnessCheck(trace, self._bounds, now_ms)
        async with asyncio.timeout(limit_s):
            await _ask_target(questions, witness.fetch, trace[-1].height)
        async with asyncio.timeout(STORY * limit_s):
            while (wanted := questions.wanted) is not None:
                questions.feed(await witness.fetch(wanted))
        return questions.answer

    def _conflict(self, divergence: Divergence, primary_url: str, witness_url: str) -> NoReturn:
        path = None
        if self._store is not None:
            try:
                path = self._store.keep_evidence(divergence, primary_url, witness_url)
            except OSError:
                path = None  # said below, by naming no file
        self._diverged = DivergedError(divergence, primary_url, witness_url)
        where = f"the evidence is in {path}" if path is not None else "the evidence could not be kept"
        self._diverged.hint = f"{where}: show it to the grid's operators, and act on neither answer"
        if primary_url == EARLIER_RUN and self._store is not None:
            self._diverged.hint += f"; {self._store.path} remembers the one, remove it once they told you the truth"
        raise self._diverged


_SILENT, _REFUSED, _APART = "silent", "refused", "apart"
_KINDS = (Agreed, Behind, _SILENT, _REFUSED, _APART)
_Answer = Agreed | Behind | Divergence | str


async def _ask_target(questions: WitnessCheck, fetch: Fetch, height: int) -> None:
    """Ask a witness for the header that is compared, or for its newest when it has not got so far."""
    try:
        block = await fetch(height)
    except RefusedError as error:
        if error.code != "height_unknown":
            raise
        questions.feed_newest(await fetch(None))
    else:
        questions.feed(block)
