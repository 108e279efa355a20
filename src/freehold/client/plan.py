"""A plan: where each replica goes, what it costs, what may go wrong and who could read what. Values and their texts.

The words are exact on purpose: on an open host (privacy tier 0) the farmer can read everything that runs there.
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from freehold.base.amounts import format_amount
from freehold.client.compose.model import ComposeFile, Service
from freehold.client.pricing import Price, reachable_ports
from freehold.ledger.records import Node
from freehold.ledger.transactions import LeaseOrder

SHORT_ID_DIGITS = 12


class Candidate(msgspec.Struct, frozen=True):
    """A node that may be chosen: its id, its farm's name, its record (whose `farm` is the owner's account)."""

    id: bytes
    farm: str
    node: Node


class Member(msgspec.Struct, frozen=True):
    """A chosen node."""

    node: bytes
    farm: str
    owner: bytes
    country: str
    city: str

    @classmethod
    def of(cls, candidate: Candidate) -> "Member":
        """Take what a plan shows of a node."""
        place = candidate.node.place
        return cls(candidate.id, candidate.farm, candidate.node.farm, place.country, place.city)

    @property
    def short(self) -> str:
        """The first digits of its id."""
        return self.node.hex()[:SHORT_ID_DIGITS]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"node": self.node.hex(), "farm": self.farm, "country": self.country, "city": self.city}


class Placement(msgspec.Struct, frozen=True):
    """One lease to be made: the order (digest and hash still empty) and its members, the primary first."""

    order: LeaseOrder
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """The service's name, with the replica's number after the first."""
        return f"{self.order.service}#{self.order.replica}" if self.order.replica else self.order.service

    def complete(self, image_digest: bytes, spec_hash: bytes) -> LeaseOrder:
        """The order as it goes to the ledger."""
        return replace(self.order, image_digest=image_digest, spec_hash=spec_hash)

    def as_json(self) -> dict[str, Any]:
        """For `--json`; prices in tokens."""
        primary, *standbys = self.members
        return {
            "service": self.order.service,
            "replica": self.order.replica,
            **primary.as_json(),
            "price_per_hour": format_amount(self.order.price_per_hour),
            "standbys": [standby.as_json() for standby in standbys],
        }


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What will be deployed, and for how much.

    Attributes:
        model: the compose file.
        placements: in the file's order.
        price: per hour and at once.
        runs_out_ms: when the prepaid time ends if it started now; void epochs only move it back.
        power_warning: what one party's power over the ledger means; empty when one alone has not enough.
        unmet: preferences that could not be met, as sentences.
    """

    model: ComposeFile
    placements: tuple[Placement, ...]
    price: Price
    runs_out_ms: int
    power_warning: str
    unmet: tuple[str, ...] = ()

    def warnings(self) -> list[str]:
        """What the tenant should know before paying."""
        found: list[str] = []
        for service in self.model.services.values():
            found += _service_warnings(self.model, service)
        found += self.unmet
        if self.power_warning:
            found.append(self.power_warning)
        return found

    def who_can_read(self) -> list[dict[str, str]]:
        """Who could read what, service by service, then what is public. Privacy tier 0: open hosts."""
        found = [entry for service in self.model.services.values() for entry in self._service_readers(service)]
        return [*found, *_public_readers(self.model)]

    def as_json(self) -> dict[str, Any]:
        """The face of `deploy --plan --json`; amounts in tokens, times in UTC."""
        return {
            "services": list(self.model.services),
            "price": {
                "per_hour": format_amount(self.price.per_hour),
                "first_charge": format_amount(self.price.first_charge),
                "runs_out": datetime.fromtimestamp(self.runs_out_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "parts": [
                    {"what": part.what, "amount": format_amount(part.amount), "refundable": part.refundable}
                    for part in self.price.parts
                ],
            },
            "placement": [placement.as_json() for placement in self.placements],
            "warnings": self.warnings(),
            "who_can_read": self.who_can_read(),
        }

    def _service_readers(self, service: Service) -> list[dict[str, str]]:
        """The primary's farmer reads all that runs; a standby's has the spec and image from its acceptance on."""
        placements = [placement for placement in self.placements if placement.order.service == service.name]
        given = ["image", "environment", *["secrets"] * bool(service.secrets)]
        running = ["memory", *given, "logs", "traffic", *_volume_names(service)]
        entries = []
        for members, what, when in (
            ([placement.members[0] for placement in placements], running, ""),
            (
                [member for placement in placements for member in placement.members[1:]],
                given,
                " now, the rest once it runs",
            ),
        ):
            if members:
                nodes = "; ".join(f"{member.short} ({member.farm}, {member.country})" for member in members)
                things = f"{', '.join(what[:-1])} and {what[-1]} of `{service.name}`"
                entry = {"service": service.name, "tier": "0", "who": f"the farmer of node {nodes}"}
                entries.append({**entry, "what": f"{things}{when} (an open host hides nothing)"})
        return entries


def _volume_names(service: Service) -> list[str]:
    return [f"volume `{name}`" for name in dict.fromkeys(mount.volume for mount in service.volumes)]


def _public_readers(model: ComposeFile) -> list[dict[str, str]]:
    names = ", ".join(f"`{name}`" for name in model.services)
    probes = [
        f"`{service.name}` {service.probe.kind} port {service.probe.port}"
        + (f" path {service.probe.path}" if service.probe.path else "")
        for service in model.services.values()
        if service.probe is not None
    ]
    found = [
        {
            "service": "",
            "tier": "",
            "who": "everyone",
            "what": f"on the ledger, for ever: the names `{model.name}`, {names}, their ports, resources, "
            "image digests, prices and nodes, your account and its payments",
        }
    ]
    if probes:
        found.append(
            {
                "service": "",
                "tier": "",
                "who": "witnesses, and everyone on the ledger",
                "what": f"the probes ({'; '.join(probes)}); witnesses also see what a probe answers",
            }
        )
    return found


def _service_warnings(model: ComposeFile, service: Service) -> list[str]:
    found = []
    for name in dict.fromkeys(mount.volume for mount in service.volumes):
        size = model.volumes[name].size_mib
        found.append(
            f"the volume `{name}` ({size} MiB) of `{service.name}` lives on one node and dies with it: back it up"
        )
    if service.volumes and service.failover_empty and service.standbys:
        found.append(
            f"when the node of `{service.name}` fails, its standby starts with EMPTY volumes, as the file asks"
        )
    if not service.standbys:
        found.append(f"`{service.name}` has no standby: when its node fails it stays down until you deploy it again")
    if service.probe is None:
        found.append(
            f"`{service.name}` has no probe: witnesses see that its node answers, not that the service does; "
            + ("set x-freehold.probe" if reachable_ports(service) else "expose a port and set x-freehold.probe")
        )
    return found
