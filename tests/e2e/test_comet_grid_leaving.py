"""A local grid on the embedded ledger, its wallet and its nodes, taken to validators as typed."""

import time
from pathlib import Path
from typing import Any

import pytest
from local_grid import LocalGrid

from freehold.crypto.strkey import encode_account

pytestmark = [pytest.mark.root, pytest.mark.long]

SINK = encode_account(b"\x0b" * 32)
HELLO = """
name: hello
services:
  web: {image: "test-image:1", ports: ["8080"], x-freehold: {standbys: 0}}
"""
CLAIM_S = 15
UPGRADE = ("grid", "upgrade", "--to-comet", "--validators", "2")


def test_wallet_and_nodes_go_on_under_two_validators() -> None:
    with LocalGrid(nodes=2, farms=2) as grid:
        assert grid.wallet()["funded"] == "1000"
        sent = grid.cli("wallet", "send", SINK, "1")
        plan = grid.cli(*UPGRADE)
        assert not plan["done"] and all(plan["plan"][word] for word in ("kept", "changed", "lost"))
        assert grid.refused("grid", "upgrade", expect=2)["code"] == "bad_usage"
        assert grid.refused(*UPGRADE[:-1], "1", expect=2)["code"] == "bad_count"
        left = grid.home / "grid" / "validators" / "validator-1"
        left.mkdir(parents=True)
        refusal = grid.refused(*UPGRADE, "--yes", expect=3)
        assert refusal["code"] == "needs_force" and "validator-1" in refusal["message"]
        assert grid.cli("grid", "status")["ledger"]["running"]  # and nothing was stopped
        balance = grid.cli("wallet", "balance")["balance"]
        old = (grid.home / "genesis.json").read_bytes()
        done = grid.cli(*UPGRADE, "--yes", "--force")
        assert done["done"] and done["home_updated"] and done["height"] > sent["height"]
        assert (grid.home / f"genesis.{done['old_chain']}.json").read_bytes() == old
        assert (grid.home / "genesis.json").read_bytes() != old
        grid.cli("grid", "up", "--nodes", "2", "--farms", "2", "--validators", "2")
        assert grid.cli("status")["validators"] == 2
        assert grid.cli("wallet", "balance")["balance"] == balance
        again = grid.cli("wallet", "send", SINK, "2")
        assert again["height"] >= done["height"]
        assert grid.cli("wallet", "balance", SINK)["balance"] == "3"
        assert len(grid.cli("node", "list")["nodes"]) == 2
        history = grid.run("history", "--json")
        assert history.code == 0, history
        assert grid.refused(*UPGRADE, "--yes", expect=2)["code"] == "not_embedded"


def test_a_deployment_holds_the_ledger_until_it_is_down_and_new_ones_run_on_the_new_chain(test_layout: Path) -> None:
    with LocalGrid(nodes=2, farms=2) as grid:
        grid.wallet()
        grid.import_image(test_layout)
        grid.deploy(HELLO)
        assert grid.http_get("hello/web", 8080) == "hello from web\n"
        refusal = grid.refused(*UPGRADE, "--yes", expect=2)
        assert refusal["code"] == "deployments_run" and "hello" in refusal["message"]
        grid.up()  # the old ledger goes on
        grid.wait_for(lambda: grid.http_get("hello/web", 8080) == "hello from web\n", 30)
        grid.end("hello")
        done = grid.wait_for(lambda: left(grid), 150)
        assert done["done"]
        grid.validators = 2
        grid.up()
        grid.deploy(HELLO)
        assert grid.http_get("hello/web", 8080) == "hello from web\n"
        paid = grid.wait_for(lambda: grid.run("verify", "hello/web", "--json").code == 0, 60)
        assert paid
        grid.end("hello")


def left(grid: LocalGrid) -> dict[str, Any] | None:
    """Try, and start the old ledger again where leases still wait for their last claims."""
    done = grid.run(*UPGRADE, "--yes", "--json")
    if done.code == 0:
        return done.document
    assert done.error["code"] == "deployments_run", done
    grid.up()
    deadline = time.monotonic() + CLAIM_S  # of the last epochs, which agents make by themselves
    grid.wait_for(lambda: time.monotonic() > deadline, 2 * CLAIM_S)
    return None
