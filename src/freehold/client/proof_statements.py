"""The lines that a person reads about a proven lease: statements with their word, gaps, facts of the contract.

Texts are functions of the proof alone, so two readers of one file read the same. Spec: docs/spec/proofs.md.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from freehold.base.amounts import format_amount
from freehold.client.epoch_evidence import EpochEvidence, Word, all_void_between, epoch_evidence, is_void
from freehold.client.proof_facts import ProofFacts
from freehold.crypto.strkey import encode_account
from freehold.ledger import leases, schedule
from freehold.ledger.records import Lease
from freehold.ledger.transactions import ProbeKind
from freehold.protocol.evidence import EvidenceLeaf

_NODE_DIGITS = 12
_MAX_NODE_TEXT = 80
_VOID = "void: too few blocks; no pay, no penalty"


@dataclass(frozen=True)
class Line:
    """A subject and what is said of it; a gap that `counts` fails every requirement."""

    subject: str
    detail: str
    counts: bool = False


@dataclass(frozen=True)
class Statement:
    """A statement about the world outside the ledger.

    Attributes:
        subject: what it is about, in people's words and times.
        word: `claimed`, `observed 3/3` ..
        detail: on what it rests.
        level: the word without its counts.
        is_epoch: it says that a service was served in an epoch: what `--require` is about.
        on_ledgers_count: rests on what the ledger counted, without the reports.
    """

    subject: str
    word: str
    detail: str
    level: Word
    is_epoch: bool = False
    on_ledgers_count: bool = False


def service_name(facts: ProofFacts, lease_id: bytes) -> str:
    """A lease's name as people type it: `guestbook/web`, with `#1` for the second replica."""
    lease = facts.leases[lease_id]
    deployment = facts.deployments.get(lease.deployment)
    name = f"{deployment.name}/{lease.service}" if deployment else lease.service
    return f"{name}#{lease.replica}" if lease.replica else name


def lease_statements(facts: ProofFacts, lease_id: bytes) -> tuple[list[Statement], list[Line]]:
    """Give a lease's statements, oldest epoch first, and its gaps.

    Raises:
        NotVerifiedError: the file contradicts itself.
    """
    lease, name = facts.leases[lease_id], service_name(facts, lease_id)
    statements: list[Statement] = []
    gaps = _settled_gaps(facts, lease)
    for epoch in _epochs(facts, lease):
        if epoch >= lease.settled_epoch and is_void(facts, epoch):
            gaps.append(_Gap(epoch, epoch, _VOID, counts=False))
            continue
        found = epoch_evidence(facts, lease_id, epoch)
        if found is None:
            gaps.append(_Gap(epoch, epoch, "not settled yet, and not in this proof", counts=False))
        elif found.word is None:
            gaps.append(_Gap(epoch, epoch, _unserved_detail(lease, found), counts=True))
        else:
            statements.append(_epoch_statement(facts, lease, name, found, found.word))
    statements += _claims(facts, lease_id, lease, name)
    lines = [Line(f"{name} {_span_text(facts, gap.first, gap.last)}", gap.detail, gap.counts) for gap in _joined(gaps)]
    return statements, lines


@dataclass(frozen=True)
class _Gap:
    """Epochs first..last of which one thing is said."""

    first: int
    last: int
    detail: str
    counts: bool


def _joined(gaps: list[_Gap]) -> list[_Gap]:
    """Gaps in order, neighbours that say the same as one."""
    joined: list[_Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.first):
        before = joined[-1] if joined else None
        if before is not None and (before.last + 1, before.detail) == (gap.first, gap.detail):
            joined[-1] = _Gap(before.first, gap.last, gap.detail, gap.counts)
        else:
            joined.append(gap)
    return joined


def _open_from(facts: ProofFacts, lease: Lease) -> int:
    """The first epoch that is not settled and can still be."""
    start = schedule.epoch_at(facts.preset, facts.genesis_ms, lease.started_ms)
    return max(lease.settled_epoch, start, schedule.oldest_claimable(facts.preset, facts.totals.epoch))


def _epochs(facts: ProofFacts, lease: Lease) -> list[int]:
    """Epochs that were settled and kept, then those whose window has closed since."""
    settled = [entry.epoch for entry in lease.settlements]
    if not lease.started_ms:
        return settled
    preset, genesis_ms = facts.preset, facts.genesis_ms
    closed = schedule.epoch_at(preset, genesis_ms, facts.totals.time_ms - preset.report_window_ms) - 1
    end = schedule.epoch_at(preset, genesis_ms, leases.end_ms(lease, facts.totals.void_ms) - 1)
    return settled + list(range(_open_from(facts, lease), min(closed, end) + 1))


