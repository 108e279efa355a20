"""A deliberately simple model of the ledger's money, written apart from its rules.

It keeps the whole history (block times, reports, terms) and, when a lease is claimed, computes what it pays from the
start, epoch by epoch, by walking that history: no running totals, no positions, no records of the ledger.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

from ledger_grid import GENESIS_MS

from freehold.base.presets import Preset

HOUR = 3_600_000


@dataclass
class ModelLease:
    tenant: bytes
    members: list[bytes]
    price: int
    prepaid: int
    created: int
    escrow: int
    bounty: int
    accepted: dict[int, int] = field(default_factory=dict)
    terms: list[tuple[int, int]] = field(default_factory=list)  # (member, in force from)
    closed: int = 0
    paid_epochs: set[int] = field(default_factory=set)
    next_epoch: int = 0
    clock: int = 0  # ms of service settled


@dataclass
class ModelReport:
    leases: set[bytes]
    witnesses: list[bytes]
    duties: set[bytes]


class Model:
    """Balances by id; `treasury` holds fees as well."""

    def __init__(self, preset: Preset, owner: dict[bytes, bytes]) -> None:
        self.preset = preset
        self.owner = owner
        self.balance: dict[bytes, int] = {}
        self.treasury = 0
        self.times: list[int] = []
        self.leases: dict[bytes, ModelLease] = {}
        self.deployments: dict[bytes, set[bytes]] = {}
        self.reports: dict[tuple[bytes, int], ModelReport] = {}

    def epoch(self, time: int) -> int:
        return (time - GENESIS_MS) // self.preset.epoch_ms

    def is_void(self, epoch: int) -> bool:
        ticks = {
            (time - GENESIS_MS) % self.preset.epoch_ms // self.preset.tick_ms
            for time in self.times
            if self.epoch(time) == epoch
        }
        return len(ticks) < self.preset.epoch_ms / self.preset.tick_ms / 2

    def started(self, lease: ModelLease) -> int:
        return lease.accepted[0]

    def service_clock(self, lease: ModelLease, time: int) -> int:
        """Time served up to an instant of an epoch that is not void."""
        start = self.started(lease)
        voids = sum(self.is_void(epoch) for epoch in range(self.epoch(start), self.epoch(time - 1)))
        return max(0, time - start - voids * self.preset.epoch_ms)

    def end(self, lease: ModelLease, epoch: int) -> int:
        """Where a lease ends, as far as the voids before an epoch tell."""
        if lease.closed:
            return lease.closed
        start = self.started(lease)
        voids = sum(self.is_void(entry) for entry in range(self.epoch(start), epoch))
        return start + lease.prepaid + voids * self.preset.epoch_ms

    def is_running(self, lease: ModelLease, now: int) -> bool:
        return 0 in lease.accepted and not lease.closed and now < self.end(lease, self.epoch(now))

    def cost(self, price: int, first: int, last: int) -> int:
        """Exact cost of two instants of the clock, each rounded down."""
        return int(Fraction(price * last, HOUR)) - int(Fraction(price * first, HOUR))

    def seen_by(self, lease_id: bytes, node: bytes, epoch: int) -> list[bytes] | None:
        """Owners of the drawn witnesses that saw a node serve; None when they were too few."""
        report = self.reports.get((node, epoch))
        if report is None or lease_id not in report.leases:
            return None
        saw = [
            witness
            for witness in report.witnesses
            if (witness, epoch) in self.reports and node in self.reports[(witness, epoch)].duties
        ]
        drawn = len(report.witnesses)
        needed = self.preset.threshold if drawn == self.preset.witnesses else max(2, drawn * 2 // 3 + 1)
        return [self.owner[witness] for witness in saw] if len(saw) >= needed else None

    def pay(self, amount: int, farm: bytes, witnesses: list[bytes]) -> None:
        share, each = amount * 85 // 100, amount * 10 // 100 // len(witnesses)
        self.balance[farm] += share
        for owner in witnesses:
            self.balance[owner] += each
        self.treasury += amount - share - each * len(witnesses)

    def holder(self, lease: ModelLease, time: int) -> int:
        return [member for member, start in lease.terms if start <= time][-1]

    def claim(self, lease_id: bytes, first: int, last: int, now: int) -> bool:
        """Settle epochs; says whether the lease ended."""
        lease = self.leases[lease_id]
        oldest = max(0, self.epoch(now) - self.preset.report_epochs + 1)
        ended = False
        for epoch in range(max(first, oldest), last + 1):
            assert epoch not in lease.paid_epochs
            lease.paid_epochs.add(epoch)
            ended = self.settle(lease_id, lease, epoch)
            if ended:
                break
        lease.next_epoch = max(oldest, last + 1)
        if ended:
            self.remove(lease_id)
        return ended

    def settle(self, lease_id: bytes, lease: ModelLease, epoch: int) -> bool:
        opens = GENESIS_MS + epoch * self.preset.epoch_ms
        shuts = opens + self.preset.epoch_ms
        if self.is_void(epoch):
            return bool(lease.closed) and lease.closed <= shuts
        end = self.end(lease, epoch)
        start, stop = max(opens, self.started(lease)), min(shuts, end)
        if start < stop:
            self.settle_span(lease_id, lease, epoch, start, stop)
        return end <= shuts

    def settle_span(self, lease_id: bytes, lease: ModelLease, epoch: int, start: int, stop: int) -> None:
        def clock(time: int) -> int:
            voids = sum(self.is_void(entry) for entry in range(self.epoch(self.started(lease)), epoch))
            return max(0, time - self.started(lease) - voids * self.preset.epoch_ms)

        reserve = lease.price // 5
        standbys = len(lease.members) - 1
        whole = self.cost(lease.price, lease.clock, clock(stop))
        whole += standbys * self.cost(reserve, lease.clock, clock(stop))
        paid = 0
        spans = [start] + [at for _, at in lease.terms if start < at < stop] + [stop]
        for a, b in pairwise(spans):
            holder = self.holder(lease, a)
            seen = self.seen_by(lease_id, lease.members[holder], epoch)
            if seen:
                amount = self.cost(lease.price, clock(a), clock(b))
                self.pay(amount, self.owner[lease.members[holder]], seen)
                paid += amount
        for index in range(1, len(lease.members)):
            if index not in lease.accepted:
                continue
            begins = max(start, lease.accepted[index])
            stops = min([stop, *(at for member, at in lease.terms if member == index)])
            seen = self.seen_by(lease_id, lease.members[index], epoch)
            if seen and begins < stops:
                amount = self.cost(reserve, clock(begins), clock(stops))
                self.pay(amount, self.owner[lease.members[index]], seen)
                paid += amount
        self.balance[lease.tenant] += whole - paid
        lease.escrow -= whole
        lease.clock = clock(stop)

    def remove(self, lease_id: bytes) -> None:
        lease = self.leases.pop(lease_id)
        self.balance[lease.tenant] += lease.escrow + lease.bounty + self.preset.record_deposit
        for deployment, standing in list(self.deployments.items()):
            standing.discard(lease_id)
            if not standing:
                del self.deployments[deployment]
                self.balance[lease.tenant] += self.preset.record_deposit
