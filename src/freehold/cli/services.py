"""`freehold ps`, `logs` and `down`: what runs for you."""

import asyncio
import sys
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter

from freehold.base.amounts import format_amount
from freehold.base.errors import InvalidInputError, RemoteProtocolError
from freehold.base.limits import MIB
from freehold.cli.output import Json, Result, Table, say
from freehold.cli.terminal import TerminalLog
from freehold.client import wallet as wallets
from freehold.client.home import Home
from freehold.client.nodes import NodeClient
from freehold.client.running import (
    ServiceView,
    ask_status,
    close_deployment,
    find_service,
    list_services,
    service_document,
    stream_logs,
    top_up,
)
from freehold.client.session import Session
from freehold.client.survey import name_nodes
from freehold.crypto.strkey import decode_account
from freehold.grid.lifecycle import local_names
from freehold.ledger.deployments import top_up_cost
from freehold.protocol.messages import LeaseStatus

MAX_COLLECTED_BYTES = 64 * MIB  # of a log in one JSON document


def ps(*, json: Json = False) -> Result:
    """List your services: contract (proven), state on the node (the node's word), price, and when they run out."""
    home = Home.default()
    wallet = wallets.open_wallet(home, wallets.read_passphrase())
    height, rows, names = asyncio.run(_states(home, wallet))
    names |= local_names(home.grid_folder)
    table = Table(("SERVICE", "STATE", "HEALTH", "NODE", "TERM", "PRICE/HOUR", "PAID", "RUNS OUT"))
    for view, status in rows:
        ends = datetime.fromtimestamp(view.runs_out_ms / 1000, UTC) if view.runs_out_ms else None
        table.add(
            view.name,
            view.status if view.status != "running" else (status.phase if status else "node does not answer"),
            (status.health if status else "") or "-",
            names.get(view.holder, view.holder.hex()[:12]) or "-",
            view.term,
            format_amount(view.lease.price_per_hour),
            format_amount(view.lease.paid),
            f"{ends:%Y-%m-%d %H:%M} UTC" if ends else "-",
        )
    document = {"height": height, "services": [service_document(view, status) for view, status in rows]}
    return Result(document, table.text() if rows else "nothing is deployed from this wallet")


def logs(
    service: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False,
    tail: int = 100,
    json: Json = False,
) -> Result:
    """Print a service's log, as its node has it.

    Parameters
    ----------
    service
        Such as guestbook/web.
    follow
        Go on with new lines as they come, until Ctrl-C.
    tail
        How many of the last lines to begin with.
    """
    home = Home.default()
    wallet = wallets.open_wallet(home, wallets.read_passphrase())
    if follow and json:
        raise InvalidInputError("--follow never ends, so it has no one JSON document", code="bad_usage")
    lines = asyncio.run(_logs(home, wallet, service, tail, follow=follow, collect=json))
    return Result({"service": service, "lines": lines})


def topup(target: str, hours: float, /, *, plan: bool = False, json: Json = False) -> Result:
    """Prepay a service, or every service of a deployment, for longer, at the price frozen in its contract.

    Parameters
    ----------
    target
        A service such as guestbook/web, or a deployment such as guestbook.
    hours
        How many hours more.
    plan
        Only show what it would cost.
    """
    add_ms = round(hours * 3_600_000)
    if add_ms <= 0:
        raise InvalidInputError("the hours must be more than zero", code="bad_hours")
    home = Home.default()
    wallet = wallets.open_wallet(home, wallets.read_passphrase())
    names, cost = asyncio.run(_topup(home, wallet, target, add_ms, only_plan=plan))
    document = {"services": names, "hours": hours, "cost": format_amount(cost), "paid": not plan}
    verb = "would cost" if plan else "cost"
    return Result(document, f"{hours:g} hours more for {', '.join(names)} {verb} {format_amount(cost)} tokens")


def down(deployment: str, /, *, json: Json = False) -> Result:
    """End a deployment: its containers and volumes go; what was prepaid and not served comes back.

    Parameters
    ----------
    deployment
        Its name, such as guestbook.
    """
    home = Home.default()
    wallet = wallets.open_wallet(home, wallets.read_passphrase())
    ended = asyncio.run(_down(home, wallet, deployment))
    document = {"deployment": deployment, "ended": [view.name for view in ended]}
    text = (
        f"ended: {', '.join(view.name for view in ended)}\n"
        "what was not yet reported stays locked until its windows close; then the rest comes back by itself"
        if ended
        else f"{deployment} had ended already; the rest is settled as its windows close"
    )
    return Result(document, text)


async def _states(
    home: Home, wallet: wallets.Wallet
) -> tuple[int, list[tuple[ServiceView, LeaseStatus | None]], dict[bytes, str]]:
    session = Session(home, wallet)
    try:
        height, views = await list_services(session, decode_account(wallet.address))
        async with NodeClient(session, wallet) as nodes:
            statuses = await asyncio.gather(*(ask_status(nodes, view) for view in views))
        names = await name_nodes(session, {view.holder for view in views}, height)
        return height, list(zip(views, statuses, strict=True)), names
    finally:
        await session.close()


async def _logs(
    home: Home, wallet: wallets.Wallet, service: str, tail: int, *, follow: bool, collect: bool
) -> list[str]:
    session = Session(home, wallet)
    collected = bytearray()
    shown = TerminalLog() if sys.stdout.isatty() else None
    try:
        _, views = await list_services(session, wallet.id)
        view = find_service(views, service)
        async with NodeClient(session, wallet) as nodes:
            async for chunk in stream_logs(nodes, view, tail=tail, follow=follow):
                if collect:
                    collected += chunk
                    if len(collected) > MAX_COLLECTED_BYTES:
                        raise RemoteProtocolError("the node sends more of a log than was asked for", code="oversized")
                else:
                    sys.stdout.buffer.write(shown.feed(chunk) if shown else chunk)
                    sys.stdout.buffer.flush()
            if shown:
                sys.stdout.buffer.write(shown.rest())
    finally:
        await session.close()
    return collected.decode(errors="replace").splitlines()


async def _topup(
    home: Home, wallet: wallets.Wallet, target: str, add_ms: int, *, only_plan: bool
) -> tuple[list[str], int]:
    session = Session(home, wallet)
    try:
        _, views = await list_services(session, wallet.id)
        chosen = [view for view in views if view.deployment == target] or [find_service(views, target)]
        cost = sum(top_up_cost(view.lease, add_ms) for view in chosen)
        if not only_plan:
            cost = await top_up(session, wallet, chosen, add_ms)
        return [view.name for view in chosen], cost
    finally:
        await session.close()


async def _down(home: Home, wallet: wallets.Wallet, deployment: str) -> list[ServiceView]:
    session = Session(home, wallet)
    try:
        _, views = await list_services(session, wallet.id)
        mine = [view for view in views if view.deployment == deployment]
        if not mine:
            known = ", ".join(sorted({view.deployment for view in views})) or "none"
            raise InvalidInputError(f"no deployment {deployment!r}; there are: {known}", code="unknown_deployment")
        say(f"ending {len(mine)} leases of {deployment}")
        return await close_deployment(session, wallet, mine, "ended by the tenant")
    finally:
        await session.close()
