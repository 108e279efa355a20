"""A PostgreSQL of a test's own, from Debian's packages: started, stopped, held by SIGSTOP; nothing is left of it."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

PROGRAMS = Path("/usr/lib/postgresql")


class PostgresServer:
    """A server on a socket in its own folder.

    Attributes:
        url: the connection string.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="freehold-postgres-"))
        self._data = self._folder / "data"
        self.url = f"postgresql://freehold@/postgres?host={self._folder}"

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
        _run("initdb", "--auth=trust", "--username=freehold", "--no-sync", "-D", str(self._data))
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self._folder}"
        _run("pg_ctl", "-D", str(self._data), "-l", str(self._folder / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        """As a crash does: nothing is written any more."""
        _run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Hold all of its processes by SIGSTOP meanwhile."""
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(main, signal.SIGSTOP)  # first, so that it makes no more
        held = [main, *map(int, Path(f"/proc/{main}/task/{main}/children").read_text().split())]
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in held:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def _run(name: str, *arguments: str) -> None:
    """As the user `postgres` when we are root: the server refuses root."""
    found = sorted(PROGRAMS.glob(f"*/bin/{name}"))
    assert found, f"no {name} under {PROGRAMS}: apt-get install postgresql"
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*user, str(found[-1]), *arguments], check=True, capture_output=True, cwd="/", timeout=60)
