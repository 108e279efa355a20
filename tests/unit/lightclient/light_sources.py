"""Servers over real sockets that tell a chain with changing validator sets, and clients of them."""

import base64
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from light_history import History, now_at
from lying_server import LyingServer
from rpc_kit import desk_at, run

from freehold.base.errors import FreeholdError
from freehold.light.headers import header_hash
from freehold.light.trust import GENESIS_TRUST, PinnedTrust, Trust
from freehold.light.types import LightBlock
from freehold.lightclient.client import LedgerClient
from freehold.lightclient.trust_store import TrustStore

# One leaves and one joins at each height: six heights on, nobody is left.
TRUE = History([{n + k: 10 for k in range(6)} for n in range(60)])
STILL = History([{n: 10 for n in range(6)}])
FORGER = History([{n + k: 10 for k in range(6)} for n in range(200, 260)], fork=b"forged")
TOP = 50
DESK = desk_at(1)
true_block = cache(TRUE.block)
Block = Callable[[int], LightBlock]


class Source:
    """A server of one chain's light blocks; `asked` are the heights that it was asked for, None the newest."""

    def __init__(self, block: Block, newest: int = TOP) -> None:
        self.block = block
        self.newest = newest
        self.asked: list[int | None] = []

    def answer(self, path: str) -> Any:
        heights = parse_qs(urlsplit(path).query).get("height")
        self.asked.append(int(heights[0]) if heights else None)
        height = int(heights[0]) if heights else self.newest
        return {"height": height, "light_block": base64.b64encode(self.block(height).encode()).decode()}


def client_of(url: str, history: History = TRUE, **fields: Any) -> LedgerClient:
    return LedgerClient(url, history.genesis, **{"now_ms": lambda: now_at(TOP), **fields})


def with_sources(work: Callable[..., Awaitable[Any]], *sources: Source | Block) -> Any:
    """Run servers, one for each source, and give the work their URLs."""

    async def go() -> Any:
        servers = [LyingServer(DESK) for _ in sources]
        urls = []
        for server, source in zip(servers, sources, strict=True):
            await server.__aenter__()
            server.source = (source if isinstance(source, Source) else Source(source)).answer
            urls.append(server.url)
        try:
            return await work(*urls)
        finally:
            for server in servers:
                await server.__aexit__(None, None, None)

    return run(go())


def refresh(source: Source | Block, history: History = TRUE, **fields: Any) -> int:
    async def work(url: str) -> int:
        client = client_of(url, history, **fields)
        try:
            return (await client.refresh()).height
        finally:
            await client.close()

    height: int = with_sources(work, source)
    return height


def refused(source: Source | Block, history: History = TRUE, **fields: Any) -> FreeholdError:
    with pytest.raises(FreeholdError) as caught:
        refresh(source, history, **fields)
    return caught.value


def pin(height: int) -> PinnedTrust:
    return PinnedTrust(height, header_hash(TRUE.header(height)))


def store_of(folder: Path, history: History = TRUE, trust: Trust = GENESIS_TRUST) -> TrustStore:
    return TrustStore(folder, history.genesis, trust)
