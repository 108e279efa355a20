"""One node's containers, step by step and blocking; `freehold.runtime.containers` runs this in threads.

Invariants: what a container is stands on disk before anything is made for it; every name on the host derives from
the node's prefix and the container's id; so after a crash at any instruction `adopt` finds what runs and `cleanup`
removes what does not belong. Each container's conmon outlives the agent and keeps its output and exit status.
"""

import contextlib
import os
import select
import signal
import threading
import time
from pathlib import Path

from freehold.base.errors import FreeholdError, InvalidInputError, RefusedError
from freehold.runtime import cgroups, conmon, mounts
from freehold.runtime.atomic import load_json, save_json
from freehold.runtime.bundle import BundleBuilder, Timings, mount_run_folder, remove_tree
from freehold.runtime.engine import Engine, detect_engine
from freehold.runtime.fence import Fence, TermLog, WatchdogProcess
from freehold.runtime.idranges import IdRanges
from freehold.runtime.logs import keep_previous
from freehold.runtime.network import Networks
from freehold.runtime.places import RUN_ROOT, Places
from freehold.runtime.records import Container, Exit, ExitReason, Record, Status, boot_id, explain_exit, show
from freehold.runtime.spec import ContainerSpec
from freehold.runtime.volumes import VolumeStore
from freehold.runtime.watchdog import boottime_ms

KILL_WAIT = 10.0


