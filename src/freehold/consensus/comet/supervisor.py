"""The engine as a child process: started, watched, started again when it dies, stopped cleanly.

An engine that ends too often in a short time is not started again: its last words say why. They are read through a
pipe, so that they are known also when the disk is full and the log cannot be written.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.consensus.comet.complaints import SYNC_FAILED, restore_complaint
from freehold.consensus.errors import StorageDamagedError, storage_full

STOP_LIMIT_S: Final = 15.0
MAX_STARTS: Final = 5
STARTS_WITHIN_S: Final = 120.0  # one that fails only after it looked for snapshots lives some 8 s
FIRST_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 5.0
TAIL_BYTES: Final = 64 * 1024
READ_BYTES: Final = 64 * 1024
MAX_LOG_BYTES: Final = 64 << 20
LAST_OUTPUT_S: Final = 1.0
AHEAD: Final = ("last stored abci responses was at height", "is higher than core")  # state/store.go, state/errors.go
# Its consensus has ended, by a full disk for one, or its state sync has, or cannot keep what it fetches; the process
# would stay, and do nothing.
FAILURES: Final = (b"CONSENSUS FAILURE!!!", SYNC_FAILED.encode(), b"failed to save chunk")

log = logging.getLogger(__name__)


class Supervisor:
    """Keeps one engine running; used from one event loop.

    Attributes:
        starts: how often it was started.
        tail: the newest that this engine printed, at most `TAIL_BYTES`.
    """

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        *,
        max_log_bytes: int = MAX_LOG_BYTES,
        environment: Mapping[str, str] | None = None,
        clear: Callable[[], None] = lambda: None,
    ) -> None:
        """Bind the command.

        Args:
            command: program and arguments.
            log_path: takes what the engine prints.
            max_log_bytes: the log is begun anew before it grows above this.
            environment: of the engine, beside our own.
            clear: called on a thread before each start; removes what an engine that was killed has left.
        """
        self._max_log_bytes = max_log_bytes
        self._command = list(command)
        self._log_path = log_path
        self._environment = {"CMTHOME": str(log_path.parent), **(environment or {})}
        self._clear = clear
        self._process: asyncio.subprocess.Process | None = None
        self.starts = 0
        self.tail = b""

    @property
    def pid(self) -> int | None:
        """Of the running engine."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def run(self) -> None:
        """Run the engine until cancelled; then it is stopped.

        Raises:
            FreeholdError: it ends again and again.
        """
        loop = asyncio.get_running_loop()
        begun: deque[float] = deque(maxlen=MAX_STARTS)
        pause = FIRST_PAUSE_S
        while True:
            begun.append(loop.time())
            code = await self._run_once()
            lived = loop.time() - begun[-1]
            log.warning("the engine ended with code %d after %.1f s: %s", code, lived, self._last_words())
            if len(begun) == MAX_STARTS and loop.time() - begun[0] < STARTS_WITHIN_S:
                raise self._reason(code)
            pause = FIRST_PAUSE_S if lived > STARTS_WITHIN_S else min(pause * 2, MAX_PAUSE_S)
            await asyncio.sleep(pause)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """Ask the engine to end, and end it when it does not."""
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                await process.wait()
        except TimeoutError:
            log.warning("the engine did not end within %.0f s and is killed", STOP_LIMIT_S)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()

    async def _run_once(self) -> int:
        await asyncio.to_thread(self._clear)
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | self._environment,
            start_new_session=True,  # a Ctrl-C is for us; the engine is stopped after its application's last block
        )
        self.starts += 1
        log.info("the engine runs as process %d", process.pid)
        reading = asyncio.create_task(self._read_output(process))
        try:
            return await process.wait()
        finally:
            await self._stop(process)
            await asyncio.wait({reading}, timeout=LAST_OUTPUT_S)  # a child of its own may hold the pipe open
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_output(self, process: asyncio.subprocess.Process) -> None:
        """Keep what the engine prints, and end an engine that says it only looks alive."""
        self.tail = b""
        while process.stdout is not None and (data := await process.stdout.read(READ_BYTES)):
            seen = self.tail[-max(map(len, FAILURES)) :] + data
            self.tail = (self.tail + data)[-TAIL_BYTES:]
            await asyncio.to_thread(self._append, data)
            if any(words in seen for words in FAILURES):
                log.error("the engine only looks alive, by its own words; it is ended")
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)

    def _append(self, data: bytes) -> None:
        """Add to the log; on a full disk it ends, `tail` does not."""
        with contextlib.suppress(OSError):
            is_whole = self._log_path.exists() and self._log_path.stat().st_size + len(data) > self._max_log_bytes
            with self._log_path.open("wb" if is_whole else "ab") as file:
                file.write(data)

    def _last_words(self) -> str:
        lines = [line for line in self.tail.decode(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if '"level":"error"' in line or "panic" in line or "ERROR" in line]
        return (told or lines or ["nothing in its log"])[-1][:300]

    def _reason(self, code: int) -> FreeholdError:
        tail, words = self.tail.decode(errors="replace"), self._last_words()
        if "address already in use" in tail:
            return InvalidInputError(
                f"the engine's port is in use: {words}",
                code="port_in_use",
                hint="stop the other program, or change listen in validator.toml",
            )
        if "no space left on device" in tail:
            return storage_full(self._log_path.parent)
        if any(sign in tail for sign in AHEAD):
            return StorageDamagedError(
                f"the state is of a later block than the engine finished: {words}",
                code="state_ahead",
                hint="restore the home from one copy of one moment, or join anew by state sync",
            )
        if (reason := restore_complaint(tail)) is not None:
            return reason
        if "corrupt" in tail or "panic" in tail:
            return StorageDamagedError(
                f"the engine cannot go on: {words}",
                code="engine_damaged",
                hint=f"read {self._log_path}; restore the home from one copy of one moment",
            )
        return FreeholdError(
            f"the engine ended {MAX_STARTS} times in a row, at last with code {code}: {words}",
            code="engine_ended",
            hint=f"read {self._log_path}",
        )


def tied() -> list[str]:
    """What makes the engine end with this process, also by SIGKILL: it would hold port and folder a while longer."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
