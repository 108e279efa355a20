"""A grid on four validators in namespaces of their own: one dies, two die, and what was acknowledged stands."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from faults import seed_of
from local_grid import LocalGrid

from freehold.base.amounts import parse_amount
from freehold.crypto.strkey import encode_account
from freehold.light.types import LightBlock

pytestmark = [pytest.mark.root, pytest.mark.long]

SINK = encode_account(b"\x0b" * 32)
COUNT = 4


def ask(url: str, path: str) -> dict[str, Any]:
    answer = httpx2.get(f"{url}{path}", timeout=5.0, trust_env=False)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


def height(url: str) -> int:
    try:
        return int(ask(url, "/v1/status")["height"])
    except (OSError, httpx2.HTTPError):
        return 0


def block_at(url: str, at: int) -> LightBlock:
    return LightBlock.decode(base64.b64decode(ask(url, f"/v1/light_block?height={at}")["light_block"]))


def agree(grid: LocalGrid, urls: list[str]) -> int:
    """Every validator holds the newest common block with one header, so one root; returns its height."""
    newest = max(height(url) for url in urls)
    # the engine dials a peer that it lost again after growing pauses
    grid.wait_for(lambda: all(height(url) >= newest for url in urls), 90)
    blocks = [block_at(url, newest) for url in urls]
    assert len({block.header.app_hash for block in blocks}) == 1 and len({block.header for block in blocks}) == 1
    return newest


@contextmanager
def sending(grid: LocalGrid) -> Iterator[list[int]]:
    """Payments of one token each, one after the other, by the shipped command; gives those that were acknowledged."""
    done: list[int] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sent = grid.run("wallet", "send", SINK, "1", "--json")
            if sent.code == 0:
                done.append(int(sent.document["height"]))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def more(grid: LocalGrid, sent: list[int]) -> None:
    """Wait until one more payment is acknowledged."""
    before = len(sent)
    grid.wait_for(lambda: len(sent) > before, 30)


def received(grid: LocalGrid) -> int:
    return parse_amount(grid.cli("wallet", "balance", SINK)["balance"]) // parse_amount("1")


def test_the_death_of_the_first_asked_validator_is_survived() -> None:
    with LocalGrid(nodes=2, farms=2, validators=COUNT) as grid:
        urls = [row["url"] for row in grid.cli("grid", "status")["ledger"]["validators"]]
        assert len(urls) == COUNT and grid.cli("status")["validators"] == COUNT
        assert {ask(url, "/v1/status")["validators"] for url in urls} == {COUNT}
        assert grid.wallet()["funded"] == "1000"
        with sending(grid) as sent:
            more(grid, sent)
            grid.cli("grid", "kill", "validator-1")
            at = height(urls[1])
            more(grid, sent)
            grid.wait_for(lambda: height(urls[1]) >= at + COUNT, 30)  # the dead one's turn to propose has passed
        assert received(grid) >= len(sent)
        grid.cli("grid", "start", "validator-1")
        agree(grid, urls)
        assert all(grid.agent_pid(name) for name in grid.node_status())


def test_deaths_in_turn_lose_nothing_and_halt_without_a_quorum() -> None:
    chance = seed_of("comet_grid")
    with LocalGrid(nodes=2, farms=2, validators=COUNT) as grid:
        names = {row["name"]: row["url"] for row in grid.cli("grid", "status")["ledger"]["validators"]}
        urls = list(names.values())
        grid.wallet()
        with sending(grid) as sent:
            for _ in range(2 * COUNT):
                name = chance.choice(list(names))
                more(grid, sent)
                grid.cli("grid", "kill", name)
                print(f"killed {name} after {len(sent)} acknowledged payments")
                more(grid, sent)
                grid.cli("grid", "start", name)
                agree(grid, urls)
        assert received(grid) >= len(sent) > 2 * COUNT
        for name in ("validator-2", "validator-3"):
            grid.cli("grid", "kill", name)
        last = height(urls[0])
        halted = grid.wait_for(lambda: ask(urls[0], "/v1/status")["halted"], 30)
        assert halted["code"] == "no_quorum" and halted["hint"]
        assert height(urls[0]) <= last + 1
        for name in ("validator-2", "validator-3"):
            grid.cli("grid", "start", name)
        grid.wait_for(lambda: height(urls[0]) > last + 3, 30)
        agree(grid, urls)
        assert received(grid) >= len(sent)


def test_readers_leave_a_validator_that_is_cut_off_with_itself_alone() -> None:
    with LocalGrid(nodes=2, farms=2, validators=COUNT) as grid:
        urls = [row["url"] for row in grid.cli("grid", "status")["ledger"]["validators"]]
        grid.wallet()
        with sending(grid) as sent:
            more(grid, sent)
            # Its HTTP is still reached; its engine has no peer.
            grid.in_namespace("validator-1", "nft", "add table ip cut")
            grid.in_namespace("validator-1", "nft", "add chain ip cut in { type filter hook input priority 0; }")
            grid.in_namespace("validator-1", "nft", "add rule ip cut in tcp dport 26656 drop")
            grid.in_namespace("validator-1", "nft", "add rule ip cut in tcp sport 26656 drop")
            at = len(sent)
            grid.wait_for(lambda: len(sent) >= at + 4 and ask(urls[0], "/v1/status")["halted"], 90)
            assert ask(urls[0], "/v1/status")["halted"]["code"] == "no_quorum"
            assert height(urls[0]) + 5 < height(urls[1])
            grid.in_namespace("validator-1", "nft", "delete table ip cut")
            agree(grid, urls)
        assert received(grid) >= len(sent)
