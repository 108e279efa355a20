"""What a proof shows about one lease in one epoch: who held it, who saw it, on whose word. Spec: docs/spec/proofs.md.

Never stronger than the evidence: what the file leaves out counts as not seen; a lease without a probe was never seen by
anyone; witnesses whose answers are in the file and do not name the lease did not speak to it.
"""

from dataclasses import dataclass
from enum import StrEnum

from freehold.base.errors import NotVerifiedError
from freehold.client.proof_facts import ProofFacts
from freehold.ledger import leases, schedule
from freehold.ledger.draw import draw, is_active, threshold_for
from freehold.ledger.records import Lease, Member, Node, NodeSlot, ReportRecord, Settlement
from freehold.ledger.settlement import has_bit
from freehold.ledger.transactions import ProbeKind
from freehold.protocol.evidence import DutyLeaf


class Word(StrEnum):
    """The four words, weakest first."""

    CLAIMED = "claimed"
    OBSERVED = "observed"
    ATTESTED = "attested"
    REPRODUCED = "reproduced"

    def is_at_least(self, other: "Word") -> bool:
        """Whether this word says as much as the other."""
        order = list(Word)
        return order.index(self) >= order.index(other)


class Draw(StrEnum):
    """Who checked that the witnesses are those of the draw."""

    HERE = "draw recomputed"
    LEDGER = "draw checked by the ledger"


@dataclass(frozen=True)
class Answers:
    """Signed answers in the file: of how many drawn witnesses, and how many of those spoke to the service itself."""

    witnesses: int = 0
    spoke: int = 0
    signed: int = 0


@dataclass(frozen=True)
class EpochEvidence:
    """See the module.

    Attributes:
        epoch: its number.
        start_ms: its first instant.
        end_ms: the first instant after it.
        member: index of the holder at its end.
        term: in force at its end.
        claimed: the holder's own report claims the lease.
        seen: of the drawn witnesses, how many listed the holder.
        drawn: how many were drawn.
        owners: distinct owners of those that listed it; 0 when the file does not tell.
        draw: who checked the draw; None when the file has no report of the holder.
        answers: signed answers in the file.
        missing: reports of drawn witnesses that the file leaves out.
        settled: what the ledger's claim found, when it was claimed.
        has_probe: whether witnesses could speak to the service at all.
        threshold: how many are needed.
    """

    epoch: int
    start_ms: int
    end_ms: int
    member: int
    term: int
    claimed: bool
    seen: int
    drawn: int
    owners: int
    draw: Draw | None
    answers: Answers
    missing: int
    settled: Settlement | None
    has_probe: bool
    threshold: int

    @property
    def counted(self) -> int:
        """Witnesses that count: those who listed the holder, less those whose answers show no word of the service."""
        if not self.has_probe:
            return 0
        return self.seen - (self.answers.witnesses - self.answers.spoke)

    @property
    def word(self) -> Word | None:
        """The word that the evidence bears; None when not even the node claims it."""
        if not self.claimed:
            return None
        return Word.OBSERVED if self.drawn and self.counted >= self.threshold else Word.CLAIMED


@dataclass(frozen=True)
class _Count:
    claimed: bool
    seen: tuple[bytes, ...] = ()  # owners
    drawn: int = 0
    missing: int = 0
    draw: Draw | None = None
    answers: Answers = Answers()


def epoch_evidence(facts: ProofFacts, lease_id: bytes, epoch: int) -> EpochEvidence | None:
    """Gather what the file shows of a lease in an epoch; None when it shows nothing.

    Raises:
        NotVerifiedError: the reports in the file contradict the draw, or what the ledger settled.
    """
    lease = facts.leases[lease_id]
    settled = next((entry for entry in lease.settlements if entry.epoch == epoch), None)
    start = schedule.epoch_start_ms(facts.preset, facts.genesis_ms, epoch)
    end = start + facts.preset.epoch_ms
    if settled is None:
        last = min(end, leases.end_ms(lease, facts.totals.void_ms)) - 1
        term = leases.term_at(lease, last)
        if not term:
            return None
        member = lease.terms[term - 1].member
    else:
        term, member = settled.term, settled.member
    if not 0 <= member < len(lease.members):
        raise NotVerifiedError("a settlement names a member that the lease does not have", code="bad_settlement")
    count = _count(facts, lease, lease_id, member, epoch)
    if count is None and settled is None:
        return None
    if settled is not None:
        _check_settled(count, settled)
    seen = settled.seen if settled is not None else len(count.seen) if count else 0
    drawn = settled.drawn if settled is not None else count.drawn if count else 0
    whole = count is not None and not count.missing
    return EpochEvidence(
        epoch=epoch,
        start_ms=start,
        end_ms=end,
        member=member,
        term=term,
        claimed=drawn > 0 if settled is not None else bool(count and count.claimed),
        seen=seen,
        drawn=drawn,
        owners=len(set(count.seen)) if count and (whole or settled is None) else 0,
        draw=count.draw if count else None,
        answers=count.answers if count else Answers(),
        missing=count.missing if count else 0,
        settled=settled,
        has_probe=lease.probe.kind != ProbeKind.NONE,
        threshold=threshold_for(drawn, facts.preset),
    )


