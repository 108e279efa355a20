"""The harness itself, and the shortest whole path: up, deploy, reach, kill, heal, end, nothing left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from local_grid import ROOT, LocalGrid, processes_naming, sweep

pytestmark = pytest.mark.root

APP = """
name: hello
services:
  web:
    image: test-image:1
    ports: ["8080"]
    x-freehold: {standbys: 0, probe: {http: /healthz, port: 8080}}
"""


def test_deploy_reach_and_end(local_grid: LocalGrid) -> None:
    document = local_grid.deploy(APP)
    assert document["deployment"]["services"] == ["hello/web"]
    local_grid.wait_for(lambda: "serving" in local_grid.logs("hello/web"))  # started is not yet listening
    assert local_grid.http_get("hello/web", 8080) == "hello from web\n"
    assert local_grid.python("hello/web", "import os; print(os.getpid())") == "1\n"
    first, *rest = local_grid.logs("hello/web")
    assert first == "serving"
    assert set(rest) <= {"probed /healthz"}  # witnesses look at moments of their own choosing
    node = local_grid.node_of("hello/web")
    row = local_grid.service("hello/web")
    lease = row["lease"]

    def events() -> list[str]:
        return [entry["event"] for entry in local_grid.term_log(node) if entry["container"] == lease]

    assert events() == ["started"]
    # what was prepaid has left the wallet; its balance also takes refunds of what other tests ended
    assert float(row["escrow"]) > 0
    local_grid.end("hello")
    assert events() == ["started", "stopped"]


@pytest.mark.long  # `test_iroh_renewal` shows it of an endpoint alone
def test_a_node_whose_address_was_gone_is_reached_again(local_grid: LocalGrid) -> None:
    """The library loses its socket with the address, without a word to anyone; the agent opens its endpoint again."""
    grid = local_grid
    grid.deploy(APP)
    grid.wait_for(lambda: "serving" in grid.logs("hello/web"))
    assert grid.http_get("hello/web", 8080) == "hello from web\n"
    node = grid.node_of("hello/web")
    told = len(grid.agent_log(node))

    def has_told(words: str) -> bool:
        return any(words in row["event"] for row in grid.agent_log(node)[told:])

    address = grid.in_namespace(node, "ip", "-o", "-4", "address", "show", "dev", "eth0").split()[3]
    routes = grid.in_namespace(node, "ip", "-4", "route", "show", "default").split()
    grid.in_namespace(node, "ip", "address", "del", address, "dev", "eth0")
    try:
        grid.wait_for(lambda: has_told("the endpoint died"), 10)
    finally:
        grid.in_namespace(node, "ip", "address", "add", address, "dev", "eth0")
        if routes:
            grid.in_namespace(node, "ip", "route", "replace", *routes)
    grid.wait_for(lambda: has_told("the endpoint is open again"), 20)
    grid.disconnect("hello/web", 8080)
    assert grid.http_get("hello/web", 8080) == "hello from web\n"
    grid.end("hello")


def test_a_killed_test_run_leaves_nothing_for_the_next() -> None:
    code = "from local_grid import LocalGrid; import os; LocalGrid(nodes=2, farms=2).up(); os.kill(os.getpid(), 9)"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    child = subprocess.Popen([sys.executable, "-c", code], env=env)
    assert child.wait(60) == -9
    folder = next(path for path in ROOT.iterdir() if path.name.startswith(f"{child.pid}-"))
    assert processes_naming(str(folder))
    sweep()
    assert not folder.exists()
    assert not processes_naming(str(folder))
