"""Prices and costs: integers only, monotone in each resource, no cliffs, and splitting time changes nothing.

Used by the rules, the planner and the faces alike, so a plan shows what will be charged. Spec: docs/spec/leases.md.
"""

import msgspec

from freehold.base.presets import Preset
from freehold.ledger.transactions import LeaseOrder, Offer, Resources

HOUR_MS = 3_600_000
PERMILL = 1_000
_MILLI = 1_000
_MIB_PER_GIB = 1_024
_COMMON = 128_000  # least common multiple of both


class LeaseCharge(msgspec.Struct, frozen=True):
    """What a lease takes from its tenant at creation; all but the service itself comes back."""

    escrow: int
    bounty: int
    deposit: int

    @property
    def total(self) -> int:
        """The whole sum."""
        return self.escrow + self.bounty + self.deposit


def price_per_hour(offer: Offer, resources: Resources) -> int:
    """Give a node's asking price for resources, in 10^-7 token per hour, rounded up once, at the end."""
    exact = (
        offer.vcpu_hour * resources.vcpu_milli * (_COMMON // _MILLI)
        + offer.memory_gib_hour * resources.memory_mib * (_COMMON // _MIB_PER_GIB)
        + offer.disk_gib_hour * resources.disk_mib * (_COMMON // _MIB_PER_GIB)
    )
    return -(-exact // _COMMON)


def reserve_per_hour(preset: Preset, price: int) -> int:
    """Give what each standby of a lease with this price earns per hour."""
    return price * preset.reserve_permill // PERMILL


def cost_between(price: int, from_ms: int, to_ms: int) -> int:
    """Give the cost of service from one instant of its own clock to another; sums over a split are exact.

    Args:
        price: per hour.
        from_ms: time served before.
        to_ms: time served after, not less.
    """
    return price * to_ms // HOUR_MS - price * from_ms // HOUR_MS


def lease_cost(price: int, reserve: int, standbys: int, from_ms: int, to_ms: int) -> int:
    """Give the cost of a lease's service with all its standbys over a span of its own clock."""
    return cost_between(price, from_ms, to_ms) + standbys * cost_between(reserve, from_ms, to_ms)


def lease_charge(preset: Preset, order: LeaseOrder) -> LeaseCharge:
    """Give what an order locks: prepaid time with reserves, a bounty when it has standbys, a record deposit."""
    standbys = len(order.members) - 1
    reserve = reserve_per_hour(preset, order.price_per_hour)
    return LeaseCharge(
        escrow=lease_cost(order.price_per_hour, reserve, standbys, 0, order.prepaid_ms),
        bounty=preset.challenge_bond if standbys else 0,
        deposit=preset.record_deposit,
    )
