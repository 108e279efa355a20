"""A stopped engine's blocks, by its own `inspect`: it opens its stores and serves reads; no consensus runs.

Source: CometBFT v0.38.25 cmd/cometbft/commands/inspect.go.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from freehold.base.errors import UnreachableError
from freehold.consensus.comet import install
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.comet.supervisor import tied
from freehold.consensus.errors import StorageDamagedError

LOG_FILE: Final = "inspect.log"
START_S: Final = 30.0
STOP_S: Final = 10.0
POLL_S: Final = 0.05


@contextlib.asynccontextmanager
async def inspecting(home: OperatorHome) -> AsyncIterator[CometClient]:
    """Serve a stopped engine's blocks meanwhile; the caller holds the lock of the home.

    Raises:
        InvalidInputError: the engine is not installed.
        StorageDamagedError: it cannot open its stores.
    """
    program = Path(install.require().path)
    with contextlib.suppress(FileNotFoundError):
        home.rpc_socket.unlink()
    command = [*tied(), str(program), "inspect", "--home", str(home.engine), "--log_level", "error"]
    command += ["--rpc.laddr", f"unix://{home.rpc_socket}"]
    log_path = home.engine / LOG_FILE
    with log_path.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        async with CometClient(home.rpc_socket) as client:
            await _until_answered(client, process, log_path)
            yield client
    finally:
        await _end(process)


async def _until_answered(client: CometClient, process: asyncio.subprocess.Process, log_path: Path) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_S):
            while process.returncode is None:
                try:
                    await client.kept_heights()
                except UnreachableError:  # there is no other sign of its start
                    await asyncio.sleep(POLL_S)
                else:
                    return
    words = log_path.read_text(errors="replace").strip().splitlines() or ["nothing in its log"]
    raise StorageDamagedError(
        f"the engine cannot open its blocks: {words[-1][:300]}", code="engine_damaged", hint=f"read {log_path}"
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
