"""`LedgerClient`: verified reads, submission of transactions, and the freshness that the fence depends on.

Every answer of an RPC server is checked: light blocks against genesis' validators, values by ICS-23 proof against the
app hash of a verified header, heights against what was asked, every wait and every size against a limit. A server can
only refuse or delay; whatever else it does is a `NotVerifiedError` (docs/spec/rpc.md). What `submit` and `get_json`
give is the server's word, until it is read back with proofs.
"""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from freehold.base.codec import Record, decode
from freehold.base.errors import CodecError, FreeholdError, NotVerifiedError, RefusedError, UnreachableError
from freehold.base.presets import MINIMAL
from freehold.ledger.codes import Code
from freehold.ledger.transactions import tx_id
from freehold.light.genesis import TrustedGenesis
from freehold.light.ics23 import SMT, CommitmentProof, verify_absence, verify_existence
from freehold.light.types import Header, LightBlock
from freehold.light.verify import verify_light_block
from freehold.lightclient.servers import Servers

R = TypeVar("R", bound=Record)

MAX_KEYS = 256
MAX_TEXT = 300  # of a server's message
COMMIT_POLL_S = 0.5
STALE_TICKS = 3


@dataclass(frozen=True)
class VerifiedHeader:
    """A verified header: `asked_boottime_ms` is when the request that brought it was sent."""

    header: Header
    hash: bytes
    asked_boottime_ms: int

    @property
    def height(self) -> int:
        """Its height."""
        return self.header.height

    @property
    def time_ms(self) -> int:
        """Its block time in ms since the epoch."""
        return self.header.time.ms


@dataclass(frozen=True)
class Snapshot:
    """Verified values of one height, with what proves them."""

    at: VerifiedHeader
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


class _StateValue(msgspec.Struct):
    key: str
    value: str | None
    proof: str


class _StateAnswer(msgspec.Struct):
    height: int
    light_block: str
    values: list[_StateValue]


class _BlockAnswer(msgspec.Struct):
    height: int
    light_block: str


class _TxAnswer(msgspec.Struct):
    tx_id: str
    code: int
    code_name: str
    height: int
    data: str


