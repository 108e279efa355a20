"""`freehold events`: what happened on the ledger lately, as its server tells it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from freehold.base.amounts import format_amount
from freehold.cli.output import Json, Result, Table
from freehold.client.home import Home
from freehold.client.session import Session

AMOUNTS = ("amount", "bounty")


def events(*, kind: str | None = None, after: int = 0, limit: int = 200, json: Json = False) -> Result:
    """List events of the last 1,000 blocks. This is the server's word; `freehold verify` is proof.

    Parameters
    ----------
    kind
        Only these: epoch, transfer, report, lease, payment, challenge, verdict, term, resolved.
    after
        Only events of later heights.
    limit
        At most so many, the newest.
    """
    document = asyncio.run(_events(after))
    rows = [event for event in document["events"] if kind is None or event["kind"] == kind][-max(1, limit) :]
    table = Table(("HEIGHT", "TIME", "EVENT", "DETAILS"))
    for event in rows:
        time = datetime.fromtimestamp(event["time_ms"] / 1000, UTC)
        table.add(event["height"], f"{time:%H:%M:%S}", event["kind"], _details(event["attributes"]))
    return Result({"word": "the server's", "events": rows}, table.text())


async def _events(after: int) -> dict[str, Any]:
    session = Session(Home.default())
    found: list[Any] = []
    try:
        while True:
            page = await session.ledger.get_json(f"/v1/events?after_height={after}&limit=1000")
            found += page["events"]
            if not page["events"] or page["next_after_height"] <= after:
                return {"events": found}
            after = page["next_after_height"]
    finally:
        await session.close()


def _details(attributes: dict[str, str]) -> str:
    return " ".join(f"{key}={_short(key, value)}" for key, value in attributes.items() if value)


def _short(key: str, value: str) -> str:
    if key in AMOUNTS and value.isdigit():
        return format_amount(int(value))
    return f"{value[:12]}.." if len(value) > 40 else value
