"""Containers of one node: create, start, stop, watch, adopt, remove.

Invariants: what a container is stands on disk before anything is made for it; every name of the host derives from
the node's prefix and the container's id; so after a crash at any instruction `adopt` finds what runs and `cleanup`
removes what does not belong. Each container's conmon outlives the agent and keeps its output and exit status.

Calls to one container are taken one after the other; calls to several run side by side, in threads.
"""

import asyncio
import contextlib
import os
import select
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

from freehold.base.errors import FreeholdError, InvalidInputError, RefusedError
from freehold.runtime import cgroups, conmon, mounts
from freehold.runtime.atomic import load_json, save_json
from freehold.runtime.bundle import BundleBuilder, Timings, mount_run_folder, remove_tree
from freehold.runtime.engine import Engine, detect_engine
from freehold.runtime.fence import Fence, TermLog, WatchdogProcess
from freehold.runtime.idranges import IdRanges
from freehold.runtime.network import Networks
from freehold.runtime.places import RUN_ROOT, Places
from freehold.runtime.records import Container, Exit, ExitReason, Record, Status, boot_id, explain_exit, show
from freehold.runtime.spec import ContainerSpec, validate_spec
from freehold.runtime.volumes import VolumeStore
from freehold.runtime.watchdog import boottime_ms

_KILL_WAIT = 10.0

# Named here because the class has a method `list`.
Containers = list[Container]
Records = list[Record]
Names = list[str]


