"""Help that teaches: every command and every option has its line, and only what someone can mean is shown."""

import io
import re
import subprocess
from pathlib import Path

import pytest
from cyclopts import App
from rich.console import Console

from freehold.cli.completion import completion
from freehold.cli.main import COMMANDS, make_app


def help_of(*path: str, summaries: bool = False) -> str:
    text = io.StringIO()
    console = Console(file=text, width=120, no_color=True, force_terminal=False)
    make_app(summaries=summaries).help_print(list(path), console=console)
    return text.getvalue()


def all_commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []

    def walk(app: App, path: tuple[str, ...]) -> None:
        names = [name for name in app if not name.startswith("-")]
        if path:
            found.append(path)
        for name in names:
            walk(app[name], (*path, name))

    walk(make_app(), ())
    return found


def test_the_list_of_commands_says_what_each_does() -> None:
    text = help_of(summaries=True)
    for name, (_, summary) in COMMANDS.items():
        assert re.search(rf"│ {name} +{re.escape(summary[:40])}", text), name


@pytest.mark.parametrize("path", all_commands(), ids=" ".join)
def test_each_line_of_help_teaches(path: tuple[str, ...]) -> None:
    text = help_of(*path)
    lines = [line for line in text.splitlines() if line.startswith("│ ")]
    assert lines
    for line in lines:
        assert re.search(r"[a-z]{2,} [a-z0-9(.]", line.replace("--", "")) or line.startswith("│   "), (path, line)
    assert "[default: False]" not in text
    assert "[default: ]" not in text
    assert "--no-json" not in text
    assert "--empty-" not in text


def test_help_of_a_command_keeps_its_long_text() -> None:
    text = help_of("deploy")
    assert "Shows where each service would run" in text
    assert "--no-plan" not in text
    text = help_of("verify")
    assert "--no-mailbox" in text
    assert " --mailbox" not in text


@pytest.mark.parametrize(("typed", "expected"), [("freehold dep", "deploy"), ("freehold grid st", "status")])
def test_the_completion_script_completes_in_bash(tmp_path: Path, typed: str, expected: str) -> None:
    script = tmp_path / "freehold.bash"
    script.write_text(completion("bash").text)
    words = typed.split()
    shell = f"""
source {script}
COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMP_LINE='{typed}'; COMP_POINT={len(typed)}
spec=$(complete -p freehold); function_name=$(sed -E 's/.*-F ([^ ]+).*/\\1/' <<<"$spec")
$function_name freehold {words[-1]} {words[-2]}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", shell], capture_output=True, text=True, check=True, timeout=20)
    assert expected in done.stdout.split()
