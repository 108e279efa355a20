"""Which engine a daemon runs, by its home: CometBFT where validator.toml is, the embedded one elsewhere."""

import asyncio
from pathlib import Path
from typing import Any, Protocol

from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.consensus.application import Application
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.clock import ClockWatch
from freehold.consensus.comet.complaints import absence, complaint
from freehold.consensus.comet.node import CometNode, open_ledger
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.embedded import EmbeddedEngine, EngineState
from freehold.consensus.errors import EngineStoppedError
from freehold.consensus.ledger_application import LedgerApplication, genesis_preset
from freehold.consensus.timing import Pace
from freehold.ledger import keys
from freehold.ledger.bonds import validator_address
from freehold.ledger.transactions import tx_id
from freehold.rpc.comet_desk import CometDesk
from freehold.rpc.config import DaemonHome
from freehold.rpc.desk import Desk
from freehold.rpc.engine_desk import EngineDesk


class RunningLedger(Protocol):
    """An engine with its desk, as the daemon holds it."""

    @property
    def desk(self) -> Desk:
        """What HTTP asks."""

    async def start(self) -> "asyncio.Task[None]":
        """Make blocks and tell of them.

        Returns:
            What ends only when nothing more can be told: by a defect, or because the engine cannot go on.

        Raises:
            FreeholdError: it cannot start.
        """

    async def stop(self) -> None:
        """Close everything. May be called twice."""

    def state(self) -> dict[str, Any]:
        """For the log: `state` is `running` while blocks are made; then why not."""


class EmbeddedLedger:
    """The embedded engine over a home."""

    def __init__(self, home: DaemonHome) -> None:
        """Open the home's data.

        Raises:
            FreeholdError: it cannot be used.
        """
        preset = genesis_preset(home.genesis)
        opened: list[LedgerApplication] = []

        def make_application(folder: Path) -> LedgerApplication:
            opened.append(
                LedgerApplication.open(folder, home.genesis, home.validator, keep_blocks=home.settings.keep_blocks)
            )
            return opened[0]

        self._engine = EmbeddedEngine(
            home.data,
            home.genesis,
            home.validator,
            make_application,
            Pace(tick_ms=preset.tick_ms, min_block_gap_ms=preset.min_block_gap_ms),
            identify=tx_id,
        )
        self.desk = EngineDesk(self._engine, opened[0], home.genesis_bytes, preset.state_heights)

    async def start(self) -> "asyncio.Task[None]":
        """Make blocks and tell of them."""
        await self._engine.start()
        return self.desk.start()

    async def stop(self) -> None:
        """Close everything."""
        await self.desk.stop()
        await self._engine.stop()

    def state(self) -> dict[str, Any]:
        """For the log."""
        status = self._engine.status()
        return {
            "state": str(status.state),
            "height": status.height,
            "code": status.code,
            "message": status.message,
        }


class CometLedger:
    """A validator on CometBFT over a home."""

    def __init__(self, home: DaemonHome) -> None:
        """Bind the parts; the engine must be installed."""
        preset = genesis_preset(home.genesis)
        operator = OperatorHome(home.folder)
        self._client = CometClient(operator.rpc_socket)
        self._validator = operator.validator_key().public
        self._clock = ClockWatch(validator_address(self._validator))
        self.desk = CometDesk(
            self._client,
            home.genesis,
            home.genesis_bytes,
            keep_heights=preset.state_heights,
            tick_ms=preset.tick_ms,
            explain=lambda: complaint(self._node.printed),
            notice=self._notice,
        )
        self._node = CometNode(operator, make_application=self._open, follower=self.desk, clock=self._clock)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> "asyncio.Task[None]":
        """Open the application, start the engine, tell of blocks."""
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._run(ready))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            await self._task
        return self._task

    async def stop(self) -> None:
        """Stop the engine, then close its application."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.close()

    def state(self) -> dict[str, Any]:
        """For the log."""
        standing = self.desk.standing()
        halted = standing.halted
        state = EngineState.RUNNING if halted is None else halted.code
        message = "" if halted is None else " ".join(filter(None, (halted.message, halted.hint)))
        return {
            "state": str(state),
            "height": standing.height,
            "code": "" if halted is None else halted.code,
            "message": message,
        }

    def _notice(self) -> FreeholdError | None:
        return self._clock.complaint() or absence(self.desk.newest(keys.ATTENDANCE), self._validator)

    def _open(self, home: OperatorHome) -> tuple[Application, Any]:
        application, last_time_ms = open_ledger(home)
        if not isinstance(application, LedgerApplication):
            raise InvalidInputError("this home holds no ledger", code="bad_home")
        self.desk.open(application.state, application.snapshot_standing)
        return application, last_time_ms

    async def _follow(self, ready: asyncio.Event) -> None:
        await ready.wait()
        await self.desk.follow()

    async def _run(self, ready: asyncio.Event) -> None:
        node = asyncio.create_task(self._node.run(ready.set))
        following = asyncio.create_task(self._follow(ready))
        try:
            await asyncio.wait({following, node}, return_when=asyncio.FIRST_COMPLETED)
            for task in (node, following):
                if task.done():
                    await task
        except FreeholdError as error:
            self.desk.end(EngineStoppedError(error.message, code=error.code, hint=error.hint))
            raise
        finally:
            self.desk.end(EngineStoppedError("the validator is stopping", code="engine_stopped"))
            for task in (following, node):
                task.cancel()
            await asyncio.gather(following, node, return_exceptions=True)


def open_engine(home: DaemonHome) -> RunningLedger:
    """Open the engine that a home is made for.

    Raises:
        FreeholdError: the home cannot be used.
    """
    return CometLedger(home) if (home.folder / "validator.toml").exists() else EmbeddedLedger(home)
