"""`LedgerClient`: verified reads, submission of transactions, and the freshness that the fence depends on.

Every answer of an RPC server is checked: light blocks by hops from what is trusted (`trusted_chain`), values by ICS-23
proof against the app hash of a verified header, heights against what was asked, every wait and every size against a
limit. A server can only refuse or delay; whatever else it does is a `NotVerifiedError` (docs/spec/rpc.md). What
`submit` and `get_json` give is the server's word, until it is read back with proofs.
"""

import asyncio
import base64
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from freehold.base.codec import Record, decode
from freehold.base.errors import CodecError, LocalProtocolError, NotVerifiedError, RefusedError, UnreachableError
from freehold.base.presets import MINIMAL
from freehold.ledger.codes import Code
from freehold.ledger.transactions import tx_id
from freehold.light.divergence import DivergedError
from freehold.light.genesis import TrustedGenesis
from freehold.light.ics23 import SMT, CommitmentProof, verify_absence, verify_existence
from freehold.light.skipping import TrustedState
from freehold.light.trust import GENESIS_TRUST, Trust
from freehold.light.types import LightBlock
from freehold.light.verify import VerifiedHeader
from freehold.lightclient.answers import BlockAnswer, StateAnswer, TxAnswer, decode_answer, plain
from freehold.lightclient.servers import CATCH_UP_POLL_S, CATCH_UP_S, Servers, StaleStateError, wall_ms
from freehold.lightclient.trust_store import TrustStore
from freehold.lightclient.trusted_chain import COMPARE_TIMEOUT_S, Comparison, Peer, TrustedChain, WithheldError

R = TypeVar("R", bound=Record)
T = TypeVar("T")

MAX_KEYS = 256
COMMIT_POLL_S = 0.5
SAVE_EVERY_S = 60.0
STALE_TICKS = 3
_OTHER_SERVER = "believe nothing of it: name another server in FREEHOLD_RPC"


class AskedHeader(VerifiedHeader, frozen=True):
    """A verified header with its age for the fence: when the request that brought it was sent, in ms since boot."""

    asked_boottime_ms: int


@dataclass(frozen=True)
class Snapshot:
    """Verified values of one height, with what proves them."""

    at: AskedHeader
    light_block: LightBlock
    values: dict[bytes, bytes | None]
    proofs: dict[bytes, bytes]

    def get(self, key: bytes, kind: type[R]) -> R | None:
        """The record at a key that was asked for, or None when the ledger provably has none."""
        value = self.values[key]
        return None if value is None else decode(value, kind)


@dataclass(frozen=True)
class Outcome:
    """What became of a transaction; `height` is 0 until it is committed."""

    tx_id: bytes
    code: int
    height: int
    data: bytes


def _tick_ms(genesis: TrustedGenesis) -> int:
    values = genesis.app_state.get("values")
    tick = values.get("tick_ms") if isinstance(values, dict) else None
    return tick if isinstance(tick, int) else MINIMAL.tick_ms


