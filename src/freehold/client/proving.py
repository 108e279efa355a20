"""`verify --export`: one height of the ledger, read with proofs, and the members' mailboxes, made into a proof file.

The lease's own record shows its last 24 settled epochs; what room is left goes to reports and signed answers, newest
epochs first, those that are not settled yet before all. A member that does not answer leaves answers out, nothing else.
Spec: docs/spec/proofs.md.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from freehold.base.errors import InvalidInputError, NotVerifiedError
from freehold.client.epoch_evidence import is_row_of
from freehold.client.proof_budget import ProofBudget
from freehold.client.proof_facts import encode_duty, encode_evidence, genesis_preset, read_facts
from freehold.ledger import keys, leases, schedule
from freehold.ledger.draw import draw, threshold_for
from freehold.ledger.records import EpochRecord, Lease, Node, NodeSlot, ReportRecord, Totals
from freehold.ledger.settlement import has_bit
from freehold.light.genesis import TrustedGenesis
from freehold.light.proof_file import verify_proof_file
from freehold.light.trust import PinnedTrust
from freehold.light.types import LightBlock
from freehold.lightclient.client import Snapshot
from freehold.protocol.messages import Mailbox

MAX_DETAILED_EPOCHS = 8
MAX_OPEN_EPOCHS = 24
MAX_DRAW_ROUNDS = 16
MAX_GAP_RECORDS = 6
MAX_OWNERS_BYTES = 2_048  # of the table of validators' owners that stands before epochs

AskMailboxes = Callable[[bytes, Lease, int, int], Awaitable[list[Mailbox]]]  # lease id, lease, first and last epoch


class StateReader(Protocol):
    """Verified reads of the ledger at one height."""

    async def read(self, keys: Sequence[bytes], height: int | None = None) -> Snapshot:
        """Read values with their proofs."""
        ...

    async def hops(self, block: LightBlock) -> list[LightBlock]:
        """The light blocks that lead from what is trusted to a verified one."""
        ...


@dataclass
class _Detail:
    """What was read of one epoch: keys that belong together, and the witnesses in the order of their use."""

    epoch: int
    member: int
    report_key: bytes
    report: ReportRecord | None = None
    claims: bool = False
    witnesses: list[tuple[bytes, bytes, bytes, bool]] = field(default_factory=list)  # node, row key, report key, listed
    draw_keys: list[bytes] = field(default_factory=list)
    is_void: bool = False


class _Export:
    """One export in the making."""

    def __init__(self, reader: StateReader, trusted: TrustedGenesis, lease_id: bytes) -> None:
        self.reader = reader
        self.trusted = trusted
        self.preset = genesis_preset(trusted)
        self.genesis_ms = trusted.genesis_time_ms
        self.lease_id = lease_id

    async def begin(self) -> None:
        """Read the lease and what stands around it.

        Raises:
            InvalidInputError: the ledger has no such lease.
        """
        self.pool = await self.reader.read([keys.PARAMS, keys.TOTALS, keys.lease_key(self.lease_id)])
        lease = self.pool.get(keys.lease_key(self.lease_id), Lease)
        totals = self.pool.get(keys.TOTALS, Totals)
        if totals is None:
            raise NotVerifiedError("the state has no totals: this is no Freehold ledger", code="bad_state")
        if lease is None:
            raise InvalidInputError(
                f"the ledger has no lease {self.lease_id.hex()[:16]}",
                code="unknown_lease",
                hint="a lease goes when its last epoch is settled; export its proof before",
            )
        self.lease, self.totals = lease, totals
        members = (keys.node_key(member.node) for member in lease.members)
        await self.fetch([keys.deployment_key(lease.deployment), *members, keys.CANDIDATES])

    async def fetch(self, wanted: Iterable[bytes]) -> None:
        """Add values of the same height to the pool."""
        missing = [key for key in dict.fromkeys(wanted) if key not in self.pool.values]
        if missing:
            more = await self.reader.read(missing, self.pool.at.height)
            self.pool.values.update(more.values)
            self.pool.proofs.update(more.proofs)

    def base_keys(self) -> list[bytes]:
        """What every proof of this lease holds."""
        wanted = [keys.PARAMS, keys.TOTALS, keys.lease_key(self.lease_id)]
        around = [keys.deployment_key(self.lease.deployment), *(keys.node_key(m.node) for m in self.lease.members)]
        return wanted + [key for key in around if self.pool.values[key] is not None]

    def owner_keys(self) -> list[bytes]:
        """The table that names who owns the validators, when the ledger elects them."""
        return [keys.CANDIDATES] if self.pool.values[keys.CANDIDATES] is not None else []

    def epoch_key(self, epoch: int) -> bytes:
        """Key of an epoch's record."""
        return keys.epoch_key(epoch, self.preset.report_epochs)

    def epoch_record(self, epoch: int) -> EpochRecord | None:
        """An epoch's record, when the ledger still has it."""
        record = self.pool.get(self.epoch_key(epoch), EpochRecord)
        return record if record is not None and record.epoch == epoch else None

    def epochs(self) -> tuple[list[int], list[int]]:
        """Epochs to look into, newest first: those not settled whose window has closed, then settled ones."""
        lease = self.lease
        if not lease.started_ms:
            return [], []
        start = schedule.epoch_at(self.preset, self.genesis_ms, lease.started_ms)
        closed = schedule.epoch_at(self.preset, self.genesis_ms, self.totals.time_ms - self.preset.report_window_ms) - 1
        end = schedule.epoch_at(self.preset, self.genesis_ms, leases.end_ms(lease, self.totals.void_ms) - 1)
        first = max(start, lease.settled_epoch, schedule.oldest_claimable(self.preset, self.totals.epoch))
        opened = list(range(min(closed, end), first - 1, -1))[:MAX_OPEN_EPOCHS]
        oldest = schedule.oldest_claimable(self.preset, self.totals.epoch)
        settled = [entry.epoch for entry in reversed(lease.settlements) if entry.epoch >= oldest]
        return opened, settled[:MAX_DETAILED_EPOCHS]

    async def details(self, epochs: list[int]) -> list[_Detail]:
        """Read reports, witnesses' rows and witnesses' reports of epochs, in three rounds."""
        found = [detail for epoch in epochs if (detail := self._holder_of(epoch)) is not None]
        await self.fetch(key for detail in found for key in (detail.report_key, self.epoch_key(detail.epoch)))
        rows: list[bytes] = []
        for detail in found:
            record = self.epoch_record(detail.epoch)
            detail.is_void = record is None or not schedule.is_covered(self.preset, record)
            report = self.pool.get(detail.report_key, ReportRecord)
            if report is not None and report.epoch == detail.epoch:
                detail.report = report
                detail.claims = has_bit(report.lease_bits, self.lease.members[detail.member].slot)
                rows += [keys.node_slot_key(number) for number in report.witnesses]
        await self.fetch(rows)
        await self.fetch(key for detail in found for key in self._witness_reports(detail))
        for detail in found:
            self._order_witnesses(detail)
        return found

    def _holder_of(self, epoch: int) -> _Detail | None:
        settled = next((entry for entry in self.lease.settlements if entry.epoch == epoch), None)
        member = settled.member if settled else None
        if member is None:
            end = min(
                schedule.epoch_end_ms(self.preset, self.genesis_ms, epoch),
                leases.end_ms(self.lease, self.totals.void_ms),
            )
            member = leases.holder_at(self.lease, end - 1)
        if member is None:
            return None
        node = self.lease.members[member].node
        return _Detail(epoch, member, keys.report_key(node, epoch, self.preset.report_epochs))

    def _witness_reports(self, detail: _Detail) -> list[bytes]:
        found = []
        for number in detail.report.witnesses if detail.report and detail.claims else []:
            row = self.pool.get(keys.node_slot_key(number), NodeSlot)
            if row is not None:
                found.append(keys.report_key(row.node, detail.epoch, self.preset.report_epochs))
        return found

    def _order_witnesses(self, detail: _Detail) -> None:
        """Those that saw the holder come first: a file without room for all should hold them."""
        target = self.pool.get(keys.node_key(self.lease.members[detail.member].node), Node)
        for number in detail.report.witnesses if detail.report and detail.claims else []:
            row_key = keys.node_slot_key(number)
            row = self.pool.get(row_key, NodeSlot)
            if row is None or target is None:
                continue
            key = keys.report_key(row.node, detail.epoch, self.preset.report_epochs)
            report = self.pool.get(key, ReportRecord)
            listed = report is not None and report.epoch == detail.epoch and target.slot in report.duty_targets
            detail.witnesses.append((row.node, row_key, key, listed))
        detail.witnesses.sort(key=lambda entry: not entry[3])

    async def read_draw(self, detail: _Detail) -> None:
        """Find the rows that the draw of an epoch looks at, so that a reader can repeat it."""
        record = self.epoch_record(detail.epoch)
        target = self.pool.get(keys.node_key(self.lease.members[detail.member].node), Node)
        if record is None or target is None or detail.report is None:
            return
        for _ in range(MAX_DRAW_ROUNDS):
            looked: list[bytes] = []
            missing: list[bytes] = []
            drawn = draw(
                self.preset,
                beacon=record.beacon,
                target=self.lease.members[detail.member].node,
                epoch=detail.epoch,
                slots=record.node_slots,
                lookup=self._lookup(looked, missing),
                excluded={target.farm},
            )
            if not missing:
                rows = [self.pool.get(key, NodeSlot) for key in looked]
                if drawn == detail.report.witnesses and all(row and is_row_of(row, detail.epoch) for row in rows):
                    detail.draw_keys = [self.epoch_key(detail.epoch), *looked]
                return
            await self.fetch(missing)

    def _lookup(self, looked: list[bytes], missing: list[bytes]) -> Callable[[int], NodeSlot | None]:
        def lookup(number: int) -> NodeSlot | None:
            key = keys.node_slot_key(number)
            looked.append(key)
            if key in self.pool.values:
                return self.pool.get(key, NodeSlot)
            missing.append(key)
            return None

        return lookup

    async def gap_keys(self) -> list[bytes]:
        """Records that show whether the epochs missing between settled ones were void: around them, and their own."""
        numbers = [entry.epoch for entry in self.lease.settlements]
        wanted: list[int] = []
        for before, after in pairwise([*numbers, self.lease.settled_epoch] if numbers else []):
            if after - before > 1:
                wanted += [before, after, *range(before + 1, after)][:MAX_GAP_RECORDS]
        await self.fetch(self.epoch_key(number) for number in wanted)
        return [key for key in map(self.epoch_key, wanted) if self.pool.values[key] is not None]


