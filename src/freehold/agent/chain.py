"""The chain view: the newest verified header and the verified records that concern this node."""

import time
from dataclasses import dataclass, field
from typing import Any

from freehold.agent.core.desired import Desired, desired_of
from freehold.agent.core.fencing import Fence, fence_of
from freehold.agent.core.witnessing import set_bits
from freehold.base.errors import RefusedError
from freehold.base.presets import Preset
from freehold.ledger.keys import TOTALS, deployment_key, lease_key, node_key, node_lease_key
from freehold.ledger.records import Deployment, Lease, Node, NodeLease, Totals
from freehold.ledger.schedule import epoch_at
from freehold.lightclient.client import AskedHeader, LedgerClient, boottime_ms

MAX_CACHED = 1_024


def wall_ms() -> int:
    """The wall clock, in ms since the Unix epoch."""
    return time.time_ns() // 1_000_000


@dataclass
class ChainView:
    """What one poll after the other has brought; `poll` replaces it whole or raises and leaves it."""

    ledger: LedgerClient
    node_id: bytes
    preset: Preset
    genesis_ms: int
    header: AskedHeader | None = None  # at which all of it was read
    totals: Totals | None = None
    node: Node | None = None
    leases: dict[bytes, Lease] = field(default_factory=dict)
    deployments: dict[bytes, Deployment] = field(default_factory=dict)
    _others: dict[bytes, tuple[int, Lease | None]] = field(default_factory=dict)
    _nodes: dict[bytes, tuple[int, Node | None]] = field(default_factory=dict)

    async def poll(self) -> None:
        """Fetch and verify what is new.

        Raises:
            UnreachableError: the ledger does not answer in time.
            NotVerifiedError: its answer does not verify.
        """
        known = list(self.leases)
        keys = [TOTALS, node_key(self.node_id), *map(lease_key, known)]
        keys += map(deployment_key, {lease.deployment for lease in self.leases.values()})
        first = await self.ledger.read(keys)
        node = first.get(node_key(self.node_id), Node)
        leases = {id_: lease for id_ in known if (lease := first.get(lease_key(id_), Lease))}
        slots = set_bits(node.lease_slots) if node else []
        held = {_slot_of(lease, self.node_id) for lease in leases.values()}
        missing = [slot for slot in slots if slot not in held]
        if missing:
            leases.update(await self._read_slots(missing, first.at.height))
        wanted = {lease.deployment for lease in leases.values()}
        deployments = {id_: self.deployments[id_] for id_ in wanted if id_ in self.deployments}
        unread = [id_ for id_ in wanted if id_ not in deployments]
        if unread:
            more = await self.ledger.read([deployment_key(id_) for id_ in unread])
            for id_ in unread:
                record = more.get(deployment_key(id_), Deployment)
                if record:
                    deployments[id_] = record
        if self.header is None or first.at.height > self.header.height:  # the same height renews nothing
            self.header = first.at
        self.totals = first.get(TOTALS, Totals)
        self.node, self.leases, self.deployments = node, leases, deployments

    async def _read_slots(self, slots: list[int], height: int) -> dict[bytes, Lease]:
        keys = {slot: node_lease_key(self.node_id, slot) for slot in slots}
        found = await self.ledger.read(list(keys.values()), height)
        ids = [entry.lease for slot in slots if (entry := found.get(keys[slot], NodeLease))]
        records = await self.ledger.read([lease_key(id_) for id_ in ids], height)
        return {id_: lease for id_ in ids if (lease := records.get(lease_key(id_), Lease))}

    async def any_lease(self, lease_id: bytes) -> Lease | None:
        """The verified record of any lease, at most one poll old."""
        if lease_id in self.leases:
            return self.leases[lease_id]
        now = boottime_ms()
        cached = self._others.get(lease_id)
        if cached is None or now - cached[0] > self.preset.poll_ms:
            key = lease_key(lease_id)
            cached = (now, (await self.ledger.read([key])).get(key, Lease))
            _bound(self._others)
            self._others[lease_id] = cached
        return cached[1]

    async def any_node(self, node_id: bytes) -> Node | None:
        """The verified record of any node, at most ten polls old: keys never change, addresses seldom."""
        now = boottime_ms()
        cached = self._nodes.get(node_id)
        if cached is None or now - cached[0] > 10 * self.preset.poll_ms:
            key = node_key(node_id)
            cached = (now, (await self.ledger.read([key])).get(key, Node))
            _bound(self._nodes)
            self._nodes[node_id] = cached
        return cached[1]

    @property
    def epoch(self) -> int:
        """The epoch of the newest verified header; -1 before the first."""
        return epoch_at(self.preset, self.genesis_ms, self.header.time_ms) if self.header else -1

    @property
    def header_ms(self) -> int:
        """Time of the newest verified header; 0 before the first."""
        return self.header.time_ms if self.header else 0

    def fence(self) -> Fence:
        """The fence that the header of the last whole poll gives now.

        Not the ledger client's newest: a server that answers others' reads and not ours would renew the fence of a
        holder that has not heard of its successor.
        """
        header = self.header
        if header is None:
            return Fence(0, "no header of the ledger has been verified yet")
        return fence_of(header.time_ms, header.asked_boottime_ms, boottime_ms(), wall_ms(), self.preset)

    def desired(self, lease_id: bytes) -> Desired:
        """What the ledger wants of this node for a lease."""
        void_ms = self.totals.void_ms if self.totals else 0
        return desired_of(self.leases.get(lease_id), self.node_id, self.header_ms, void_ms, self.preset.grace_ms)

    def lease(self, lease_id: bytes) -> Lease:
        """The verified record of a lease that this node is a member of.

        Raises:
            RefusedError: there is none.
        """
        lease = self.leases.get(lease_id)
        if lease is None:
            raise RefusedError("this node holds no such lease", code="unknown_lease")
        return lease


def _bound(cache: dict[bytes, Any]) -> None:
    """Keep a cache small: the oldest entry goes."""
    if len(cache) >= MAX_CACHED:
        cache.pop(next(iter(cache)))


def _slot_of(lease: Lease, node: bytes) -> int:
    return next((member.slot for member in lease.members if member.node == node), -1)
