"""Failover from both sides: a standby that suspects its holder challenges; a drawn witness looks and gives its verdict.

docs/spec/leases.md, "Failover". A challenge follows a failed heartbeat and one fresh dial after it. The challenger
computes the draw from the next block's beacon and invites the witnesses; each checks challenge and draw itself.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from freehold.agent.chain import ChainView
from freehold.agent.core.desired import Want
from freehold.agent.draws import SlotTable
from freehold.agent.peers import Peers
from freehold.agent.sender import Sender
from freehold.agent.witness import Witness
from freehold.base.errors import FreeholdError, RefusedError, UnreachableError
from freehold.ledger.keys import beacon_key, challenge_key
from freehold.ledger.leases import can_fail_over
from freehold.ledger.records import BeaconRecord, ChallengeRecord, Lease
from freehold.ledger.transactions import Challenge, Resolve, Verdict, challenge_id
from freehold.lightclient.client import boottime_ms
from freehold.protocol.messages import Empty, InviteVerdict
from freehold.transport.rpc import Heartbeat

log = structlog.get_logger()

MAX_DOUBLINGS = 32


@dataclass
class Failover:
    """See the module. `spawn` starts a task that lives with the agent."""

    chain: ChainView
    peers: Peers
    slots: SlotTable
    sender: Sender
    witness: Witness
    heartbeat: Heartbeat
    spawn: Callable[[Awaitable[None]], object]
    _watched: dict[bytes, set[bytes]] = field(default_factory=dict)
    _challenging: set[bytes] = field(default_factory=set)
    _verdicts: set[bytes] = field(default_factory=set)
    _lost: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # challenges lost, boot time of the next
    _looking: set[bytes] = field(default_factory=set)  # nodes whose invitation is being looked at

    async def watch(self) -> None:
        """Once a poll: keep heartbeats to the holders that this node stands by for; challenge the silent ones."""
        holders: dict[bytes, list[tuple[bytes, Lease]]] = {}
        for lease_id, lease in self.chain.leases.items():
            holder = self._standing_by_for(lease_id, lease)
            if holder:
                holders.setdefault(holder, []).append((lease_id, lease))
        for node in [known for known in self._watched if known not in holders]:
            del self._watched[node]
            await self.heartbeat.unwatch(node)
        for node, leases in holders.items():
            record = await self.chain.any_node(node)
            if record is not None:
                self.heartbeat.watch(node, record.addresses)
                self._watched[node] = {lease_id for lease_id, _ in leases}
            health = self.heartbeat.health(node)
            if health is not None and health.is_suspect:
                for lease_id, lease in leases:
                    if lease_id not in self._challenging and not lease.challenge and self._is_due(lease_id):
                        self._challenging.add(lease_id)
                        self.spawn(self._challenge(lease_id, lease, node))

    def _standing_by_for(self, lease_id: bytes, lease: Lease) -> bytes:
        """The node that holds the term while this one stands by; empty when there is nothing to watch."""
        if self.chain.desired(lease_id).want is not Want.HOLD or not lease.terms or not can_fail_over(lease):
            return b""
        term = lease.terms[-1]
        holder = lease.members[term.member].node
        return holder if holder != self.chain.node_id and term.from_ms <= self.chain.header_ms else b""

    async def _challenge(self, lease_id: bytes, lease: Lease, holder: bytes) -> None:
        try:
            if await self._answers_fresh_dial(holder):
                return
            term = len(lease.terms)
            log.warning("challenge", lease=lease_id.hex()[:16], term=term, holder=holder.hex()[:16])
            outcome = await self.sender.send(Challenge(lease_id, term))
            challenge = challenge_id(lease_id, term, self.chain.node_id, outcome.height)
            record = await self._invite_witnesses(challenge, outcome.height)
            await self._until_after(record.posted_ms + self.chain.preset.verdict_window_ms)
            await self.sender.send(Resolve(challenge))
            self._judge(lease_id, term)
        except FreeholdError as error:
            log.warning("challenge_failed", lease=lease_id.hex()[:16], code=error.code, error=error.message)
        finally:
            self._challenging.discard(lease_id)

    def _is_due(self, lease_id: bytes) -> bool:
        """Whether a lease may be challenged (again): a holder silent to this node alone costs a bond each time."""
        due = self._lost.get(lease_id)
        return due is None or boottime_ms() >= due[1]

    def _judge(self, lease_id: bytes, term: int) -> None:
        """After a challenge: each one that was lost doubles the wait for the next, up to the span between bounties."""
        lease = self.chain.leases.get(lease_id)
        if lease is None or len(lease.terms) > term:
            self._lost.pop(lease_id, None)
            return
        losses = self._lost.get(lease_id, (0, 0))[0]
        preset = self.chain.preset
        wait_ms = min(preset.verdict_window_ms << losses, preset.bounty_every_epochs * preset.epoch_ms)
        self._lost[lease_id] = (min(losses + 1, MAX_DOUBLINGS), boottime_ms() + wait_ms)
        log.warning("challenge_lost", lease=lease_id.hex()[:16], term=term, wait_ms=wait_ms)

    async def _answers_fresh_dial(self, node: bytes) -> bool:
        self.peers.pool.drop(node, "suspected")
        try:
            peer = await self.peers.peer(node)
            link = await self.peers.pool.link(node, peer.addresses, self.chain.preset.probe_timeout_ms)
            await link.ping(self.chain.preset.probe_timeout_ms)
        except FreeholdError:
            return False
        return True

    async def _until_after(self, ledger_ms: int) -> None:
        """Wait for a block after that time: while the ledger makes none, its windows stay open."""
        while self.chain.header_ms <= ledger_ms:  # noqa: ASYNC110 - the view of the ledger is polled too
            await asyncio.sleep(self.chain.preset.poll_ms / 1000)

    async def _invite_witnesses(self, challenge: bytes, height: int) -> ChallengeRecord:
        record, drawn = await self._drawn(challenge, height)
        log.info("witnesses_drawn", challenge=challenge.hex()[:16], slots=drawn, lease=record.lease.hex()[:16])
        await asyncio.gather(*(self._invite(slot, challenge) for slot in drawn))
        return record

    async def _invite(self, slot: int, challenge: bytes) -> None:
        row = await self.slots.row(slot)
        if row is None:
            return
        if row.node == self.chain.node_id:
            await self.give_verdict(challenge)
            return
        try:
            await self.peers.call(row.node, "verdict.invite", InviteVerdict(challenge), Empty)
        except FreeholdError as error:
            log.info("verdict_witness_not_reached", slot=slot, error=error.message)

    async def _drawn(self, challenge: bytes, height: int = 0) -> tuple[ChallengeRecord, list[int]]:
        """The challenge and its witnesses, once the next block's beacon is in the state."""
        deadline = asyncio.get_running_loop().time() + self.chain.preset.verdict_window_ms / 1000
        while True:
            keys = [challenge_key(challenge), *([beacon_key(height + 1)] if height else [])]
            snapshot = await self.chain.ledger.read(keys)
            record = snapshot.get(keys[0], ChallengeRecord)
            if record is not None and not height:
                height = record.posted_height
                continue
            beacon = snapshot.get(keys[1], BeaconRecord) if height else None
            if record is not None and beacon is not None and beacon.height == height + 1:
                return record, await self._draw(challenge, record, beacon.value)
            if asyncio.get_running_loop().time() > deadline:
                raise RefusedError("no such challenge, or its beacon is gone", code="unknown_challenge")
            await asyncio.sleep(self.chain.preset.min_block_gap_ms / 1000)

    async def _draw(self, challenge: bytes, record: ChallengeRecord, beacon: bytes) -> list[int]:
        lease = await self.chain.any_lease(record.lease)
        if lease is None:
            raise RefusedError("the challenged lease is gone", code="unknown_lease")
        excluded = {lease.tenant, record.challenger}
        for member in lease.members:
            node = await self.chain.any_node(member.node)
            if node is None:
                raise RefusedError("a member of the lease is gone", code="unknown_node")
            excluded.add(node.farm)
        epoch = await self.slots.epoch_record(record.epoch)
        return await self.slots.draw(
            beacon=beacon, target=challenge, epoch=record.epoch, slots=epoch.node_slots, excluded=excluded
        )

    async def give_verdict_quietly(self, caller: bytes, challenge: bytes) -> None:
        """Like `give_verdict`, for an invitation by any node: one at a time each; a refusal is only logged."""
        if caller in self._looking:
            return
        self._looking.add(caller)
        try:
            await self.give_verdict(challenge)
        except FreeholdError as error:
            log.info("no_verdict", challenge=challenge.hex()[:16], error=error.message)
        finally:
            self._looking.discard(caller)

    async def give_verdict(self, challenge: bytes) -> None:
        """As a drawn witness: probe the challenged node at once and post what was seen.

        Raises:
            RefusedError: no such challenge, or this node was not drawn for it.
        """
        if challenge in self._verdicts:
            return
        record, drawn = await self._drawn(challenge)
        if self.chain.node is None or self.chain.node.slot not in drawn:
            raise RefusedError("the draw does not name this node", code="wrong_draw")
        self._verdicts.add(challenge)
        lease = await self.chain.any_lease(record.lease)
        if lease is None or len(lease.terms) < record.term:
            raise RefusedError("the challenged lease is gone", code="unknown_lease")
        target = lease.members[lease.terms[record.term - 1].member].node
        down = not await self._serves(target, record)
        log.info("verdict", challenge=challenge.hex()[:16], target=target.hex()[:16], down=down)
        try:
            await self.sender.send(Verdict(challenge, down))
        except FreeholdError as error:
            log.warning("verdict_refused", challenge=challenge.hex()[:16], code=error.code)

    async def _serves(self, target: bytes, record: ChallengeRecord) -> bool:
        await self.chain.any_node(target)  # our own trouble with the ledger is not the node's: no verdict then
        self.peers.pool.drop(target, "verdict")
        try:
            async with asyncio.timeout(2 * self.chain.preset.probe_timeout_ms / 1000):
                await self.witness.identify(target, record.epoch)
        except (UnreachableError, TimeoutError):
            return False
        except FreeholdError as error:
            log.info("verdict_probe_refused", target=target.hex()[:16], error=error.message)
            return error.code not in ("wrong_key", "bad_signature", "stale_view")
        return True
