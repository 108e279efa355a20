"""Containers of one node: create, start, stop, watch, adopt, remove (the asynchronous face of `lifecycle`).

Calls to one container are taken one after the other; calls to several run side by side, in threads.
"""

import asyncio
import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

from freehold.base.errors import RefusedError
from freehold.runtime import cgroups, conmon
from freehold.runtime.engine import Engine
from freehold.runtime.exec import ExecResult, execute
from freehold.runtime.lifecycle import KILL_WAIT, Lifecycle
from freehold.runtime.logs import LogLine, follow_log, read_log
from freehold.runtime.records import Container, Exit, ExitReason, Record, Status
from freehold.runtime.spec import ContainerSpec, validate_spec

_WATCH_SECONDS = 1.0

# Named here because the class has a method `list`.
Containers = list[Container]
Names = list[str]
Lines = list[LogLine]


class ContainerRuntime:
    """The container runtime of one node.

    Args:
        home: folder on disk that belongs to the runtime alone.
        name: the node's name.
        engine: the host's programs; found unless given.

    Attributes:
        engine: the host's programs.
        places: paths and names of this node.
        fence: deadlines that the watchdog obeys.
        term_log: starts and stops, for eyes outside.
        networks: bridges, addresses and grants.
        volumes: volumes of a stated size.
        watchdog: the process that enforces the fence.
    """

    def __init__(self, home: Path, name: str, engine: Engine | None = None) -> None:
        self._core = Lifecycle(home, name, engine)
        self.engine = self._core.engine
        self.places = self._core.places
        self.fence = self._core.fence
        self.term_log = self._core.term_log
        self.networks = self._core.networks
        self.volumes = self._core.volumes
        self.watchdog = self._core.watchdog
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._executions = 0

    @property
    def timings(self) -> dict[str, float]:
        """Steps of the last creation, in seconds."""
        return dict(self._core.timings)

    # Life of a container

    async def create(self, spec: ContainerSpec) -> Container:
        """Make a container, ready to start; on failure nothing of it stays.

        Raises:
            InvalidInputError: the specification is wrong, or such a container exists (`container_exists`).
            FreeholdError: no space, no runtime, or the runtime refused.
        """
        validate_spec(spec)
        async with self._locks[spec.id]:
            return await asyncio.to_thread(self._core.create, spec)

    async def start(self, container: str) -> Container:
        """Start a container that was created or has ended.

        Raises:
            RefusedError: its fence has passed (`fence_passed`), or a fence is set and no watchdog lives.
            FreeholdError: unknown, or the runtime refused; the reason is kept as its exit.
        """
        async with self._locks[container]:
            return await asyncio.to_thread(self._core.start, container)

    async def stop(self, container: str, timeout: float = 10.0) -> Container:
        """Ask a container to end with its stop signal; kill it after `timeout` seconds."""
        async with self._locks[container]:
            record = self._core.record(container)
            if self._core.status(record) in (Status.RUNNING, Status.CREATED):
                record.stop_asked = True
                self._core.save(record)
                if record.started_ms and timeout > 0:
                    conmon.send_signal(record.pid, record.pid_started, record.stop_signal)
                    await _gone(record, timeout)
                await asyncio.to_thread(cgroups.kill_all, record.cgroup)
                await _gone(record, KILL_WAIT)
            return self._core.settle(record)

    async def kill(self, container: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a container's first process; SIGKILL ends every process of it."""
        record = self._core.record(container)
        if number == signal.SIGKILL:
            await asyncio.to_thread(cgroups.kill_all, record.cgroup)
        else:
            conmon.send_signal(record.pid, record.pid_started, number)

    async def wait(self, container: str) -> Exit:
        """Wait until a container has ended, and tell how."""
        record = self._core.record(container)
        while self._core.status(record) in (Status.CREATED, Status.RUNNING):
            await _gone(record, 3_600.0)
            await asyncio.to_thread(self._core.end_lost, record)
            record = self._core.record(container)
        async with self._locks[container]:
            ended = self._core.settle(self._core.record(container))
        return ended.exit or Exit(reason=ExitReason.SHIM_LOST)

    async def remove(self, container: str) -> None:
        """Kill a container and remove all of it except volumes; one that is gone is fine."""
        async with self._locks[container]:
            await asyncio.to_thread(self._core.remove, container)

    # What is there

    async def list(self) -> Containers:
        """All containers of this node, read from disk and the kernel."""
        return await asyncio.to_thread(self._core.observe_all)

    async def state(self, container: str) -> Container:
        """One container as it stands.

        Raises:
            InvalidInputError: there is no such container (`no_such_container`).
        """
        return await asyncio.to_thread(self._core.observe, self._core.record(container))

    async def adopt(self) -> Containers:
        """Take over after a start of the agent: settle what ended, kill what lost its conmon, restore networks."""
        return await asyncio.to_thread(self._core.adopt)

    async def execute(self, container: str, argv: Names, timeout: float) -> ExecResult:
        """Run a program inside a running container, such as a health check.

        Raises:
            RefusedError: the container does not run (`not_running`).
        """
        record = self._core.record(container)
        if self._core.status(record) is not Status.RUNNING:
            raise RefusedError(f"{container} does not run", code="not_running")
        self._executions += 1
        return await execute(
            self.engine,
            self.places.engine_root,
            container,
            argv,
            timeout=timeout,
            bundle=self.places.of(container).bundle,
            number=self._executions,
        )

    async def logs(self, container: str, *, tail: int | None = None) -> Lines:
        """What a container has written so far; the last `tail` lines."""
        self._core.record(container)
        return await asyncio.to_thread(read_log, self.places.of(container).log, tail=tail)

    async def follow(self, container: str, *, tail: int | None = None) -> AsyncIterator[LogLine]:
        """What a container has written and writes, until it ends."""
        ended = asyncio.Event()
        waiting = asyncio.create_task(self.wait(container))
        waiting.add_done_callback(lambda _: ended.set())
        try:
            async for line in follow_log(self.places.of(container).log, tail=tail, ended=ended):
                yield line
        finally:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

    async def stats(self, container: str) -> cgroups.Usage:
        """Memory, CPU and processes that a container uses."""
        return await asyncio.to_thread(cgroups.usage, self._core.record(container).cgroup)

    async def watch(self) -> AsyncIterator[int]:
        """Keep a watchdog alive and awake: yields its pid whenever that is another; runs until closed."""
        known = 0
        while True:
            pid = await asyncio.to_thread(self.watchdog.ensure)
            if pid != known:
                known = pid
                yield pid
            await _process_gone(pid, _WATCH_SECONDS)

    async def cleanup(self, keep: set[str] | None = None) -> Names:
        """Remove what no container in `keep` owns: all leftovers of this node; `keep=None` keeps complete containers.

        Returns:
            Names of the containers that were removed.
        """
        return await asyncio.to_thread(self._core.cleanup, keep)

    async def destroy(self) -> None:
        """Remove everything of this node from the host except its volumes and logs of removed containers: for good."""
        await asyncio.to_thread(self._core.cleanup, set())
        await asyncio.to_thread(self._core.destroy)


async def _gone(record: Record, timeout: float) -> bool:
    """Wait until a container's conmon has ended, which it does after it wrote the exit status."""
    if not conmon.is_alive(record.conmon_pid, record.conmon_started):
        return True
    return await _process_gone(record.conmon_pid, timeout)


async def _process_gone(pid: int, timeout: float | None) -> bool:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), timeout)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return True
