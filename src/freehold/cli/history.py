"""`freehold history`, `tx` and `block`: what happened, as a server's index tells it; a block is checked."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from freehold.base.decoders import convert
from freehold.base.errors import InvalidInputError, NotVerifiedError, RefusedError
from freehold.base.ids import parse_id
from freehold.cli.eventwords import Names, moment, sentence
from freehold.cli.output import Json, Result, Table, say
from freehold.client import wallet as wallets
from freehold.client.home import Home
from freehold.client.running import list_services
from freehold.client.session import Session
from freehold.client.survey import survey_grid
from freehold.crypto.strkey import decode_account, encode_account
from freehold.light.headers import header_hash
from freehold.rpc.archive import HistoryAnswer, HistoryBlockAnswer, HistoryTxAnswer

MAX_NODES: Final = 11  # of a farm in one question, beside its owner
WORD: Final = "claimed"
HOW: Final = (
    "the server's word: claimed, not proven. `freehold block HEIGHT` checks a block against signatures; "
    "`freehold verify SERVICE` proves a contract and what it paid; `freehold wallet balance` is proven"
)
T = TypeVar("T")

_AGO: Final = re.compile(r"([0-9]{1,6})([smhd])\Z", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def history(
    *,
    account: str | None = None,
    service: str | None = None,
    farm: str | None = None,
    since: str | None = None,
    limit: int = 50,
    cursor: str = "",
    json: Json = False,
) -> Result:
    """List what happened on the ledger, newest first: all of it, or what concerns an account, a service or a farm.

    It is the server's word, kept in its index; what it says how to check is proven.

    Parameters
    ----------
    account
        An account (G...).
    service
        A service of yours (guestbook/web), or a lease id of 64 hex digits.
    farm
        A farm by its name, or by its owner's account; with its nodes.
    since
        A time ago (30m, 12h, 7d), or a moment (2026-11-26 or 2026-11-26T12:00, UTC).
    limit
        At most so many, up to 1,000.
    cursor
        Go on where an earlier page ended: its `next_cursor`.
    """
    since_ms = parse_since(since, time.time_ns() // 1_000_000) if since else 0
    if not 1 <= limit <= 1_000:
        raise InvalidInputError("the limit is a number from 1 to 1000", code="bad_limit")
    if sum(one is not None for one in (account, service, farm)) > 1:
        raise InvalidInputError("name one of --account, --service and --farm", code="bad_usage")

    async def ask(session: Session) -> tuple[HistoryAnswer, Names]:
        subjects = await _subjects(session, account, service, farm)
        path = f"/v1/history?subject={','.join(subjects)}&since_ms={since_ms}&limit={limit}&cursor={quote(cursor)}"
        return await _get(session, path, HistoryAnswer), await _names(session)

    answer, names = _run(ask)
    table = Table(("TIME (UTC)", "BLOCK", "WHAT"))
    events = []
    for event in answer.events:
        text = sentence(event.kind, event.attributes, names)
        table.add(moment(event.time_ms), event.height, text)
        events.append(msgspec.to_builtins(event) | {"text": text})
    lines = [table.text() if events else "nothing is known", "", HOW]
    if answer.next_cursor:
        lines.insert(1, f"older: add --cursor {answer.next_cursor}")
    document = {"word": WORD, "how": HOW, **msgspec.to_builtins(answer), "events": events}
    return Result(document, "\n".join(lines))


def tx(id_: str, /, *, json: Json = False) -> Result:
    """Show what a transaction did and which block holds it. This is the server's word.

    Parameters
    ----------
    id_
        Its id: 64 hex digits.
    """
    parse_id(id_)

    async def ask(session: Session) -> tuple[HistoryTxAnswer, Names]:
        return await _get(session, f"/v1/history/tx/{id_}", HistoryTxAnswer), await _names(session)

    answer, names = _run(ask)
    if answer.tx_id != id_:
        raise NotVerifiedError("the server answered for another transaction", code="wrong_tx")
    what = [f"  {sentence(event.kind, event.attributes, names)}" for event in answer.events] or ["  (no events)"]
    done = "refused: " + answer.code_name.lower().replace("_", " ") if answer.code else "done"
    lines = [f"block  {answer.height} at {moment(answer.time_ms)} UTC", f"result {done}", *what, "", HOW]
    return Result({"word": WORD, "how": HOW, **msgspec.to_builtins(answer)}, "\n".join(lines))


def block(name: str, /, *, json: Json = False) -> Result:
    """Show a block: its hash and time, checked against its validators' signatures, and what the server says it holds.

    Parameters
    ----------
    name
        Its height, or its hash of 64 hex digits.
    """

    async def ask(session: Session) -> tuple[HistoryBlockAnswer, bool]:
        answer = await _get(session, f"/v1/history/block/{quote(name, safe='')}", HistoryBlockAnswer)
        if name not in (str(answer.height), answer.hash):
            raise NotVerifiedError("the server answered for another block", code="wrong_block")
        return answer, await _is_signed(session, answer)

    answer, is_signed = _run(ask)
    table = Table(("TRANSACTION", "RESULT"))
    for row in answer.txs:
        table.add(row.tx_id, row.code_name)
    checked = "checked: signed by its validators" if is_signed else "claimed: its header is not kept any more"
    lines = [
        f"block  {answer.height}",
        f"hash   {answer.hash} ({checked})",
        f"time   {moment(answer.time_ms)} UTC",
        f"holds  {len(answer.txs)} transaction{'' if len(answer.txs) == 1 else 's'}, {answer.failed} refused (claimed)",
        "",
        table.text(),
    ]
    document = {"word": WORD, "header_checked": is_signed, "how": HOW, **msgspec.to_builtins(answer)}
    return Result(document, "\n".join(lines))


def parse_since(text: str, now_ms: int) -> int:
    """Read a time ago or a moment, as ms since 1970.

    Raises:
        InvalidInputError: it is neither, or before 1970.
    """
    if ago := _AGO.match(text):
        since_ms = now_ms - int(ago[1]) * _SECONDS[ago[2]] * 1_000
    else:
        try:
            then = datetime.fromisoformat(text)
            since_ms = int((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() * 1_000)
        except (ValueError, OverflowError):
            raise InvalidInputError(
                f"{text[:40]!r} is no time", code="bad_time", hint="write 30m, 12h, 7d, or 2026-11-26T12:00 (UTC)"
            ) from None
    if since_ms < 0:
        raise InvalidInputError("that is before 1970", code="bad_time", hint="write 30m, 12h or 7d")
    return since_ms


def _run(ask: Callable[[Session], Awaitable[T]]) -> T:
    async def run() -> T:
        session = Session(Home.default())
        try:
            return await ask(session)
        finally:
            await session.close()

    return asyncio.run(run())


async def _subjects(session: Session, account: str | None, service: str | None, farm: str | None) -> list[str]:
    if account is not None:
        return [encode_account(decode_account(account))]
    if service is not None:
        return await _leases_of(session, service)
    return await _farm(session, farm) if farm is not None else []


async def _leases_of(session: Session, service: str) -> list[str]:
    if len(service) == 64 and "/" not in service:
        return [parse_id(service).hex()]
    _, views = await list_services(session, decode_account(wallets.address(session.home)))
    found = [view for view in views if service in (view.name, view.name.partition("/")[2], view.deployment)]
    if not found:
        known = ", ".join(sorted({view.name for view in views})) or "none"
        raise InvalidInputError(
            f"no standing service {service[:80]!r}; there are: {known}",
            code="unknown_service",
            hint="of a service that ended long ago, give the lease id",
        )
    return [view.lease_id.hex() for view in found[-12:]]


async def _farm(session: Session, farm: str) -> list[str]:
    survey = await survey_grid(session)
    owners = [owner for owner, record in survey.farms.items() if farm in (record.name, encode_account(owner))]
    if len(owners) != 1:
        raise InvalidInputError(
            f"{len(owners)} farms are called {farm[:80]!r}", code="unknown_farm", hint="give its owner's account"
        )
    nodes = sorted(id_.hex() for id_, node in survey.nodes.items() if node.farm == owners[0])
    if len(nodes) > MAX_NODES:
        say(f"note: the farm has {len(nodes)} nodes; of those only {MAX_NODES} are asked for, and all that it was paid")
    return [encode_account(owners[0]), *nodes[:MAX_NODES]]


async def _names(session: Session) -> Names:
    try:
        grid = await session.ledger.get_json("/v1/grid")
    except RefusedError:
        grid = {}
    genesis_ms = session.ledger.genesis.genesis_time_ms
    return Names(grid if isinstance(grid, dict) else {}, genesis_ms, session.preset.epoch_ms)


async def _get(session: Session, path: str, kind: type[T]) -> T:
    try:
        return convert(await session.ledger.get_json(path), kind)
    except msgspec.ValidationError as error:
        raise NotVerifiedError(f"the server's answer is malformed: {error}", code="bad_answer") from None


async def _is_signed(session: Session, answer: HistoryBlockAnswer) -> bool:
    """Whether the block's header could be checked.

    Raises:
        NotVerifiedError: the signed block of that height is another one.
    """
    try:
        header = (await session.ledger.light_block(answer.height)).header
    except RefusedError:  # pruned
        return False
    if header_hash(header).hex() != answer.hash or header.time.ms != answer.time_ms:
        raise NotVerifiedError(
            "the validators signed another block at that height than the server's history says",
            code="false_history",
            hint="ask another server; this one's index is wrong or lies",
        )
    return True