def _settled_gaps(facts: ProofFacts, lease: Lease) -> list[_Gap]:
    """Epochs that are missing between settled ones, or before those that can still be: void, or claimed too late."""
    if not lease.started_ms:
        return []
    start = schedule.epoch_at(facts.preset, facts.genesis_ms, lease.started_ms)
    settled = [entry.epoch for entry in lease.settlements] or [max(start, lease.settled_epoch) - 1]
    following = settled[-1] + 1
    spans = [(before + 1, after) for before, after in pairwise(settled)]
    spans += [(following, lease.settled_epoch), (max(following, lease.settled_epoch), _open_from(facts, lease))]
    gaps: list[_Gap] = []
    for first, after in spans:
        if first >= after:
            continue
        if all_void_between(facts, first - 1, after):
            gaps.append(_Gap(first, after - 1, _VOID, counts=False))
        else:
            gaps.append(_Gap(first, after - 1, "nothing settled: void, or not claimed in time", counts=True))
    return gaps


def _epoch_statement(facts: ProofFacts, lease: Lease, name: str, found: EpochEvidence, word: Word) -> Statement:
    shown: str = word.value
    if word is Word.OBSERVED:
        shown = f"observed {found.counted}/{found.drawn}"
        if 0 < found.owners < found.counted:
            shown += f", {found.owners} owner{'s' if found.owners > 1 else ''}"
    parts = [f"node {_node(lease.members[found.member].node)}, term {found.term}"]
    if word is Word.CLAIMED:
        parts.append(_short_of(found))
    taken_over = [term for term in lease.terms if found.start_ms < term.from_ms < found.end_ms]
    if taken_over and taken_over[-1].decided_ms:
        began = "began at" if found.term == 1 else "in force from"
        parts.append(f"{began} {_clock(facts, taken_over[-1].from_ms)}")
    by_ledger = found.settled is not None and (found.draw is None or found.missing > 0)
    if found.draw is None:
        parts.append("counted by the ledger")
    else:
        whose = "reports in this proof" if not found.missing else f"{found.missing} reports not in this proof"
        parts += [whose, found.draw.value]
    if found.answers.witnesses:
        answers = found.answers
        parts.append(
            f"{answers.signed} signed answers here: {answers.witnesses} saw the node, {answers.spoke} the service"
        )
    if found.settled is not None:
        refunded = f", refunded {format_amount(found.settled.refunded)}" if found.settled.refunded else ""
        parts.append(f"paid {format_amount(found.settled.paid)}{refunded} tokens")
    subject = f"{name} {_epoch_text(facts, found.epoch)}"
    return Statement(subject, shown, "; ".join(parts), word, is_epoch=True, on_ledgers_count=by_ledger)


def _short_of(found: EpochEvidence) -> str:
    """Why an epoch is not observed."""
    if not found.has_probe:
        return f"{found.seen} of {found.drawn} witnesses saw the node; the lease has no probe, so none saw the service"
    if found.counted < found.seen:
        return f"{found.seen} of {found.drawn} witnesses saw the node, {found.counted} of them the service"
    return f"{found.seen} of {found.drawn} witnesses, {found.threshold} are needed"


def _unserved_detail(lease: Lease, found: EpochEvidence) -> str:
    node = _node(lease.members[found.member].node)
    refunded = f"; refunded {format_amount(found.settled.refunded)} tokens" if found.settled is not None else ""
    return f"not served: node {node} did not report it{refunded}"


def _claims(facts: ProofFacts, lease_id: bytes, lease: Lease, name: str) -> list[Statement]:
    """What the holder itself says: the image that it built, and what its newest evidence holds."""
    if not lease.terms:
        return []
    holder = lease.members[lease.terms[-1].member]
    node = _node(holder.node)
    said = [
        _claim(
            f"{name} image",
            f"node {node} says that it runs sha256:{lease.image_digest.hex()}, "
            f"built as EROFS {holder.erofs_digest.hex()}",
        )
    ]
    leaves = [leaf for by, leaf in facts.evidence if leaf.lease == lease_id and by == holder.node]
    if leaves:
        said += _evidence_claims(facts, lease, name, node, max(leaves, key=lambda leaf: (leaf.epoch, leaf.counter)))
    return said


