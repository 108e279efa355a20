"""The node agent's process: `python -m freehold.agent.main --home DIR`."""

import argparse
import asyncio
import resource
import signal
import sys
from pathlib import Path

import structlog

from freehold.agent.identity import NodeHome
from freehold.agent.node import Agent
from freehold.base.errors import ExitCode, FreeholdError

MAX_DESCRIPTORS = 65_536


def main() -> int:
    """Run until SIGTERM or SIGINT; containers go on."""
    parser = argparse.ArgumentParser(prog="freehold.agent.main", description="The node agent of a prepared home.")
    parser.add_argument("--home", type=Path, required=True)
    arguments = parser.parse_args()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    try:
        asyncio.run(_run(NodeHome(arguments.home)))
    except FreeholdError as error:
        sys.stderr.write(f"error: {error.message}\n{'next: ' + error.hint if error.hint else ''}\n")
        return error.exit_code
    return ExitCode.DONE


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
