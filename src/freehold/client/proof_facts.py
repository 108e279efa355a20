"""A proof file read with the ledger's eyes: typed records, and witness entries that stand under proven reports.

Nothing in a file is passed over: a key of another family, a record that is not canonical, or a witness entry that is
under no proven root or not signed makes the whole file refused. Spec: docs/spec/proofs.md.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NoReturn, TypeVar

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import CodecError, FreeholdError, NotVerifiedError
from freehold.base.ids import is_id, is_name
from freehold.base.limits import MAX_LEASES_PER_NODE
from freehold.base.presets import Preset
from freehold.ledger import keys, schedule
from freehold.ledger.context import preset_values
from freehold.ledger.genesis import parse_preset
from freehold.ledger.records import (
    Candidates,
    Deployment,
    EpochRecord,
    Lease,
    Member,
    Node,
    NodeSlot,
    Params,
    ReportRecord,
    Totals,
)
from freehold.ledger.settlement import has_bit
from freehold.light.genesis import TrustedGenesis
from freehold.light.proof_file import VerifiedFacts
from freehold.light.verify import VerifiedHeader
from freehold.protocol.evidence import (
    LEAF_VERSION,
    DutyLeaf,
    EvidenceLeaf,
    ProvenDuty,
    ProvenEvidence,
    is_duty_under,
    is_evidence_under,
    is_signed_identity,
)

R = TypeVar("R", bound=Record)

EVIDENCE_KIND = b"\x01"
DUTY_KIND = b"\x02"
_NUMBER_BYTES = 4
_LATEST_MS = 126_000_000_000_000  # year 5962: an extension by void time still fits a date
_MAX_REPLICAS = 1 << 32


class _Unknown:
    """The file says nothing about this report; it may exist."""


UNKNOWN = _Unknown()


@dataclass
class ProofFacts:
    """What a verified file says, by kind. A None is a proven absence; what is not in the file is in no table."""

    trusted: TrustedGenesis
    header: VerifiedHeader
    preset: Preset
    totals: Totals
    leases: dict[bytes, Lease] = field(default_factory=dict)
    deployments: dict[bytes, Deployment] = field(default_factory=dict)
    nodes: dict[bytes, Node] = field(default_factory=dict)
    slots: dict[int, NodeSlot] = field(default_factory=dict)
    rings: dict[int, EpochRecord | None] = field(default_factory=dict)  # by epoch mod R
    reports: dict[tuple[bytes, int], ReportRecord | None] = field(default_factory=dict)  # by node, epoch mod R
    evidence: list[tuple[bytes, EvidenceLeaf]] = field(default_factory=list)  # with the node that reported it
    duties: list[DutyLeaf] = field(default_factory=list)
    owners: dict[bytes, bytes] = field(default_factory=dict)  # of validators, by public key

    @property
    def genesis_ms(self) -> int:
        """From when epochs are counted."""
        return self.trusted.genesis_time_ms

    def epoch_record(self, epoch: int) -> EpochRecord | None:
        """The record of an epoch, when the file has it."""
        record = self.rings.get(epoch % self.preset.report_epochs)
        return record if record is not None and record.epoch == epoch else None

    def has_no_block(self, epoch: int) -> bool:
        """Whether the file shows that no block fell into a finished epoch: its place holds an older record, or none."""
        place = epoch % self.preset.report_epochs
        if place not in self.rings or epoch >= self.totals.epoch:
            return False
        record = self.rings[place]
        return record is None or record.epoch < epoch

    def report(self, node: bytes, epoch: int) -> ReportRecord | _Unknown | None:
        """A node's report for an epoch: None when it provably made none, UNKNOWN when the file does not tell."""
        place = (node, epoch % self.preset.report_epochs)
        if place not in self.reports:
            return UNKNOWN
        record = self.reports[place]
        if record is None or record.epoch < epoch:
            return None
        return record if record.epoch == epoch else UNKNOWN


def encode_evidence(proven: ProvenEvidence) -> bytes:
    """A witness entry of the file that holds a node's evidence."""
    return EVIDENCE_KIND + encode(proven)


def encode_duty(proven: ProvenDuty) -> bytes:
    """A witness entry of the file that holds a witness's signed answers."""
    return DUTY_KIND + encode(proven)


def read_facts(verified: VerifiedFacts) -> ProofFacts:
    """Read a verified file's values and check its witness entries against them.

    Args:
        verified: headers and state proofs were checked; the meaning of keys and all witness entries were not.

    Raises:
        NotVerifiedError: it speaks of more than one height, lacks what it needs, or an entry does not stand.
    """
    try:
        facts = _read_values(verified)
        previous = b""
        for entry in verified.witness:
            if entry <= previous:
                _refuse("the witness entries are not in order, or one stands twice", "not_canonical")
            previous = entry
            _read_entry(facts, entry)
    except CodecError as error:
        raise NotVerifiedError(f"the proof holds something malformed: {error.message}", code=error.code) from None
    return facts