async def export_proof(
    reader: StateReader, trusted: TrustedGenesis, lease_id: bytes, ask: AskMailboxes | None = None
) -> bytes:
    """Make the proof file of a lease.

    Args:
        reader: of the ledger, verified.
        trusted: the genesis.
        lease_id: which lease.
        ask: gets the leaves that members keep for the tenant; None leaves signed answers out.

    Raises:
        InvalidInputError: there is no such lease, or not even its record fits.
        NotVerifiedError: the server's answers do not verify.
        UnreachableError: the ledger does not answer.
    """
    export = _Export(reader, trusted, lease_id)
    await export.begin()
    opened, settled = export.epochs()
    details = await export.details(opened + settled)
    by_epoch = {detail.epoch: detail for detail in details}
    gaps = await export.gap_keys()
    newest = [detail for detail in details if detail.claims][:MAX_DETAILED_EPOCHS]
    for detail in newest:
        await export.read_draw(detail)
    leaves = _Leaves()
    if ask is not None and newest:
        epochs = [detail.epoch for detail in newest]
        for mailbox in await ask(lease_id, export.lease, min(epochs), max(epochs)):
            leaves.add(mailbox)
    hops = await reader.hops(export.pool.light_block)
    budget = ProofBudget(trusted, export.pool, hops)
    if not budget.add(export.base_keys()):
        raise InvalidInputError("not even the lease's own record fits into a proof file", code="oversized")
    owners = export.owner_keys()
    is_small = sum(len(export.pool.values[key] or b"") for key in owners) <= MAX_OWNERS_BYTES
    for key in [*(owners if is_small else []), *gaps]:
        budget.add([key])
    left_out = {epoch for epoch in opened if epoch in by_epoch and not _add_open(export, budget, by_epoch[epoch])}
    for detail in newest:
        if detail.epoch not in left_out:  # half an epoch that nothing else shows would look like a failed one
            _add_detail(export, budget, detail, leaves)
    budget.add(owners)  # a long table takes what room is left
    return budget.write()


