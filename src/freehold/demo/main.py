"""`freehold-demo`: see the package."""

import argparse
import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from freehold.base.errors import ExitCode, FreeholdError
from freehold.crypto.entropy import random_bytes
from freehold.demo.story import Story
from freehold.demo.view import View

INTERRUPTED = 130


def main() -> int:
    """Run the demo and clean up after it, also after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="freehold-demo", description="A whole grid on this machine, in one story.")
    parser.add_argument("--keep", action="store_true", help="leave the grid up at the end")
    parser.add_argument("--cache", type=Path, default=Path(".cache/demo"), help="images and the demo's home")
    parser.add_argument("--example", type=Path, default=Path("examples/guestbook"), help="what is deployed")
    parser.add_argument("--validators", type=int, default=1, help="1: the embedded ledger; more: CometBFT")
    arguments = parser.parse_args()
    try:
        with only_one(arguments.cache):
            return asyncio.run(_run(arguments))
    except FreeholdError as error:
        sys.stderr.write(f"error: {error.message}\nnext: {error.hint}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


@contextlib.contextmanager
def only_one(cache: Path) -> Iterator[None]:
    """Hold a cache: its images and home are of one demo at a time.

    Raises:
        FreeholdError: another demo has it.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise FreeholdError(
                f"another demo runs on {cache.resolve()}: process {lock.read().strip() or 'unknown'}",
                code="demo_busy",
                hint="wait for it to end, or stop it with Ctrl-C; or take another folder with --cache",
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


async def _run(arguments: Any) -> int:
    cache = arguments.cache.resolve()
    home = cache / "home"
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel if task else lambda: None)
    with View() as view:
        passphrase_file = home / "passphrase"
        story = Story(home, passphrase_file, arguments.example.resolve(), cache, view, validators=arguments.validators)
        keep = False
        try:
            await story.clear("clearing what an earlier run left")
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            passphrase_file.write_text(random_bytes(12).hex())
            passphrase_file.chmod(0o600)
            await story.tell()
            keep = arguments.keep
            return ExitCode.DONE
        except FreeholdError as error:
            view.line(f"error: {error.message}")
            if error.hint:
                view.line(f"next: {error.hint}")
            story.keep_logs(cache / "failed-run")
            return error.exit_code
        except asyncio.CancelledError:
            view.line("interrupted: cleaning up")
            return INTERRUPTED
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not cut the cleaning up short
                loop.add_signal_handler(number, view.line, "cleaning up; a moment")
            if keep:
                story.say_how_to_go_on()
            else:
                await _take_down(story, view)
                shutil.rmtree(home, ignore_errors=True)


async def _take_down(story: Story, view: View) -> None:
    try:
        await story.clear("taking everything down")
    except FreeholdError as error:
        view.line(f"error: {error.message}")
        view.line("next: run the demo again; it begins by clearing what is left")


if __name__ == "__main__":
    sys.exit(main())
