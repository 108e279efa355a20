"""What a service asks of a node and what it costs: the ledger's own formulas, applied to a compose file.

Pure. `freehold.ledger.pricing` owns the arithmetic, so a plan shows exactly what the ledger will take.
"""

from collections.abc import Iterable

import msgspec

from freehold.base.presets import Preset
from freehold.client.compose.model import ComposeFile, Service
from freehold.ledger.pricing import lease_charge, reserve_per_hour
from freehold.ledger.transactions import LeaseOrder, Probe, ProbeKind, Resources

_PROBE_KINDS = {"tcp": ProbeKind.TCP, "http": ProbeKind.HTTP}


class ChargePart(msgspec.Struct, frozen=True):
    """A part of the first charge, in 10^-7 token; `refundable` when it comes back unless it is used up."""

    what: str
    amount: int
    refundable: bool


class Price(msgspec.Struct, frozen=True):
    """What a deployment costs.

    Attributes:
        per_hour: of all leases with the reserves of their standbys, in 10^-7 token.
        parts: what leaves the balance when it is deployed.
    """

    per_hour: int
    parts: tuple[ChargePart, ...]

    @property
    def first_charge(self) -> int:
        """The whole sum that leaves the balance when it is deployed."""
        return sum(part.amount for part in self.parts)


def service_resources(model: ComposeFile, service: Service) -> Resources:
    """What each member of a lease of this service reserves; its disk is scratch space and volumes."""
    limits = service.limits
    return Resources(limits.cpu_milli, limits.memory_mib, limits.scratch_mib + model.volume_mib(service))


def ledger_probe(service: Service) -> Probe:
    """The probe as it stands on the lease."""
    if service.probe is None:
        return Probe(ProbeKind.NONE, 0, "")
    return Probe(_PROBE_KINDS[service.probe.kind], service.probe.port, service.probe.path)


def reachable_ports(service: Service) -> list[int]:
    """Container ports that tunnels reach: published and exposed ones, ascending."""
    return sorted({port.target for port in service.ports} | set(service.expose))


def total_price(preset: Preset, orders: Iterable[LeaseOrder]) -> Price:
    """Price of a deployment, as the ledger will charge it.

    Args:
        preset: of the ledger.
        orders: its leases; digests and hashes in them do not matter here.
    """
    per_hour = escrow = bounty = 0
    deposit, fee = preset.record_deposit, preset.min_fee
    for order in orders:
        charge = lease_charge(preset, order)
        standbys = len(order.members) - 1
        per_hour += order.price_per_hour + standbys * reserve_per_hour(preset, order.price_per_hour)
        escrow, bounty, deposit = escrow + charge.escrow, bounty + charge.bounty, deposit + charge.deposit
    parts = (
        ChargePart("service prepaid; what is not served and proven comes back", escrow, refundable=True),
        ChargePart("bounties for finding a dead node", bounty, refundable=True),
        ChargePart("record deposits", deposit, refundable=True),
        ChargePart("transaction fee", fee, refundable=False),
    )
    return Price(per_hour, tuple(part for part in parts if part.amount))
