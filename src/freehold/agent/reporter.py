"""One signed report per epoch: evidence of what was served, own draw, own duty; then the claims that it allows.

What is not reported in the window is not paid, so a report is tried again until the window closes. The leaves go to
the members of each lease at report time: a dead node takes no proof with it (docs/spec/witnesses.md).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from freehold.agent.chain import ChainView, wall_ms
from freehold.agent.core.desired import Want
from freehold.agent.core.witnessing import set_bit
from freehold.agent.mailbox import Mailboxes
from freehold.agent.peers import Peers
from freehold.agent.sender import Sender
from freehold.agent.witness import Witness
from freehold.base.errors import FreeholdError, RefusedError
from freehold.base.limits import MAX_CLAIM_EPOCHS
from freehold.ledger.records import Lease, Member
from freehold.ledger.schedule import report_due_ms, window_end_ms
from freehold.ledger.transactions import Claim, Refund, Report
from freehold.lightclient.client import boottime_ms
from freehold.protocol.evidence import (
    LEAF_VERSION,
    DutyLeaf,
    EvidenceLeaf,
    duty_root,
    evidence_root,
    prove_duties,
    prove_evidence,
)
from freehold.protocol.messages import Empty, EvidencePush

log = structlog.get_logger()

EMPTY_BITS = bytes(32)
KEPT_EPOCHS = 3
LONG_EPOCH_MS = 60_000  # from here on a day is gathered before a claim; shorter epochs are watched by people


@dataclass(frozen=True)
class ServiceState:
    """What a worker says of its lease at this moment."""

    lease_id: bytes
    serving: bool  # running as holder, or ready as standby
    restarts: int
    health: str
    exit_reason: str
    erofs_digest: bytes


@dataclass
class _Served:
    """Within one epoch: how long this node was to serve a lease, and how long it did."""

    wanted_ms: int = 0
    served_ms: int = 0
    last: ServiceState | None = None


@dataclass
class Reporter:
    """See the module. `states` gives what every worker says now."""

    chain: ChainView
    witness: Witness
    sender: Sender
    peers: Peers
    mailboxes: Mailboxes
    states: Callable[[], list[ServiceState]]
    _served: dict[int, dict[bytes, _Served]] = field(default_factory=dict)
    _sampled_ms: int = 0
    _counter: int = field(default_factory=wall_ms)  # grows over restarts: two copies of a key contradict each other
    _reported: int = -1
    _claimed: dict[bytes, int] = field(default_factory=dict)
    _not_before: dict[bytes, int] = field(default_factory=dict)  # block time of the next try after a refusal

    def sample(self) -> None:
        """Account for the time since the last call; once a poll."""
        now = boottime_ms()
        elapsed = min(now - self._sampled_ms, 10 * self.chain.preset.poll_ms) if self._sampled_ms else 0
        self._sampled_ms = now
        epoch = self.chain.epoch
        entry = self._served.setdefault(epoch, {})
        for state in self.states():
            if self.chain.desired(state.lease_id).want in (Want.RUN, Want.HOLD):
                served = entry.setdefault(state.lease_id, _Served())
                served.wanted_ms += elapsed
                served.served_ms += elapsed if state.serving else 0
                served.last = state
        for old in [known for known in self._served if known <= epoch - KEPT_EPOCHS]:
            del self._served[old]

    async def report_when_due(self) -> None:
        """Send the last epoch's report once its moment has come; try again until it is accepted or too late."""
        chain = self.chain
        epoch = chain.epoch - 1
        if epoch <= self._reported or epoch < 0 or chain.node is None:
            return
        due = report_due_ms(chain.preset, chain.genesis_ms, chain.node_id, epoch)
        if chain.header_ms < due:
            return
        drawn = await self.witness.own_draw(epoch)
        duties = self.witness.duties(epoch).passed(chain.preset)
        evidence, bits = self._evidence(epoch)
        body = Report(
            epoch=epoch,
            evidence_root=evidence_root(evidence),
            lease_bits=bits,
            witnesses=drawn,
            duty_targets=[leaf.target_slot for leaf in duties],
            duty_root=duty_root(duties),
            duty_count=len(duties),
            duty_failed=self.witness.duties(epoch).failed(chain.preset),
        )
        try:
            await self.sender.send(body)
        except RefusedError as error:  # sent before a restart, or an epoch that pays nobody: no second try
            log.warning("report_refused", epoch=epoch, code=error.code)
        self._reported = epoch
        await self._push(epoch, evidence, duties)

    def _evidence(self, epoch: int) -> tuple[list[EvidenceLeaf], bytes]:
        leaves, bits = [], EMPTY_BITS
        for lease_id, served in sorted(self._served.get(epoch, {}).items()):
            lease, state = self.chain.leases.get(lease_id), served.last
            member = _member_of(lease, self.chain.node_id) if lease else None
            if lease is None or member is None or state is None or not _is_served(served):
                continue
            bits = set_bit(bits, member.slot)
            self._counter += 1
            leaves.append(
                EvidenceLeaf(
                    version=LEAF_VERSION,
                    lease=lease_id,
                    lease_slot=member.slot,
                    term=len(lease.terms),
                    epoch=epoch,
                    image_digest=lease.image_digest,
                    erofs_digest=state.erofs_digest,
                    served_ms=served.served_ms,
                    restarts=state.restarts,
                    health=state.health,
                    exit_reason=state.exit_reason[:200],
                    counter=self._counter,
                )
            )
        return sorted(leaves, key=lambda leaf: leaf.lease_slot), bits

    async def _push(self, epoch: int, evidence: list[EvidenceLeaf], duties: list[DutyLeaf]) -> None:
        """Hand the leaves to the members of the leases that they are about."""
        pushes: list[tuple[bytes, EvidencePush]] = []
        for proven in prove_evidence(evidence):
            lease_id = proven.leaf.lease
            self.mailboxes.add(lease_id, epoch, [proven], [])
            lease = self.chain.leases.get(lease_id)
            pushes += [(node, EvidencePush(lease_id, [proven], [])) for node in _others(lease, self.chain.node_id)]
        for duty in prove_duties(duties):
            for lease_id in sorted({seen.lease for probe in duty.leaf.probes for seen in probe.workloads}):
                lease = await self.chain.any_lease(lease_id)
                pushes += [(node, EvidencePush(lease_id, [], [duty])) for node in _others(lease, self.chain.node_id)]
        await asyncio.gather(*(self._push_one(node, push) for node, push in pushes))

    async def _push_one(self, node: bytes, push: EvidencePush) -> None:
        try:
            await self.peers.call(node, "mailbox.push", push, Empty)
        except FreeholdError as error:
            log.info("push_failed", node=node.hex()[:16], error=error.message)

    async def claim_when_due(self) -> None:
        """Claim for the leases whose term this node holds, a few epochs at a time."""
        for lease_id, lease in list(self.chain.leases.items()):
            span = self._claimable(lease_id, lease)
            if span is None:
                continue
            try:
                await self.sender.send(Claim(lease_id, *span))
            except RefusedError as error:
                # Somebody else's claim came first, or a challenge is open at the lease's end: both pass.
                log.info("claim_refused", lease=lease_id.hex()[:16], code=error.code, span=span)
                preset = self.chain.preset
                self._not_before[lease_id] = self.chain.header_ms + preset.verdict_window_ms + 2 * preset.tick_ms
                continue
            self._claimed[lease_id] = span[1] + 1
        for gone in (self._claimed.keys() | self._not_before.keys()) - self.chain.leases.keys():
            self._claimed.pop(gone, None)
            self._not_before.pop(gone, None)

    async def refund_expired(self) -> None:
        """End the leases that never started: until somebody does, they hold this node's capacity and a lease slot."""
        preset = self.chain.preset
        for lease_id, lease in list(self.chain.leases.items()):
            turn = next((at for at, member in enumerate(lease.members) if member.node == self.chain.node_id), None)
            if turn is None or lease.started_ms or lease.closed_ms:
                continue
            # The primary first; each standby a while after those before it, so that one fee is paid.
            due_ms = lease.accept_by_ms + preset.tick_ms + turn * preset.verdict_window_ms
            if self.chain.header_ms < max(due_ms, self._not_before.get(lease_id, 0)):
                continue
            self._not_before[lease_id] = self.chain.header_ms + preset.verdict_window_ms + 2 * preset.tick_ms
            try:
                await self.sender.send(Refund(lease_id))
            except RefusedError as error:
                log.info("refund_refused", lease=lease_id.hex()[:16], code=error.code)

    def _claimable(self, lease_id: bytes, lease: Lease) -> tuple[int, int] | None:
        chain = self.chain
        if not lease.terms or lease.members[lease.terms[-1].member].node != chain.node_id:
            return None
        if chain.header_ms < self._not_before.get(lease_id, 0):
            return None
        first = max(lease.settled_epoch, self._claimed.get(lease_id, 0))
        last = first - 1
        while (
            last - first + 1 < MAX_CLAIM_EPOCHS
            and window_end_ms(chain.preset, chain.genesis_ms, last + 1) <= chain.header_ms - chain.preset.tick_ms
        ):
            last += 1
        ended = chain.desired(lease_id).want in (Want.GONE, Want.SEAL)
        enough = 1 if ended or chain.preset.epoch_ms < LONG_EPOCH_MS else MAX_CLAIM_EPOCHS
        return (first, last) if last - first + 1 >= enough and first == lease.settled_epoch else None


def _is_served(served: _Served) -> bool:
    """A lease counts as served when this node did so for at least half of the time it was to."""
    return served.wanted_ms > 0 and 2 * served.served_ms >= served.wanted_ms


def _member_of(lease: Lease, node: bytes) -> Member | None:
    return next((member for member in lease.members if member.node == node), None)


def _others(lease: Lease | None, me: bytes) -> list[bytes]:
    members = lease.members if lease else []
    return [member.node for member in members if member.node != me and member.accepted_ms and not member.lost]
