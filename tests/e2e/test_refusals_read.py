"""Lies of an RPC server in a process of its own, told to the shipped command: each is refused by its own error."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from told_chain import BLOCK_LIES, OWNERS, TOP, VALUE_LIES, ToldChain, pin, three

from freehold.base.amounts import format_amount
from freehold.crypto.strkey import encode_account
from freehold.ledger.keys import account_key
from freehold.ledger.records import Account
from freehold.ledger.state import read

HERE = Path(__file__).parent
RICH, NOBODY = encode_account(OWNERS[0]), encode_account(bytes(31) + b"!")
ISSUE = ("genesis of another chain", "forged validator set", "double-counted vote", "exactly 2/3", "tampered path")


@contextmanager
def telling(chain: ToldChain, **told: Any) -> Iterator[str]:
    """A server's process; gives its URL."""
    owners = {number: owner.hex() for number, owner in chain.owners.items()}
    document = {"sets": chain.sets, "owners": owners, "genesis_ms": chain.genesis_ms, **told}
    command = [sys.executable, str(HERE / "hostile_rpc.py"), json.dumps(document)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def call(home: Path, chain: ToldChain, urls: list[str], *words: str, trust: str = "") -> tuple[int, str, Any]:
    """The shipped command in a process of its own: its exit code, the words on stderr, its document."""
    home.mkdir(exist_ok=True)
    (home / "genesis.json").write_bytes(chain.document)
    environment = {"PATH": os.environ["PATH"], "FREEHOLD_HOME": str(home), "FREEHOLD_RPC": ",".join(urls)}
    command = [sys.executable, "-P", "-m", "freehold.cli.main", *words, "--json"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**environment, **({"FREEHOLD_TRUST": trust} if trust else {})},
    )
    return done.returncode, done.stderr, json.loads(done.stdout)


def refused(home: Path, chain: ToldChain, url: str, code: str, words: str, account: str, trust: str = "") -> None:
    exit_code, said, document = call(home, chain, [url], "wallet", "balance", account, trust=trust)
    assert (exit_code, document["error"]["code"]) == (5, code), document
    assert words in document["error"]["message"] and url in document["error"]["message"]
    lines = said.splitlines()
    assert lines[0] == f"error: {document['error']['message']}" and lines[1] == f"next: {document['error']['hint']}"
    assert document["error"]["hint"]


def marked(name: str) -> Any:
    return pytest.param(name, marks=[] if name in ISSUE else [pytest.mark.long])


def test_the_truth_is_read(tmp_path: Path) -> None:
    chain = three()
    with telling(chain) as url:
        exit_code, _, document = call(tmp_path / "home", chain, [url], "wallet", "balance", RICH)
        account = read(chain.tree.values, account_key(OWNERS[0]), Account)
        assert account is not None
        assert (exit_code, document["balance"]) == (0, format_amount(account.balance))


@pytest.mark.parametrize("name", [marked(name) for name in BLOCK_LIES])
def test_a_false_block_is_refused_by_its_own_error(tmp_path: Path, name: str) -> None:
    chain = three()
    with telling(chain, lie=name) as url:
        refused(tmp_path / "home", chain, url, *BLOCK_LIES[name][1:], RICH)
    assert not (tmp_path / "home" / "light").exists()  # nothing is remembered


@pytest.mark.parametrize("name", [marked(name) for name in VALUE_LIES])
def test_a_false_value_is_refused_by_its_own_error(tmp_path: Path, name: str) -> None:
    chain = three()
    with telling(chain, lie=name) as url:
        refused(tmp_path / "home", chain, url, *VALUE_LIES[name][1:], RICH if name == "tampered path" else NOBODY)


def test_expired_trust_is_refused_and_another_block_than_the_trusted(tmp_path: Path) -> None:
    """The block is an hour old, and on this preset a header vouches for 40 minutes."""
    chain = three()
    with telling(chain) as url:
        words = "trusted header 1 is older than the trust period of 2400 s"
        refused(tmp_path / "home", chain, url, "trust_expired", words, RICH, trust=pin(chain))
        other = f"1:{'ab' * 32}"
        refused(tmp_path / "home", chain, url, "trust_root_mismatch", "not the trusted 1:abab", RICH, trust=other)


# -- two stories ------------------------------------------------------------------------------------------------------


