"""A local grid for tests, driven by the shipped command line alone, in processes of its own, and gone afterwards.

How to use it. Take the session's grid, which has 4 nodes on 4 farms, a wallet with 1,000 tokens and the image
`test-image:1` (see `oci_layout`: shell, coreutils, Python, a server on port 8080 that runs what is posted to it):

    pytestmark = pytest.mark.root

    def test_it(local_grid: LocalGrid) -> None:
        local_grid.deploy('''
    name: hello
    services:
      web: {image: "test-image:1", ports: ["8080"], x-freehold: {standbys: 0}}
    ''')
        assert local_grid.http_get("hello/web", 8080) == "hello from web\n"
        assert local_grid.python("hello/web", "import os; print(os.getpid())") == "1\n"
        local_grid.end("hello")

Give deployments names of your own, end them, and leave every node running. A test that kills nodes or wants other
counts takes a grid of its own: `with LocalGrid(nodes=8, farms=4) as grid: ...`, or the fixture `own_grid`.

Everything of a grid lies below one folder, held by a lock for as long as the test's process lives: what a killed test
run left is removed when the next grid is made. `close` fails when anything of the grid is left on the machine.
"""

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from freehold.runtime import cgroups, mounts
from freehold.runtime.places import RUN_ROOT, Places

ROOT = Path(tempfile.gettempdir()) / "freehold-e2e"
IMAGE = "test-image:1"
POLL_S = 0.1
COMMAND_S = 150.0
PASSPHRASE = "correct horse battery"

T = TypeVar("T")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Done:
    """A command that ended. `document` is what stood on stdout, when it was one JSON document."""

    arguments: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document; fails when stdout holds anything else."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict), self
        return found

    @property
    def error(self) -> dict[str, str]:
        """The error that the document tells."""
        return dict(self.document["error"])


