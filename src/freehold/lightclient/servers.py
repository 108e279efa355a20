"""The HTTP under the light client: one ledger's RPC servers, asked in turn.

The server that answered last is asked first. One that is silent, unreachable or says that it cannot serve (5xx) is left
for the next, and so is one whose newest header is old. A server that was just turned to, or that told an older state,
may be some blocks behind: it is waited for until it says that it has reached the height that this reader has verified,
so that the state never seems to go back. What a server says here is believed by nobody: `LedgerClient` verifies it.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx2
import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import NotVerifiedError, UnreachableError

MAX_RESPONSE_BYTES: Final = 8 << 20
CONNECT_S: Final = 2.0
CATCH_UP_S: Final = 3.0
CATCH_UP_POLL_S: Final = 0.1
WAITING: Final = ("/v1/tx", "/v1/faucet")


def wall_ms() -> int:
    """The wall clock, in ms since the Unix epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Answer:
    """A response: who gave it, its status and whole body."""

    url: str
    status: int
    content: bytes


class _Status(msgspec.Struct):
    height: int


class StaleStateError(NotVerifiedError):
    """No server stands as high as what was verified before: what they tell is older."""

    def __init__(self, behind: Mapping[str, int], floor: int, others: str = "") -> None:
        """Say who is behind, and by how much.

        Args:
            behind: the height of each server that is, by its URL; at least one.
            floor: the height that was verified before.
            others: words about servers that could not be asked.
        """
        told = [f"{url} stands at block {height}, {floor - height} below" for url, height in behind.items()]
        words = "; ".join([*told, others] if others else told)
        super().__init__(
            f"what is told is older than block {floor}, which was verified before: {words}", code="stale_state"
        )