class _ErrorAnswer(msgspec.Struct):
    code: str
    message: str
    hint: str = ""


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
        genesis: what is trusted.
        newest: the highest verified header.
    """

    def __init__(self, url: str, genesis: TrustedGenesis, *, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self.genesis = genesis
        self.newest: VerifiedHeader | None = None
        self._timeout_s = timeout_s
        self._known: tuple[str, LightBlock, bytes] | None = None  # the block verified last, as it came, and its hash
        self._servers = Servers(self.url, timeout_s, stale_ms=STALE_TICKS * _tick_ms(genesis))

    @property
    def chain_id(self) -> str:
        """Of genesis."""
        return self.genesis.chain_id

    async def close(self) -> None:
        """Close the connections."""
        await self._servers.close()

    async def refresh(self, *, timeout_s: float | None = None) -> VerifiedHeader:
        """Fetch and verify the newest light block.

        Raises:
            UnreachableError: no answer in time.
            NotVerifiedError: the answer does not verify.
        """
        asked = boottime_ms()
        answer = await self._get("/v1/light_block", _BlockAnswer, timeout_s=timeout_s)
        self._verify(answer.light_block, asked)
        if self.newest is None:  # _verify has just set it, or raised
            raise NotVerifiedError("no header was verified", code="no_header")
        self._servers.judge(self.newest.time_ms)
        return self.newest

    async def light_block(self, height: int) -> LightBlock:
        """The verified light block of a height."""
        answer = await self._get(f"/v1/light_block?height={height}", _BlockAnswer)
        block, _ = self._verify(answer.light_block, boottime_ms())
        if block.header.height != height:
            raise NotVerifiedError("the server answered with another height", code="wrong_height")
        return block

    async def read(self, keys: Sequence[bytes], height: int | None = None) -> Snapshot:
        """Read values of the state and verify them.

        Args:
            keys: any number; asked for in batches at one height.
            height: of the header whose app hash proves them; None for the newest.

        Raises:
            UnreachableError: no answer in time.
            NotVerifiedError: a header, proof or height does not verify.
        """
        wanted = list(dict.fromkeys(keys))
        first = await self._read_batch(wanted[:MAX_KEYS], height)
        for start in range(MAX_KEYS, len(wanted), MAX_KEYS):
            batch = await self._read_batch(wanted[start : start + MAX_KEYS], first.at.height)
            first.values.update(batch.values)
            first.proofs.update(batch.proofs)
        return first

    async def _read_batch(self, keys: list[bytes], height: int | None) -> Snapshot:
        asked = boottime_ms()
        known = self.newest.height if self.newest else 0
        body = {"keys": [key.hex() for key in keys], "height": height}
        answer = await self._post("/v1/state", body, _StateAnswer)
        block, verified = self._verify(answer.light_block, asked)
        if height is not None and block.header.height != height:
            raise NotVerifiedError("the server answered for another height", code="wrong_height")
        if height is None and block.header.height < known:
            raise NotVerifiedError("the server answered from an older state than before", code="stale_state")
        if height is None:
            self._servers.judge(verified.time_ms)
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
        return Snapshot(verified, block, values, proofs)

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
        answer = await self._post("/v1/tx", body, _TxAnswer, timeout_s=timeout_s)
        while wait and answer.code == Code.OK and not answer.height:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise UnreachableError(
                    "the transaction is in no block yet",
                    code="not_committed_yet",
                    hint="it may still get there: look at its effect before you sign anything anew",
                )
            await asyncio.sleep(min(COMMIT_POLL_S, left))
            answer = await self._post("/v1/tx", body, _TxAnswer, timeout_s=max(left, COMMIT_POLL_S))
        if answer.tx_id != tx_id(data).hex():
            raise NotVerifiedError("the server answered for another transaction", code="wrong_tx")
        if answer.code != Code.OK:
            raise RefusedError(
                f"the ledger refused: {_plain(answer.code_name).lower().replace('_', ' ')}",
                code=_plain(answer.code_name).lower(),
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

    def _verify(self, encoded: str, asked_boottime_ms: int) -> tuple[LightBlock, VerifiedHeader]:
        known = self._known
        if known is None or known[0] != encoded:  # most answers bring the block of the one before
            try:
                block = LightBlock.decode(_unbase64(encoded))
            except CodecError as error:
                raise NotVerifiedError(
                    f"the server's light block is malformed: {error.message}", code="bad_answer"
                ) from None
            known = self._known = encoded, block, verify_light_block(block, self.genesis).hash
        _, block, digest = known
        verified = VerifiedHeader(block.header, digest, asked_boottime_ms)
        newest = self.newest
        if newest is not None and verified.height == newest.height and verified.hash != newest.hash:
            raise NotVerifiedError(
                f"two different blocks are signed at height {verified.height}: the validators equivocated",
                code="equivocation",
                hint="keep both blocks: they are evidence",
            )
        if newest is None or verified.height > newest.height:
            self.newest = verified
            self._servers.floor = verified.height
        return block, verified

    async def _get(self, path: str, kind: Any, *, timeout_s: float | None = None) -> Any:
        return await self._call("GET", path, None, kind, timeout_s)

    async def _post(self, path: str, body: Any, kind: Any, *, timeout_s: float | None = None) -> Any:
        return await self._call("POST", path, msgspec.json.encode(body), kind, timeout_s)

    async def _call(self, method: str, path: str, content: bytes | None, kind: Any, timeout_s: float | None) -> Any:
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        raw = await self._servers.exchange(method, path, content, limit_s)
        if raw.status != 200:
            raise _server_error(raw.status, raw.content)
        try:
            return msgspec.json.decode(raw.content, type=kind)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise NotVerifiedError(
                f"the server's answer is malformed: {_plain(str(error))}", code="bad_answer"
            ) from None


def _server_error(status: int, content: bytes) -> FreeholdError:
    try:
        error = msgspec.json.decode(content, type=_ErrorAnswer)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return UnreachableError(f"the ledger answered with HTTP status {status}", code="bad_answer")
    kind = UnreachableError if status >= 500 or status in (408, 429) else RefusedError
    return kind(_plain(error.message), code=_plain(error.code), hint=_plain(error.hint))


def _plain(text: str) -> str:
    """Give a server's text as a terminal may show it: bounded, nothing but printable characters."""
    return "".join(char if char.isprintable() else "?" for char in text[:MAX_TEXT])


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
