"""`freehold history --service` and `--farm` on a running grid, over both engines: it is about them, and true.

Told events are held against what the ledger proves of the same lease and farm.
"""

from pathlib import Path
from typing import Any

import pytest
from local_grid import LocalGrid

from freehold.base.amounts import parse_amount

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.timeout(400)]

APP = """
name: told
services:
  web: {image: "test-image:1", ports: ["8080"], x-freehold: {standbys: 0}}
  other: {image: "test-image:1", ports: ["8080"], x-freehold: {standbys: 0}}
"""
PAID_S = 90


def history(grid: LocalGrid, *options: str) -> list[dict[str, Any]]:
    """All pages of it, newest first."""
    events: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = grid.cli("history", *options, "--limit", "20", "--cursor", cursor)
        assert page["word"] == "claimed" and all(event["text"] for event in page["events"])
        events += page["events"]
        cursor = page["next_cursor"]
        if not cursor:
            break
    heights = [event["height"] for event in events]
    assert heights == sorted(heights, reverse=True)
    return events


def amounts(events: list[dict[str, Any]], **wanted: str) -> int:
    """What was paid, without what came back to the tenant."""
    found = [e["attributes"] for e in events if e["kind"] == "payment" and e["attributes"]["role"] != "refund"]
    return sum(int(row["amount"]) for row in found if wanted.items() <= row.items())


@pytest.mark.parametrize("validators", [1, 2])
def test_history_of_a_service_and_of_a_farm(test_layout: Path, validators: int) -> None:
    with LocalGrid(nodes=4, farms=4, validators=validators) as grid:
        grid.wallet()
        grid.import_image(test_layout)
        grid.deploy(APP)
        services = grid.services()
        web, other = services["told/web"], services["told/other"]

        def paid() -> bool:
            told = history(grid, "--service", "told/web")
            return amounts(told, lease=web["lease"], role="holder") > 0

        grid.wait_for(paid, PAID_S)
        by_name = history(grid, "--service", "told/web")
        by_id = history(grid, "--service", web["lease"])
        assert by_id[-len(by_name) :] == by_name  # later events may have come meanwhile
        changes = [event["attributes"]["change"] for event in by_name if event["kind"] == "lease"]
        assert changes[-1] == "created" and "started" in changes, changes
        assert {e["attributes"]["lease"] for e in by_name if "lease" in e["attributes"]} == {web["lease"]}
        assert all("told/web" in e["text"] or "web" in e["text"] for e in by_name if e["kind"] == "lease")
        others = history(grid, "--service", "told/other")
        assert {e["attributes"]["lease"] for e in others if "lease" in e["attributes"]} == {other["lease"]}
        both = history(grid, "--service", "told")
        assert {e["attributes"]["lease"] for e in both if "lease" in e["attributes"]} == {web["lease"], other["lease"]}

        # What history says was paid is no more than what the ledger proves of the lease.
        proven = parse_amount(grid.service("told/web")["paid"])
        assert 0 < amounts(by_name, lease=web["lease"]) <= proven

        farm = grid.node_status()[grid.node_of("told/web")]["farm"]
        of_farm = history(grid, "--farm", farm)
        assert any(e["kind"] == "payment" and e["attributes"]["lease"] == web["lease"] for e in of_farm)
        assert any(e["kind"] == "report" for e in of_farm)
        assert f"farm {farm}" in " ".join(e["text"] for e in of_farm)
        elsewhere = next(row["farm"] for row in grid.node_status().values() if row["farm"] != farm)
        for event in history(grid, "--farm", elsewhere):
            if event["attributes"].get("lease") == web["lease"]:
                assert event["attributes"]["role"] == "witness"  # paid for having looked, and for nothing else

        assert grid.refused("history", "--farm", "nobody's", expect=2)["code"] == "unknown_farm"
        assert grid.refused("history", "--service", "told/none", expect=2)["code"] == "unknown_service"
        assert grid.refused("history", "--service", "told/web", "--farm", farm, expect=2)["code"] == "bad_usage"
        grid.end("told")
        gone = history(grid, "--service", web["lease"])
        closed = [e["attributes"]["change"] for e in gone if e["kind"] == "lease"]
        assert "closed" in closed and closed[0] in ("closed", "ended"), closed
