"""A real fork: two sets of daemons with the same genesis and the same validators' keys, given to one reader.

Each set signs a chain of its own. The commands and the agent are the shipped ones, in processes of their own.
"""

import asyncio
import base64
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from comet_process import free_port, make_validators
from ledger_process import LedgerProcess, make_home
from test_refusals_read import telling
from told_chain import three

from freehold.agent.identity import NodeSettings, create_keys, write_settings
from freehold.consensus.comet.founding import settle
from freehold.consensus.comet.operators import OperatorHome
from freehold.light.blocks import LightClientAttackEvidence
from freehold.light.headers import header_hash
from freehold.light.trust import GENESIS_TRUST, trust_signed
from freehold.light.types import LightBlock
from freehold.lightclient.trust_store import EVIDENCE_FORMAT, TrustStore
from freehold.runtime.containers import ContainerRuntime

pytestmark = pytest.mark.long
VALIDATORS = 2
LIMIT_S = 60.0


def height_of(url: str) -> int:
    return int(httpx2.get(f"{url}/v1/status", trust_env=False).json()["height"])


def reach(url: str, height: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while height_of(url) < height:
        assert time.monotonic() < deadline, f"{url} did not reach {height}"
        time.sleep(0.05)


def twins(homes: list[Path], folder: Path) -> list[Path]:
    """The same validators' keys and genesis on machines that do not know of the first ones."""
    made = []
    for index, source in enumerate(homes):
        twin = OperatorHome(folder / f"twin{index}")
        twin.folder.mkdir(parents=True)
        for path in source.glob("*.key"):
            if path.name != "p2p.key":
                shutil.copy(path, twin.folder / path.name)
        made.append((twin, twin.make_keys(f"twin{index}", f"127.0.0.1:{free_port()}")))
    for twin, _ in made:
        settle(twin, (homes[0] / "genesis.json").read_bytes(), [card for _, card in made], rpc="127.0.0.1:0")
    return [twin.folder for twin, _ in made]


def start(stack: ExitStack, homes: list[Path]) -> str:
    """Run a set of daemons; gives the first one's URL."""
    daemons = []
    for home in homes:
        daemon = stack.enter_context(LedgerProcess(home))
        stack.callback(daemon.stop)
        daemons.append(daemon)
    urls = [daemon.wait_started() for daemon in daemons]
    return urls[0]


def embedded_fork(stack: ExitStack, folder: Path) -> tuple[list[str], Path]:
    first = make_home(folder / "one")
    second = Path(shutil.copytree(first, folder / "two"))
    return [start(stack, [first]), start(stack, [second])], first / "genesis.json"


def comet_fork(stack: ExitStack, folder: Path) -> tuple[list[str], Path]:
    homes = make_validators(folder / "one", VALIDATORS)
    return [start(stack, homes), start(stack, twins(homes, folder / "two"))], homes[0] / "genesis.json"


def status(folder: Path, urls: list[str], genesis: Path) -> tuple[int, str, Any]:
    folder.mkdir(exist_ok=True)
    shutil.copy(genesis, folder / "genesis.json")
    environment = {"PATH": os.environ["PATH"], "FREEHOLD_HOME": str(folder), "FREEHOLD_RPC": ",".join(urls)}
    command = [sys.executable, "-P", "-m", "freehold.cli.main", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
    return done.returncode, done.stderr, json.loads(done.stdout)


def check_evidence(path: Path, urls: list[str], message: str) -> None:
    """Both sides are there whole, signed, and named as the message names them."""
    kept = json.loads(path.read_bytes())
    assert kept["format"] == EVIDENCE_FORMAT
    hashes = set()
    for side, url in zip(("primary", "witness"), urls, strict=True):
        told = kept[side]
        assert told["server"] == url
        block = LightBlock.decode(_raw(told["light_block"]))
        digest = header_hash(block.header).hex()
        hashes.add(digest)
        assert digest in told["story"] and block.header.app_hash.hex() in told["story"]
        assert f"{url} says {told['story']}" in message
        if told["evidence"] is not None:  # none where genesis alone is common to both
            assert LightClientAttackEvidence.decode(_raw(told["evidence"])).byzantine_validators
    assert len(hashes) == 2


def _raw(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("fork", "validators"), [(embedded_fork, 1), (comet_fork, VALIDATORS)])
def test_a_fork_is_refused_by_a_command_that_names_both_sides(tmp_path: Path, fork: Any, validators: int) -> None:
    with ExitStack() as stack:
        urls, genesis = fork(stack, tmp_path)
        for url in urls:
            reach(url, 3)
        for home, order in (("one-reader", urls), ("other-reader", urls[::-1])):
            exit_code, said, document = status(tmp_path / home, order, genesis)
            error = document["error"]
            assert (exit_code, error["code"]) == (5, "diverged"), document
            assert said.splitlines()[0] == f"error: {error['message']}"
            assert f"signed by {validators} of {validators} validators" in error["message"]
            (path,) = (tmp_path / home / "light").iterdir()  # no memory of a header in doubt
            assert str(path) in error["hint"] and "show it to the grid's operators" in error["hint"]
            check_evidence(path, order, error["message"])
        # One server alone tells a chain that verifies: only the comparison can know.
        for number, url in enumerate(urls):
            exit_code, _, document = status(tmp_path / f"alone-{number}", [url], genesis)
            assert (exit_code, document["validators"]) == (0, validators)


def start_agent(stack: ExitStack, home: Path, urls: list[str], genesis: bytes) -> "subprocess.Popen[str]":
    """The shipped agent of a new node."""
    key, _ = create_keys(home)
    runtime = ContainerRuntime(home / "data" / "runtime", key.public.hex()[:16])
    stack.callback(lambda: asyncio.run(runtime.destroy()))  # its watchdog outlives the agent, as it should
    (home / "genesis.json").write_bytes(genesis)
    write_settings(home, NodeSettings(ledger=",".join(urls), listen=f"127.0.0.1:{free_port()}"))
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-P", "-m", "freehold.agent.main", "--home", str(home)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    stack.callback(process.terminate)
    return process


@pytest.mark.root
@pytest.mark.timeout(300)
def test_an_agent_with_two_stories_acts_on_neither(tmp_path: Path) -> None:
    with ExitStack() as stack:
        urls, genesis = embedded_fork(stack, tmp_path)
        for url in urls:
            reach(url, 3)
        home = tmp_path / "node"
        process = start_agent(stack, home, urls, genesis.read_bytes())
        told = wait_for_line(process, "failing")
        assert told["what"] == "poll" and told["code"] == "diverged", told
        (path,) = (home / "data" / "light").iterdir()
        assert str(path) in told["next"]
        check_evidence(path, urls, told["error"])


@pytest.mark.root
@pytest.mark.timeout(300)
def test_an_agent_that_is_started_again_takes_no_older_state(tmp_path: Path) -> None:
    """Its home remembers block 50; the only server shows a true block 12 until it has caught up."""
    chain = three()
    home = tmp_path / "node"
    with ExitStack() as stack:
        store = TrustStore(home / "data" / "light", chain.trusted, GENESIS_TRUST)
        store.save(trust_signed(chain.block(50), chain.chain_id))
        old = stack.enter_context(telling(chain, top=12))
        process = start_agent(stack, home, [old], chain.document)
        told = wait_for_line(process, "failing")
        assert (told["what"], told["code"]) == ("poll", "stale_state"), told
        assert f"{old} stands at block 12, 38 below" in told["error"] and str(store.path) in told["next"]
    with ExitStack() as stack:
        climbing = stack.enter_context(telling(chain, top=12, climbs=True))
        process = start_agent(stack, home, [climbing], chain.document)
        wait_for_line(process, "recovered")


def wait_for_line(process: "subprocess.Popen[str]", event: str) -> dict[str, Any]:
    """The agent's first log line of an event."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        with suppress(ValueError):  # closed at the end
            for line in process.stderr or ():
                lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    seen = []
    deadline = time.monotonic() + LIMIT_S
    while True:
        seen.append(lines.get(timeout=max(0.01, deadline - time.monotonic())))
        if f'"event": "{event}"' in seen[-1]:
            return dict(json.loads(seen[-1]))
