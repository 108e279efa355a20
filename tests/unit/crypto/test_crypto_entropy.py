"""Randomness has the asked size; nothing else in the floor draws any."""

import ast
from pathlib import Path

import pytest

import freehold.crypto
from freehold.base.errors import InvariantError
from freehold.crypto.entropy import random_below, random_bytes


def test_sizes() -> None:
    assert [len(random_bytes(count)) for count in (1, 32, 1 << 20)] == [1, 32, 1 << 20]
    assert random_bytes(32) != random_bytes(32)
    assert {random_below(3) for _ in range(200)} == {0, 1, 2}
    assert random_below(1) == 0


@pytest.mark.parametrize("count", [0, -1, (1 << 20) + 1])
def test_other_sizes_are_refused(count: int) -> None:
    with pytest.raises(InvariantError):
        random_bytes(count)


def test_bound_is_positive() -> None:
    with pytest.raises(InvariantError):
        random_below(0)


def test_no_other_module_of_the_floor_draws_randomness() -> None:
    sources = sorted(Path(freehold.crypto.__path__[0]).glob("*.py"))
    assert len(sources) > 10
    for source in sources:
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(source.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        drawn = imported & {"secrets", "random", "os", "uuid", "time"}
        assert drawn == ({"secrets"} if source.name == "entropy.py" else set()), source.name