def is_void(facts: ProofFacts, epoch: int) -> bool:
    """Whether the file shows that an epoch was void: no block in it, or in too few of its ticks."""
    record = facts.epoch_record(epoch)
    if record is not None:
        return epoch < facts.totals.epoch and not schedule.is_covered(facts.preset, record)
    return facts.has_no_block(epoch)


def all_void_between(facts: ProofFacts, first: int, last: int) -> bool:
    """Whether the file shows that each epoch between two settled ones was void."""
    if last - first > facts.preset.report_epochs:  # the ring of records cannot show it
        return False
    before, after = facts.epoch_record(first), facts.epoch_record(last)
    if before is not None and after is not None:
        return after.void_ms_before - before.void_ms_before == (last - first - 1) * facts.preset.epoch_ms
    return all(is_void(facts, epoch) for epoch in range(first + 1, last))


def _count(facts: ProofFacts, lease: Lease, lease_id: bytes, index: int, epoch: int) -> _Count | None:
    """Count the witnesses from the reports in the file, as the ledger does when it settles."""
    member = lease.members[index]
    report = facts.report(member.node, epoch)
    if report is None:
        return _Count(False)
    if not isinstance(report, ReportRecord):
        return None
    if not has_bit(report.lease_bits, member.slot):
        return _Count(False)
    node = facts.nodes.get(member.node)
    if node is None:
        return None
    owners: list[bytes] = []
    witnesses: set[bytes] = set()
    missing = 0
    for number in report.witnesses:
        row = facts.slots.get(number)
        found = facts.report(row.node, epoch) if row is not None else None
        if row is None or not (found is None or isinstance(found, ReportRecord)):
            missing += 1
        elif found is not None and node.slot in found.duty_targets and not _has_failed(found, node, member):
            owners.append(row.owner)
            witnesses.add(row.node)
    answers = _answers(facts, lease_id, node.slot, epoch, witnesses)
    checked = _check_draw(facts, member.node, node.farm, epoch, report.witnesses)
    return _Count(True, tuple(owners), len(report.witnesses), missing, checked, answers)


def _has_failed(report: ReportRecord, node: Node, member: Member) -> bool:
    """Whether a witness reported that the member's service did not answer it."""
    return (node.slot, member.slot) in report.duty_failed


def _answers(facts: ProofFacts, lease_id: bytes, slot: int, epoch: int, witnesses: set[bytes]) -> Answers:
    duties = [
        leaf for leaf in facts.duties if leaf.epoch == epoch and leaf.target_slot == slot and leaf.witness in witnesses
    ]
    spoke = sum(_spoke_to(leaf, lease_id) for leaf in duties)
    return Answers(len(duties), spoke, sum(len(leaf.probes) for leaf in duties))


def _spoke_to(leaf: DutyLeaf, lease_id: bytes) -> bool:
    return any(seen.lease == lease_id and seen.ok for probe in leaf.probes for seen in probe.workloads)


def _check_settled(count: _Count | None, settled: Settlement) -> None:
    """The reports in the file and what the ledger found must not contradict each other."""
    if count is None:
        return
    if count.drawn != settled.drawn or not len(count.seen) <= settled.seen <= len(count.seen) + count.missing:
        raise NotVerifiedError(
            f"the ledger settled epoch {settled.epoch} otherwise than its own reports say",
            code="bad_settlement",
            hint="keep this proof: it shows a fault of the ledger",
        )


def _check_draw(facts: ProofFacts, node: bytes, owner: bytes, epoch: int, witnesses: list[int]) -> Draw:
    """Repeat the draw when the file has every row that it looks at as it stood in that epoch."""
    record = facts.epoch_record(epoch)
    if record is None:
        return Draw.LEDGER
    is_whole = True

    def lookup(number: int) -> NodeSlot | None:
        nonlocal is_whole
        row = facts.slots.get(number)
        if row is None or not is_row_of(row, epoch):
            is_whole = False
        return row

    drawn = draw(
        facts.preset,
        beacon=record.beacon,
        target=node,
        epoch=epoch,
        slots=record.node_slots,
        lookup=lookup,
        excluded={owner},
    )
    if not is_whole:
        return Draw.LEDGER
    if drawn != witnesses:
        raise NotVerifiedError(f"the beacon of epoch {epoch} draws other witnesses", code="wrong_draw")
    return Draw.HERE


def is_row_of(row: NodeSlot, epoch: int) -> bool:
    """Whether a row still tells the stake of an epoch: only the last four changes are kept."""
    return not is_active(row, epoch) or bool(row.stakes and row.stakes[0][0] <= epoch)
