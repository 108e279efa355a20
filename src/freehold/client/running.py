"""What runs for a tenant: services by name, their state on the node, logs, ends."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from freehold.base.amounts import format_amount
from freehold.base.errors import FreeholdError, InvalidInputError, UnreachableError
from freehold.client.nodes import NodeClient
from freehold.client.session import Session
from freehold.client.survey import DeploymentView, survey_tenant
from freehold.client.wallet import Wallet
from freehold.ledger.deployments import top_up_cost
from freehold.ledger.leases import end_ms, holder_at, status, term_at
from freehold.ledger.records import Lease, Totals
from freehold.ledger.transactions import Close, TopUp
from freehold.protocol.messages import Empty, LeaseStatus, LeaseStatusRequest, LogsRequest

CALL_MS = 3_000


@dataclass(frozen=True)
class ServiceView:
    """One replica of a service: its lease as the ledger has it, and who holds it now."""

    deployment: str
    deployment_id: bytes
    lease_id: bytes
    lease: Lease
    holder: bytes
    term: int
    status: str
    runs_out_ms: int

    @property
    def name(self) -> str:
        """What people type: `guestbook/web`, with `#1` for the second replica."""
        number = f"#{self.lease.replica}" if self.lease.replica else ""
        return f"{self.deployment}/{self.lease.service}{number}"

    @property
    def has_ended(self) -> bool:
        """Whether it will never run again; its record stands until the last windows close."""
        return self.status in ("closed", "ended")


async def list_services(session: Session, tenant: bytes) -> tuple[int, list[ServiceView]]:
    """All standing leases of a tenant, proven at one height (given first)."""
    at, totals, deployments = await survey_tenant(session, tenant)
    return at.height, [
        _view(view, lease_id, lease, totals, at.time_ms)
        for view in deployments
        for lease_id, lease in view.leases.items()
    ]


def find_service(services: list[ServiceView], name: str) -> ServiceView:
    """The service that a person means: `deployment/service`, or `service` when only one has that name.

    Raises:
        InvalidInputError: none, or several.
    """
    found = [view for view in services if name in (view.name, view.name.partition("/")[2], view.lease_id.hex())]
    # A name may be used again while the record of the ended deployment still stands.
    found = [view for view in found if not view.has_ended] or found[-1:]
    if len(found) == 1:
        return found[0]
    known = ", ".join(view.name for view in services) or "none"
    if not found:
        raise InvalidInputError(f"no service {name[:80]!r}; there are: {known}", code="unknown_service")
    raise InvalidInputError(
        f"{name!r} is ambiguous: {', '.join(view.name for view in found)}",
        code="ambiguous_service",
        hint="write deployment/service",
    )


async def ask_status(nodes: NodeClient, view: ServiceView) -> LeaseStatus | None:
    """The holder's word on a service; None when it does not answer."""
    try:
        peer = await nodes.peer(view.holder)
        return await peer.call("lease.status", LeaseStatusRequest(view.lease_id), LeaseStatus, CALL_MS)
    except FreeholdError:
        return None


async def stream_logs(nodes: NodeClient, view: ServiceView, *, tail: int, follow: bool) -> AsyncIterator[bytes]:
    """The service's log from its holder.

    Raises:
        UnreachableError: the holder does not answer.
    """
    if not view.holder:
        raise UnreachableError(f"nobody holds {view.name} at the moment", code="no_holder")
    peer = await nodes.peer(view.holder)
    gap_ms = None if follow else 30_000
    request = LogsRequest(view.lease_id, tail, follow)
    async with await peer.download("lease.logs", request, Empty, CALL_MS, gap_timeout_ms=gap_ms) as body:
        async for chunk in body:
            yield chunk


async def top_up(session: Session, wallet: Wallet, views: list[ServiceView], add_ms: int) -> int:
    """Prepay leases for longer; returns what that cost.

    Raises:
        RefusedError: the ledger refused one; those before it are prepaid.
    """
    paid = 0
    for view in views:
        await session.submit(wallet.account, TopUp(view.lease_id, add_ms))
        paid += top_up_cost(view.lease, add_ms)
    return paid


async def close_deployment(
    session: Session, wallet: Wallet, views: list[ServiceView], reason: str
) -> list[ServiceView]:
    """End every lease of a deployment that still runs; returns those that were ended."""
    ended = []
    for view in views:
        if view.has_ended:
            continue
        await session.submit(wallet.account, Close(view.lease_id, reason))
        ended.append(view)
    return ended


def service_document(view: ServiceView, node_status: LeaseStatus | None) -> dict[str, Any]:
    """A service for `--json`."""
    lease = view.lease
    return {
        "service": view.name,
        "lease": view.lease_id.hex(),
        "status": view.status,
        "state": node_status.phase if node_status else "unknown: its node does not answer",
        "health": node_status.health if node_status else "",
        "restarts": node_status.restarts if node_status else None,
        "last_exit": node_status.exit_reason if node_status else "",
        "node": view.holder.hex(),
        "term": view.term,
        "members": [
            {"node": member.node.hex(), "accepted": member.accepted_ms > 0, "lost": member.lost}
            for member in lease.members
        ],
        "terms": [
            {
                "term": number,
                "node": lease.members[term.member].node.hex(),
                "decided_ms": term.decided_ms,
                "from_ms": term.from_ms,
            }
            for number, term in enumerate(lease.terms, start=1)
        ],
        "challenged": bool(lease.challenge),
        "epochs_observed": sum(entry.paid > 0 and entry.refunded == 0 for entry in lease.settlements),
        "ports": lease.ports,
        "price_per_hour": format_amount(lease.price_per_hour),
        "paid": format_amount(lease.paid),
        "refunded": format_amount(lease.refunded),
        "escrow": format_amount(lease.escrow),
        "runs_out_ms": view.runs_out_ms,
        "memory_bytes": node_status.memory_bytes if node_status else None,
    }


def _view(deployment: DeploymentView, lease_id: bytes, lease: Lease, totals: Totals, now_ms: int) -> ServiceView:
    index = holder_at(lease, now_ms)
    holder = lease.members[index].node if index is not None else b""
    return ServiceView(
        deployment=deployment.record.name,
        deployment_id=deployment.id,
        lease_id=lease_id,
        lease=lease,
        holder=holder,
        term=term_at(lease, now_ms),
        status=status(lease, now_ms, totals.void_ms).value,
        runs_out_ms=end_ms(lease, totals.void_ms),
    )
