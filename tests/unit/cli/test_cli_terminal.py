"""What others wrote reaches a terminal as text, never as commands; and no folder decides what code runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from freehold.cli.output import Result, Table, print_result, say
from freehold.cli.terminal import MAX_HELD_BYTES, TerminalLog

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"
CLEAR = "\x1b[2J\x1b[H"


def test_a_node_s_words_in_tables_and_messages_carry_no_commands(capfd: pytest.CaptureFixture[str]) -> None:
    table = Table(("SERVICE", "STATE"))
    table.add("guestbook/web", f"running{CLEAR}{CLIPBOARD}\r\x9b31m\u202e")
    print_result(Result({}, table.text()), as_json=False)
    say(f"error: the node said {CLEAR}\nnext: {CLIPBOARD}")
    out, err = capfd.readouterr()
    for text in (out, err):
        assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(text)
    assert len(out.splitlines()) == 2
    assert len(err.splitlines()) == 2


def test_a_log_may_colour_its_lines_and_nothing_else() -> None:
    log = TerminalLog()
    line = f"\x1b[1;31mred\x1b[0m\ttab é {CLIPBOARD}{CLEAR}\x9b2J\x00\r\n".encode()
    shown = b"".join(log.feed(line[at : at + 1]) for at in range(len(line))) + log.rest()
    assert shown == "\x1b[1;31mred\x1b[0m\ttab é ?]52;c;cm0gLXJmIH4=??[2J?[H?2J??\n".encode()


def test_a_line_without_end_is_not_held_for_ever() -> None:
    log = TerminalLog()
    assert len(log.feed(b"x" * (MAX_HELD_BYTES + 1))) == MAX_HELD_BYTES + 1
    assert log.feed(b"rest") == b""
    assert log.rest() == b"rest"


def test_nothing_is_imported_from_the_folder_where_one_stands(tmp_path: Path) -> None:
    trap = tmp_path / "project"
    trap.mkdir()
    for name in ("asyncio", "pathlib", "msgspec", "freehold"):
        (trap / f"{name}.py").write_text("import os; os.close(os.open('trapped', os.O_CREAT)); raise SystemExit(9)\n")
    command = ["from freehold.cli.main import run", "run(['connect', 'web', '80', '--detach'])"]
    env = {**os.environ, "FREEHOLD_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-P", "-c", "; ".join(command)], cwd=trap, env=env, check=False, timeout=60)
    assert (tmp_path / "home" / "forwards" / "web-80.log").exists()  # the second process ran
    assert not (trap / "trapped").exists()
