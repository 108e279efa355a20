"""`freehold node`: what nodes there are, what one offers and does; and the daemon itself."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from cyclopts import App

from freehold.agent.identity import NodeSettings, create_keys, write_settings
from freehold.base.amounts import format_amount, parse_amount
from freehold.base.errors import InvalidInputError
from freehold.cli.output import Json, Result, Table, say
from freehold.client import wallet as wallets
from freehold.client.home import Home
from freehold.client.joining import Joining, ensure_farm
from freehold.client.joining import join as join_grid
from freehold.client.session import Session
from freehold.client.survey import GridSurvey, survey_grid
from freehold.crypto.strkey import encode_account
from freehold.ledger.genesis import NODE_PURSE
from freehold.ledger.records import Node
from freehold.ledger.transactions import Offer, Place, Resources

app = App(name="node", help="List nodes, look at one, run one.")


@app.command(name="list")
def list_(*, country: str | None = None, json: Json = False) -> Result:
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
def show(node: str, /, *, json: Json = False) -> Result:
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
def join(
    *,
    home: Path,
    listen: str,
    farm: str = "",
    country: str = "",
    city: str = "",
    vcpu: float = 1.0,
    memory_mib: int = 1_024,
    ssd_mib: int = 10_240,
    vcpu_hour: str = "0.02",
    memory_gib_hour: str = "0.01",
    ssd_gib_hour: str = "0.0005",
    json: Json = False,
) -> Result:
    """Join this machine to the grid as a node: makes its keys, registers it from your wallet, prepares its folder.

    The stake leaves your balance until the node is released. The address is public on the ledger from then on.

    Parameters
    ----------
    home
        The node's own folder; its keys are made there and never leave it.
    listen
        The ip:port at which others reach it; public.
    farm
        Name of your farm, when this wallet has none yet.
    country
        Where it is: ISO code, such as BE; only for a new farm.
    city
        The city, if you like; only for a new farm.
    vcpu
        How many vcpus you offer.
    memory_mib
        How much memory, in MiB.
    ssd_mib
        How much ssd, in MiB.
    vcpu_hour
        Tokens for a vcpu and hour.
    memory_gib_hour
        Tokens for a GiB of memory and hour.
    ssd_gib_hour
        Tokens for a GiB of ssd and hour.
    """
    own = Home.default()
    wallet = wallets.open_wallet(own, wallets.read_passphrase())
    joining = Joining(
        listen,
        Resources(int(vcpu * 1000), memory_mib, ssd_mib),
        Offer(parse_amount(vcpu_hour), parse_amount(memory_gib_hour), parse_amount(ssd_gib_hour)),
        NODE_PURSE,
    )
    key, height = asyncio.run(_join(own, wallet, home, joining, farm, Place(country.upper(), city)))
    say(f"note: {listen} is public on the ledger now; without relays there is no other way to be reached")
    text = (
        f"node {key.hex()}\nnext: `freehold node run --home {home}` (as root); "
        "it is drawn and leased from the second epoch on"
    )
    return Result({"node": key.hex(), "home": str(home), "height": height}, text)


@app.command
def run(*, home: Path) -> Result:
    """Run the node agent of a prepared home in the foreground, until it is stopped.

    Parameters
    ----------
    home
        The node's own folder: node.key, box.key, genesis.json, node.toml.
    """
    # -P: what lies in the folder where someone stands is never imported, least of all as root.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "freehold.agent.main", "--home", str(home)])  # noqa: S606


async def _join(
    own: Home, wallet: wallets.Wallet, folder: Path, joining: Joining, farm: str, place: Place
) -> tuple[bytes, int]:
    session = Session(own, wallet)
    try:
        await ensure_farm(session, wallet, farm, place)
        key, box = create_keys(folder)
        settings = NodeSettings(
            ledger=session.ledger.url, listen=joining.listen, name=folder.name, trust=str(session.ledger.trust)
        )
        write_settings(folder, settings)
        own.write(folder / "genesis.json", own.genesis_path.read_bytes())
        return key.public, await join_grid(session, wallet, key, box, joining)
    finally:
        await session.close()


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