class ContainerRuntime:
    """The container runtime of one node.

    Args:
        home: folder on disk that belongs to the runtime alone.
        name: the node's name.
        engine: the host's programs; found unless given.

    Attributes:
        places: paths and names of this node.
        fence: deadlines that the watchdog obeys.
        term_log: starts and stops, for eyes outside.
        networks: bridges, addresses and grants.
        volumes: volumes of a stated size.
        watchdog: the process that enforces the fence.
        timings: steps of the last creation, in seconds.
    """

    def __init__(self, home: Path, name: str, engine: Engine | None = None) -> None:
        self.engine = engine or detect_engine()
        self.places = Places(home, name)
        mount_run_folder(self.places.run)
        self.places.make()
        self.ids = IdRanges(self.places.home, RUN_ROOT / "ids")
        self.volumes = VolumeStore(self.places.home / "volumes", self.places.run / "volumes")
        self.networks = Networks(self.places.home, self.places.prefix, RUN_ROOT / "network.lock")
        self.fence = Fence(self.places.run)
        self.term_log = TermLog(self.places.home / "term.log")
        self.watchdog = WatchdogProcess(self.places.run, self.places.home, cgroups.main_folder(self.places.cgroup))
        self.timings = Timings()
        self._bundles = BundleBuilder(self.places, self.engine, self.ids, self.volumes, self.networks)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._boot_id = boot_id()

    # Life of a container

    async def create(self, spec: ContainerSpec) -> Container:
        """Make a container, ready to start; on failure nothing of it stays.

        Raises:
            InvalidInputError: the specification is wrong, or such a container exists (`container_exists`).
            FreeholdError: no space, no runtime, or the runtime refused.
        """
        validate_spec(spec)
        async with self._locks[spec.id]:
            return await asyncio.to_thread(self._create, spec)

    async def start(self, container: str) -> Container:
        """Start a container that was created or has ended.

        Raises:
            RefusedError: its fence has passed (`fence_passed`), or a fence is set and no watchdog lives.
            FreeholdError: unknown, or the runtime refused; the reason is kept as its exit.
        """
        async with self._locks[container]:
            return await asyncio.to_thread(self._start, container)

    async def stop(self, container: str, timeout: float = 10.0) -> Container:
        """Ask a container to end with its stop signal; kill it after `timeout` seconds."""
        async with self._locks[container]:
            record = self._record(container)
            if self._status(record) in (Status.RUNNING, Status.CREATED):
                record.stop_asked = True
                self._save(record)
                if record.started_ms and timeout > 0:
                    conmon.send_signal(record.pid, record.pid_started, record.stop_signal)
                    await _gone(record, timeout)
                await asyncio.to_thread(cgroups.kill_all, record.cgroup)
                await _gone(record, _KILL_WAIT)
            return self._settle(record)

    async def kill(self, container: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a container's first process; SIGKILL ends every process of it."""
        record = self._record(container)
        if number == signal.SIGKILL:
            await asyncio.to_thread(cgroups.kill_all, record.cgroup)
        else:
            conmon.send_signal(record.pid, record.pid_started, number)

    async def wait(self, container: str) -> Exit:
        """Wait until a container has ended, and tell how."""
        record = self._record(container)
        while self._status(record) in (Status.CREATED, Status.RUNNING):
            await _gone(record, 3_600.0)
            record = self._record(container)
        async with self._locks[container]:
            ended = self._settle(self._record(container))
        return ended.exit or Exit(reason=ExitReason.SHIM_LOST)

    async def remove(self, container: str) -> None:
        """Kill a container and remove all of it except volumes; one that is gone is fine."""
        async with self._locks[container]:
            await asyncio.to_thread(self._remove, container)

    # What is there

    async def list(self) -> Containers:
        """All containers of this node, read from disk and the kernel."""
        return await asyncio.to_thread(self._list)

    async def state(self, container: str) -> Container:
        """One container as it stands.

        Raises:
            InvalidInputError: there is no such container (`no_such_container`).
        """
        return await asyncio.to_thread(self._observe, self._record(container))

    async def adopt(self) -> Containers:
        """Take over after a start of the agent: settle what ended, kill what lost its conmon, restore networks."""
        return await asyncio.to_thread(self._adopt)

    async def stats(self, container: str) -> cgroups.Usage:
        """Memory, CPU and processes that a container uses."""
        return await asyncio.to_thread(cgroups.usage, self._record(container).cgroup)

    async def watch(self) -> AsyncIterator[int]:
        """Keep the watchdog alive: yields its pid whenever one was started; runs until closed."""
        while True:
            pid = await asyncio.to_thread(self.watchdog.ensure)
            yield pid
            await _process_gone(pid, None)

    async def cleanup(self, keep: set[str] | None = None) -> Names:
        """Remove what no container in `keep` owns: all leftovers of this node; `keep=None` keeps complete containers.

        Returns:
            Names of the containers that were removed.
        """
        return await asyncio.to_thread(self._cleanup, keep)

    async def destroy(self) -> None:
        """Remove everything of this node from the host except its volumes and logs of removed containers: for good."""
        await asyncio.to_thread(self._cleanup, set())
        await asyncio.to_thread(self._destroy)

    # In threads

    def _create(self, spec: ContainerSpec) -> Container:
        places = self.places.of(spec.id)
        if places.record.exists():
            raise InvalidInputError(f"container {spec.id} exists", code="container_exists", hint="remove it first")
        self._remove(spec.id)  # whatever an earlier crash left under this name
        timings = Timings()
        began = time.perf_counter()
        places.home.mkdir(mode=0o700)
        places.exit_dir.mkdir(mode=0o700)
        base_id = self.ids.base(spec.tenant)
        record = Record(
            id=spec.id,
            tenant=spec.tenant,
            deployment=spec.deployment,
            image_path=spec.image_path,
            term=spec.term,
            base_id=base_id,
            cgroup=places.cgroup,
            boot_id=self._boot_id,
            stop_signal=spec.stop_signal,
            log_bytes=spec.log_bytes,
            volumes=[volume.name for volume in spec.volumes],
        )
        try:
            self._save(record)
            self._bundles.build(spec, base_id, timings)
            record.address = self.networks.address_of(spec.id) or ""
            timings.measure("create", lambda: self._launch(record))
            record.complete = True
            self._save(record)
        except BaseException:
            self._remove(spec.id)
            raise
        timings["total"] = time.perf_counter() - began
        self.timings = timings
        return self._observe(record)

    def _launch(self, record: Record) -> None:
        places = self.places.of(record.id)
        for file in (places.exit_file, places.fenced, places.bundle / "oom"):
            file.unlink(missing_ok=True)
        shim = conmon.Shim(
            container=record.id,
            bundle=places.bundle,
            runtime_root=self.places.engine_root,
            exit_dir=places.exit_dir,
            log_file=places.log,
            log_bytes=record.log_bytes,
            cgroup=places.shim_cgroup,
        )
        record.pid = conmon.launch(self.engine, shim)
        record.pid_started = conmon.start_time(record.pid)
        record.conmon_pid = int(shim.conmon_pid_file.read_text())
        record.conmon_started = conmon.start_time(record.conmon_pid)
        record.started_ms, record.stop_asked, record.exit = 0, False, None

    def _start(self, container: str) -> Container:
        record = self._record(container)
        status = self._status(record)
        if status is Status.RUNNING:
            return show(record, status)
        if self.fence.has_passed(container):
            raise RefusedError(f"the fence of {container} has passed", code="fence_passed", hint="renew it first")
        if self.fence.deadline(container) is not None and not self.watchdog.is_healthy():
            self.watchdog.ensure()
        if status is Status.EXITED:
            self._settle(record)
            self._clear_engine(container)
            if record.boot_id != self._boot_id or not (self.places.of(container).bundle / "config.json").exists():
                raise FreeholdError(
                    f"the files of {container} went with the host's reboot", code="needs_create", hint="create it again"
                )
            self._launch(record)
        record.started_ms, record.starts = boottime_ms(), record.starts + 1
        self._save(record)
        self.term_log.append("started", container, record.term, record.started_ms)
        try:
            conmon.run_engine(self.engine, self.places.engine_root, "start", container)
        except FreeholdError as error:
            cgroups.kill_all(record.cgroup)
            record.exit = Exit(reason=ExitReason.START_FAILED, boottime_ms=boottime_ms(), message=error.message)
            self._save(record)
            self.term_log.append("stopped", container, record.term)
            raise
        return self._observe(record)

    def _observe(self, record: Record) -> Container:
        status = self._status(record)
        return self._settle(record) if status is Status.EXITED else show(record, status)

    def _status(self, record: Record) -> Status:
        if not record.complete:
            return Status.BROKEN
        if record.boot_id != self._boot_id or self.places.of(record.id).exit_file.exists():
            return Status.EXITED
        shim = conmon.is_alive(record.conmon_pid, record.conmon_started)
        if not shim and not conmon.is_alive(record.pid, record.pid_started):
            return Status.EXITED
        waiting = (self.places.engine_root / record.id / "exec.fifo").exists()
        return Status.CREATED if record.started_ms == 0 or waiting else Status.RUNNING

    def _settle(self, record: Record) -> Container:
        """Write down, once, how a container ended."""
        if record.exit is None and self._status(record) is Status.EXITED:
            record.exit = self._exit_of(record)
            if record.started_ms and record.exit.reason is not ExitReason.FENCED:
                self.term_log.append("stopped", record.id, record.term, record.exit.boottime_ms)
            cgroups.kill_all(record.cgroup)
            self._save(record)
        return show(record, self._status(record))

    def _exit_of(self, record: Record) -> Exit:
        places, now = self.places.of(record.id), boottime_ms()
        if record.boot_id != self._boot_id:
            return Exit(reason=ExitReason.HOST_REBOOT, boottime_ms=0)
        try:
            code = int(places.exit_file.read_text())
            age_ms = max(0, int((time.time() - places.exit_file.stat().st_mtime) * 1_000))
        except (FileNotFoundError, ValueError):
            return Exit(reason=ExitReason.SHIM_LOST, boottime_ms=now)
        at_ms = max(now - age_ms, record.started_ms)
        deadline = self.fence.deadline(record.id)
        passed = deadline is not None and deadline <= at_ms and code == 128 + signal.SIGKILL
        kills = max(cgroups.usage(record.cgroup).oom_kills, int((places.bundle / "oom").exists()))
        return explain_exit(
            code,
            stop_asked=record.stop_asked,
            fenced=places.fenced.exists() or (passed and not record.stop_asked),
            oom_kills=kills,
            at_ms=at_ms,
        )

    def _remove(self, container: str) -> None:
        places = self.places.of(container)
        record = self._load(container)
        cgroups.kill_all(places.cgroup)
        if record is not None:
            if record.complete and record.started_ms and record.exit is None:
                record.stop_asked = True
                _wait_blocking(record, _KILL_WAIT)
                self._settle(record)
            conmon.send_signal(record.conmon_pid, record.conmon_started, signal.SIGKILL)
        cgroups.kill_all(places.shim_cgroup)
        self._clear_engine(container)
        cgroups.remove(places.shim_cgroup)
        self.fence.lift(container)
        self._bundles.take_down(container)
        records = self._records()
        self._bundles.release(
            {record.image_path for record in records}, {name for record in records for name in record.volumes}
        )

    def _clear_engine(self, container: str) -> None:
        """What the runtime's `delete` does, without its 100 ms: all processes are dead, state and groups go."""
        places = self.places.of(container)
        cgroups.kill_all(places.cgroup)
        if places.engine_state.exists():
            for entry in places.engine_state.iterdir():
                entry.unlink(missing_ok=True)
            places.engine_state.rmdir()
        cgroups.remove(places.cgroup)

    def _adopt(self) -> Containers:
        cgroup_folder = cgroups.main_folder(self.places.cgroup)
        cgroup_folder.mkdir(exist_ok=True)
        self.watchdog.ensure()
        self.networks.restore()
        found = []
        for record in self._records():
            shim = conmon.is_alive(record.conmon_pid, record.conmon_started)
            if record.complete and not shim and record.boot_id == self._boot_id:
                cgroups.kill_all(record.cgroup)
            found.append(self._observe(record))
        return found

    def _cleanup(self, keep: set[str] | None) -> Names:
        records = {record.id: record for record in self._records()}
        if keep is None:
            keep = {name for name, record in records.items() if record.complete}
        names = set(records) | {path.name for path in (self.places.run / "c").iterdir()}
        names |= {path.name for path in (self.places.home / "containers").iterdir()}
        names |= {path.name for path in self.places.engine_root.iterdir()}
        names |= {name.removeprefix("shim-") for name in cgroups.list_groups(self.places.cgroup)}
        removed = sorted(names - keep)
        for name in removed:
            self._remove(name)
        for name in self.fence.containers() - keep:
            self.fence.lift(name)
        self.ids.release({record.tenant for name, record in records.items() if name in keep})
        return removed

    def _destroy(self) -> None:
        pid = self.watchdog.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.networks.clear()
        self.ids.clear()
        cgroups.remove(self.places.cgroup)
        mounts.unmount_tree(self.places.run)
        remove_tree(self.places.run)

    def _list(self) -> Containers:
        return [self._observe(record) for record in self._records()]

    def _records(self) -> Records:
        folder = self.places.home / "containers"
        names = sorted(path.name for path in folder.iterdir())
        return [record for name in names if (record := self._load(name)) is not None]

    def _load(self, container: str) -> Record | None:
        return load_json(self.places.of(container).record, Record)

    def _record(self, container: str) -> Record:
        record = self._load(container)
        if record is None:
            raise InvalidInputError(f"there is no container {container}", code="no_such_container")
        return record

    def _save(self, record: Record) -> None:
        save_json(self.places.of(record.id).record, record)


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


def _wait_blocking(record: Record, timeout: float) -> None:
    if record.conmon_pid <= 0:
        return
    try:
        fd = os.pidfd_open(record.conmon_pid)
    except ProcessLookupError:
        return
    try:
        if conmon.is_alive(record.conmon_pid, record.conmon_started):
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(timeout * 1_000)
    finally:
        os.close(fd)