def boottime_ms() -> int:
    """Milliseconds since boot, counting sleep: the clock of the fence."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class LedgerClient:
    """A verifying reader; see the module. Safe for concurrent use in one event loop.

    Attributes:
        url: of the RPC server, or of several with commas between them, asked in turn (`servers`).
        genesis: of the chain.
        trust: where trust in it begins.
        newest: the highest verified header.
    """

    def __init__(
        self,
        url: str,
        genesis: TrustedGenesis,
        *,
        timeout_s: float = 10.0,
        trust: Trust = GENESIS_TRUST,
        store: TrustStore | None = None,
        now_ms: Callable[[], int] = wall_ms,
        doubt: Callable[[str], None] | None = None,
    ) -> None:
        """Bind the parts; nothing is asked yet.

        Args:
            url: of the server, or of several with commas between them: asked in turn, their headers compared.
            genesis: of the chain.
            timeout_s: for one answer.
            trust: where trust begins.
            store: where the newest verified light block is remembered between runs; None: nowhere.
            now_ms: the wall clock.
            doubt: told in words, for people, that no server could be compared with the one that is read from.

        Raises:
            InvalidInputError: what is remembered is damaged, or of another chain.
        """
        self.url = url.rstrip("/")
        self.genesis = genesis
        self.trust = trust
        self.newest: AskedHeader | None = None
        self._chain = TrustedChain(genesis, trust, store, now_ms)
        self._doubt = doubt
        self._timeout_s = timeout_s
        self._servers = Servers(self.url, timeout_s, stale_ms=STALE_TICKS * _tick_ms(genesis), now_ms=now_ms)
        self._servers.floor = self._chain.remembered_height
        self._known: tuple[str, TrustedState] | None = None  # the answer verified last, and what it gave
        self._saved_at = time.monotonic()

    @property
    def chain_id(self) -> str:
        """Of genesis."""
        return self.genesis.chain_id

    async def close(self) -> None:
        """Remember the newest header, and close the connections."""
        await self._chain.save(is_compared=self._servers.has_others)
        await self._servers.close()

    @property
    def comparison(self) -> Comparison | None:
        """What the other servers said last; None before, and without any."""
        return self._chain.comparison

    async def refresh(self, *, timeout_s: float | None = None) -> AskedHeader:
        """Fetch and verify the newest light block.

        Raises:
            UnreachableError: no answer in time.
            NotVerifiedError: the answer does not verify; `StaleStateError`: it is older than what was verified before.
        """
        header = await self._newest(self._ask_header, self._timeout_s if timeout_s is None else timeout_s)
        if self.newest is None or self.newest.height < header.height:  # _verify has just set it, or raised
            raise LocalProtocolError("the newest header is not the highest", code="no_header")
        self._servers.judge(self.newest.time_ms)
        return self.newest

    async def _ask_header(self, limit_s: float) -> tuple[AskedHeader, int, str]:
        asked = boottime_ms()
        answer, url = await self._told("GET", _block_path(None), None, BlockAnswer, limit_s)
        _, header = await self._verify(answer.light_block, asked, url)
        return header, header.height, url

    async def _newest(self, ask: Callable[[float], Awaitable[tuple[T, int, str]]], limit_s: float) -> T:
        """Ask for the newest state until it is no older than what was verified before.

        Honest servers are some blocks apart: one that is behind is left for the next, and waited for when it is the
        only one.

        Args:
            ask: a server, within so many seconds; gives the answer, its height, and who gave it.
            limit_s: over all of it.

        Raises:
            StaleStateError: no server has got so far.
        """
        floor, now = self._servers.floor, asyncio.get_running_loop().time
        ends = now() + limit_s
        gives_up = None  # counted from the first old answer
        behind: dict[str, int] = {}
        withheld = 0
        while True:
            with self._naming_the_server():
                try:
                    answer, height, url = await ask(max(ends - now(), CATCH_UP_POLL_S))
                except WithheldError as error:
                    withheld += 1
                    if withheld == self._servers.count:
                        raise
                    self._servers.turn(error.url)
                    continue
                except UnreachableError as error:
                    if not behind:
                        raise
                    raise StaleStateError(behind, floor, error.message) from None
                if height >= floor:
                    return answer
                gives_up = gives_up or min(ends, now() + CATCH_UP_S)
                is_asked_again = url in behind
                behind[url] = height
                self._servers.leave_behind(url)
                if now() >= gives_up:
                    raise StaleStateError(behind, floor)
                if is_asked_again:  # it says that it has caught up, and has not: several at one address, or a lie
                    await asyncio.sleep(CATCH_UP_POLL_S)

    async def light_block(self, height: int) -> LightBlock:
        """The verified light block of a height."""
        with self._naming_the_server():
            answer, url = await self._told("GET", _block_path(height), None, BlockAnswer, None)
            block, _ = await self._verify(answer.light_block, boottime_ms(), url)
            if block.header.height != height:
                raise NotVerifiedError("the server answered with another height", code="wrong_height")
        return block

    async def hops(self, block: LightBlock) -> list[LightBlock]:
        """The light blocks that lead from the root of trust to a verified one, which is not among them.

        Raises:
            NotVerifiedError: they do not verify, or are not kept any more.
            UnreachableError: no answer in time.
        """
        with self._naming_the_server():
            trace = await self._chain.trace_to(block, self._primary(self._servers.url))
        height = block.header.height
        return [state.light_block for state in trace if state.light_block is not None and state.height != height]

    async def read(self, keys: Sequence[bytes], height: int | None = None) -> Snapshot:
        """Read values of the state and verify them.

        Args:
            keys: any number; asked for in batches at one height.
            height: of the header whose app hash proves them; None for the newest.

        Raises:
            UnreachableError: no answer in time.
            NotVerifiedError: a header, proof or height does not verify; `StaleStateError`: the newest that the
                servers tell is older than what was verified before.
        """
        wanted = list(dict.fromkeys(keys))
        if height is None:
            first = await self._read_newest(wanted[:MAX_KEYS])
        else:
            first = await self._read_at(wanted[:MAX_KEYS], height)
        for start in range(MAX_KEYS, len(wanted), MAX_KEYS):
            batch = await self._read_at(wanted[start : start + MAX_KEYS], first.at.height)
            first.values.update(batch.values)
            first.proofs.update(batch.proofs)
        return first

    async def _read_at(self, keys: list[bytes], height: int) -> Snapshot:
        with self._naming_the_server():
            snapshot, _ = await self._read_batch(keys, height, self._timeout_s)
        return snapshot

    async def _read_newest(self, keys: list[bytes]) -> Snapshot:
        async def ask(limit_s: float) -> tuple[Snapshot, int, str]:
            snapshot, url = await self._read_batch(keys, None, limit_s)
            return snapshot, snapshot.at.height, url

        for _ in range(self._servers.count):
            found = await self._newest(ask, self._timeout_s)
            if not self._servers.judge(found.at.time_ms):
                break  # else once more, from the next server: when all are old, the ledger itself stands still
        return found

    async def _read_batch(self, keys: list[bytes], height: int | None, limit_s: float) -> tuple[Snapshot, str]:
        asked = boottime_ms()
        body = {"keys": [key.hex() for key in keys], "height": height}
        answer, url = await self._told("POST", "/v1/state", msgspec.json.encode(body), StateAnswer, limit_s)
        block, verified = await self._verify(answer.light_block, asked, url)
        if height is not None and block.header.height != height:
            raise NotVerifiedError("the server answered for another height", code="wrong_height")
        values: dict[bytes, bytes | None] = {}
        proofs: dict[bytes, bytes] = {}
        if len(answer.values) != len(keys):
            raise NotVerifiedError("the server left out values, or added some", code="missing_value")
        for key, row in zip(keys, answer.values, strict=True):
            proof = _unbase64(row.proof)
            value = None if row.value is None else _unhex(row.value)
            if row.key != key.hex():
                raise NotVerifiedError("the server answered for another key", code="wrong_key")
            _verify_value(block.header.app_hash, key, value, proof)
            values[key], proofs[key] = value, proof
        return Snapshot(verified, block, values, proofs), url

    async def submit(self, data: bytes, *, wait: bool = True, timeout_s: float = 30.0) -> Outcome:
        """Send a transaction; with `wait`, return when it is in a durable block that the newest header proves.

        The outcome is the server's word: read what the transaction should have changed to be sure.

        Raises:
            RefusedError: the ledger's code is not OK; the error's code is the ledger's word in lower case.
            UnreachableError: no answer in time; the transaction may still be committed. Sending the same bytes again
                is harmless.
        """
        body = {"tx": base64.b64encode(data).decode(), "wait": "proven" if wait else "checked"}
        deadline = asyncio.get_running_loop().time() + timeout_s
        answer = await self._post("/v1/tx", body, TxAnswer, timeout_s=timeout_s)
        while wait and answer.code == Code.OK and not answer.height:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise UnreachableError(
                    "the transaction is in no block yet",
                    code="not_committed_yet",
                    hint="it may still get there: look at its effect before you sign anything anew",
                )
            await asyncio.sleep(min(COMMIT_POLL_S, left))
            self._servers.turn(self._servers.url)  # the same bytes elsewhere: this server may be cut off
            answer = await self._post("/v1/tx", body, TxAnswer, timeout_s=max(left, COMMIT_POLL_S))
        if answer.tx_id != tx_id(data).hex():
            raise NotVerifiedError("the server answered for another transaction", code="wrong_tx")
        if answer.code != Code.OK:
            raise RefusedError(
                f"the ledger refused: {plain(answer.code_name).lower().replace('_', ' ')}",
                code=plain(answer.code_name).lower(),
                hint="see docs/errors.md for what each code means",
            )
        return Outcome(tx_id(data), answer.code, answer.height, _unbase64(answer.data))

    async def ask_faucet(self, account: str, *, timeout_s: float = 30.0) -> None:
        """Ask the grid's faucet for its one transfer to an account; returns when that is committed.

        Raises:
            RefusedError: no faucet, or the account has had its tokens.
        """
        await self._post("/v1/faucet", {"account": account}, object, timeout_s=timeout_s)

    async def get_json(self, path: str) -> Any:
        """An unverified answer, for lists and pages: what rests on it is the server's word."""
        return await self._get(path, object)

    @contextlib.contextmanager
    def _naming_the_server(self) -> Iterator[None]:
        """Say whose answer did not verify, and ask the next server from now on: a liar must not hold reads up."""
        try:
            yield
        except DivergedError:
            raise  # it names both servers, and nothing more is read
        except WithheldError as error:  # it names the servers, too
            self._servers.turn(error.url)
            error.hint = _OTHER_SERVER
            raise
        except StaleStateError as error:  # it names them, and each was left in its turn
            error.hint = "it may be catching up: try again in a while, or name another server in FREEHOLD_RPC"
            if self._chain.memory is not None:
                error.hint += f"; if the grid's operators say that the ledger was set back, remove {self._chain.memory}"
            raise
        except NotVerifiedError as error:
            url = self._servers.url
            self._servers.turn(url)
            error.message += f"; so says the server {url}"
            error.args = (error.message,)
            error.hint = error.hint or _OTHER_SERVER
            raise

    async def _verify(self, encoded: str, asked_boottime_ms: int, url: str) -> tuple[LightBlock, AskedHeader]:
        known = self._known
        if known is None or known[0] != encoded:  # most answers bring the block of the one before
            known = encoded, await self._chain.accept(_decode_block(encoded), self._primary(url))
            if self._servers.has_others and self._chain.is_comparison_due():
                await self._compare(known[1], url)
            self._known = known  # only now: what was spoken against is not read from here
        state = known[1]
        if state.verified is None or state.light_block is None:
            raise LocalProtocolError("a verified header has its light block", code="no_header")
        header = AskedHeader(state.verified.header, state.hash, state.verified.signers, asked_boottime_ms)
        if header.height >= self._servers.floor and (self.newest is None or header.height > self.newest.height):
            self.newest = header
            self._servers.floor = header.height
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self._saved_at = time.monotonic()
            await self._chain.save(is_compared=self._servers.has_others)
        return state.light_block, header

    async def _compare(self, state: TrustedState, url: str) -> None:
        """Compare a header with other servers than the one that gave it, whoever's turn it is by now."""
        witnesses = [self._server(other) for other in self._servers.others(url)]
        # A silent one must not cost a node its fence, which this client's own limit is made for.
        await self._chain.compare(state, self._server(url), witnesses, min(COMPARE_TIMEOUT_S, self._timeout_s / 4))
        found = self._chain.comparison
        if self._doubt is None or found is None or found.height != state.height:
            return
        if found.apart and not found.agreed + found.behind:
            self._doubt(
                f"block {state.height} of {url} could not be compared with any other server: {found.apart} far behind, "
                f"whose blocks it says to have pruned; {found.silent} silent; {found.refused} told what does not verify"
            )

    def _primary(self, url: str) -> Peer:
        async def fetch(height: int | None) -> LightBlock:
            answer: BlockAnswer = await self._get(_block_path(height), BlockAnswer)
            return _decode_block(answer.light_block)

        return Peer(url, fetch)

    def _server(self, url: str) -> Peer:
        """One that answers for itself: what it does not tell is asked of no other."""

        async def fetch(height: int | None) -> LightBlock:
            raw = await self._servers.ask(url, _block_path(height), self._timeout_s)
            answer: BlockAnswer = decode_answer(raw, BlockAnswer)
            return _decode_block(answer.light_block)

        return Peer(url, fetch, self._primary(url).fetch)

    async def _get(self, path: str, kind: Any, *, timeout_s: float | None = None) -> Any:
        return await self._call("GET", path, None, kind, timeout_s)

    async def _post(self, path: str, body: Any, kind: Any, *, timeout_s: float | None = None) -> Any:
        return await self._call("POST", path, msgspec.json.encode(body), kind, timeout_s)

    async def _call(self, method: str, path: str, content: bytes | None, kind: Any, timeout_s: float | None) -> Any:
        return (await self._told(method, path, content, kind, timeout_s))[0]

    async def _told(
        self, method: str, path: str, content: bytes | None, kind: Any, timeout_s: float | None
    ) -> tuple[Any, str]:
        """An answer, and the server that gave it: another read may have turned to the next one meanwhile."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        raw = await self._servers.exchange(method, path, content, limit_s)
        return decode_answer(raw, kind), raw.url


def _block_path(height: int | None) -> str:
    return "/v1/light_block" if height is None else f"/v1/light_block?height={height}"


def _decode_block(encoded: str) -> LightBlock:
    try:
        return LightBlock.decode(_unbase64(encoded))
    except CodecError as error:
        raise NotVerifiedError(f"the server's light block is malformed: {error.message}", code="bad_answer") from None


def _verify_value(app_hash: bytes, key: bytes, value: bytes | None, proof: bytes) -> None:
    try:
        decoded = CommitmentProof.decode(proof)
    except CodecError as error:
        raise NotVerifiedError(f"the server's proof is malformed: {error.message}", code="bad_answer") from None
    if value is None:
        verify_absence(SMT, app_hash, key, decoded)
    else:
        verify_existence(SMT, app_hash, key, value, decoded)


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise NotVerifiedError("the server's answer is malformed: not base64", code="bad_answer") from None


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise NotVerifiedError("the server's answer is malformed: not hex", code="bad_answer") from None
