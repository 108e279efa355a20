"""`freehold ledger`: two operators found a chain from cards alone, run it, look at it, stop it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
from comet_process import free_port

from freehold.grid.processes import wait_until

START_S = 30.0
COMMAND = (sys.executable, "-m", "freehold.cli.main", "ledger")


def run(*arguments: str, expect: int = 0) -> dict[str, Any]:
    done = subprocess.run([*COMMAND, *arguments, "--json"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == expect, done
    return dict(json.loads(done.stdout))


def height(port: int) -> int:
    try:
        return int(httpx2.get(f"http://127.0.0.1:{port}/v1/status", trust_env=False).json()["height"])
    except httpx2.HTTPError:
        return 0


def test_two_operators_found_run_and_stop_a_chain(tmp_path: Path) -> None:
    homes = [tmp_path / "one", tmp_path / "two"]
    rpc = [free_port(), free_port()]
    for home in homes:
        run("keys", "--home", str(home), "--name", home.name, "--address", f"127.0.0.1:{free_port()}")
    cards = ["--operators", *(str(home / "operator.json") for home in homes)]
    first = run("init", "--home", str(homes[0]), *cards, "--rpc", f"127.0.0.1:{rpc[0]}")
    genesis = str(homes[0] / "genesis.json")
    second = run("init", "--home", str(homes[1]), *cards, "--genesis", genesis, "--rpc", f"127.0.0.1:{rpc[1]}")
    assert first["genesis"] == second["genesis"] and first["validators"] == 2
    again = run("init", "--home", str(homes[1]), *cards, "--genesis", genesis)
    assert again == second
    document = run("status", "--home", str(homes[0]), expect=4)
    assert document["error"]["code"] == "engine_unreachable" and document["error"]["hint"]
    daemons = [
        subprocess.Popen([*COMMAND, "run", "--home", str(home)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for home in homes
    ]
    try:
        assert wait_until(lambda: all(height(port) >= 3 for port in rpc), START_S)
        status = run("status", "--home", str(homes[1]))
        assert status["peers"] == 1 and status["height"] >= 3 and status["validators"] == 2
        standing = status["standing"]
        assert (
            standing["state"] == "votes"
            and standing["validator"] == json.loads((homes[1] / "operator.json").read_bytes())["validator"]
        )
        assert (standing["may_rejoin"], standing["next"], standing["absent"]) == (None, "", [])
        assert int(status["trust"].partition(":")[0]) >= 3 and len(status["trust"].partition(":")[2]) == 64
    finally:
        for daemon in daemons:
            os.kill(daemon.pid, signal.SIGTERM)
        codes = [daemon.wait(START_S) for daemon in daemons]
        for daemon in daemons:
            if daemon.stdout is not None:
                daemon.stdout.close()
    assert codes == [0, 0]