def _evidence_claims(facts: ProofFacts, lease: Lease, name: str, node: str, leaf: EvidenceLeaf) -> list[Statement]:
    when = _epoch_text(facts, leaf.epoch)
    same = leaf.image_digest == lease.image_digest
    image = "the contract's image" if same else "ANOTHER IMAGE than the contract's"
    health = _plain(leaf.health) or "no health check"
    ended = f"; last exit: {_plain(leaf.exit_reason)}" if leaf.exit_reason else ""
    return [
        _claim(
            f"{name} running",
            f"node {node} says of {when}: {image} sha256:{leaf.image_digest.hex()}, EROFS {leaf.erofs_digest.hex()}, "
            f"served {leaf.served_ms / 1000:.1f} s",
        ),
        _claim(f"{name} restarts", f"node {node} says of {when}: {leaf.restarts}{ended}"),
        _claim(f"{name} health", f"node {node} says of {when}: {health}"),
    ]


def _claim(subject: str, detail: str) -> Statement:
    return Statement(subject, Word.CLAIMED.value, detail, Word.CLAIMED)


def contract_lines(facts: ProofFacts, lease_id: bytes) -> list[Line]:
    """Give what the ledger itself decided about a lease."""
    lease, name = facts.leases[lease_id], service_name(facts, lease_id)
    now, void_ms = facts.totals.time_ms, facts.totals.void_ms
    state = leases.status(lease, now, void_ms)
    span = f"since {_time(lease.started_ms)}, prepaid until {_time(leases.end_ms(lease, void_ms))}"
    resources = lease.resources
    probe = ProbeKind(lease.probe.kind) if lease.probe.kind in list(ProbeKind) else ProbeKind.NONE
    port = f" port {lease.probe.port}{_plain(lease.probe.path)}" if probe is not ProbeKind.NONE else ""
    return [
        Line(f"{name} tenant", encode_account(lease.tenant)),
        Line(f"{name} state", f"{state.value} {span}" if lease.started_ms else state.value),
        *[Line(f"{name} member {n + 1}", _member_text(facts, lease, n)) for n in range(len(lease.members))],
        *[
            Line(f"{name} term {n + 1}", f"node {_node(lease.members[term.member].node)} from {_time(term.from_ms)}")
            for n, term in enumerate(lease.terms)
        ],
        Line(
            f"{name} price",
            f"{format_amount(lease.price_per_hour)} tokens an hour, {format_amount(lease.reserve_per_hour)} for each "
            f"standby; paid {format_amount(lease.paid)}, refunded {format_amount(lease.refunded)}, "
            f"in escrow {format_amount(lease.escrow)}",
        ),
        Line(
            f"{name} resources",
            f"{resources.vcpu_milli / 1000:g} vcpu, {resources.memory_mib} MiB memory, {resources.disk_mib} MiB disk",
        ),
        Line(f"{name} image", f"sha256:{lease.image_digest.hex()}"),
        Line(f"{name} probe", f"{probe.name.lower()}{port}"),
    ]


def _member_text(facts: ProofFacts, lease: Lease, index: int) -> str:
    member = lease.members[index]
    node = facts.nodes.get(member.node)
    place = f", {_plain(node.place.city)} {_plain(node.place.country)}" if node else ""
    where = f" of farm {encode_account(node.farm)}{place}" if node else ""
    role = "primary" if index == 0 else "standby"
    standing = "lost its term" if member.lost else "accepted" if member.accepted_ms else "not accepted"
    return f"node {_node(member.node)}{where}; {role}, {standing}"


def _epoch_text(facts: ProofFacts, epoch: int) -> str:
    return f"epoch {epoch} ({_between(facts, epoch, epoch)})"


def _span_text(facts: ProofFacts, first: int, last: int) -> str:
    return _epoch_text(facts, first) if first == last else f"epochs {first}-{last} ({_between(facts, first, last)})"


def _between(facts: ProofFacts, first: int, last: int) -> str:
    start = schedule.epoch_start_ms(facts.preset, facts.genesis_ms, first)
    end = schedule.epoch_end_ms(facts.preset, facts.genesis_ms, last)
    return f"{_at(start):%Y-%m-%d} {_clock(facts, start)}-{_clock(facts, end)} UTC"


def _clock(facts: ProofFacts, time_ms: int) -> str:
    whole_minutes = facts.preset.epoch_ms % 60_000 == 0 and facts.genesis_ms % 60_000 == 0
    return f"{_at(time_ms):{'%H:%M' if whole_minutes else '%H:%M:%S'}}"


def _time(time_ms: int) -> str:
    return f"{_at(time_ms):%Y-%m-%d %H:%M:%S} UTC"


def _at(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def _node(node: bytes) -> str:
    return node.hex()[:_NODE_DIGITS]


def _plain(text: str) -> str:
    """A node's own text as a terminal may show it."""
    return "".join(char if char.isprintable() else "?" for char in text[:_MAX_NODE_TEXT])
