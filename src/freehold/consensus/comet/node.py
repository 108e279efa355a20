"""A validator on CometBFT: the ledger's application, its socket, and the engine as a child.

The application comes up first and goes last, so that the engine never asks nobody. When the application halts, or the
engine cannot be kept running, `run` ends with the reason.
"""

import asyncio
import contextlib
import logging
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from freehold.base.errors import InvalidInputError, check
from freehold.base.presets import Preset
from freehold.consensus.abci.following import Clock, Follower
from freehold.consensus.abci.server import AbciServer
from freehold.consensus.abci.service import AbciService
from freehold.consensus.application import Application
from freehold.consensus.comet import install
from freehold.consensus.comet.addresses import check_address
from freehold.consensus.comet.complaints import check_clock
from freehold.consensus.comet.configuration import CHUNKS, prepare, remove_data
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.comet.supervisor import Supervisor, tied
from freehold.consensus.folder import FolderLock
from freehold.consensus.ledger_application import LedgerApplication, genesis_preset
from freehold.consensus.state_sync import SnapshotPlan, is_only_restored, recover
from freehold.ledger import keys
from freehold.ledger.records import Totals
from freehold.ledger.state import read

LOG_FILE: Final = "engine.log"

log = logging.getLogger(__name__)


class CometNode:
    """One validator on one home; used from one event loop.

    Attributes:
        application: the ledger, open while `run` runs.
        supervisor: of the engine.
    """

    def __init__(
        self,
        home: OperatorHome,
        *,
        program: Path | None = None,
        preset: Preset | None = None,
        make_application: Callable[[OperatorHome], tuple[Application, Callable[[], int]]] | None = None,
        follower: Follower | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Bind the parts.

        Args:
            home: held by this node alone while it runs.
            program: the engine; the installed one when None.
            preset: gives the pace; that of genesis when None.
            make_application: opens the application and says how to read its newest block time; the ledger when None.
            follower: is told of each durable block.
            clock: is told of rounds and decided blocks.
        """
        self.home = home
        self._program = program
        self._preset = preset
        self._make = make_application or open_ledger
        self._follower = follower
        self._clock = clock
        self.application: Application | None = None
        self.supervisor: Supervisor | None = None

    @property
    def printed(self) -> bytes:
        """The newest words of the engine."""
        return b"" if self.supervisor is None else self.supervisor.tail

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Run until cancelled.

        Args:
            ready: called once the application listens and the engine is about to be started.

        Raises:
            FreeholdError: it cannot start, or cannot go on.
        """
        home = self.home
        program = self._program or Path(install.require().path)
        preset = self._preset or genesis_preset(home.genesis())
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(FolderLock(home.data))
            _check_port(home.settings().listen)
            _begin_anew_if_half_restored(home)
            prepare(home, preset)
            application, last_time_ms = self._make(home)
            stack.callback(application.close)
            check_clock(last_time_ms() if application.info().height else home.genesis().genesis_time.ms)
            self.application = application
            service = AbciService(application, home.genesis(), last_time_ms, self._follower, self._clock)
            server = AbciServer(service, home.socket)
            stack.push_async_callback(server.stop)
            await server.start()
            command = [*tied(), str(program), "start", "--home", str(home.engine)]
            environment = {"TMPDIR": str(home.engine / CHUNKS)}
            self.supervisor = Supervisor(
                command, home.engine / LOG_FILE, environment=environment, clear=lambda: _clear(home)
            )
            ready()
            await _either(self.supervisor, server)


def open_ledger(home: OperatorHome) -> tuple[Application, Callable[[], int]]:
    """Open the ledger's application on a home.

    Returns:
        The application, and what gives the time of its newest block.

    Raises:
        FreeholdError: the home or its state cannot be used.
    """
    settings = home.settings()
    vrf_key = home.vrf_key() if "vrf" in home.genesis().app_state else None
    application = LedgerApplication.open(
        home.data,
        home.genesis(),
        home.validator_key(),
        keep_blocks=settings.keep_blocks,
        vrf_key=vrf_key,
        snapshots=SnapshotPlan(settings.snapshot_interval, settings.snapshot_keep, settings.snapshot_chunk_bytes),
    )

    def last_time_ms() -> int:
        totals = read(application.state, keys.TOTALS, Totals)
        check(totals is not None, "genesis_before_blocks")
        return totals.time_ms if totals is not None else 0

    return application, last_time_ms


def _begin_anew_if_half_restored(home: OperatorHome) -> None:
    """A state that was restored and has seen no block yet goes, and the engine's blocks with it."""
    state = home.data / "state"
    recover(state)
    if is_only_restored(state):
        log.warning("the last restore was cut off before its first block: it begins anew")
        remove_data(home)


def _clear(home: OperatorHome) -> None:
    """Remove what a killed engine leaves: its socket, on which no other could listen, and what it fetched."""
    with contextlib.suppress(OSError):  # the engine then says itself why it cannot start
        home.rpc_socket.unlink(missing_ok=True)
        for entry in (home.engine / CHUNKS).iterdir():
            shutil.rmtree(entry, ignore_errors=True)


async def _either(supervisor: Supervisor, server: AbciServer) -> None:
    """Keep both up until one of them cannot go on."""
    engine = asyncio.create_task(supervisor.run())
    halting = asyncio.create_task(server.wait_halted())
    try:
        await asyncio.wait({engine, halting}, return_when=asyncio.FIRST_COMPLETED)
        if halting.done():
            raise halting.result()
        await engine
    finally:
        for task in (engine, halting):
            task.cancel()
        await asyncio.gather(engine, halting, return_exceptions=True)


def _check_port(address: str) -> None:
    host, port = check_address(address)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InvalidInputError(
                f"cannot listen on {address}: {error.strerror}",
                code="port_in_use",
                hint="another program has that port, or the address is none of this machine's: change validator.toml",
            ) from None
