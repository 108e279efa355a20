"""The daemons that serve a local grid's ledger: one on the host (embedded), or each validator's in its namespace."""

import contextlib
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError, UnreachableError
from freehold.consensus.comet import install
from freehold.grid.layout import GridLayout, ValidatorLayout
from freehold.grid.namespaces import namespace_path
from freehold.grid.processes import daemon_pid, require_running, start_daemon, stop_daemons, wait_until

READY_TIMEOUT_S = 30.0
MODULE = "freehold.rpc.main"


class _Status(msgspec.Struct):
    height: int


def describe_ledger(layout: GridLayout) -> str:
    """One line for people: what the ledger rests on."""
    if layout.validators:
        return f"{len(layout.validators)} validators on CometBFT, each in a namespace of its own"
    return "one validator, which could rewrite it"


def start_ledger(layout: GridLayout) -> None:
    """Start what serves the ledger and wait until all of it answers, with a block.

    Raises:
        FreeholdError: it does not come up.
    """
    if layout.validators:
        install.require()
        for validator in layout.validators:
            start_validator(validator)
    else:
        start_daemon(layout.ledger_home, ["-m", MODULE, "--home", str(layout.ledger_home)])
    deadline = time.monotonic() + READY_TIMEOUT_S
    for home, url in zip(layout.ledger_homes, layout.urls, strict=True):
        ready = wait_until(partial(_settled, home, url), max(0.0, deadline - time.monotonic()))
        require_running(home, home.name if layout.validators else "the ledger")
        if not ready:
            raise UnreachableError(f"the ledger does not answer at {url}", code="ledger_unreachable")


def start_validator(validator: ValidatorLayout) -> int:
    """Start a validator's daemon, and the engine as its child, in its namespace."""
    arguments = ["-m", MODULE, "--home", str(validator.home)]
    # Where this user's engine lies.
    environment = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
    return start_daemon(validator.home, arguments, namespace=namespace_path(validator), environment=environment)


def kill_validator(validator: ValidatorLayout) -> None:
    """Kill a validator with SIGKILL, the engine with its daemon. Its disk stays.

    Raises:
        FreeholdError: the engine outlived its daemon.
    """
    stop_daemons([validator.home], kill=True)
    if not wait_until(lambda: not _engine_runs(validator.home), READY_TIMEOUT_S):
        raise FreeholdError(f"the engine of {validator.name} outlived its daemon", code="engine_left")


def ledger_status(layout: GridLayout) -> dict[str, Any]:
    """What runs of the ledger; `url` is that of the first daemon that runs."""
    pids = [daemon_pid(home) for home in layout.ledger_homes]
    first = next((index for index, pid in enumerate(pids) if pid), 0)
    return {
        "pid": pids[first],
        "running": 3 * sum(pid > 0 for pid in pids) > 2 * len(pids),
        "url": layout.urls[first],
        "urls": list(layout.urls),
        "home": str(layout.ledger_homes[first]),
        "engine": "cometbft" if layout.validators else "embedded",
        "validators": [
            {
                "name": validator.name,
                "url": validator.url,
                "namespace": validator.namespace,
                "home": str(validator.home),
                "pid": pid,
                "running": pid > 0,
            }
            for validator, pid in zip(layout.validators, pids, strict=False)
        ],
    }


def _settled(home: Path, url: str) -> bool:
    """Whether a daemon has ended, or serves."""
    return not daemon_pid(home) or _has_block(url)


def _has_block(url: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError, OSError, msgspec.DecodeError):
        answer = httpx2.get(f"{url}/v1/status", timeout=1.0, trust_env=False)
        return answer.status_code == 200 and decode_json(answer.content, _Status).height > 0
    return False


def _engine_runs(home: Path) -> bool:
    folder = str(home / "engine").encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder in (process / "cmdline").read_bytes().split(b"\0"):
                return True
    return False
