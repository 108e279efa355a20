"""What the documents say of the code: codes, tests, pages and values that they name exist, and none is left out."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from freehold.base.presets import MAINNET, MINIMAL, PRESETS, Preset
from freehold.ledger.codes import Code
from freehold.ledger.transactions import Body

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SPEC = DOCS / "spec"
TOKENS = {name: 10_000_000 for name in ("node_stake", "challenge_bond", "verdict_fee", "min_fee", "record_deposit")}
TOKENS["weight_cap"] = 10_000_000
WRITTEN = (
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "README.md",
    "docs/errors.md",
    "docs/threat-model.md",
    "docs/dependencies.md",
    "docs/runbook.md",
    *(f"docs/spec/{path.name}" for path in sorted(SPEC.glob("*.md"))),
    *(f"docs/decisions/{path.name}" for path in sorted((DOCS / "decisions").glob("*.md"))),
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_code_of_the_ledger_has_its_row() -> None:
    rows = re.findall(r"^\| ([0-9]+) \| `([A-Z_]+)` \| (.*) \|$", read("docs/errors.md"), re.MULTILINE)
    assert [(int(number), name) for number, name, _ in rows] == [(code.value, code.name) for code in Code]
    assert all(text.split(" | ")[0].strip() for _, _, text in rows)


def test_the_threat_model_names_tests_that_exist() -> None:
    text = read("docs/threat-model.md")
    named = set(re.findall(r"test_[a-z0-9_]+\.py", text))
    files = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    assert named, "the threat model names its tests"
    assert named <= files.keys(), sorted(named - files.keys())
    for file, test in re.findall(r"(test_[a-z0-9_]+\.py)::(test_\w+)", text):
        assert f"def {test}(" in files[file].read_text(encoding="utf-8"), f"{file}::{test}"


def test_the_index_links_every_page_of_the_specification() -> None:
    links = re.findall(r"^\| \[[^\]]+\]\(([a-z0-9-]+\.md)\) \| .+ \|$", read("docs/spec/README.md"), re.MULTILINE)
    assert len(links) == len(set(links))
    assert {path.name for path in SPEC.glob("*.md")} - {"README.md"} <= set(links)


def test_every_decision_is_numbered_and_indexed() -> None:
    names = sorted(path.name for path in (DOCS / "decisions").glob("[0-9]*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert re.findall(r"\(([0-9]{4}-[a-z0-9-]+\.md)\)", read("docs/decisions/README.md")) == names


@pytest.mark.parametrize("field", [field.name for field in msgspec.structs.fields(Preset) if field.name != "name"])
def test_every_preset_value_is_on_its_page(field: str) -> None:
    row = next((line for line in read("docs/spec/presets.md").splitlines() if f"`{field}`" in line), None)
    assert row is not None, f"{field} is in base/presets.py and not in docs/spec/presets.md"
    _, names, minimal, mainnet, _ = (cell.strip() for cell in row.split("|"))
    place = re.findall(r"`(\w+)`", names).index(field)
    for preset, cell in ((MINIMAL, minimal), (MAINNET, minimal if mainnet == "same" else mainnet)):
        stated = re.split(r"; |, ", cell)[place].replace(",", "")
        assert float(stated) == getattr(preset, field) / TOKENS.get(field, 1), preset.name


def test_the_page_of_presets_knows_all_of_them() -> None:
    assert f"| value | {' | '.join(PRESETS)} |" in read("docs/spec/presets.md")


def test_every_body_is_on_the_page_of_transactions() -> None:
    text = read("docs/spec/transactions.md")
    assert [body.__name__ for body in Body.__args__ if f"`{body.__name__}`" not in text] == []


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads(read("pyproject.toml"))
    asked = [
        *project["project"]["dependencies"],
        *(one for group in project["dependency-groups"].values() for one in group),
    ]
    packages = [re.match(r"[a-z0-9-]+", line)[0] for line in asked]
    system = re.findall(r"^  \[([a-z0-9-]+)\]=", read("scripts/install-system.sh"), re.MULTILINE)
    assert "conmon" in system
    system.append("prometheus")  # unpacked by scripts/install-prometheus.sh
    named = re.findall(r"^\| `([a-z0-9-]+)` \|", read("docs/dependencies.md"), re.MULTILINE)
    assert sorted(named) == sorted(packages + system)


@pytest.mark.parametrize("name", WRITTEN)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)", read(name))
    assert [target for target in targets if not (folder / target).exists()] == []


def test_files_that_contributing_names_exist() -> None:
    folders = "src|tests|docs|scripts|benchmarks|examples"
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+\.\w+)`", read("CONTRIBUTING.md")))
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