def genesis_preset(trusted: TrustedGenesis) -> Preset:
    """The preset that a genesis document fixes.

    Raises:
        NotVerifiedError: it is not the genesis of a Freehold ledger.
    """
    try:
        return parse_preset(trusted.app_state["preset"], trusted.app_state["values"])
    except (KeyError, TypeError, FreeholdError):
        raise NotVerifiedError("the genesis is not that of a Freehold ledger", code="bad_genesis") from None


def _read_values(verified: VerifiedFacts) -> ProofFacts:
    trusted = verified.trusted
    if len(verified.headers) != 1:
        _refuse("the proof speaks of more than one height", "not_canonical")
    ((height, header),) = verified.headers.items()
    params = _need(verified.value(height, keys.PARAMS), Params)
    totals = _need(verified.value(height, keys.TOTALS), Totals)
    preset = genesis_preset(trusted)
    fixed = (trusted.chain_id, trusted.genesis_time_ms, preset.name, preset_values(preset))
    if (params.chain_id, params.genesis_ms, params.preset, params.values) != fixed:
        _refuse("the ledger runs on other parameters than this genesis fixes", "wrong_params")
    if not 0 <= totals.time_ms <= header.time_ms <= _LATEST_MS or not 0 <= totals.void_ms <= totals.time_ms:
        _refuse("the ledger's time is out of range", "bad_record")
    facts = ProofFacts(trusted, header, preset, totals)
    for (_, key), value in verified.values.items():
        if key not in (keys.PARAMS, keys.TOTALS):
            _place(facts, key, value)
    if not facts.leases:
        _refuse("the proof shows no lease", "no_lease")
    _check_epochs(facts)
    return facts


def _check_epochs(facts: ProofFacts) -> None:
    """No record speaks of an epoch that has not begun."""
    numbers = [lease.settled_epoch for lease in facts.leases.values()]
    numbers += [record.epoch for record in facts.rings.values() if record is not None]
    numbers += [report.epoch for report in facts.reports.values() if report is not None]
    newest = schedule.epoch_at(facts.preset, facts.genesis_ms, facts.totals.time_ms)
    if facts.totals.epoch != newest or not all(0 <= number <= newest for number in numbers):
        _refuse("a record of the ledger speaks of an epoch that has not begun", "bad_record")


def _place(facts: ProofFacts, key: bytes, value: bytes | None) -> None:
    family, rest = key[:1], key[1:]
    if family == b"r" and len(rest) == len(facts.trusted.validators_hash) + _NUMBER_BYTES:
        place = (rest[:-_NUMBER_BYTES], int.from_bytes(rest[-_NUMBER_BYTES:], "big"))
        facts.reports[place] = None if value is None else _checked(decode(value, ReportRecord), is_report)
    elif family == b"e" and len(rest) == _NUMBER_BYTES:
        facts.rings[int.from_bytes(rest, "big")] = None if value is None else decode(value, EpochRecord)
    elif family == b"s" and len(rest) == _NUMBER_BYTES:
        facts.slots[int.from_bytes(rest, "big")] = _need(value, NodeSlot)
    elif family == b"l" and is_id(rest):
        facts.leases[rest] = _checked(_need(value, Lease), is_lease)
    elif family == b"d" and is_id(rest):
        facts.deployments[rest] = _checked(_need(value, Deployment), lambda record: is_name(record.name))
    elif family == b"n" and is_id(rest):
        facts.nodes[rest] = _checked(_need(value, Node), lambda record: is_id(record.farm))
    elif key == keys.CANDIDATES:
        table = _checked(_need(value, Candidates), is_table)
        facts.owners = {validator: owner for _, validator, owner in table.entries}
    else:
        _refuse("the proof holds a key that says nothing about a lease", "unknown_key")


def _need(value: bytes | None, kind: type[R]) -> R:
    if value is None:
        _refuse(f"the proof shows that the ledger has no such {kind.__name__.lower()}", "absent_record")
    return decode(value, kind)


def _checked(record: R, is_sound: Callable[[R], bool]) -> R:
    """Hostile validators can sign any record: what is shown or used as an index is checked first."""
    if not is_sound(record):
        _refuse("a record of the ledger holds what its rules never write", "bad_record")
    return record


