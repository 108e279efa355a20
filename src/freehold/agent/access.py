"""Who may ask a node for what about a lease; decided from verified records alone (docs/spec/p2p.md)."""

from freehold.agent.chain import ChainView
from freehold.base.errors import RefusedError
from freehold.ledger.leases import term_at
from freehold.ledger.records import Lease


def is_tenant(chain: ChainView, lease: Lease, caller: bytes) -> bool:
    """Whether the caller's endpoint id is one of the deployment's access keys."""
    deployment = chain.deployments.get(lease.deployment)
    return deployment is not None and caller in deployment.access_keys


def is_member(lease: Lease, caller: bytes) -> bool:
    """Whether the caller is a node of the lease that has not lost it."""
    return any(member.node == caller and not member.lost for member in lease.members)


def holder_of(lease: Lease, header_ms: int) -> tuple[bytes, int] | None:
    """The node that holds the term in force, and the term's number; None before the first or after a newer decision."""
    term = term_at(lease, header_ms)
    if not term or term != len(lease.terms):
        return None
    return lease.members[lease.terms[term - 1].member].node, term


async def is_sibling(chain: ChainView, lease: Lease, caller: bytes) -> bool:
    """Whether the caller holds the term in force of a lease of the same deployment."""
    deployment = chain.deployments.get(lease.deployment)
    for lease_id in deployment.leases if deployment else ():
        other = await chain.any_lease(lease_id)
        if other is not None and not other.closed_ms:
            held = holder_of(other, chain.header_ms)
            if held is not None and held[0] == caller:
                return True
    return False


def require(allowed: bool) -> None:
    """Refuse a caller.

    Raises:
        RefusedError: not allowed.
    """
    if not allowed:
        raise RefusedError("this lease is not yours to ask about", code="not_allowed")
