"""The node agent's process: `python -m freehold.agent.main --home DIR`."""

import argparse
import asyncio
import logging
import resource
import signal
import sys
from pathlib import Path

import structlog
from structlog.typing import Processor

from freehold.agent.identity import NodeHome
from freehold.agent.node import Agent
from freehold.base.errors import ExitCode, FreeholdError

MAX_DESCRIPTORS = 65_536


def main() -> int:
    """Run until SIGTERM or SIGINT; containers go on."""
    parser = argparse.ArgumentParser(prog="freehold.agent.main", description="The node agent of a prepared home.")
    parser.add_argument("--home", type=Path, required=True)
    arguments = parser.parse_args()
    _log_as_json()
    try:
        asyncio.run(_run(NodeHome(arguments.home)))
    except FreeholdError as error:
        sys.stderr.write(f"error: {error.message}\n{'next: ' + error.hint if error.hint else ''}\n")
        return error.exit_code
    return ExitCode.DONE


def _log_as_json() -> None:
    """One JSON object a line, also for what lower floors tell through the standard library's logging."""
    stamps: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    write = structlog.processors.JSONRenderer()
    structlog.configure(processors=[*stamps, write], logger_factory=structlog.WriteLoggerFactory(file=sys.stderr))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*stamps, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, write],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


async def _run(home: NodeHome) -> None:
    # Tunnels of many containers take many descriptors; none may be left for the agent's own files.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MAX_DESCRIPTORS), most))
    task = asyncio.ensure_future(Agent(home).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        structlog.get_logger().info("stopped")


if __name__ == "__main__":
    sys.exit(main())
