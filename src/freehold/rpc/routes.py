"""The table of routes: method, path, what comes in and goes out, what it costs; the app and OpenAPI follow from it."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from freehold.rpc import answers, archive
from freehold.rpc.service import Service

LIST_POINTS: Final = 4.0
HISTORY_POINTS: Final = 10.0  # a page of 1,000 events


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one path.

    Attributes:
        method: GET or POST.
        path: as Starlette writes it.
        name: of the operation, in OpenAPI.
        summary: one line.
        answer: what goes out.
        call: does it; its second argument is the decoded query or body, or the id in the path, or None.
        query: the query's parameters, each optional: whole numbers, or text by a pattern.
        id_pattern: of the id in the path.
        body: the body.
        points: what a request costs of its client's rate.
        more_points: what this one costs beyond that, once it is decoded.
        time_limit_s: after which it is given up.
        statuses: of errors that it may answer with, beyond those that every route has.
    """

    method: str
    path: str
    name: str
    summary: str
    answer: Any
    call: Callable[[Service, Any], Awaitable[Any]]
    query: type[answers.Request] | None = None
    id_pattern: str = "^[0-9a-f]{64}$"
    body: type[answers.Request] | None = None
    points: float = 1.0
    more_points: Callable[[Service, Any], float] | None = None
    time_limit_s: float = 10.0
    statuses: tuple[int, ...] = ()


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/status",
        name="status",
        summary="Where the ledger stands, on the server's word",
        answer=answers.StatusAnswer,
        call=lambda service, _: service.status(),
    ),
    Route(
        method="GET",
        path="/v1/light_block",
        name="light_block",
        summary="The header, commit and validators of a height: the newest when left out",
        answer=answers.LightBlockAnswer,
        call=Service.light_block,
        query=answers.LightBlockQuery,
        statuses=(404, 410),
    ),
    Route(
        method="POST",
        path="/v1/state",
        name="state",
        summary="Values of the state with proofs under one header",
        answer=answers.StateAnswer,
        call=Service.state,
        body=answers.StateRequest,
        more_points=Service.state_points,
        statuses=(404, 410),
    ),
    Route(
        method="POST",
        path="/v1/tx",
        name="submit",
        summary="Submit a transaction; by default answer when it is in a durable block",
        answer=answers.TxAnswer,
        call=Service.submit,
        body=answers.TxRequest,
        time_limit_s=25.0,
        statuses=(403,),
    ),
    Route(
        method="GET",
        path="/v1/tx/{id}",
        name="tx",
        summary="What a transaction of a recent block did",
        answer=answers.TxAnswer,
        call=Service.tx,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/v1/blocks",
        name="blocks",
        summary="The newest blocks, newest first",
        answer=answers.BlocksAnswer,
        call=Service.blocks,
        query=answers.ListQuery,
        points=LIST_POINTS,
    ),
    Route(
        method="GET",
        path="/v1/events",
        name="events",
        summary="What happened in recent blocks, oldest first",
        answer=answers.EventsAnswer,
        call=Service.events,
        query=answers.EventsQuery,
        points=LIST_POINTS,
    ),
    Route(
        method="GET",
        path="/v1/payments",
        name="payments",
        summary="What leases paid in recent blocks, newest first",
        answer=answers.PaymentsAnswer,
        call=Service.payments,
        query=answers.ListQuery,
        points=LIST_POINTS,
    ),
    Route(
        method="GET",
        path="/v1/grid",
        name="grid",
        summary="Farms, nodes and leases in one page, without proofs",
        answer=answers.GridAnswer,
        call=lambda service, _: service.grid(),
        points=LIST_POINTS,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/v1/history",
        name="history",
        summary="What happened in all indexed blocks, to whom it concerns, newest first",
        answer=archive.HistoryAnswer,
        call=lambda service, query: service.archive.events(query),
        query=archive.HistoryQuery,
        points=HISTORY_POINTS,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/v1/history/blocks",
        name="history_blocks",
        summary="All indexed blocks, newest first",
        answer=archive.HistoryBlocksAnswer,
        call=lambda service, query: service.archive.blocks(query),
        query=archive.HistoryBlocksQuery,
        points=LIST_POINTS,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/v1/history/tx/{id}",
        name="history_tx",
        summary="A transaction of any indexed block, with its events",
        answer=archive.HistoryTxAnswer,
        call=lambda service, id_: service.archive.tx(id_),
        points=LIST_POINTS,
        statuses=(404,),
    ),
    Route(
        method="GET",
        path="/v1/history/block/{id}",
        name="history_block",
        summary="An indexed block by height or hash, with its transactions",
        answer=archive.HistoryBlockAnswer,
        call=lambda service, name: service.archive.block(name),
        id_pattern=archive.BLOCK_PATTERN,
        points=LIST_POINTS,
        statuses=(404,),
    ),
    Route(
        method="POST",
        path="/v1/engine",
        name="engine",
        summary="What a restoring validator's engine asks: commits, validators, consensus parameters",
        answer=answers.EngineAnswer,
        call=Service.engine,
        body=answers.EngineRequest,
        points=2.0,
        statuses=(403,),
    ),
    Route(
        method="POST",
        path="/v1/faucet",
        name="faucet",
        summary="Ask the faucet of a local grid for its one transfer to a new account",
        answer=answers.TxAnswer,
        call=Service.faucet,
        body=answers.FaucetRequest,
        points=20.0,
        time_limit_s=25.0,
        statuses=(403, 404, 409),
    ),
)
