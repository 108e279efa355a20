"""The planner: chooses a primary and standbys for each replica, prices them, and says what may go wrong. Pure.

Invariants: the members of a lease have distinct owners; no node is given more than it has free; the same input gives
the same plan, whatever the order of the candidates. When no node fits, the error counts why.
Spec: docs/spec/compose.md.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from freehold.base.amounts import format_amount
from freehold.base.errors import InvalidInputError, RefusedError
from freehold.base.limits import MAX_LEASES_PER_NODE
from freehold.base.presets import Preset
from freehold.client.compose.model import ComposeFile, Service
from freehold.client.plan import Candidate, Member, Placement, Plan
from freehold.client.pricing import ledger_probe, reachable_ports, service_resources, total_price
from freehold.ledger.fields import MAX_PREPAID_MS
from freehold.ledger.pricing import price_per_hour
from freehold.ledger.transactions import LeaseOrder, Resources

MAX_CANDIDATES = 100_000
MAX_REPORT_AGE_EPOCHS = 2  # the newest report that must have arrived is that of the epoch before the last

_NO_DIGEST = bytes(32)


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the tenant asks for beyond the file.

    Attributes:
        prefer: pairs such as (`country`, `BE`); with `!` before the value: excluded.
        max_price_per_hour: of the whole deployment, in 10^-7 token; None without a limit.
        prepaid_ms: how long to pay ahead; None for the preset's default.
    """

    prefer: tuple[tuple[str, str], ...] = ()
    max_price_per_hour: int | None = None
    prepaid_ms: int | None = None


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """What the planner knows of the ledger.

    Attributes:
        preset: its rules' values.
        candidates: nodes that may be chosen.
        epoch: the present epoch.
        now_ms: block time of the newest header, since the Unix epoch.
        power_warning: what one party's power over the ledger means; empty when one alone has not enough.
    """

    preset: Preset
    candidates: Sequence[Candidate]
    epoch: int
    now_ms: int
    power_warning: str


def make_plan(model: ComposeFile, grid: Grid, wishes: Wishes, balance: int) -> Plan:
    """Choose nodes for a compose file and price them.

    Args:
        model: a checked compose file.
        grid: what the ledger offers.
        wishes: of the command line; those of the file hold besides them, and the lower price limit counts.
        balance: what the tenant can spend, in 10^-7 token.

    Raises:
        RefusedError: no node fits (`no_node_fits`), the price is above the limit (`price_above_limit`), or the balance
            does not cover the first charge (`balance_too_small`).
        InvalidInputError: the prepaid time is out of range.
    """
    prepaid_ms = grid.preset.prepaid_ms if wishes.prepaid_ms is None else wishes.prepaid_ms
    if not grid.preset.epoch_ms <= prepaid_ms <= MAX_PREPAID_MS:
        raise InvalidInputError(
            f"{prepaid_ms} ms cannot be prepaid",
            code="bad_prepaid",
            hint=f"from {grid.preset.epoch_ms} to {MAX_PREPAID_MS} ms",
        )
    prefer = (*wishes.prefer, *model.prefer)
    limits = [limit for limit in (wishes.max_price_per_hour, model.max_price_per_hour) if limit is not None]
    limit = min(limits) if limits else None
    plan = _best_plan(model, grid, prefer, prepaid_ms, limit)
    if limit is not None and plan.price.per_hour > limit:
        raise RefusedError(
            f"the cheapest placement costs {format_amount(plan.price.per_hour)} tokens an hour, "
            f"above the limit of {format_amount(limit)}",
            code="price_above_limit",
            hint="raise --max-price (or x-freehold.max_price_per_hour), or ask for less memory, disk or standbys",
        )
    if plan.price.first_charge > balance:
        raise RefusedError(
            f"the first charge is {format_amount(plan.price.first_charge)} tokens, "
            f"and {format_amount(balance)} can be spent",
            code="balance_too_small",
            hint=f"send {format_amount(plan.price.first_charge - balance)} tokens more to this wallet, "
            "or prepay a shorter time",
        )
    return plan


