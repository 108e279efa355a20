"""Every key of the official schema is known to our tables, and no table has a key that the schema lacks."""

from typing import Any

import pytest

from freehold.client.compose import keys
from freehold.client.compose.schema import official_schema

DEFS = official_schema()["$defs"]


def variant(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    """Follow a path; `*` takes the object among alternatives, `.` the only pattern."""
    for step in path:
        if step == "*":
            schema = next(item for item in schema["oneOf"] if "properties" in item or "patternProperties" in item)
        elif step == ".":
            (schema,) = schema["patternProperties"].values()
        else:
            schema = schema[step]
    return schema


WORK = DEFS["workload_spec"]["properties"]
CONTAINER = DEFS["container_spec"]["properties"]
DEPLOY = DEFS["deployment"]["properties"]
TABLES: list[tuple[keys.KeyTable, set[str]]] = [
    (keys.FILE, set(official_schema()["properties"])),
    (keys.SERVICE, set(DEFS["service"]["properties"]) | set(CONTAINER) | set(WORK)),
    (keys.DEPLOY, set(DEPLOY)),
    (keys.RESOURCES, set(DEPLOY["resources"]["properties"])),
    (keys.LIMITS, set(DEPLOY["resources"]["properties"]["limits"]["properties"])),
    (keys.HEALTHCHECK, set(DEFS["healthcheck"]["properties"])),
    (keys.PORT, set(variant(WORK["ports"], "items", "*", "properties"))),
    (keys.SERVICE_VOLUME, set(variant(CONTAINER["volumes"], "items", "*", "properties"))),
    (keys.TMPFS, set(variant(CONTAINER["volumes"], "items", "*", "properties", "tmpfs", "properties"))),
    (keys.ENV_FILE, set(variant(DEFS["env_file"]["oneOf"][1], "items", "*", "properties"))),
    (keys.DEPENDENCY, set(variant(WORK["depends_on"], "*", ".", "properties"))),
    (keys.SERVICE_SECRET, set(variant(DEFS["service_config_or_secret"], "items", "*", "properties"))),
    (keys.SERVICE_NETWORK, set(variant(CONTAINER["networks"], "*", ".", "*", "properties"))),
    (keys.VOLUME, set(DEFS["volume"]["properties"])),
    (keys.NETWORK, set(DEFS["network"]["properties"])),
    (keys.SECRET, set(DEFS["secret"]["properties"])),
]  # fmt: skip


@pytest.mark.parametrize(("table", "official"), TABLES, ids=lambda item: getattr(item, "noun", ""))
def test_tables_have_exactly_the_keys_of_the_specification(table: keys.KeyTable, official: set[str]) -> None:
    assert table.known == official


@pytest.mark.parametrize(("table", "official"), TABLES, ids=lambda item: getattr(item, "noun", ""))
def test_no_key_is_both_supported_and_refused_and_each_refusal_has_a_hint(
    table: keys.KeyTable, official: set[str]
) -> None:
    assert not table.supported & table.refused.keys()
    assert all(refused.hint for refused in table.refused.values())
