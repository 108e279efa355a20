"""A ledger daemon as its own process on a home of its own, and the client that asks it over HTTP."""

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from freehold.base.amounts import TOKEN
from freehold.base.presets import MINIMAL
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.genesis import app_state_document
from freehold.light.genesis import TrustedGenesis, genesis_document, parse_genesis
from freehold.light.types import Timestamp
from freehold.lightclient.client import LedgerClient

# Five times as fast as the minimal preset; the order of events is the same.
FAST = msgspec.structs.replace(
    MINIMAL,
    state_heights=32,
    **{
        field.name: max(1, getattr(MINIMAL, field.name) // 5)
        for field in msgspec.structs.fields(type(MINIMAL))
        if field.name.endswith("_ms")
    },
)
START_S = 30.0
VALIDATOR = PrivateKey.from_seed(b"validator" + bytes(23))
FAUCET = PrivateKey.from_seed(b"faucet" + bytes(26))


def account(number: int) -> PrivateKey:
    return PrivateKey.from_seed(b"account" + number.to_bytes(25, "big"))


def make_home(folder: Path, *, accounts: int = 8, genesis_ms: int | None = None, chain_id: str = "e2e-ledger") -> Path:
    """Write genesis, keys and settings; the system chooses the port at each start."""
    folder.mkdir(parents=True, exist_ok=True)
    document = genesis_document(
        chain_id=chain_id,
        genesis_time=Timestamp.from_ms(time.time_ns() // 1_000_000 if genesis_ms is None else genesis_ms),
        validators=[(VALIDATOR.public, 10, "v0")],
        app_state=app_state_document(
            FAST, [], [], faucet=FAUCET.public, accounts={account(n).public: 1_000 * TOKEN for n in range(accounts)}
        ),
    )
    (folder / "genesis.json").write_bytes(document)
    for name, key in (("validator.key", VALIDATOR), ("faucet.key", FAUCET)):
        (folder / name).write_bytes(key.export_seed())
        (folder / name).chmod(0o600)
    (folder / "ledger.toml").write_text(
        'listen = ["127.0.0.1:0"]\npoints_per_second = 100000.0\npoints_burst = 100000.0\n'
    )
    return folder


def genesis_of(home: Path) -> TrustedGenesis:
    return parse_genesis((home / "genesis.json").read_bytes())


class LedgerProcess:
    """Started by construction; its log lines are read as they come."""

    def __init__(
        self,
        home: Path,
        *arguments: str,
        before: Sequence[str] = (),
        program: Sequence[str] = ("-m", "freehold.rpc.main"),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`before` runs it elsewhere, by a program that becomes it; `program` is another build of the daemon."""
        self.home = home
        self.lines: list[dict[str, Any]] = []
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.process = subprocess.Popen(
            [*before, sys.executable, *program, "--home", str(home), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONWARNINGS": "default", **(environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        stream = self.process.stderr
        if stream is not None:
            for line in stream:
                try:
                    self._queue.put(json.loads(line))
                except ValueError:
                    self._queue.put({"event": "not_json", "line": line.decode(errors="replace")})
        self._queue.put(None)

    def wait_for(self, event: str, timeout_s: float = START_S) -> dict[str, Any]:
        """The next log line of an event."""
        deadline = time.monotonic() + timeout_s
        while True:
            line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line is not None, f"ended without {event}: {self.lines}"
            self.lines.append(line)
            if line["event"] == event:
                return line

    def said(self) -> list[dict[str, Any]]:
        """All log lines so far."""
        while not self._queue.empty():
            line = self._queue.get()
            if line is None:
                self._queue.put(None)  # the end, for `wait_ended`
                break
            self.lines.append(line)
        return self.lines

    def wait_started(self) -> str:
        """The URL, once it serves."""
        return f"http://{self.wait_for('started')['listen'][0]}"

    def wait_ended(self, timeout_s: float = START_S) -> int:
        """The exit code; all lines have been read then."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        while (line := self._queue.get(timeout=timeout_s)) is not None:
            self.lines.append(line)
        return code

    def output(self) -> str:
        """What stood on standard output; after the end."""
        return self.process.stdout.read().decode() if self.process.stdout else ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end."""
        self.process.send_signal(number)
        return self.wait_ended()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.wait_ended()

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(START_S)
        self._reader.join(START_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> "LedgerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def status_until(client: LedgerClient, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Poll the status, as every client of HTTP must, until it is as wanted; bounded."""
    async with asyncio.timeout(START_S):
        while not wanted(status := await client.get_json("/v1/status")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return status


async def client_for(home: Path, url: str, timeout_s: float = 10.0) -> LedgerClient:
    """A verifying client whose server has a first block."""
    client = LedgerClient(url, genesis_of(home), timeout_s=timeout_s)
    await status_until(client, lambda status: status["height"] > 0)
    return client
