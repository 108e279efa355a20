"""The site's visitor: plain HTTP requests to its local address."""

import asyncio
from typing import Any

import httpx2

from freehold.base.errors import FreeholdError

TIMEOUT_S = 5.0


async def write_entry(address: str, name: str, message: str) -> None:
    """Sign the guestbook.

    Raises:
        FreeholdError: the site refused.
    """
    async with _client(address) as client:
        response = await client.post("/entries", data={"name": name, "message": message})
    if response.status_code not in (200, 201, 302, 303):
        raise FreeholdError(f"the site answered with {response.status_code}: {response.text[:200]}", code="site")


async def read_entries(address: str, *, patience_s: float = 10.0) -> list[dict[str, Any]]:
    """Read the entries, trying again while nobody serves.

    Raises:
        FreeholdError: no good answer in time.
    """
    deadline = asyncio.get_running_loop().time() + patience_s
    reason = "no answer"
    while asyncio.get_running_loop().time() < deadline:
        try:
            async with _client(address) as client:
                response = await client.get("/entries")
            if response.status_code == 200:
                entries: list[dict[str, Any]] = response.json()["entries"]
                return entries
            reason = f"status {response.status_code}"
        except (httpx2.HTTPError, OSError) as error:
            reason = type(error).__name__
        await asyncio.sleep(0.2)
    raise FreeholdError(f"the site at {address} gave no entries in {patience_s:.0f} s: {reason}", code="site")


def _client(address: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"http://{address}", timeout=TIMEOUT_S, trust_env=False)
