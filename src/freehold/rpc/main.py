"""The ledger daemon: `python -m freehold.rpc.main --home DIR [--check]`.

Starts the engine that the home is made for (`engines`), serves HTTP on every address of ledger.toml, stops on SIGTERM
or SIGINT. Standard error gets one JSON object a line; the last one of a failed start says what to do. Exit codes are
those of the README.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec

from freehold.base.errors import ExitCode, FreeholdError, InvalidInputError, InvariantError, LocalProtocolError
from freehold.consensus.embedded import EngineState
from freehold.consensus.folder import FolderLock
from freehold.consensus.ledger_application import genesis_preset
from freehold.crypto import ed25519
from freehold.crypto.strkey import encode_account
from freehold.rpc.app import make_app
from freehold.rpc.archive import open_archive
from freehold.rpc.config import Address, DaemonHome, load_home
from freehold.rpc.engines import RunningLedger, open_engine
from freehold.rpc.faucet import Faucet
from freehold.rpc.logs import JsonLog
from freehold.rpc.metrics import Metrics, make_metrics_app
from freehold.rpc.rates import RateLimiter
from freehold.rpc.server import Server, listen, make_server
from freehold.rpc.service import Service

STOP_LIMIT_S: Final = 1.5
STATE_POLL_S: Final = 1.0
UNKNOWN_RULES: Final = "unknown_rules"  # see `freehold.ledger.rules.rules_at`


class Daemon:
    """One ledger: engine, desk, service, server; opened in `run`, closed before it returns."""

    def __init__(self, home: DaemonHome, log: JsonLog) -> None:
        self._home = home
        self._log = log
        self._stopping = asyncio.Event()
        self._defect: BaseException | None = None

    async def run(self) -> int:
        """Serve until a signal asks to stop.

        Returns:
            The exit code.

        Raises:
            FreeholdError: it cannot start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        home = self._home
        async with contextlib.AsyncExitStack() as stack:
            if home.data.exists():  # this daemon, if it runs already, has the ports too: that is what to say
                FolderLock(home.data).release()
            sockets = [_open(str(address), address.host, address.port) for address in home.addresses]
            for opened in sockets:
                stack.callback(opened.close)
            ledger = open_engine(home)
            stack.push_async_callback(ledger.stop)
            faucet = Faucet(home.faucet, ledger.desk) if home.faucet is not None else None
            archive = open_archive(home, ledger.desk, lambda event, fields: self._log.write(event, fields))
            stack.push_async_callback(archive.stop)
            service = Service(ledger.desk, faucet=faucet, archive=archive)
            stack.callback(service.close)
            following = await ledger.start()
            archive.start()
            rates = RateLimiter(home.settings.points_per_second, home.settings.points_burst)
            metrics = Metrics(ledger.desk, home.folder, index=archive.standing)
            if home.metrics is not None:
                await stack.enter_async_context(_showing(metrics, home.metrics))
            app = make_app(service, rates, self._report, metrics.answered)
            await self._serve(make_server(app), sockets, ledger, following)
            self._log.write("stopping", {"height": ledger.desk.standing().height})
        if self._defect is not None:
            raise self._defect
        self._log.write("stopped")
        return ExitCode.DONE

    def _report(self, event: str, fields: dict[str, Any]) -> None:
        self._log.write(event, fields, level="error")

    async def _serve(
        self, server: Server, sockets: list[socket.socket], ledger: RunningLedger, following: asyncio.Task[None]
    ) -> None:
        serving = asyncio.create_task(server.serve(sockets))
        watching = asyncio.create_task(self._watch(ledger))
        standing = ledger.desk.standing()
        # What has been loaded by now stays: keep it out of every later collection.
        gc.collect()
        gc.freeze()
        self._log.write(
            "started",
            {
                "chain_id": self._home.genesis.chain_id,
                "engine": standing.engine,
                "height": standing.height,
                "listen": [_name(opened) for opened in sockets],
                "pid": os.getpid(),
                "faucet": self._home.faucet is not None,
            },
        )
        following.add_done_callback(self._followed)
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        for task in (watching, stopping):
            task.cancel()
        done, _ = await asyncio.wait({serving}, timeout=STOP_LIMIT_S)
        if not done:
            serving.cancel()
        await asyncio.gather(serving, watching, stopping, return_exceptions=True)

    def _followed(self, task: asyncio.Task[None]) -> None:
        """Stop when the blocks cannot be told of: a defect, since the engine's own end is no failure of this task."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defect = error
            self._stopping.set()

    async def _watch(self, ledger: RunningLedger) -> None:
        """Say in the log when the engine stops making blocks, when it goes on, and what its operator should mend."""
        before: str = EngineState.RUNNING
        noticed = ""
        while True:
            notice = ledger.desk.standing().notice
            if noticed != (noticed := "" if notice is None else notice.code):
                told = {} if notice is None else msgspec.structs.asdict(notice)
                self._log.write("notice", told, level="info" if notice is None else "warning")
            fields = ledger.state()
            if fields["state"] != before:
                before = fields["state"]
                self._log.write("engine_state", fields, level="info" if before == EngineState.RUNNING else "error")
            if fields["code"] == UNKNOWN_RULES:
                # nothing that this program could serve from here on: end, and say what to install
                self._defect = LocalProtocolError(
                    fields["message"], code=UNKNOWN_RULES, hint="install the release that knows them, then start again"
                )
                self._stopping.set()
                return
            await asyncio.sleep(STATE_POLL_S)


def describe(home: DaemonHome) -> dict[str, Any]:
    """What `--check` prints: the settings as they were understood; no secrets."""
    preset = genesis_preset(home.genesis)
    return {
        "home": str(home.folder),
        "chain_id": home.genesis.chain_id,
        "genesis": home.genesis.digest.hex(),
        "preset": preset.name,
        "listen": [str(address) for address in home.addresses],
        "metrics": str(home.metrics) if home.metrics is not None else None,
        "validator": home.validator.public.hex(),
        "genesis_validators": len(home.genesis.validators.validators),
        "faucet": encode_account(home.faucet.public) if home.faucet is not None else None,
        "points_per_second": home.settings.points_per_second,
        "points_burst": home.settings.points_burst,
        "keep_blocks": home.settings.keep_blocks,
        "index": home.settings.index.partition("://")[0],  # a connection string may hold a password
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon.

    Args:
        arguments: of the command line, without the program's name.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m freehold.rpc.main", description="The ledger daemon.")
    parser.add_argument("--home", type=Path, required=True, help="folder with genesis.json, validator.key, ledger.toml")
    parser.add_argument("--check", action="store_true", help="print the settings and end")
    options = parser.parse_args(arguments)
    try:
        return run_home(options.home, check=options.check)
    except FreeholdError as error:
        return error.exit_code
    except InvariantError:
        return ExitCode.FAILED


def run_home(folder: Path, *, check: bool = False) -> int:
    """Run the daemon of a home in this process until it is stopped.

    Args:
        folder: the home.
        check: only read it, and print what it says.

    Returns:
        The exit code.

    Raises:
        FreeholdError: it cannot start or go on; the log's last line says the same.
        InvariantError: a defect ended it; the log's last line says the same.
    """
    faulthandler.enable()  # a crash of the process itself leaves a trace of every thread, not silence
    log = JsonLog()
    log.take_over()
    try:
        ed25519.self_test()
        home = load_home(folder)
        if check:
            sys.stdout.write(json.dumps(describe(home), indent=2) + "\n")
            return ExitCode.DONE
        return asyncio.run(Daemon(home, log).run())
    except FreeholdError as error:
        fields = {"code": error.code, "message": error.message, "hint": error.hint}
        log.write("failed", fields, level="error")
        raise
    except InvariantError as error:
        log.write("failed", {"code": "invariant_broken", "message": str(error)}, level="error")
        raise


@contextlib.asynccontextmanager
async def _showing(metrics: Metrics, address: Address) -> AsyncIterator[None]:
    """Serve the metrics' page meanwhile."""
    opened = _open(str(address), address.host, address.port)
    server = make_server(make_metrics_app(metrics))
    serving = asyncio.create_task(server.serve([opened]))
    try:
        yield
    finally:
        server.should_exit = True
        done, _ = await asyncio.wait({serving}, timeout=STOP_LIMIT_S)
        if not done:
            serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        opened.close()


def _open(name: str, host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except OSError as error:
        raise InvalidInputError(
            f"cannot listen on {name}: {error.strerror}",
            code="cannot_listen",
            hint="another program has that port, or the address is none of this machine's: change ledger.toml",
        ) from None


def _name(opened: socket.socket) -> str:
    host, port = opened.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