def test_two_servers_with_two_signed_chains_are_named_and_nothing_is_believed(tmp_path: Path) -> None:
    """All three validators signed both chains: the reader cannot know who lies."""
    chain = three()
    home = tmp_path / "home"
    with ExitStack() as stack:
        urls = [stack.enter_context(telling(chain)), stack.enter_context(telling(chain, fork="rich"))]
        exit_code, said, document = call(home, chain, urls, "wallet", "balance", RICH)
        again = call(home, chain, urls[::-1], "wallet", "balance", RICH)
    error = document["error"]
    assert (exit_code, error["code"]) == (5, "diverged")
    fork = ToldChain(chain.sets, genesis_ms=chain.genesis_ms, fork=b"rich")
    for url, told in zip(urls, (chain, fork), strict=True):
        story = f"{url} says block 12 {pin(told, 12)[3:]} with app hash {told.tree.root.hex()}, signed by 3 of 3"
        assert story in error["message"]
    assert "lunatic" in error["message"] and "with 30 of 30 power" in error["message"]
    (path,) = (home / "light").iterdir()
    assert str(path) in error["hint"] and "act on neither answer" in error["hint"]
    assert f"next: {error['hint']}" in said
    kept = json.loads(path.read_bytes())
    assert {kept[side]["server"] for side in ("primary", "witness")} == set(urls)
    assert kept["primary"]["story"] in error["message"] and kept["witness"]["story"] in error["message"]
    # Whoever is asked first, it is the same conflict: refused alike, and kept once.
    assert (again[0], again[2]["error"]["code"]) == (5, "diverged") and list((home / "light").iterdir()) == [path]


# -- older than what was verified -------------------------------------------------------------------------------------


def balance(home: Path, chain: ToldChain, urls: list[str]) -> tuple[int, str, Any]:
    return call(home, chain, urls, "wallet", "balance", RICH)


def memory(home: Path) -> bytes:
    (path,) = (home / "light").iterdir()
    return path.read_bytes()


@pytest.mark.parametrize("claimed", [None, pytest.param(TOP, marks=pytest.mark.long)])
def test_an_older_state_than_this_home_has_verified_is_refused(tmp_path: Path, claimed: int | None) -> None:
    """All of it is truly signed and proven, and yet old; whether the server admits it or says that it has caught up."""
    chain = three()
    home = tmp_path / "home"
    with telling(chain) as url:
        assert balance(home, chain, [url])[0] == 0
    remembered = memory(home)
    with telling(chain, top=5, claimed=claimed) as url:
        exit_code, said, document = balance(home, chain, [url])
    error = document["error"]
    assert (exit_code, error["code"]) == (5, "stale_state"), document
    assert f"{url} stands at block 5, 7 below" in error["message"] and "block 12" in error["message"]
    (path,) = (home / "light").iterdir()
    assert str(path) in error["hint"] and "FREEHOLD_RPC" in error["hint"]
    assert said.splitlines()[:2] == [f"error: {error['message']}", f"next: {error['hint']}"]
    assert memory(home) == remembered
    with telling(chain, top=13) as url:  # nothing is lost: an honest server is believed as before
        exit_code, _, document = balance(home, chain, [url])
    assert (exit_code, document["height"]) == (0, 13)


