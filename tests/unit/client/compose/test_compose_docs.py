"""The user's page lists every key that is supported or refused, each refusal with its hint."""

import re
from pathlib import Path

import pytest

from freehold.client.compose import keys

PAGE = (Path(__file__).parents[4] / "docs" / "compose.md").read_text(encoding="utf-8")
TABLES = [table for table in vars(keys).values() if isinstance(table, keys.KeyTable)]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.noun)
def test_every_key_is_on_the_page(table: keys.KeyTable) -> None:
    for key in table.supported:
        assert re.search(rf"\b{key}\b", PAGE), key
    for key, refused in table.refused.items():
        assert any(
            f"| {table.noun} |" in line and f"`{key}`" in line and refused.hint in line for line in PAGE.splitlines()
        ), key