@dataclass
class LocalGrid:
    """See the module. `close`, or the end of `with`, takes the grid down and checks that nothing is left."""

    nodes: int = 4
    farms: int = 4
    preset: str = "minimal"
    validators: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    forwards: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert os.geteuid() == 0, "tests marked `root` need root"
        ROOT.mkdir(mode=0o700, exist_ok=True)
        sweep()
        self.folder = ROOT / f"{os.getpid()}-{next(_numbers)}"
        self.folder.mkdir(mode=0o700)
        self._lock = _hold(self.folder)
        self.home = self.folder / "home"
        self.passphrase_file = self.folder / "passphrase"
        self.passphrase_file.write_text(PASSPHRASE)
        self._marks = Marks(self.folder)

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Commands

    def run(self, *arguments: str, timeout: float = COMMAND_S, **environment: str) -> Done:
        """Run `freehold ARGUMENTS`, whatever comes of it. A keyword sets or (empty) unsets a variable."""
        command = [sys.executable, "-m", "freehold.cli.main", *arguments]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=self.folder,
            env=self.variables(**environment),
        )
        return Done(arguments, done.returncode, done.stdout, done.stderr)

    def variables(self, **environment: str) -> dict[str, str]:
        """The whole environment of a command."""
        names = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "FREEHOLD_HOME": str(self.home),
            "FREEHOLD_PASSPHRASE_FILE": str(self.passphrase_file),
            **self.environment,
            **environment,
        }
        return {name: value for name, value in names.items() if value}

    def cli(self, *arguments: str, expect: int = 0, timeout: float = COMMAND_S) -> dict[str, Any]:
        """Run `freehold ARGUMENTS --json`; fails unless it exits with `expect`. Returns its document."""
        done = self.run(*arguments, "--json", timeout=timeout)
        assert done.code == expect, f"exit {done.code}, not {expect}: {done}\n{self.last_logs()}"
        return done.document

    def refused(self, *arguments: str, expect: int) -> dict[str, str]:
        """Run a command that must fail with exit code `expect`; returns the error's code, message and hint."""
        return dict(self.cli(*arguments, expect=expect)["error"])

    # The grid

    def up(self) -> dict[str, Any]:
        """Start the grid, or what is missing of it."""
        counts = ["--nodes", str(self.nodes), "--farms", str(self.farms), "--preset", self.preset]
        counts += ["--validators", str(self.validators)]
        document = self.cli("grid", "up", *counts)
        self._marks.learn(document)
        return document

    def down(self) -> None:
        """Stop and remove the grid."""
        for service, port in list(self.forwards):
            self.disconnect(service, port)
        self.cli("grid", "down")

    def close(self) -> None:
        """Take everything down, whatever happened before, and check that nothing is left."""
        try:
            for service, port in list(self.forwards):
                self.run("connect", service, str(port), "--stop", timeout=30)
            self._keep_logs()
            done = self.run("grid", "down", "--json")
            assert done.code == 0, done
            left = self.leftovers()
            self._kill_strays()
        finally:
            self._marks.sweep()
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lock)
        assert left == [], left

    def _keep_logs(self) -> None:
        """Before anything is removed: copy all daemons' logs to the folder that FREEHOLD_E2E_LOGS names, if it does."""
        named = os.environ.get("FREEHOLD_E2E_LOGS")
        for path in self.home.glob("grid/**/daemon.log") if named else ():
            target = Path(str(named)) / self.folder.name / path.relative_to(self.home / "grid")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)

    def assert_no_leftovers(self) -> None:
        """Fails when a process, mount, namespace, link, rule, group or loop device of this grid is left."""
        left = self.leftovers()
        assert left == [], left

    def leftovers(self) -> list[str]:
        """What of this grid is still on the machine."""
        return self._marks.leftovers()

    def _kill_strays(self) -> None:
        for pid in processes_naming(str(self.folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def node_status(self) -> dict[str, dict[str, Any]]:
        """`grid status`: what runs, by node name."""
        return {node["name"]: node for node in self.cli("grid", "status")["nodes"]}

    def node_home(self, name: str) -> Path:
        """A node's own folder."""
        return self.home / "grid/nodes" / name

    def namespace_path(self, name: str) -> Path:
        """A node's network namespace, as nsenter takes it."""
        return Path("/run/netns") / str(self._marks.namespaces[name])

    def in_namespace(self, name: str, *command: str) -> str:
        """Run a program in a node's network namespace; returns what it wrote."""
        enter = ["nsenter", f"--net={self.namespace_path(name)}", "--"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=True).stdout

    def agent_pid(self, name: str) -> int:
        """The pid of a node's agent; 0 when it does not run."""
        return int(self.node_status()[name]["pid"])

    def kill_agent(self, name: str) -> int:
        """SIGKILL to a node's agent alone; its containers go on. Returns the pid that it had."""
        pid = self.agent_pid(name)
        assert pid, f"{name} has no agent"
        os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: not _lives(pid), 5)
        return pid

    def kill_node(self, name: str) -> None:
        """SIGKILL to a node's agent and to every process of its containers."""
        self.cli("grid", "kill", name)

    def start_agent(self, name: str) -> int:
        """Start a node's agent again; returns its pid."""
        return int(self.cli("grid", "start", name)["pid"])

    def term_log(self, name: str) -> list[dict[str, Any]]:
        """Starts and stops of a node's containers: event, container, term, boot time in ms."""
        path = self.node_home(name) / "data/runtime/term.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def agent_log(self, name: str) -> list[dict[str, Any]]:
        """What a node's agent logged."""
        lines = (self.node_home(name) / "daemon.log").read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def last_logs(self, lines: int = 8) -> str:
        """The end of every daemon's log, for a failure's message."""
        logs = sorted(self.home.glob("grid/*/daemon.log")) + sorted(self.home.glob("grid/*/*/daemon.log"))
        return "\n".join(
            "\n".join([f"== {path}", *path.read_text(errors="replace").splitlines()[-lines:]]) for path in logs
        )

    # Money and images

    def wallet(self) -> dict[str, Any]:
        """Make the tenant's wallet; the faucet gives it 1,000 tokens."""
        return self.cli("wallet", "new")

    def balance(self) -> dict[str, Any]:
        """The tenant's balance: `balance`, `spendable` and more."""
        return self.cli("wallet", "balance")

    def import_image(self, path: Path, name: str = IMAGE) -> dict[str, Any]:
        """Import an image."""
        return self.cli("image", "import", str(path), "--name", name)

    # Deployments

    def write_app(self, text: str, files: Mapping[str, str | bytes] | None = None) -> Path:
        """Write a compose file into a folder of its own, with files beside it."""
        folder = self.folder / "apps" / str(next(_numbers))
        folder.mkdir(parents=True)
        for name, content in {"compose.yaml": text, **(files or {})}.items():
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder / "compose.yaml"

    def deploy(self, text: str, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """Write a compose file and deploy it."""
        return self.cli("deploy", str(self.write_app(text)), *arguments, expect=expect)

    def services(self) -> dict[str, dict[str, Any]]:
        """`ps`: every service, by name."""
        return {service["service"]: service for service in self.cli("ps")["services"]}

    def service(self, name: str) -> dict[str, Any]:
        """One service as `ps` has it."""
        return self.services()[name]

    def node_of(self, service: str) -> str:
        """The name of the node that holds a service."""
        holder = self.service(service)["node"]
        return next(name for name, node in self.node_status().items() if node["node"] == holder)

    def members_of(self, service: str) -> list[str]:
        """The names of the nodes of a service's lease, the first primary first."""
        names = {node["node"]: name for name, node in self.node_status().items()}
        return [names[member["node"]] for member in self.service(service)["members"]]

    def logs(self, service: str, tail: int = 100) -> list[str]:
        """A service's log."""
        return list(self.cli("logs", service, "--tail", str(tail))["lines"])

    @contextlib.contextmanager
    def following(self, service: str) -> Iterator[Path]:
        """`logs --follow` in the background; gives the file that its output goes to, which stays afterwards."""
        path = self.folder / f"followed-{next(_numbers)}"
        command = [sys.executable, "-m", "freehold.cli.main", "logs", service, "--follow"]
        with path.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, env=self.variables())
        try:
            yield path
        finally:
            process.terminate()
            process.wait(10)

    def end(self, deployment: str, timeout: float = 30) -> None:
        """End a deployment and wait until its containers are gone."""
        leases = {service["lease"] for name, service in self.services().items() if name.startswith(f"{deployment}/")}
        self.cli("down", deployment)
        for key in [known for known in self.forwards if known[0].startswith(f"{deployment}/")]:
            self.disconnect(*key)
        self.wait_for(lambda: not self.containers() & leases, timeout)

    def containers(self) -> set[str]:
        """The containers of all nodes, named by lease."""
        return {path.name for path in self.home.glob("grid/nodes/*/data/runtime/containers/*")}

    # Reaching services

    def connect(self, service: str, port: int) -> str:
        """The local address at which a service's port is forwarded, in the background, until `end` or `close`."""
        key = (service, port)
        if key not in self.forwards:
            document = self.cli("connect", service, str(port), "--detach", "--local", "0")
            self.forwards[key] = str(document["address"])
        return self.forwards[key]

    def disconnect(self, service: str, port: int) -> None:
        """Stop a forward."""
        self.forwards.pop((service, port))
        self.cli("connect", service, str(port), "--stop")

    def http_get(self, service: str, port: int, path: str = "/", timeout: float = 10) -> str:
        """GET from a service through `connect`."""
        return self._http(service, port, path, None, timeout)

    def python(self, service: str, code: str, port: int = 8080, timeout: float = 30) -> str:
        """Run Python code in a container of the test image, in its first process; returns what it printed."""
        return self._http(service, port, "/python", code.encode(), timeout)

    def _http(self, service: str, port: int, path: str, body: bytes | None, timeout: float) -> str:
        url = f"http://{self.connect(service, port)}{path}"
        try:
            with urllib.request.urlopen(url, data=body, timeout=timeout) as answer:
                return str(answer.read().decode())
        except urllib.request.HTTPError as error:
            raise AssertionError(f"{url} answered {error.code}: {error.read().decode()}") from None

    # Waiting

    def wait_for(self, condition: Callable[[], T], timeout: float = 30, poll: float = POLL_S) -> T:
        """Ask until the answer is true; returns it. Fails after `timeout` seconds with the ends of all logs."""
        deadline = time.monotonic() + timeout
        while not (answer := condition()):
            assert time.monotonic() < deadline, f"not within {timeout} s; last {answer!r}\n{self.last_logs()}"
            time.sleep(poll)
        return answer


class Marks:
    """The names under which a grid is known on the machine; learned while it is up, looked for afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.namespaces: dict[str, str] = {}
        self.places: dict[str, Places] = {}
        self.tag = ""

    def learn(self, status: dict[str, Any]) -> None:
        """Take the names out of `grid up`'s document."""
        for node in status["nodes"]:
            self.namespaces[node["name"]] = node["namespace"]
            self.places[node["name"]] = Places(Path(node["home"]) / "data/runtime", node["node"][:16])
            self.tag = node["namespace"].partition("-")[0]
        for validator in status["ledger"]["validators"]:
            self.namespaces[validator["name"]] = validator["namespace"]

    def leftovers(self) -> list[str]:
        """Everything that still bears one of the names."""
        found = list(self._processes()) + list(self._files()) + list(self._loops())
        if self.tag:
            links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
            found += [f"link {line.split()[1]}" for line in links.splitlines() if f" {self.tag}" in line]
            tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
            table = f"freehold_{self.tag.removeprefix('fh')}"
            found += [f"rules {line}" for line in tables.splitlines() if line.endswith(table)]
        return found

    def _processes(self) -> Iterator[str]:
        names = [str(self.folder), *(place.prefix for place in self.places.values())]
        for name in names:
            for pid in processes_naming(name):
                yield f"process {pid}: {_command(pid)}"

    def _files(self) -> Iterator[str]:
        paths = [f"/run/netns/{name}" for name in self.namespaces.values()]
        yield from (f"namespace {path}" for path in paths if Path(path).exists())
        yield from (f"mount {path}" for path in mounts.mounted_under(self.folder))
        for place in self.places.values():
            yield from (f"mount {path}" for path in mounts.mounted_under(place.run))
            yield from (f"folder {path}" for path in (place.run,) if path.exists())
            group = place.cgroup.lstrip("/")
            yield from (f"group {path}" for path in [*cgroups.ROOT.glob(f"*/{group}"), *cgroups.ROOT.glob(group)])
        for path in (RUN_ROOT / "ids").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.read_text().startswith(str(self.folder)):
                    yield f"claim {path}"

    def _loops(self) -> Iterator[str]:
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):
                if str(self.folder) in path.read_text():
                    yield f"loop {path}"

    def sweep(self) -> None:
        """Unmount what is left below the grid's folder, so that removing it touches nothing else."""
        for path in sorted(mounts.mounted_under(self.folder), reverse=True):
            subprocess.run(["umount", "-l", str(path)], check=False)


def sweep() -> None:
    """Remove the grids of test runs that were killed: their folder's lock is free."""
    for folder in sorted(ROOT.iterdir()):
        try:
            lock = _hold(folder)
        except OSError:
            continue
        try:
            command = [sys.executable, "-m", "freehold.cli.main", "grid", "down", "--home", str(folder / "home/grid")]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
            assert done.returncode == 0, f"{folder} of an earlier run cannot be removed: {done.stderr}"
            for pid in processes_naming(str(folder)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(folder)
        finally:
            os.close(lock)


def processes_naming(text: str) -> list[int]:
    """Processes whose command line, environment or control group names `text`, but for this one."""
    wanted, found = text.encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(wanted in (path / name).read_bytes() for name in ("cmdline", "environ", "cgroup")):
                found.append(pid)
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return "gone"


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def _hold(folder: Path) -> int:
    """Lock a grid's folder for as long as this process lives.

    Raises:
        OSError: another process holds it, or it is no folder.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock
