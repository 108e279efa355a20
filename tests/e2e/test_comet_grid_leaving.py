"""A local grid on the embedded ledger, its wallet and its nodes, taken to validators as typed."""

import pytest
from local_grid import LocalGrid

from freehold.crypto.strkey import encode_account

pytestmark = [pytest.mark.root, pytest.mark.long]

SINK = encode_account(b"\x0b" * 32)
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
        refusal = grid.refused(*UPGRADE, "--yes", expect=2)
        assert refusal["code"] == "already_exists" and "validator-1" in refusal["hint"]
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
