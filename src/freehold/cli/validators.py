"""`freehold ledger validators`: who votes, who stands, with what behind them; all of it verified."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from freehold.base.amounts import format_amount
from freehold.cli.output import Json, Result, Table
from freehold.client.home import Home
from freehold.client.session import Session
from freehold.client.validators import ValidatorRow, ValidatorsView, read_validators
from freehold.crypto.strkey import encode_account

T = TypeVar("T")


def validators(*, json: Json = False) -> Result:
    """Show who votes, who stands for election, their bonds and earnings; verified."""

    async def work(session: Session) -> ValidatorsView:
        return await read_validators(session)

    view = asyncio.run(with_session(Session(Home.default()), work))
    return Result(_document(view), _text(view))


async def with_session(session: Session, work: Callable[[Session], Awaitable[T]]) -> T:
    """Do something with the ledger, and close the connections whatever happens."""
    try:
        return await work(session)
    finally:
        await session.close()


def time_text(time_ms: int) -> str:
    """A time of the ledger for people and documents."""
    return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(timespec="seconds")


def part_document(amount: int, due_ms: int) -> dict[str, str]:
    """A part of a bond on its way back."""
    return {"amount": format_amount(amount), "due": time_text(due_ms)}


def _state_of(view: ValidatorsView, row: ValidatorRow) -> str:
    if row.bond is not None and row.bond.is_removed:
        return "removed"
    if row.returns_ms and not row.power:
        return "absent"
    if row.power and not row.next_power:
        return "leaving"
    if row.power:
        return "votes"
    if row.next_power:
        return "joining"
    listed = any(entry[1] == row.validator for entry in view.table)
    return "stands" if listed else "unlisted"


def standing_document(view: ValidatorsView, validator: bytes) -> dict[str, Any]:
    """How one validator stands, and who else is out: of `ledger status`."""
    row = view.find(validator)
    state = "no_bond" if row is None else _state_of(view, row)
    returns_ms = 0 if row is None else row.returns_ms
    return {
        "validator": validator.hex(),
        "state": state,
        "missed_blocks": 0 if row is None else row.missed,
        "counted_blocks": view.counted,
        "may_rejoin": time_text(returns_ms) if returns_ms else None,
        "next": _next_step(state, validator, returns_ms),
        "absent": [one.validator.hex() for one in view.rows if one.returns_ms and one.validator != validator],
    }


def _next_step(state: str, validator: bytes, returns_ms: int) -> str:
    name = validator.hex()
    if state == "removed":
        return f"freehold ledger unbond {name} --all"
    if returns_ms:
        return f"freehold ledger rejoin {name}"
    return "freehold ledger bond AMOUNT --home HOME" if state in ("no_bond", "unlisted") else ""


def standing_text(standing: dict[str, Any]) -> list[str]:
    """The same for people."""
    says = {
        "absent": f"is out, for it did not sign: once it runs, its owner puts it back from {standing['may_rejoin']} on",
        "removed": "misbehaved: its bond was cut and its key never stands again; its owner takes the rest back",
        "no_bond": "has no seat and no bond",
        "unlisted": "has a bond and no place among the candidates: a higher bond finds one",
    }.get(standing["state"], standing["state"])
    step = f": `{standing['next']}`" if standing["next"] else ""
    lines = [f"{'validator':<14} {standing['validator'][:16]} {says}{step}"]
    if standing["absent"]:
        lines.append(f"{'also out':<14} {', '.join(name[:16] for name in standing['absent'])}")
    return lines


def _document(view: ValidatorsView) -> dict[str, Any]:
    total = view.power
    return {
        "height": view.height,
        "rules": [{"height": height, "version": version} for height, version in view.rules],
        "elections": None if view.preset is None else msgspec.to_builtins(view.preset),
        "next_election": time_text(view.next_election_ms) if view.preset is not None else None,
        "attendance": None
        if view.attendance is None
        else msgspec.to_builtins(view.attendance) | {"least_blocks": view.least_blocks},
        "counted_blocks": view.counted,
        "power": total,
        "validators": [
            {
                "validator": row.validator.hex(),
                "state": _state_of(view, row),
                "power": row.power,
                "share_permill": row.power * 1_000 // total if total else 0,
                "next_power": row.next_power,
                "owner": encode_account(row.bond.owner) if row.bond is not None else None,
                "bond": format_amount(row.bond.stake) if row.bond is not None else None,
                "earned": format_amount(row.earned),
                "missed_blocks": row.missed,
                "absent": bool(row.returns_ms),
                "may_rejoin": time_text(row.returns_ms) if row.returns_ms else None,
                "unbonding": [part_document(part.amount, part.due_ms) for part in row.bond.unbonding]
                if row.bond
                else [],
            }
            for row in view.rows
        ],
    }


def _text(view: ValidatorsView) -> str:
    table = Table(("VALIDATOR", "STATE", "POWER", "SHARE", "MISSED", "BOND", "EARNED", "OWNER"))
    for row in view.rows:
        table.add(
            row.validator.hex()[:16],
            _state_of(view, row),
            row.power,
            f"{row.power * 100 / view.power:.1f} %",
            f"{row.missed} of {view.counted}" if row.power and view.attendance is not None else "-",
            format_amount(row.bond.stake) if row.bond is not None else "-",
            format_amount(row.earned),
            encode_account(row.bond.owner) if row.bond is not None else "-",
        )
    lines = [table.text(), ""]
    if view.preset is None:
        lines.append("this ledger keeps the validators of its genesis")
    else:
        lines.append(
            f"next election {time_text(view.next_election_ms)}; {view.preset.seats} seats, bonds from "
            f"{format_amount(view.preset.min_bond)}"
        )
    lines += _absence_lines(view)
    height, version = view.rules[-1]
    lines.append(
        f"rules {version} since height {height}"
        if height <= view.height
        else f"rules {version} from height {height} on: have the release that knows them by then"
    )
    return "\n".join(lines)


def _absence_lines(view: ValidatorsView) -> list[str]:
    """How much must be signed; then who is out, or about to be, and what its owner can do."""
    rules = view.attendance
    if rules is None:
        return []
    lines = [
        f"who signs less than {rules.min_signed_permill / 10:g} % of an era's blocks loses its place at the next "
        f"election; an era with fewer than {view.least_blocks} blocks judges nobody"
    ]
    for row in view.rows:
        name = row.validator.hex()
        if row.returns_ms:
            lines.append(
                f"{name[:16]} is out, for it did not sign: once it runs, its owner puts it back with `freehold ledger "
                f"rejoin {name}`, from {time_text(row.returns_ms)} on"
            )
        elif view.counted >= view.least_blocks and row.missed * 1_000 > view.counted * (
            1_000 - rules.min_signed_permill
        ):
            lines.append(f"{name[:16]} missed {row.missed} of {view.counted} blocks: start it, or it loses its place")
    return lines
