"""Run a program inside a running container, such as a health check: bounded in time and in output."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Final

import msgspec

from freehold.runtime import conmon
from freehold.runtime.atomic import load_json, save_json
from freehold.runtime.engine import Engine

MAX_OUTPUT_BYTES: Final = 4_096
_GRACE_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.05


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a program inside a container ended.

    Attributes:
        code: its exit status; -1 when it was killed at the timeout.
        output: the first 4 KiB of what it wrote, both streams together.
        timed_out: it was killed.
    """

    code: int
    output: bytes
    timed_out: bool = False


async def execute(
    engine: Engine, root: Path, container: str, argv: list[str], *, timeout: float, bundle: Path, number: int
) -> ExecResult:
    """Run a program with the container's own user, rights, limits, filter and namespaces.

    All of them are stated: crun, left to itself, would run it as root and without `no_new_privs`.

    Args:
        engine: the OCI runtime.
        root: its state folder.
        container: a running container's id.
        argv: program and arguments.
        timeout: seconds, start included; then the program and all in its session are killed.
        bundle: the container's bundle, which no tenant can write.
        number: of this call, apart from others that run at the time.
    """
    process_file, pid_file = bundle / f"exec-{number}.json", bundle / f"exec-{number}.pid"
    config = load_json(bundle / "config.json", dict) or {}
    save_json(process_file, config["process"] | {"args": argv})
    output, loop = bytearray(), asyncio.get_running_loop()
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(write_fd, True)
    # A pipe of our own: a child left behind may hold its other end open for ever, and nobody waits for that.
    loop.add_reader(read_fd, _take, read_fd, output)
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                engine.path,
                f"--root={root}",
                "exec",
                f"--process={process_file}",
                f"--pid-file={pid_file}",
                container,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_fd,
                stderr=write_fd,
                env=conmon.ENVIRONMENT,
            )
        finally:
            os.close(write_fd)
        timed_out = False
        try:
            await asyncio.wait_for(process.wait(), timeout)
        except TimeoutError:
            timed_out = True
        finally:
            await _end(process, pid_file)
            pid_file.unlink(missing_ok=True)
            process_file.unlink(missing_ok=True)
    finally:
        loop.remove_reader(read_fd)
        _take(read_fd, output)
        os.close(read_fd)
    code = -1 if timed_out or process.returncode is None else process.returncode
    return ExecResult(code=code, output=bytes(output), timed_out=timed_out)


def _take(fd: int, output: bytearray) -> None:
    """Keep the first bytes and let the rest pass, so that the program never blocks on us."""
    with contextlib.suppress(BlockingIOError):
        output += os.read(fd, 65_536)[: MAX_OUTPUT_BYTES - len(output)]


async def _end(process: asyncio.subprocess.Process, pid_file: Path) -> None:
    """Kill what still runs: first the program inside with its session, then the runtime that waits for it."""
    waiting = asyncio.ensure_future(process.wait())
    try:
        for _ in range(int(_GRACE_SECONDS / _LOOK_SECONDS)):
            if waiting.done():
                return
            # The runtime may still be on its way into the container: its number comes when it is there. The runtime
            # has not waited for it while it lives itself, so the number cannot belong to another process.
            with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
                os.killpg(int(pid_file.read_text()), signal.SIGKILL)
            await asyncio.wait({waiting}, timeout=_LOOK_SECONDS)
        process.kill()
    finally:
        await waiting
