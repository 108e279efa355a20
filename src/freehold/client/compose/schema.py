"""The official JSON schema of the compose specification, as a net under our own reading.

It is read from the package check-jsonschema, which carries it; our own tables give better messages, so an error of the
schema is told only where nothing was reported yet.
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

import jsonschema_rs

from freehold.base.errors import FreeholdError
from freehold.client.compose.loading import Value
from freehold.client.compose.problems import Path

MAX_ERRORS = 200
_PACKAGE = "check_jsonschema"
_FILE = ("builtin_schemas", "vendor", "compose-spec.json")


@cache
def official_schema() -> dict[str, Any]:
    """Give the schema as plain values.

    Raises:
        FreeholdError: the package that carries it is not installed whole.
    """
    # Found, not imported: the package's own import starts its whole command line, 0.3 s.
    spec = find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    try:
        text = FilePath(next(iter(folders or ())), *_FILE).read_text(encoding="utf-8")
    except (OSError, StopIteration):
        raise FreeholdError(
            "the official compose schema is not installed", code="schema_missing", hint="run `make setup` again"
        ) from None
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> Any:
    return jsonschema_rs.validator_for(official_schema(), mask="the value")


def schema_errors(value: Value) -> Iterator[tuple[Path, str]]:
    """Place and message of at most `MAX_ERRORS` errors; values from the file are not repeated in messages."""
    for error in islice(_validator().iter_errors(value), MAX_ERRORS):
        yield tuple(error.instance_path), str(error.message)
