"""This node as a witness of others, and as a target that invites its own witnesses (docs/spec/witnesses.md).

As a target: when an epoch begins, compute the own draw over verified records and invite each witness; who is not
invited sees nothing, so not inviting is absence. As a witness: check the draw oneself, then probe at three moments of
one's own secret choosing, and keep each signed answer for the duty tree.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from freehold.agent.access import holder_of
from freehold.agent.chain import ChainView, wall_ms
from freehold.agent.core.witnessing import MAX_LOOKED_UP, MAX_SAMPLED_LEASES, Duties, rank_slots, set_bits
from freehold.agent.draws import SlotTable
from freehold.agent.peers import Peers
from freehold.agent.probing import speak
from freehold.base.errors import FreeholdError, RefusedError
from freehold.crypto.entropy import random_below, random_bytes
from freehold.ledger.keys import lease_key, node_key, node_lease_key
from freehold.ledger.leases import is_running
from freehold.ledger.records import Lease, Node, NodeLease
from freehold.ledger.schedule import epoch_end_ms
from freehold.ledger.transactions import ProbeKind
from freehold.protocol.evidence import IdentityAnswer, IdentityQuestion, ProbeSeen, WorkloadSeen, is_identity_answer
from freehold.protocol.messages import Empty, InviteWitness, OpenProbe, TunnelOpen

log = structlog.get_logger()

KEPT_EPOCHS = 3
NONCE_BYTES = 16
Spawn = Callable[[Awaitable[None]], object]


class Witness:
    """See the module. `spawn` starts a task that lives with the agent."""

    def __init__(self, chain: ChainView, peers: Peers, slots: SlotTable, spawn: Spawn) -> None:
        self._chain = chain
        self._peers = peers
        self._slots = slots
        self._spawn = spawn
        self._duties: dict[int, Duties] = {}
        self._own_draw: dict[int, list[int]] = {}
        self._invited_epoch = -1

    def duties(self, epoch: int) -> Duties:
        """What was seen in an epoch; made when first asked for, old ones go."""
        if epoch not in self._duties:
            self._duties[epoch] = Duties(epoch, self._chain.node_id)
            for old in [known for known in self._duties if known <= epoch - KEPT_EPOCHS]:
                del self._duties[old]
        return self._duties[epoch]

    async def own_draw(self, epoch: int) -> list[int]:
        """The witnesses drawn for this node in an epoch.

        Raises:
            FreeholdError: the ledger has no record of the epoch, or does not answer.
        """
        if epoch not in self._own_draw:
            self._own_draw[epoch] = await self.draw_for(self._chain.node_id, epoch)
            for old in [known for known in self._own_draw if known <= epoch - KEPT_EPOCHS]:
                del self._own_draw[old]
        return self._own_draw[epoch]

    async def begin_epoch(self, epoch: int) -> None:
        """Invite the witnesses drawn for this node; call once a poll, it acts once an epoch."""
        if epoch <= self._invited_epoch or self._chain.node is None:
            return
        drawn = await self.own_draw(epoch)
        self._invited_epoch = epoch
        request = InviteWitness(epoch, self._chain.node.slot, drawn)
        for slot in drawn:
            self._spawn(self._invite(slot, request))

    async def _invite(self, slot: int, request: InviteWitness) -> None:
        deadline_ms = self._epoch_end_wall_ms(request.epoch) - self._chain.preset.probe_timeout_ms
        row = await self._slots.row(slot)
        while row is not None and wall_ms() < deadline_ms:
            try:
                await self._peers.call(row.node, "witness.invite", request, Empty)
                return
            except FreeholdError as error:
                log.info("witness_not_reached", epoch=request.epoch, slot=slot, error=error.message)
                await asyncio.sleep(self._chain.preset.poll_ms / 1000)

    async def accept_invitation(self, caller: bytes, request: InviteWitness) -> None:
        """Take on a duty after checking the draw.

        Raises:
            RefusedError: the caller is not that slot, the draw does not name this node, or the epoch is not this one.
        """
        if self._chain.node is None or request.epoch != self._chain.epoch:
            raise RefusedError(f"epoch {request.epoch} is not the present one", code="wrong_epoch")
        target = await self._chain.any_node(caller)
        if target is None or target.slot != request.slot:
            raise RefusedError("the caller does not hold that slot", code="not_allowed")
        duties = self.duties(request.epoch)
        if request.slot in duties.seen:
            return
        drawn = await self.draw_for(caller, request.epoch)
        if drawn != request.witnesses or self._chain.node.slot not in drawn:
            raise RefusedError("the draw does not name this node", code="wrong_draw")
        if not duties.invite(request.slot):
            raise RefusedError("this witness has too many duties", code="too_many")
        for at_ms in self._secret_times(request.epoch):
            self._spawn(self._probe_at(at_ms, request.epoch, request.slot, caller))

    async def draw_for(self, node_id: bytes, epoch: int) -> list[int]:
        """The witnesses drawn for any node in an epoch.

        Raises:
            FreeholdError: the ledger has no such node or epoch, or does not answer.
        """
        record = await self._slots.epoch_record(epoch)
        node = await self._chain.any_node(node_id)
        if node is None:
            raise RefusedError("the ledger knows no such node", code="unknown_node")
        return await self._slots.draw(
            beacon=record.beacon, target=node_id, epoch=epoch, slots=record.node_slots, excluded={node.farm}
        )

    def _epoch_end_wall_ms(self, epoch: int) -> int:
        return epoch_end_ms(self._chain.preset, self._chain.genesis_ms, epoch)

    def _secret_times(self, epoch: int) -> list[int]:
        """Moments within what is left of the epoch, leaving room for an answer; nobody else can know them."""
        now, preset = wall_ms(), self._chain.preset
        span = max(1, self._epoch_end_wall_ms(epoch) - preset.probe_timeout_ms - now)
        return sorted(now + random_below(span) for _ in range(preset.probes_per_duty))

    async def _probe_at(self, at_ms: int, epoch: int, slot: int, target: bytes) -> None:
        await asyncio.sleep(max(0, at_ms - wall_ms()) / 1000)
        try:
            seen, lease_slots = await self.probe(target, epoch)
        except (FreeholdError, TimeoutError) as error:
            log.info("probe_failed", epoch=epoch, slot=slot, error=str(error))
            return
        self.duties(epoch).record(slot, seen, lease_slots)

    async def probe(self, target: bytes, epoch: int) -> tuple[ProbeSeen, dict[bytes, int]]:
        """Probe a node once: its key, its view of the chain, and up to four of the services that it is to run.

        Which services those are, the ledger says and the nonce draws: the node cannot leave out a dead one.

        Returns:
            What was seen, and the lease slots of the services that were sampled.

        Raises:
            FreeholdError: not reached, or the answer is not its own.
            TimeoutError: no answer in time.
        """
        limit_s = 2 * self._chain.preset.probe_timeout_ms / 1000
        async with asyncio.timeout(limit_s):
            answer = await self.identify(target, epoch)
        try:
            async with asyncio.timeout(limit_s):
                sampled = await self._sample(target, answer.nonce)
        except (FreeholdError, TimeoutError) as error:  # our own trouble with the ledger is not the node's
            log.info("nothing_sampled", epoch=epoch, error=str(error))
            sampled = []
        results = await asyncio.gather(*(self._probe_workload(target, lease_id, lease) for lease_id, lease in sampled))
        lease_slots = {
            lease_id: member.slot for lease_id, lease in sampled for member in lease.members if member.node == target
        }
        return ProbeSeen(self._chain.header_ms, answer, list(results)), lease_slots

    async def identify(self, target: bytes, epoch: int) -> IdentityAnswer:
        """Ask a node for its key and its view of the chain.

        Raises:
            UnreachableError: not reached.
            RefusedError: the answer is not its own (`bad_signature`), or its view is old (`stale_view`).
        """
        timeout_ms = self._chain.preset.probe_timeout_ms
        question = IdentityQuestion(epoch, random_bytes(NONCE_BYTES))
        answer = await self._peers.call(target, "probe.identity", question, IdentityAnswer, timeout_ms=timeout_ms)
        if not is_identity_answer(self._chain.ledger.chain_id, answer, target, self._chain.node_id, question):
            raise RefusedError("the answer is not signed by the node for this question", code="bad_signature")
        self._require_fresh(answer)
        return answer

    async def _sample(self, target: bytes, nonce: bytes) -> list[tuple[bytes, Lease]]:
        """Running leases with a probe whose term in force the target holds, read with proofs."""
        ledger, key = self._chain.ledger, node_key(target)
        node = (await ledger.read([key])).get(key, Node)
        slots = rank_slots(set_bits(node.lease_slots), nonce)[:MAX_LOOKED_UP] if node else []
        if not slots:
            return []
        keys = [node_lease_key(target, slot) for slot in slots]
        entries = await ledger.read(keys)
        ids = [entry.lease for key in keys if (entry := entries.get(key, NodeLease))]
        found = await ledger.read([lease_key(id_) for id_ in ids])
        held, totals = [], self._chain.totals
        for id_ in ids:
            lease = found.get(lease_key(id_), Lease)
            if lease is None or totals is None or lease.probe.kind == ProbeKind.NONE:
                continue
            if not is_running(lease, self._chain.header_ms, totals.void_ms):
                continue  # it has ended, so it is silent; its slot may soon be another's
            holder = holder_of(lease, self._chain.header_ms)
            if holder is not None and holder[0] == target:
                held.append((id_, lease))
        return held[:MAX_SAMPLED_LEASES]

    def _require_fresh(self, answer: IdentityAnswer) -> None:
        header = self._chain.header
        allowed = self._chain.preset.fence_ms // max(1, self._chain.preset.min_block_gap_ms)
        if header is None or answer.height < header.height - allowed:
            raise RefusedError("the node's view of the chain is old", code="stale_view")

    async def _probe_workload(self, target: bytes, lease_id: bytes, lease: Lease) -> WorkloadSeen:
        term = len(lease.terms)
        try:
            async with asyncio.timeout(self._chain.preset.probe_timeout_ms / 1000):
                _, stream = await self._peers.splice(target, "probe.open", OpenProbe(lease_id, term), TunnelOpen)
                return WorkloadSeen(lease_id, term, await speak(stream, lease.probe, lease.service))
        except (FreeholdError, TimeoutError):
            return WorkloadSeen(lease_id, term, False)
