"""Heartbeats: which of the watched peers are alive, and since when one is suspected.

Each watched peer is pinged every `interval_ms` over the pool's link (dialled when there is none). A peer that showed no
life for `suspect_ms` is suspected, and its link is dropped, so that the next ping is a fresh dial. Time is the event
loop's monotonic clock.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from freehold.base.errors import FreeholdError
from freehold.transport.pool import Pool

MIN_PING_MS = 500  # a dial on a busy machine needs some time, also when the moment of suspicion is near
OnChange = Callable[[bytes, bool], None]


@dataclass
class PeerHealth:
    """What is known of one watched peer.

    Attributes:
        addresses: where it is dialled.
        last_seen_s: loop time of its last sign of life; that of the first watch before there was one.
        is_suspect: whether it has been silent for `suspect_ms`.
        round_trip_ms: of the last answered ping.
        reason: code of the last failure, "" after a success.
    """

    addresses: list[str]
    last_seen_s: float
    is_suspect: bool = False
    round_trip_ms: float = 0.0
    reason: str = ""


class Heartbeat:
    """Watches peers.

    Args:
        pool: holds the connections.
        interval_ms: between two pings of one peer (the preset's `poll_ms`).
        suspect_ms: silence after which a peer is suspected (the preset's `suspect_ms`).
        on_change: told (node id, alive) when a peer becomes suspect, and when it comes back; must not block.
    """

    def __init__(self, pool: Pool, interval_ms: int, suspect_ms: int, on_change: OnChange | None = None) -> None:
        self._pool = pool
        self._interval_s = interval_ms / 1000
        self._suspect_s = suspect_ms / 1000
        self._on_change = on_change
        self._peers: dict[bytes, PeerHealth] = {}
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    def watch(self, node_id: bytes, addresses: Sequence[str]) -> None:
        """Start watching a peer, or learn its new addresses."""
        health = self._peers.get(node_id)
        if health is not None:
            health.addresses = list(addresses)
            return
        self._peers[node_id] = PeerHealth(list(addresses), asyncio.get_running_loop().time())
        self._tasks[node_id] = asyncio.create_task(self._beat(node_id, self._peers[node_id]))

    async def unwatch(self, node_id: bytes) -> None:
        """Stop watching a peer; its link stays for calls."""
        self._peers.pop(node_id, None)
        task = self._tasks.pop(node_id, None)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    def health(self, node_id: bytes) -> PeerHealth | None:
        """What is known of a watched peer."""
        return self._peers.get(node_id)

    def silent_ms(self, node_id: bytes) -> float | None:
        """For how long a watched peer has shown no life, in milliseconds."""
        health = self._peers.get(node_id)
        return None if health is None else (asyncio.get_running_loop().time() - health.last_seen_s) * 1000

    async def close(self) -> None:
        """Stop watching all."""
        for node_id in list(self._tasks):
            await self.unwatch(node_id)

    async def _beat(self, node_id: bytes, health: PeerHealth) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            alive = await self._ping(node_id, health, began)
            now = loop.time()
            # Silence alone proves nothing when this process stood still: only a ping that failed does.
            if alive or now - health.last_seen_s >= self._suspect_s:
                self._judge(node_id, health, alive)
            await asyncio.sleep(max(0.0, began + self._interval_s - now))

    async def _ping(self, node_id: bytes, health: PeerHealth, now: float) -> bool:
        until_suspect_s = health.last_seen_s + self._suspect_s - now
        timeout_ms = max(int(max(until_suspect_s, self._interval_s) * 1000), MIN_PING_MS)
        try:
            link = await self._pool.link(node_id, health.addresses, timeout_ms)
            health.round_trip_ms = await link.ping(timeout_ms)
        except FreeholdError as error:
            health.reason = error.code
            return False
        health.reason = ""
        health.last_seen_s = link.last_seen_s
        return True

    def _judge(self, node_id: bytes, health: PeerHealth, alive: bool) -> None:
        if not alive:
            self._pool.drop(node_id, "suspected")
        if alive == health.is_suspect:
            health.is_suspect = not alive
            if self._on_change is not None:
                self._on_change(node_id, alive)