class _Leaves:
    """Leaves of all mailboxes, by epoch and, for answers, by witness; repeats and other claims are told apart later."""

    def __init__(self) -> None:
        self.evidence: dict[int, set[bytes]] = {}
        self.duties: dict[tuple[int, bytes], set[bytes]] = {}

    def add(self, mailbox: Mailbox) -> None:
        """Take in what one member keeps."""
        for evidence in mailbox.evidence:
            self.evidence.setdefault(evidence.leaf.epoch, set()).add(encode_evidence(evidence))
        for duty in mailbox.duties:
            self.duties.setdefault((duty.leaf.epoch, duty.leaf.witness), set()).add(encode_duty(duty))


def _add_open(export: _Export, budget: ProofBudget, detail: _Detail) -> bool:
    """Add an epoch that only reports can show: all of it, else as many witnesses as are needed, else nothing."""
    if detail.is_void:
        return budget.add([export.epoch_key(detail.epoch)])
    own = [detail.report_key]
    everyone = [key for _, row, report, _ in detail.witnesses for key in (row, report)]
    if budget.add(own + everyone):
        return True
    needed = threshold_for(len(detail.report.witnesses) if detail.report else 0, export.preset)
    seen = [entry for entry in detail.witnesses if entry[3]]
    some = own + [key for _, row, report, _ in seen[:needed] for key in (row, report)]
    return len(seen) >= needed and budget.add(some)