class Servers:
    """See the module. Safe for concurrent use in one event loop.

    Attributes:
        floor: the height that a server must have reached when it is turned to.
    """

    def __init__(self, urls: str, timeout_s: float, *, stale_ms: int, now_ms: Callable[[], int] = wall_ms) -> None:
        """Bind the servers.

        Args:
            urls: one URL, or several with commas between them.
            timeout_s: of a call that names no limit.
            stale_ms: a newest header older than this is a reason to ask the next server, the next time.
            now_ms: the wall clock.
        """
        self._stale_ms = stale_ms
        self._now_ms = now_ms
        self._urls = [url.strip().rstrip("/") for url in urls.split(",")]
        self._at = 0
        self.floor = 0
        self._is_new = False
        # Reading the root certificates takes 30 ms, which plain HTTP has no use for.
        is_https = any(url.startswith("https:") for url in self._urls)
        headers = {"accept-encoding": "identity"}
        self._http = httpx2.AsyncClient(timeout=timeout_s, trust_env=False, verify=is_https, headers=headers)

    @property
    def url(self) -> str:
        """Of the server that is asked first."""
        return self._urls[self._at]

    @property
    def has_others(self) -> bool:
        """Whether there is another one to turn to."""
        return len(self._urls) > 1

    def others(self, url: str) -> list[str]:
        """All servers but one, in the order of their turns after it."""
        at = self._urls.index(url)
        return [*self._urls[at + 1 :], *self._urls[:at]]

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def turn(self, url: str) -> None:
        """Leave a server for the next one, unless another caller has done so."""
        if self.url == url and self.has_others:
            self._at = (self._at + 1) % len(self._urls)
            self._is_new = True

    def leave_behind(self, url: str) -> None:
        """Leave a server that told an older state than `floor`; the only one is waited for before it is asked again."""
        self.turn(url)
        self._is_new = True

    @property
    def count(self) -> int:
        """How many servers there are."""
        return len(self._urls)

    def judge(self, header_time_ms: int) -> bool:
        """Leave a server whose newest header is old: it may be cut off with too few validators to go on.

        Returns:
            Whether the next one should be asked instead.
        """
        is_old = self.has_others and self._now_ms() - header_time_ms > self._stale_ms
        if is_old:
            self.turn(self.url)
        return is_old

    async def exchange(self, method: str, path: str, content: bytes | None, limit_s: float) -> Answer:
        """Ask until a server answers, each one once.

        Args:
            method: of HTTP.
            path: with its query.
            content: a JSON body.
            limit_s: over all of it.

        Raises:
            UnreachableError: no server answered in time.
            NotVerifiedError: an answer broke its bounds; `StaleStateError` when those that are up are behind.
        """
        reasons: list[str] = []
        behind: dict[str, int] = {}
        told: Answer | None = None  # by a server that could not serve; its words say more than silence
        try:
            # One limit over all of it: those of the HTTP library begin anew with each byte that a server drips.
            async with asyncio.timeout(limit_s):
                for _ in self._urls:
                    url = self.url
                    try:
                        await self._catch_up(url, behind, limit_s)
                        # What may take long by its nature has all the time that is left; a read has half of it.
                        share_s = limit_s if path in WAITING or not self.has_others else limit_s / 2
                        async with asyncio.timeout(share_s):
                            answer = await self._ask(url, method, path, content, limit_s)
                        if answer.status < 500:
                            return answer
                        told = answer
                        reasons.append(f"{url}: status {answer.status}")
                    except (TimeoutError, httpx2.HTTPError, OSError) as error:
                        if url not in behind:
                            reasons.append(f"{url}: {type(error).__name__}")
                    self.turn(url)
        except TimeoutError:
            if self.url not in behind:
                reasons.append(f"{self.url}: TimeoutError")
            self.turn(self.url)
        if told is not None:
            return told
        if behind:
            raise StaleStateError(behind, self.floor, "; ".join(reasons))
        raise UnreachableError(
            f"the ledger at {self._urls[0]} does not answer: {reasons[-1].rpartition(' ')[2]}"
            if not self.has_others
            else f"none of the ledger's servers answers: {'; '.join(reasons)}",
            code="ledger_unreachable",
            hint="is the grid up? `freehold grid status`; FREEHOLD_RPC names other servers",
        )

    async def ask(self, url: str, path: str, limit_s: float) -> Answer:
        """Ask one server, whoever's turn it is.

        Args:
            url: one of `others`.
            path: with its query.
            limit_s: over all of it.

        Raises:
            UnreachableError: it does not answer in time.
            NotVerifiedError: its answer broke its bounds.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await self._ask(url, "GET", path, None, limit_s)
        except (TimeoutError, httpx2.HTTPError, OSError) as error:
            raise UnreachableError(
                f"the server {url} does not answer: {type(error).__name__}", code="server_unreachable"
            ) from error

    async def _catch_up(self, url: str, behind: dict[str, int], limit_s: float) -> None:
        """Wait for a server that was just turned to; one that stays behind is noted, and counts as silent."""
        if not self._is_new:
            return
        # Within a node's short limit there must be time left for the next one.
        async with asyncio.timeout(min(CATCH_UP_S, limit_s / len(self._urls))):
            while True:
                answer = await self._ask(url, "GET", "/v1/status", None, CATCH_UP_S)
                try:
                    height = decode_json(answer.content, _Status).height
                except (msgspec.DecodeError, ValueError, RecursionError):
                    raise TimeoutError from None
                if height >= self.floor:
                    break
                behind[url] = height
                await asyncio.sleep(CATCH_UP_POLL_S)
        behind.pop(url, None)
        self._is_new = False

    async def _ask(self, url: str, method: str, path: str, content: bytes | None, limit_s: float) -> Answer:
        headers = {"content-type": "application/json"} if content is not None else None
        connect_s = min(CONNECT_S, limit_s / len(self._urls)) if self.has_others else limit_s
        timeout = httpx2.Timeout(limit_s, connect=connect_s)
        async with self._http.stream(method, url + path, content=content, headers=headers, timeout=timeout) as response:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise NotVerifiedError("the server compressed its answer, unasked", code="bad_answer")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise NotVerifiedError("the server's answer is too large", code="oversized")
            return Answer(url, response.status_code, bytes(body))
