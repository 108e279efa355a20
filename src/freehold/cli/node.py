"""`freehold node`: what nodes there are, what one offers and does; and the daemon itself."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from cyclopts import App

from freehold.base.amounts import format_amount
from freehold.base.errors import InvalidInputError
from freehold.cli.output import Result, Table
from freehold.client.home import Home
from freehold.client.session import Session
from freehold.client.survey import GridSurvey, survey_grid
from freehold.crypto.strkey import encode_account
from freehold.ledger.records import Node

app = App(name="node", help="List nodes, look at one, run one.")


@app.command(name="list")
def list_(*, country: str | None = None, json: bool = False) -> Result:
    """List the grid's nodes: where they are, what they offer, what is free; read with proofs.

    Parameters
    ----------
    country
        Only nodes of this country (ISO code, such as BE).
    """
    survey = asyncio.run(_survey())
    rows = [
        _document(survey, id_, node)
        for id_, node in survey.nodes.items()
        if country is None or node.place.country == country.upper()
    ]
    table = Table(("NODE", "FARM", "PLACE", "VCPU FREE", "MEMORY FREE", "SSD FREE", "LEASES", "STAKE"))
    for row in rows:
        free = row["free"]
        table.add(
            row["node"][:16],
            row["farm"],
            f"{row['city']}, {row['country']}",
            f"{free['vcpu_milli'] / 1000:g}",
            f"{free['memory_mib']} MiB",
            f"{free['disk_mib']} MiB",
            row["leases"],
            row["stake"],
        )
    text = table.text() + f"\n\nproven at height {survey.at.height}; `freehold node show NODE` tells more"
    return Result({"height": survey.at.height, "nodes": rows}, text)


@app.command
def show(node: str, /, *, json: bool = False) -> Result:
    """Show one node: keys, addresses, prices, capacity, reports.

    Parameters
    ----------
    node
        The node's id, or the first digits of it.
    """
    survey = asyncio.run(_survey())
    found = [id_ for id_ in survey.nodes if id_.hex().startswith(node.lower())]
    if len(found) != 1:
        what = "no node has" if not found else f"{len(found)} nodes have"
        raise InvalidInputError(
            f"{what} an id that begins with {node!r}", code="unknown_node", hint="`freehold node list` shows all ids"
        )
    document = _document(survey, found[0], survey.nodes[found[0]])
    lines = [f"{key:<14} {value}" for key, value in document.items()]
    return Result(document, "\n".join(lines))


@app.command
def run(*, home: Path) -> Result:
    """Run the node agent of a prepared home in the foreground, until it is stopped.

    Parameters
    ----------
    home
        The node's own folder: node.key, box.key, genesis.json, node.toml.
    """
    os.execv(sys.executable, [sys.executable, "-m", "freehold.agent.main", "--home", str(home)])  # noqa: S606


async def _survey() -> GridSurvey:
    session = Session(Home.default())
    try:
        return await survey_grid(session)
    finally:
        await session.close()


def _document(survey: GridSurvey, id_: bytes, node: Node) -> dict[str, Any]:
    capacity, used = node.capacity, node.used
    return {
        "node": id_.hex(),
        "farm": survey.farm_name(node),
        "owner": encode_account(node.farm),
        "country": node.place.country,
        "city": node.place.city,
        "addresses": node.addresses,
        "slot": node.slot,
        "capacity": _resources(capacity.vcpu_milli, capacity.memory_mib, capacity.disk_mib),
        "free": _resources(
            capacity.vcpu_milli - used.vcpu_milli,
            capacity.memory_mib - used.memory_mib,
            capacity.disk_mib - used.disk_mib,
        ),
        "price": {
            "vcpu_hour": format_amount(node.offer.vcpu_hour),
            "memory_gib_hour": format_amount(node.offer.memory_gib_hour),
            "disk_gib_hour": format_amount(node.offer.disk_gib_hour),
        },
        "leases": sum(byte.bit_count() for byte in node.lease_slots),
        "stake": format_amount(node.stake),
        "last_report_epoch": node.last_report_epoch,
        "reports": node.history_count,
    }


def _resources(vcpu_milli: int, memory_mib: int, disk_mib: int) -> dict[str, int]:
    return {"vcpu_milli": vcpu_milli, "memory_mib": memory_mib, "disk_mib": disk_mib}
