"""The engine as a child process: started, watched, started again when it dies, stopped cleanly.

An engine that ends too often in a short time is not started again: the last lines of its log say why.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.consensus.errors import StorageDamagedError, storage_full

STOP_LIMIT_S: Final = 15.0
MAX_STARTS: Final = 5
STARTS_WITHIN_S: Final = 60.0
FIRST_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 5.0
TAIL_BYTES: Final = 16 * 1024
MAX_LOG_BYTES: Final = 64 << 20
LOG_LOOK_S: Final = 30.0
FAILURE_LOOK_S: Final = 2.0
FAILED: Final = b"CONSENSUS FAILURE!!!"  # its consensus has ended, by a full disk for one; the process would stay

log = logging.getLogger(__name__)


class Supervisor:
    """Keeps one engine running; used from one event loop.

    Attributes:
        starts: how often it was started.
    """

    def __init__(
        self,
        command: Sequence[str],
        log_path: Path,
        *,
        max_log_bytes: int = MAX_LOG_BYTES,
        look_s: float = LOG_LOOK_S,
    ) -> None:
        """Bind the command.

        Args:
            command: program and arguments.
            log_path: takes what the engine prints.
            max_log_bytes: the log is begun anew when it has grown above this, also while the engine runs.
            look_s: how often that is looked at.
        """
        self._max_log_bytes = max_log_bytes
        self._look_s = look_s
        self._command = list(command)
        self._log_path = log_path
        self._process: asyncio.subprocess.Process | None = None
        self.starts = 0

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
        try:
            while True:
                begun.append(loop.time())
                code = await self._run_once()
                lived = loop.time() - begun[-1]
                log.warning("the engine ended with code %d after %.1f s: %s", code, lived, self._last_words())
                if len(begun) == MAX_STARTS and loop.time() - begun[0] < STARTS_WITHIN_S:
                    raise self._reason(code)
                pause = FIRST_PAUSE_S if lived > STARTS_WITHIN_S else min(pause * 2, MAX_PAUSE_S)
                await asyncio.sleep(pause)
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Ask the engine to end, and end it when it does not."""
        process = self._process
        if process is None or process.returncode is not None:
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
        self._bound_log()
        environment = {**os.environ, "CMTHOME": str(self._log_path.parent)}
        begun_at = self._log_path.stat().st_size if self._log_path.exists() else 0
        with self._log_path.open("ab") as output:  # appending, so that the file may be cut under the engine
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # a Ctrl-C is for us; the engine is stopped after its application's last block
            )
        self.starts += 1
        log.info("the engine runs as process %d", self._process.pid)
        watching = [
            asyncio.create_task(self._keep_log_bounded()),
            asyncio.create_task(self._end_failed(self._process, begun_at)),
        ]
        try:
            return await self._process.wait()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    async def _end_failed(self, process: asyncio.subprocess.Process, offset: int) -> None:
        """End an engine whose log says, from an offset on, that it only looks alive."""
        seen = b""
        while FAILED not in seen:
            await asyncio.sleep(FAILURE_LOOK_S)
            new = await asyncio.to_thread(self._read_from, offset)
            offset = new[0] + len(new[1])
            seen = seen[-len(FAILED) :] + new[1]
        log.error("the engine's consensus has failed; it is ended")
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)

    def _read_from(self, offset: int) -> tuple[int, bytes]:
        """What the engine printed from an offset on, and that offset: 0 when the log was cut meanwhile."""
        try:
            with self._log_path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < offset:
                    offset = 0
                file.seek(offset)
                return offset, file.read(MAX_LOG_BYTES)
        except OSError:
            return offset, b""

    async def _keep_log_bounded(self) -> None:
        while True:
            await asyncio.sleep(self._look_s)
            self._bound_log()

    def _bound_log(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._log_path.stat().st_size > self._max_log_bytes:
                os.truncate(self._log_path, 0)

    def _tail(self) -> str:
        try:
            with self._log_path.open("rb") as file:
                file.seek(max(0, self._log_path.stat().st_size - TAIL_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def _last_words(self) -> str:
        lines = [line for line in self._tail().splitlines() if line.strip()]
        told = [line for line in lines if '"level":"error"' in line or "panic" in line or "ERROR" in line]
        return (told or lines or ["nothing in its log"])[-1][:300]

    def _reason(self, code: int) -> FreeholdError:
        tail, words = self._tail(), self._last_words()
        if "address already in use" in tail:
            return InvalidInputError(
                f"the engine's port is in use: {words}",
                code="port_in_use",
                hint="stop the other program, or change listen in validator.toml",
            )
        if "no space left on device" in tail:
            return storage_full(self._log_path.parent)
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