def _best_plan(
    model: ComposeFile, grid: Grid, prefer: tuple[tuple[str, str], ...], prepaid_ms: int, limit: int | None
) -> Plan:
    """Spread first; packed tightly when that leaves no room; cheapest when that is above the limit."""
    try:
        plan = _Pass(grid, prefer, "spread").run(model, prepaid_ms)
    except RefusedError:
        plan = _Pass(grid, prefer, "tight").run(model, prepaid_ms)
    if limit is None or plan.price.per_hour <= limit:
        return plan
    try:
        cheap = _Pass(grid, prefer, "cheap").run(model, prepaid_ms)
    except RefusedError:  # nodes ran out on the way of this order: the plan that was found stands
        return plan
    return cheap if cheap.price.per_hour < plan.price.per_hour else plan


class _Pass:
    """One way through all replicas, each taking from what is free."""

    def __init__(self, grid: Grid, prefer: tuple[tuple[str, str], ...], order: str) -> None:
        if len(grid.candidates) > MAX_CANDIDATES:
            raise InvalidInputError(f"more than {MAX_CANDIDATES} nodes to choose from", code="too_many")
        self._grid = grid
        self._order = order
        self._wanted = [pair for pair in prefer if not pair[1].startswith("!")]
        self._excluded = {(key, value[1:]) for key, value in prefer if value.startswith("!")}
        self._candidates = sorted(grid.candidates, key=lambda candidate: candidate.id)
        self._used = {candidate.id: candidate.node.used for candidate in self._candidates}
        self._leases = {candidate.id: _lease_count(candidate) for candidate in self._candidates}
        self._owners: Counter[bytes] = Counter()

    def run(self, model: ComposeFile, prepaid_ms: int) -> Plan:
        """Place every replica, the largest service first."""
        found: dict[tuple[str, int], Placement] = {}
        by_size = sorted(model.services.values(), key=lambda service: (_size(model, service), service.name))
        for service in by_size:
            for replica in range(service.replicas):
                found[service.name, replica] = self._place(model, service, replica, prepaid_ms)
        placements = tuple(
            found[service.name, replica] for service in model.services.values() for replica in range(service.replicas)
        )
        return Plan(
            model=model,
            placements=placements,
            price=total_price(self._grid.preset, (placement.order for placement in placements)),
            runs_out_ms=self._grid.now_ms + prepaid_ms,
            power_warning=self._grid.power_warning,
            unmet=tuple(self._unmet(placements)),
        )

    def _place(self, model: ComposeFile, service: Service, replica: int, prepaid_ms: int) -> Placement:
        resources = service_resources(model, service)
        members: list[Candidate] = []
        for _ in range(1 + service.standbys):
            members.append(self._choose(service, resources, members))
        for member in members:
            self._take(member, resources)
        price = max(price_per_hour(member.node.offer, resources) for member in members)
        order = LeaseOrder(
            service=service.name,
            replica=replica,
            members=[member.id for member in members],
            resources=resources,
            image_digest=_NO_DIGEST,
            spec_hash=_NO_DIGEST,
            probe=ledger_probe(service),
            ports=reachable_ports(service),
            price_per_hour=price,
            prepaid_ms=prepaid_ms,
            failover_empty=service.failover_empty,
            local_volume=bool(service.volumes),
        )
        return Placement(order=order, members=tuple(Member.of(member) for member in members))

    def _choose(self, service: Service, resources: Resources, members: Sequence[Candidate]) -> Candidate:
        owners = {member.node.farm for member in members}
        fitting = []
        reasons: Counter[str] = Counter()
        for candidate in self._candidates:
            reason = self._obstacle(candidate, resources, owners)
            if reason:
                reasons[reason] += 1
            else:
                fitting.append(candidate)
        if not fitting:
            raise self._nothing_fits(service, resources, reasons, len(members))
        return min(fitting, key=lambda candidate: self._rank(candidate, resources, members))

    def _obstacle(self, candidate: Candidate, resources: Resources, owners: set[bytes]) -> str:
        node, used = candidate.node, self._used[candidate.id]
        if node.retired_epoch:
            return "retired"
        if max(node.last_report_epoch, node.registered_epoch) < self._grid.epoch - MAX_REPORT_AGE_EPOCHS:
            return "without a fresh report"
        if ("country", node.place.country) in self._excluded:
            return "in an excluded country"
        if ("farm", candidate.farm) in self._excluded:
            return "of an excluded farm"
        if node.farm in owners:
            return "of an owner who already holds this lease"
        if self._leases[candidate.id] >= MAX_LEASES_PER_NODE:
            return "with no free lease slot"
        if used.memory_mib + resources.memory_mib > node.capacity.memory_mib:
            return "with too little free memory"
        if used.disk_mib + resources.disk_mib > node.capacity.disk_mib:
            return "with too little free disk"
        if used.vcpu_milli + resources.vcpu_milli > node.capacity.vcpu_milli:
            return "with too little free CPU"
        return ""

    def _rank(
        self, candidate: Candidate, resources: Resources, members: Sequence[Candidate]
    ) -> tuple[int | bytes, ...]:
        node = candidate.node
        price = price_per_hour(node.offer, resources)
        misses = len(self._missed(candidate))
        near = sum(node.place == member.node.place for member in members)
        free_mib = node.capacity.memory_mib - self._used[candidate.id].memory_mib
        owner_load, load = self._owners[node.farm], self._leases[candidate.id]
        if self._order == "cheap":
            return (price, misses, owner_load, near, load, candidate.id)
        if self._order == "tight":
            return (free_mib, misses, owner_load, near, price, candidate.id)
        return (misses, owner_load, near, price, load, candidate.id)

    def _missed(self, candidate: Candidate) -> list[str]:
        """Kinds of wish that a node does not meet; several values of one kind mean any of them."""
        has = {"country": candidate.node.place.country, "farm": candidate.farm}
        kinds = dict.fromkeys(key for key, _ in self._wanted)
        return [key for key in kinds if (key, has[key]) not in self._wanted]

    def _take(self, candidate: Candidate, resources: Resources) -> None:
        used = self._used[candidate.id]
        self._used[candidate.id] = Resources(
            used.vcpu_milli + resources.vcpu_milli,
            used.memory_mib + resources.memory_mib,
            used.disk_mib + resources.disk_mib,
        )
        self._leases[candidate.id] += 1
        self._owners[candidate.node.farm] += 1

    def _unmet(self, placements: Iterable[Placement]) -> Iterable[str]:
        by_id = {candidate.id: candidate for candidate in self._candidates}
        for placement in placements:
            for member in placement.members:
                missed = self._missed(by_id[member.node])
                if missed:
                    wanted = ", ".join(f"{key}={value}" for key, value in self._wanted if key in missed)
                    yield (
                        f"`{placement.name}` is also placed on node {member.short} of {member.farm} "
                        f"({member.country}), not as preferred: {wanted}"
                    )

    def _nothing_fits(self, service: Service, resources: Resources, reasons: Counter[str], chosen: int) -> RefusedError:
        role = "the primary" if not chosen else f"standby {chosen} of {service.standbys}"
        total = sum(reasons.values())
        told = ", ".join(
            f"{count} {reason}" for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item))
        )
        asked = f"{resources.vcpu_milli / 1000:g} CPU, {resources.memory_mib} MiB memory, {resources.disk_mib} MiB disk"
        return RefusedError(
            f"no node fits `{service.name}` as {role} ({asked}); of {total} nodes: {told or 'there is none'}",
            code="no_node_fits",
            hint=_advice(reasons, chosen),
        )


def _advice(reasons: Counter[str], chosen: int) -> str:
    if chosen and reasons["of an owner who already holds this lease"]:
        return "a standby needs another owner: ask for less, or set `x-freehold: {standbys: " + str(chosen - 1) + "}`"
    if any("excluded" in reason for reason in reasons):
        return "exclude less, or ask for less"
    if any("too little" in reason for reason in reasons):
        return "ask for less in deploy.resources.limits or x-freehold.size, or wait until a node is free"
    return "see `freehold node list`; wait until nodes report again"


def _size(model: ComposeFile, service: Service) -> tuple[int, int, int]:
    resources = service_resources(model, service)
    return (-resources.memory_mib, -resources.disk_mib, -resources.vcpu_milli)


def _lease_count(candidate: Candidate) -> int:
    return int.from_bytes(candidate.node.lease_slots, "little").bit_count()