class Lifecycle:
    """Makes, starts, observes and removes containers; one call at a time for each container."""

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
        self._boot_id = boot_id()
        self._creating: set[str] = set()
        self._settling = threading.Lock()

    def create(self, spec: ContainerSpec) -> Container:
        """Make a container, ready to start; on failure nothing of it stays."""
        places = self.places.of(spec.id)
        if places.record.exists():
            raise InvalidInputError(f"container {spec.id} exists", code="container_exists", hint="remove it first")
        self._creating.add(spec.id)
        try:
            self._take_apart(spec.id)  # whatever an earlier crash left under this name; not the fence
            return self._make(spec)
        finally:
            self._creating.discard(spec.id)

    def _make(self, spec: ContainerSpec) -> Container:
        places, timings = self.places.of(spec.id), Timings()
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
            self.save(record)
            self._bundles.build(spec, base_id, timings)
            record.address = self.networks.reserve(spec.id, spec.deployment)
            self._launch(record, timings)
            record.complete = True
            self.save(record)
        except BaseException:
            self._take_apart(spec.id)
            raise
        timings["total"] = time.perf_counter() - began
        self.timings = timings
        return self.observe(record)

    def _launch(self, record: Record, timings: Timings) -> None:
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
        timings.measure("create", lambda: self._launch_shim(record, shim))
        timings.measure("network", lambda: self.networks.attach(record.id, record.deployment, record.pid))

    def _launch_shim(self, record: Record, shim: conmon.Shim) -> None:
        record.pid = conmon.launch(self.engine, shim)
        record.pid_started = conmon.start_time(record.pid)
        record.conmon_pid = int(shim.conmon_pid_file.read_text())
        record.conmon_started = conmon.start_time(record.conmon_pid)
        record.started_ms, record.stop_asked, record.exit = 0, False, None

    def start(self, container: str) -> Container:
        """Start a container that was created or has ended."""
        record = self.record(container)
        status = self.status(record)
        if status is Status.RUNNING:
            return show(record, status)
        if self.fence.has_passed(container):
            raise RefusedError(f"the fence of {container} has passed", code="fence_passed", hint="renew it first")
        if self.fence.deadline(container) is not None and not self.watchdog.is_healthy():
            self.watchdog.ensure()
        if status is Status.EXITED:
            self.settle(record)
            self._clear_engine(container)
            if record.boot_id != self._boot_id or not (self.places.of(container).bundle / "config.json").exists():
                raise FreeholdError(
                    f"the files of {container} went with the host's reboot", code="needs_create", hint="create it again"
                )
            self._launch(record, Timings())
        record.started_ms, record.starts = boottime_ms(), record.starts + 1
        self.save(record)
        self.term_log.append("started", container, record.term, record.started_ms)
        try:
            conmon.start(self.engine, self.places.engine_root, container)
        except FreeholdError as error:
            cgroups.kill_all(record.cgroup)
            record.exit = Exit(reason=ExitReason.START_FAILED, boottime_ms=boottime_ms(), message=error.message)
            self.save(record)
            self.term_log.append("stopped", container, record.term)
            raise
        return self.observe(record)

    def observe(self, record: Record) -> Container:
        """A container as it stands; writes down how it ended when that is new."""
        keep_previous(self.places.of(record.id).log)
        status = self.status(record)
        return self.settle(record) if status is Status.EXITED else show(record, status)

    def status(self, record: Record) -> Status:
        """Where a container stands, from its files and the kernel alone."""
        if not record.complete:
            return Status.CREATING if record.id in self._creating else Status.BROKEN
        if record.boot_id != self._boot_id or self.places.of(record.id).exit_file.exists():
            return Status.EXITED
        shim = conmon.is_alive(record.conmon_pid, record.conmon_started)
        if not shim and not conmon.is_alive(record.pid, record.pid_started):
            return Status.EXITED
        waiting = (self.places.engine_root / record.id / "exec.fifo").exists()
        return Status.CREATED if record.started_ms == 0 or waiting else Status.RUNNING

    def settle(self, record: Record) -> Container:
        """Write down, once, how a container ended."""
        with self._settling:
            record = self._load(record.id) or record  # another thread may have settled it, or asked it to stop
            return self._settle(record)

    def _settle(self, record: Record) -> Container:
        if record.exit is None and self.status(record) is Status.EXITED:
            record.exit = self._exit_of(record)
            if record.started_ms and record.exit.reason is not ExitReason.FENCED:
                self.term_log.append("stopped", record.id, record.term, record.exit.boottime_ms)
            cgroups.kill_all(record.cgroup)
            self.save(record)
        return show(record, self.status(record))

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

    def remove(self, container: str) -> None:
        """Kill a container and remove all of it except volumes; idempotent."""
        self._take_apart(container)
        self.fence.lift(container)

    def _take_apart(self, container: str) -> None:
        places = self.places.of(container)
        record = self._load(container)
        cgroups.kill_all(places.cgroup)
        if record is not None:
            if record.complete and record.started_ms and record.exit is None:
                record.stop_asked = True
                _wait_blocking(record, KILL_WAIT)
                self.settle(record)
            conmon.send_signal(record.conmon_pid, record.conmon_started, signal.SIGKILL)
        cgroups.kill_all(places.shim_cgroup)
        self._clear_engine(container)
        cgroups.remove(places.shim_cgroup)
        self._bundles.take_down(container)
        self._bundles.release(self._records)

    def _clear_engine(self, container: str) -> None:
        """What the runtime's `delete` does, without its 100 ms: all processes are dead, state and groups go."""
        places = self.places.of(container)
        cgroups.kill_all(places.cgroup)
        if places.engine_state.exists():
            for entry in places.engine_state.iterdir():
                entry.unlink(missing_ok=True)
            places.engine_state.rmdir()
        cgroups.remove(places.cgroup)

    def adopt(self) -> list[Container]:
        """Take over after a start of the agent; see `ContainerRuntime.adopt`."""
        cgroup_folder = cgroups.main_folder(self.places.cgroup)
        cgroup_folder.mkdir(exist_ok=True)
        self.watchdog.ensure()
        self.networks.restore()
        found = []
        for record in self._records():
            self.end_lost(record)
            found.append(self.observe(record))
        return found

    def end_lost(self, record: Record) -> None:
        """Kill a container whose conmon is gone: nobody would keep its output and its exit status."""
        if (
            record.complete
            and record.boot_id == self._boot_id
            and not conmon.is_alive(record.conmon_pid, record.conmon_started)
        ):
            cgroups.kill_all(record.cgroup)

    def cleanup(self, keep: set[str] | None) -> list[str]:
        """Remove everything that no container in `keep` owns; see `ContainerRuntime.cleanup`."""
        records = {record.id: record for record in self._records()}
        if keep is None:
            keep = {name for name, record in records.items() if record.complete}
        keep = keep | self._creating
        names = set(records) | {path.name for path in (self.places.run / "c").iterdir()}
        names |= {path.name for path in (self.places.home / "containers").iterdir()}
        names |= {path.name for path in self.places.engine_root.iterdir()} | self.networks.containers()
        names |= {name.removeprefix("shim-") for name in cgroups.list_groups(self.places.cgroup)}
        removed = sorted(names - keep)
        for name in removed:
            self.remove(name)
        self._bundles.release(self._records)  # a crash may have come between the last container's end and this
        for name in self.fence.containers() - keep:
            self.fence.lift(name)
        self.ids.release({record.tenant for name, record in records.items() if name in keep})
        return removed

    def destroy(self) -> None:
        """Remove links, rules, groups, mounts, claims and the watchdog of this node."""
        pid = self.watchdog.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.networks.clear()
        self.ids.clear()
        cgroups.remove(self.places.cgroup)
        mounts.unmount_tree(self.places.run)
        remove_tree(self.places.run)

    def observe_all(self) -> list[Container]:
        """All containers as they stand."""
        return [self.observe(record) for record in self._records()]

    def _records(self) -> list[Record]:
        folder = self.places.home / "containers"
        names = sorted(path.name for path in folder.iterdir())
        return [record for name in names if (record := self._load(name)) is not None]

    def _load(self, container: str) -> Record | None:
        return load_json(self.places.of(container).record, Record)

    def record(self, container: str) -> Record:
        """A container's record.

        Raises:
            InvalidInputError: there is none (`no_such_container`).
        """
        record = self._load(container)
        if record is None:
            raise InvalidInputError(f"there is no container {container}", code="no_such_container")
        return record

    def save(self, record: Record) -> None:
        """Write a record to disk."""
        save_json(self.places.of(record.id).record, record)


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
