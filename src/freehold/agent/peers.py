"""Calls to other nodes by id: addresses come from verified node records, connections from one pool."""

from typing import TypeVar

from freehold.agent.chain import ChainView
from freehold.base.codec import Record
from freehold.base.errors import UnreachableError
from freehold.transport.ports import StreamPort
from freehold.transport.rpc import Peer, Pool

R = TypeVar("R", bound=Record)

DEFAULT_TIMEOUT_MS = 5_000


class Peers:
    """See the module."""

    def __init__(self, chain: ChainView, pool: Pool) -> None:
        self._chain = chain
        self.pool = pool

    async def peer(self, node_id: bytes) -> Peer:
        """A node to call.

        Raises:
            UnreachableError: the ledger knows no address of it.
        """
        node = await self._chain.any_node(node_id)
        if node is None or not node.addresses:
            raise UnreachableError(f"node {node_id.hex()[:16]} has no address", code="no_address")
        return Peer(self.pool, node_id, node.addresses)

    async def call(
        self, node_id: bytes, method: str, request: Record, kind: type[R], *, timeout_ms: int = DEFAULT_TIMEOUT_MS
    ) -> R:
        """Call a method; errors as `Peer.call`."""
        return await (await self.peer(node_id)).call(method, request, kind, timeout_ms)

    async def splice(
        self, node_id: bytes, method: str, request: Record, kind: type[R], *, timeout_ms: int = DEFAULT_TIMEOUT_MS
    ) -> tuple[R, StreamPort]:
        """Open a raw stream; errors as `Peer.splice`."""
        return await (await self.peer(node_id)).splice(method, request, kind, timeout_ms)
