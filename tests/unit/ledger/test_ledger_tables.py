"""The tables of docs/spec/witnesses.md: binomial tails over independent draws, recomputed here."""

import re
from math import comb
from pathlib import Path

import pytest

from freehold.base.presets import MAINNET, MINIMAL

PAGE = Path(__file__).parents[3] / "docs" / "spec" / "witnesses.md"


def at_least(count: int, trials: int, share: float) -> float:
    return sum(comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(count, trials + 1))


def false_word(hostile: float, witnesses: int, threshold: int) -> float:
    """t hostile of w say what is not so: a dead node certified, or a live one failed over."""
    return at_least(threshold, witnesses, hostile)


def denied(hostile: float, away: float, witnesses: int, threshold: int) -> float:
    """Fewer than t of w speak for an honest node: the hostile stay silent, and a share of the honest is away."""
    silent = hostile + (1 - hostile) * away
    return at_least(witnesses - threshold + 1, witnesses, silent)


@pytest.mark.parametrize(
    ("value", "stated"),
    [
        (false_word(0.20, 15, 10), 1.1e-4),
        (denied(0.0, 0.05, 15, 10), 5.3e-5),
        (denied(0.20, 0.0, 15, 10), 6.1e-2),
        (denied(0.20, 0.05, 15, 10), 1.3e-1),
        (denied(0.20, 0.0, 3, 2), 1.0e-1),
    ],
)
def test_the_figures_of_the_protocol(value: float, stated: float) -> None:
    assert f"{value:.1e}" == f"{stated:.1e}"


def rows() -> dict[str, list[str]]:
    text = PAGE.read_text(encoding="utf-8")
    return {
        match[1].strip(): [cell.strip() for cell in match[2].split("|")]
        for match in re.finditer(r"^\| ([0-9]+ %(?: \+ [0-9]+ % away)?) \|(.*)\|$", text, re.MULTILINE)
    }


def test_the_page_states_what_the_formula_gives() -> None:
    table = rows()
    assert len(table) >= 8
    for label, cells in table.items():
        numbers = [int(number) / 100 for number in re.findall(r"([0-9]+) %", label)]
        hostile, away = numbers[0], numbers[1] if len(numbers) > 1 else 0.0
        expected = [
            f"{value:.1e}"
            for preset in (MAINNET, MINIMAL)
            for value in (
                false_word(hostile, preset.witnesses, preset.threshold),
                denied(hostile, away, preset.witnesses, preset.threshold),
            )
        ]
        assert cells == expected, label
