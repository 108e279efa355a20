"""OpenAPI 3.1 from the table of routes and the structs: the document cannot say other than the code does."""

import re
from typing import Any, Final

import msgspec

from freehold.rpc.answers import Request
from freehold.rpc.errors import ErrorAnswer
from freehold.rpc.routes import ROUTES, Route

_REF: Final = "#/components/schemas/{name}"
_EVERYWHERE: Final = (400, 413, 429, 500, 503)  # a query that is not asked for, or too long, is refused on any route
_MEANING: Final = {
    400: "the request is malformed",
    403: "refused",
    404: "not there",
    408: "the request did not arrive in time",
    409: "it was given before",
    410: "that height is not kept any more",
    413: "the request is too large",
    415: "the body is not sent as application/json",
    429: "too many requests of this client",
    500: "a defect of the server",
    503: "the ledger has halted, or is busy",
}


def document(version: str) -> dict[str, Any]:
    """Build the document."""
    types: list[Any] = [ErrorAnswer]
    for route in ROUTES:
        types += [kind for kind in (route.answer, route.body) if kind is not None]
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, Any] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths["/v1/genesis"] = {
        "get": {
            "operationId": "genesis",
            "summary": "The genesis document: CometBFT's",
            "responses": {"200": _json("the document", {"type": "object"}), **_errors(())},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Freehold ledger",
            "version": version,
            "description": "Answers are the server's word unless verified against genesis (docs/spec/rpc.md).",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": route.id_pattern}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    statuses = set(route.statuses)
    if route.query is not None:
        parameters += _query_parameters(route.query)
    if parameters:
        operation["parameters"] = parameters
        statuses.add(400)
    if route.body is not None:
        schema = {"$ref": _REF.format(name=route.body.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        statuses |= {400, 408, 413, 415}
    answer = _json("done", {"$ref": _REF.format(name=route.answer.__name__)})
    operation["responses"] = {"200": answer, **_errors(tuple(statuses))}
    return operation


def _query_parameters(query: type[Request]) -> list[dict[str, Any]]:
    schema = msgspec.json.schema(query)
    properties = schema["$defs"][query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _without_null(described)}
        for name, described in properties.items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Give the schema of a parameter that may be left out; null cannot be written in a query."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    return choices[0] if choices else schema


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="ErrorAnswer")}
    return {str(status): _json(_MEANING[status], schema) for status in sorted({*statuses, *_EVERYWHERE})}
