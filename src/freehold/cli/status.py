"""`freehold status`: the ledger and the grid in a glance."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from freehold.base.amounts import format_amount
from freehold.cli.output import Json, Result, Table
from freehold.client.forgers import forger_document, group_text
from freehold.client.home import Home
from freehold.client.session import Session
from freehold.client.survey import survey_grid
from freehold.light.trust import Forgers


def status(*, json: Json = False) -> Result:
    """Show the ledger's height and time, its validators, farms and what each earned."""
    return asyncio.run(_status())


async def _status() -> Result:
    session = Session(Home.default())
    try:
        survey = await survey_grid(session)
    finally:
        await session.close()
    genesis, totals = session.ledger.genesis, survey.totals
    forgers, validator_owners = survey.forgers, survey.validator_owners
    time = datetime.fromtimestamp(survey.at.time_ms / 1000, UTC)
    farms: list[dict[str, Any]] = [
        {
            "farm": farm.name,
            "country": farm.place.country,
            "city": farm.place.city,
            "nodes": farm.nodes,
            "balance": format_amount(survey.owners[owner].balance) if owner in survey.owners else "0",
        }
        for owner, farm in survey.farms.items()
    ]
    document = {
        "chain_id": genesis.chain_id,
        "height": survey.at.height,
        "time": time.isoformat(),
        "epoch": totals.epoch,
        "preset": session.preset.name,
        "validators": forgers.validators,
        "forgers": forger_document(forgers, validator_owners),
        "nodes": len(survey.nodes),
        "farms": farms,
        "supply": format_amount(totals.supply),
        "treasury": format_amount(totals.treasury),
    }
    table = Table(("FARM", "PLACE", "NODES", "BALANCE"))
    for farm in farms:
        table.add(farm["farm"], f"{farm['city']}, {farm['country']}", farm["nodes"], farm["balance"])
    lines = [
        f"chain       {genesis.chain_id} ({session.preset.name} preset)",
        f"height      {survey.at.height} at {time:%Y-%m-%d %H:%M:%S} UTC",
        f"validators  {forgers.validators}  ({_rewriters(forgers, validator_owners)})",
        f"nodes       {len(survey.nodes)} on {len(farms)} farms",
        "",
        table.text(),
    ]
    return Result(document, "\n".join(lines))


def _rewriters(forgers: Forgers, owners: Mapping[bytes, bytes]) -> str:
    if forgers.validators == 1:
        return "one validator: its operator can rewrite this ledger"
    verb = "can rewrite this ledger alone" if forgers.count == 1 else "can rewrite this ledger together"
    return f"{forgers.count} of {forgers.parties} {verb}: {group_text(forgers, owners)}"
