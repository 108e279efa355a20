"""The RPC in one place: what servers and callers import (docs/spec/transport.md).

Serving: `Server(endpoint, [Method(...), ...]).serve()`. Calling: `Peer(pool, node_id, addresses).call(...)`.
"""

from freehold.transport.heartbeat import Heartbeat, PeerHealth
from freehold.transport.methods import CallContext, Kind, Method, ServerLimits, everybody
from freehold.transport.peer import Download, Peer
from freehold.transport.pool import Link, Pool, PoolLimits
from freehold.transport.server import Ping, Pong, Server
from freehold.transport.wire import ALPN

__all__ = [
    "ALPN",
    "CallContext",
    "Download",
    "Heartbeat",
    "Kind",
    "Link",
    "Method",
    "Peer",
    "PeerHealth",
    "Ping",
    "Pong",
    "Pool",
    "PoolLimits",
    "Server",
    "ServerLimits",
    "everybody",
]