def _add_detail(export: _Export, budget: ProofBudget, detail: _Detail, leaves: _Leaves) -> None:
    """Add an epoch's own evidence, its witnesses with their answers, and its draw, as far as they fit."""
    own = [detail.report_key]
    for entry in sorted(leaves.evidence.get(detail.epoch, ())):
        if _holds(export, own, entry):
            budget.add(own, [entry])
    for node, row, report, listed in detail.witnesses:
        if not budget.add([*own, row, report]):
            break
        for entry in sorted(leaves.duties.get((detail.epoch, node), ())) if listed else ():
            if _holds(export, [*own, row, report], entry):
                budget.add([], [entry])
                break
    if detail.draw_keys and detail.report_key in budget.keys:
        budget.add(detail.draw_keys)


def _holds(export: _Export, around: list[bytes], entry: bytes) -> bool:
    """Whether a verifier will accept a leaf: a member may keep anything, and one bad leaf would spoil the file."""
    trial = ProofBudget(export.trusted, export.pool)
    if not trial.add([*export.base_keys(), *around], [entry]):
        return False
    try:
        at = export.pool.at  # verified before: hops to it would say nothing about the leaf
        pin = PinnedTrust(at.height, at.hash)
        read_facts(verify_proof_file(trial.write(), export.trusted, at.time_ms, trust=pin))
    except NotVerifiedError:
        return False
    return True
