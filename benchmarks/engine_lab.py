"""Validators of one chain on this machine's loopback, with the shipped program or with CometBFT's own kvstore.

All get the configuration that the shipped program writes. CometBFT ships its kvstore in two ways, and both are run:
behind the same kind of socket as the ledger (`abci-cli kvstore`), and inside the engine's process, where it pays for no
socket. Neither checks signatures, and neither persists anything.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from freehold.base.presets import MINIMAL
from freehold.consensus.comet import install, pins
from freehold.consensus.comet.configuration import prepare
from freehold.consensus.comet.founding import genesis_of, settle
from freehold.consensus.comet.operators import OperatorHome

CHAIN: Final = "freehold-bench"
FIRST_PORT: Final = 36_600
FIRST_RPC_PORT: Final = 36_700
START_LIMIT_S: Final = 60.0


class App(StrEnum):
    """What the engines run."""

    LEDGER = "the ledger"
    SOCKET_KVSTORE = "kvstore behind a socket"
    INNER_KVSTORE = "kvstore inside the engine"


@dataclass
class Validator:
    """A running validator: its home and the processes at its head, the engine or its parent last."""

    home: OperatorHome
    processes: list[subprocess.Popen[bytes]]

    def memory_mib(self) -> dict[str, float]:
        """Proportional memory of its processes by name, in MiB: what each holds itself, and `NAME's mapped files`.

        Pages of mapped files (the application's database, programs, libraries) are the kernel's, which takes them back
        when memory is short; the rest is the process's own.
        """
        found: dict[str, float] = {}
        for pid in self._pids():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            for what, field in ((name, "Pss_Anon|Pss_Shmem"), (f"{name}'s mapped files", "Pss_File")):
                kib = sum(int(value) for value in re.findall(rf"^(?:{field}):\s+(\d+) kB", rollup, re.MULTILINE))
                found[what] = found.get(what, 0.0) + kib / 1024
        return found

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far."""
        ticks = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def _pids(self) -> list[int]:
        return [pid for process in self.processes for pid in _family(process.pid)]


@contextlib.contextmanager
def validators(count: int, app: App, app_state: dict[str, Any]) -> Iterator[list[Validator]]:
    """Run validators of a new chain; ended and removed at the end.

    Args:
        count: how many.
        app: what they run.
        app_state: the ledger's beginning; the kvstore does not read it.
    """
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as name, contextlib.ExitStack() as stack:
        homes = [OperatorHome(Path(name) / str(index)) for index in range(count)]
        cards = [home.make_keys(f"v{index}", f"127.0.0.1:{FIRST_PORT + index}") for index, home in enumerate(homes)]
        genesis = genesis_of(cards, CHAIN, app_state)
        running = []
        for index, home in enumerate(homes):
            settle(home, genesis, cards, rpc=f"127.0.0.1:{FIRST_RPC_PORT + index}")
            running.append(Validator(home, []))
            stack.callback(_stop, running[-1])
            for command in _commands(home, app):
                with (home.folder / "bench.log").open("ab") as log:
                    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
                running[-1].processes.append(process)
        for validator in running:
            _await_socket(validator)
        yield running


def _commands(home: OperatorHome, app: App) -> list[list[str]]:
    if app is App.LEDGER:
        return [[sys.executable, "-m", "freehold.cli.main", "ledger", "run", "--home", str(home.folder)]]
    prepare(home, MINIMAL)
    engine = [install.require().path, "start", "--home", str(home.engine)]
    if app is App.SOCKET_KVSTORE:
        return [[str(_kvstore()), "kvstore", "--address", f"unix://{home.socket}"], engine]
    config = home.engine / "config" / "config.toml"
    config.write_text(config.read_text().replace(f'proxy_app = "unix://{home.socket}"', 'proxy_app = "kvstore"'))
    return [engine]


def _kvstore() -> Path:
    """CometBFT's program that serves its kvstore on a socket, built from the pinned module."""
    folder = install.engine_folder() / pins.VERSION / "bench"
    if not (folder / "abci-cli").exists():
        package = f"{pins.MODULE}/abci/cmd/abci-cli@{pins.VERSION}"
        subprocess.run(["go", "install", package], env={**os.environ, "GOBIN": str(folder)}, check=True)
    return folder / "abci-cli"


def _stop(validator: Validator) -> None:
    for process in reversed(validator.processes):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_socket(validator: Validator) -> None:
    end = time.monotonic() + START_LIMIT_S
    while not validator.home.rpc_socket.exists():
        if any(process.poll() is not None for process in validator.processes) or time.monotonic() > end:
            log = (validator.home.folder / "bench.log").read_text(errors="replace")
            raise RuntimeError(f"a validator did not start: {log[-2000:]}")
        time.sleep(0.1)


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in _family(int(child)))]