def is_lease(lease: Lease) -> bool:
    """Whether a lease's ids, names, indexes and times are in range."""
    times = [lease.started_ms, lease.closed_ms, lease.started_ms + lease.prepaid_ms, lease.accept_by_ms]
    times += [term.from_ms for term in lease.terms]
    return (
        all(is_id(value) for value in (lease.tenant, lease.deployment, lease.image_digest))
        and is_name(lease.service)
        and all(is_id(member.node) and 0 <= member.slot < MAX_LEASES_PER_NODE for member in lease.members)
        and all(0 <= term.member < len(lease.members) for term in lease.terms)
        and all(0 <= time <= _LATEST_MS for time in times)
        and 0 <= lease.void_ms_at_start <= _LATEST_MS
        and all(min(entry.epoch, entry.drawn, entry.seen) >= 0 for entry in lease.settlements)
        and all(before.epoch < after.epoch for before, after in pairwise(lease.settlements))
        and all(entry.epoch < lease.settled_epoch for entry in lease.settlements)
        and 0 <= lease.replica < _MAX_REPLICAS
    )


def is_table(table: Candidates) -> bool:
    """Whether each row names a validator, once, and its owner."""
    names = [validator for _, validator, _ in table.entries]
    return len(set(names)) == len(names) and all(is_id(name) and is_id(owner) for _, name, owner in table.entries)


def is_report(report: ReportRecord) -> bool:
    """Whether a report's bits have their length."""
    return len(report.lease_bits) * 8 == MAX_LEASES_PER_NODE


def _read_entry(facts: ProofFacts, entry: bytes) -> None:
    kind, data = entry[:1], entry[1:]
    if kind == EVIDENCE_KIND:
        _add_evidence(facts, decode(data, ProvenEvidence))
    elif kind == DUTY_KIND:
        _add_duty(facts, decode(data, ProvenDuty))
    else:
        _refuse("a witness entry is of an unknown kind", "unknown_entry")


def _add_evidence(facts: ProofFacts, proven: ProvenEvidence) -> None:
    leaf = proven.leaf
    lease = facts.leases.get(leaf.lease)
    for member in lease.members if lease else []:
        if _is_evidence_of(facts, member, proven):
            facts.evidence.append((member.node, leaf))
            return
    _refuse("a node's evidence is under no report of this proof", "unproven_entry")


def _is_evidence_of(facts: ProofFacts, member: Member, proven: ProvenEvidence) -> bool:
    leaf = proven.leaf
    report = facts.report(member.node, leaf.epoch)
    if not isinstance(report, ReportRecord) or leaf.version != LEAF_VERSION or leaf.lease_slot != member.slot:
        return False
    # One leaf for each bit, in their order: so the path's numbers are fixed too.
    number = int.from_bytes(report.lease_bits, "little")
    before = (number & ((1 << member.slot) - 1)).bit_count()
    return (
        has_bit(report.lease_bits, member.slot)
        and (proven.proof.index, proven.proof.total) == (before, number.bit_count())
        and is_evidence_under(report.evidence_root, proven)
    )


def _add_duty(facts: ProofFacts, proven: ProvenDuty) -> None:
    leaf = proven.leaf
    target = next((id_ for id_, node in facts.nodes.items() if node.slot == leaf.target_slot), None)
    report = facts.report(leaf.witness, leaf.epoch)
    if target is None or not isinstance(report, ReportRecord) or leaf.target_slot not in report.duty_targets:
        _refuse("a witness's answers are under no report of this proof", "unproven_entry")
    place = (report.duty_targets.index(leaf.target_slot), len(report.duty_targets))
    if (
        leaf.version != LEAF_VERSION
        or (proven.proof.index, proven.proof.total) != place
        or report.duty_count != len(report.duty_targets)
        or not is_duty_under(report.duty_root, proven)
    ):
        _refuse("a witness's answers are not under the root that it reported", "unproven_entry")
    _check_answers(facts, leaf, target)
    facts.duties.append(leaf)


def _check_answers(facts: ProofFacts, leaf: DutyLeaf, target: bytes) -> None:
    if not facts.preset.probes_required <= len(leaf.probes) <= facts.preset.probes_per_duty:
        _refuse("a witness's duty has too few or too many answers", "unproven_entry")
    if len({probe.answer.nonce for probe in leaf.probes}) != len(leaf.probes):
        _refuse("a witness used one question twice", "unproven_entry")
    for probe in leaf.probes:
        answer = probe.answer
        if (answer.node, answer.witness, answer.epoch) != (target, leaf.witness, leaf.epoch):
            _refuse("an answer is of another node, witness or epoch", "unproven_entry")
        if not is_signed_identity(facts.trusted.chain_id, answer):
            _refuse("an answer is not signed by the node", "unsigned_entry")


def _refuse(message: str, code: str) -> NoReturn:
    raise NotVerifiedError(message, code=code, hint="ask whoever made this proof to export it again")
