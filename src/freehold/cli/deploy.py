"""`freehold deploy`: the plan with its price and readers, then the contract, the images, and a running deployment."""

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from freehold.base.amounts import format_amount, parse_amount
from freehold.base.errors import InvalidInputError, RefusedError
from freehold.cli.output import Json, Result, Table, say
from freehold.cli.progress import ProgressView
from freehold.client import wallet as wallets
from freehold.client.compose.folder import check_file
from freehold.client.compose.model import ComposeFile
from freehold.client.compose.preferences import parse_preferences
from freehold.client.deploying import Deployer
from freehold.client.forgers import rewriter_warning
from freehold.client.forwarding import PublishedPorts
from freehold.client.home import Home
from freehold.client.images import LocalImages
from freehold.client.nodes import NodeClient
from freehold.client.plan import Candidate, Plan
from freehold.client.planner import Grid, Wishes, make_plan
from freehold.client.running import list_services
from freehold.client.session import Session
from freehold.client.survey import survey_grid
from freehold.crypto.strkey import decode_account


def deploy(
    file: Path,
    /,
    *,
    plan: bool = False,
    prefer: Annotated[list[str] | None, Parameter(consume_multiple=False)] = None,
    max_price: str | None = None,
    yes: bool = False,
    json: Json = False,
) -> Result:
    """Deploy a compose file by contract.

    Shows where each service would run, what it costs, what may go wrong and who could read what; then commits the
    contract, hands specs and images to the nodes, and returns when everything runs and answers. You may go offline
    then.

    Parameters
    ----------
    file
        The compose file; `freehold compose check FILE` tells what is supported.
    plan
        Only show the plan; nothing is paid, nothing is sent.
    prefer
        Wishes such as country=BE, farm=ghent, or country=!US to exclude; comma-separated or given several times.
    max_price
        Refuse when the whole deployment costs more than this many tokens an hour.
    yes
        Do not ask before paying, on a terminal.
    """
    found = check_file(file, os.environ)
    if not found.ok or found.model is None:
        first = next(problem for problem in found.problems if not problem.code.startswith("warning_"))
        raise InvalidInputError(
            f"{file}:{first.line}: {first.path}: {first.message}",
            code=first.code,
            hint=first.hint or f"`freehold compose check {file}` lists every problem",
        )
    limit = parse_amount(max_price) if max_price is not None else None
    wishes = Wishes(prefer=parse_preferences(",".join(prefer or [])), max_price_per_hour=limit)
    home = Home.default()
    images = LocalImages(home)
    for service in found.model.services.values():
        image = images.find(service.image)
        if not plan:
            images.require_whole(image)
    if plan:
        chosen = asyncio.run(_plan_only(home, found.model, wishes))
        return Result(chosen.as_json(), plan_text(chosen))
    opened = wallets.open_wallet(home, wallets.read_passphrase())
    return asyncio.run(_deploy(home, opened, images, found.model, wishes, ask=not (yes or json)))


async def _plan_only(home: Home, model: ComposeFile, wishes: Wishes) -> Plan:
    session = Session(home)
    try:
        return await _make_plan(session, model, wishes, decode_account(wallets.address(home)))
    finally:
        await session.close()


async def _make_plan(session: Session, model: ComposeFile, wishes: Wishes, tenant: bytes) -> Plan:
    _, running = await list_services(session, tenant)
    if any(view.deployment == model.name and not view.has_ended for view in running):
        raise RefusedError(
            f"a deployment named {model.name} runs already",
            code="deployment_exists",
            hint=f"end it with `freehold down {model.name}`, or give this one another `name:`",
        )
    survey = await survey_grid(session)
    account = await session.account(tenant)
    grid = Grid(
        preset=session.preset,
        candidates=[Candidate(id_, survey.farm_name(node), node) for id_, node in survey.nodes.items()],
        epoch=survey.totals.epoch,
        now_ms=survey.at.time_ms,
        power_warning=rewriter_warning(survey.forgers, survey.validator_owners),
    )
    return make_plan(model, grid, wishes, account.balance - account.reserved if account else 0)


async def _deploy(
    home: Home, wallet: wallets.Wallet, images: LocalImages, model: ComposeFile, wishes: Wishes, *, ask: bool
) -> Result:
    session = Session(home, wallet)
    try:
        chosen = await _make_plan(session, model, wishes, wallet.id)
        say(plan_text(chosen))
        if ask and not await asyncio.to_thread(_agreed, chosen):
            return Result({**chosen.as_json(), "deployment": None}, "nothing was deployed, nothing was paid")
        PublishedPorts(home).keep(model)
        async with NodeClient(session, wallet) as nodes:
            with ProgressView() as progress:
                deployed = await Deployer(session, wallet, nodes, images, progress.tell).deploy(chosen)
    finally:
        await session.close()
    names = [f"{model.name}/{name}" for name in model.services]
    document = {
        **chosen.as_json(),
        "deployment": {"id": deployed.id.hex(), "name": model.name, "height": deployed.height, "services": names},
    }
    published = next(
        ((service.name, port.target) for service in model.services.values() for port in service.ports), None
    )
    lines = [f"{model.name} runs: {', '.join(names)}"]
    if published:
        lines.append(
            f"next: `freehold connect {model.name}/{published[0]} {published[1]}` opens its port on this machine"
        )
    return Result(document, "\n".join(lines))


def _agreed(plan: Plan) -> bool:
    if not sys.stdin.isatty():
        return True
    say(f"pay {format_amount(plan.price.first_charge)} tokens now? [y/N] ")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def plan_text(plan: Plan) -> str:
    """A plan for people."""
    document: dict[str, Any] = plan.as_json()
    table = Table(("SERVICE", "NODE", "FARM", "COUNTRY", "STANDBYS", "PRICE/HOUR"))
    for row in document["placement"]:
        standbys = ", ".join(f"{standby['farm']} ({standby['country']})" for standby in row["standbys"]) or "none"
        table.add(row["service"], row["node"][:12], row["farm"], row["country"], standbys, row["price_per_hour"])
    price = document["price"]
    ends = datetime.fromtimestamp(plan.runs_out_ms / 1000, UTC)
    lines = [
        table.text(),
        "",
        f"price         {price['per_hour']} tokens an hour, standbys included",
        f"first charge  {price['first_charge']} tokens; prepaid until {ends:%Y-%m-%d %H:%M} UTC",
    ]
    lines += [
        f"              {part['amount']:>12}  {part['what']}{'' if part['refundable'] else ' (not refundable)'}"
        for part in price["parts"]
    ]
    lines += ["", "who could read what"]
    lines += [f"  {entry['who']}: {entry['what']}" for entry in document["who_can_read"]]
    if document["warnings"]:
        lines += ["", "before you pay"]
        lines += [f"  - {warning}" for warning in document["warnings"]]
    return "\n".join(lines)
