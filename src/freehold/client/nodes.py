"""The tenant's side of the p2p network: an endpoint with the wallet's endpoint key, calls to nodes by id."""

from types import TracebackType
from typing import Self

from freehold.base.errors import UnreachableError
from freehold.client.session import Session
from freehold.client.wallet import Wallet
from freehold.ledger.keys import node_key
from freehold.ledger.records import Node
from freehold.transport.iroh_endpoint import Endpoint
from freehold.transport.rpc import Peer, Pool, PoolLimits

ANY_ADDRESS = "0.0.0.0:0"
SILENCE_MS = 1_000  # a node that answers nothing for so long is dialled anew: it may have restarted


class NodeClient:
    """Calls to nodes by id; use it in `async with`."""

    def __init__(self, session: Session, wallet: Wallet) -> None:
        self._session = session
        self._wallet = wallet
        self._endpoint: Endpoint | None = None
        self._pool: Pool | None = None
        self._nodes: dict[bytes, Node] = {}

    async def __aenter__(self) -> Self:
        self._endpoint = await Endpoint.create(self._wallet.endpoint.export_seed(), [ANY_ADDRESS], [])
        self._pool = Pool(self._endpoint, PoolLimits(suspect_ms=min(self._session.preset.suspect_ms, SILENCE_MS)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            await self._pool.close()
        if self._endpoint is not None:
            await self._endpoint.close()

    async def node(self, node_id: bytes) -> Node:
        """A node's verified record.

        Raises:
            UnreachableError: the ledger has none.
        """
        if node_id not in self._nodes:
            key = node_key(node_id)
            record = (await self._session.ledger.read([key])).get(key, Node)
            if record is None:
                raise UnreachableError(f"the ledger knows no node {node_id.hex()[:16]}", code="unknown_node")
            self._nodes[node_id] = record
        return self._nodes[node_id]

    async def peer(self, node_id: bytes) -> Peer:
        """A node to call.

        Raises:
            UnreachableError: it has no address.
        """
        if self._pool is None:
            raise UnreachableError("the endpoint is not open", code="endpoint_closed")
        return Peer(self._pool, node_id, (await self.node(node_id)).addresses)