def test_another_server_or_a_moment_helps_against_one_that_is_behind(tmp_path: Path) -> None:
    chain = three(time.time_ns() // 1_000_000 - 10_000)
    home = tmp_path / "home"
    with ExitStack() as stack:
        newest = stack.enter_context(telling(chain))
        assert balance(home, chain, [newest])[0] == 0
        behind = stack.enter_context(telling(chain, top=5))
        exit_code, _, document = balance(home, chain, [behind, newest])
        assert (exit_code, document["height"]) == (0, 12)
        climbing = stack.enter_context(telling(chain, top=5, climbs=True))
        exit_code, _, document = balance(home, chain, [climbing])
        assert (exit_code, document["height"]) == (0, 12)


@pytest.mark.long
def test_when_all_servers_are_behind_each_is_named(tmp_path: Path) -> None:
    chain = three()
    home = tmp_path / "home"
    with ExitStack() as stack:
        assert balance(home, chain, [stack.enter_context(telling(chain))])[0] == 0
        others = [stack.enter_context(telling(chain, top=5)), stack.enter_context(telling(chain, top=9))]
        exit_code, _, document = balance(home, chain, others)
        assert (exit_code, document["error"]["code"]) == (5, "stale_state")
        for url, words in zip(others, ("stands at block 5, 7 below", "stands at block 9, 3 below"), strict=True):
            assert f"{url} {words}" in document["error"]["message"]


def test_who_once_forged_a_high_block_is_told_and_does_not_make_the_truth_look_old(tmp_path: Path) -> None:
    """All validators signed block 50; the chain itself reaches that time at block 5: both cannot be true."""
    chain = three()
    home = tmp_path / "home"
    with telling(chain, fork="rich", step_ms=100, top=50) as url:
        assert balance(home, chain, [url])[0] == 0
    with telling(chain) as url:
        exit_code, _, document = balance(home, chain, [url])
        error = document["error"]
        assert (exit_code, error["code"]) == (5, "diverged"), document
        assert "block 12 is not older than block 50" in error["message"]
        assert "what an earlier run verified says block 50 " in error["message"]
        assert f"{url} says block 12 {pin(chain, 12)[3:]}" in error["message"]
        (path,) = (home / "light").glob("genesis-*")
        assert f"{path} remembers" in error["hint"] and len(list((home / "light").glob("divergence-50-*"))) == 1
        path.unlink()  # as the hint says, once the operators have told the truth
        assert balance(home, chain, [url])[2]["height"] == 12


# -- one that is ahead of those who could contradict it ----------------------------------------------------------------


SILENT: dict[str, Any] = {
    "it cannot serve": {"withholds": (503, "overloaded")},
    "it shows another": {"instead": TOP},
    "it has pruned it": {"withholds": (404, "height_pruned")},
}
LONG = ("it has pruned it",)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in SILENT])
def test_a_fork_that_is_silent_about_what_another_server_has_is_left_for_it(tmp_path: Path, name: str) -> None:
    chain = three(time.time_ns() // 1_000_000 - 10_000)
    home = tmp_path / "home"
    with ExitStack() as stack:
        fork = stack.enter_context(telling(chain, fork="rich", **SILENT[name]))
        honest = stack.enter_context(telling(chain, top=9))
        exit_code, _, document = balance(home, chain, [fork, honest])
    assert (exit_code, document["height"]) == (0, 9), document
    assert not (home / "light").exists()  # nobody confirmed a block


def test_a_block_that_nobody_can_be_compared_with_is_said(tmp_path: Path) -> None:
    """A server may have pruned what lies so deep: the command goes on, and never takes that for agreement."""
    chain = three(time.time_ns() // 1_000_000 - 30_000)
    home = tmp_path / "home"
    with ExitStack() as stack:
        ahead = stack.enter_context(telling(chain, top=30, withholds=(404, "height_pruned")))
        behind = stack.enter_context(telling(chain, top=9))
        exit_code, said, document = balance(home, chain, [ahead, behind])
    assert (exit_code, document["height"]) == (0, 30), document
    assert f"note: block 30 of {ahead} could not be compared with any other server: 1 far behind" in said
    assert not (home / "light").exists()


# -- who signs now ----------------------------------------------------------------------------------------------------


def test_status_tells_who_signs_now_not_who_began(tmp_path: Path) -> None:
    """One validator began it; four sign now, three of one owner."""
    begun: dict[int, int] = {0: 10}
    now = {0: 10, 1: 10, 2: 10, 3: 10}
    chain = ToldChain([begun, now], {0: OWNERS[0], 1: OWNERS[0], 2: OWNERS[0], 3: OWNERS[1]})
    with telling(chain) as url:
        exit_code, _, document = call(tmp_path / "home", chain, [url], "status")
    assert exit_code == 0, document
    assert document["validators"] == 4
    forgers = document["forgers"]
    assert (forgers["count"], forgers["parties"], forgers["power"], forgers["total_power"]) == (1, 2, 30, 40)
    assert [row["owner"] for row in forgers["members"]] == [encode_account(OWNERS[0])]
    uneven = ToldChain([{n: 10 for n in range(4)}, {0: 70, 1: 10, 2: 10, 3: 10}])
    with telling(uneven) as url:
        exit_code, _, document = call(tmp_path / "other", uneven, [url], "status")
    assert exit_code == 0, document
    assert (document["validators"], document["forgers"]["count"], document["forgers"]["parties"]) == (4, 1, 4)
