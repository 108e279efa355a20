"""A validator whose whole clock is off: libfaketime for the daemon, and for its static engine a second build.

The second build is the pinned module's source with one change: `Now` of types/time, from which consensus takes every
time, adds the milliseconds in `SHIFT_FILE`. `variant_daemon.py clock` runs it in place of the installed engine.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from freehold.consensus.comet import install, pins

NOW = "return Canonical(time.Now())"
IMPORTS = 'import (\n\t"sort"\n'
SHIFT = """
func shift() time.Duration {
	text, err := os.ReadFile(os.Getenv("SHIFT_FILE"))
	if err != nil {
		panic(err)
	}
	ms, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		panic(err)
	}
	return time.Duration(ms) * time.Millisecond
}
"""


def build_shifted_engine(folder: Path) -> Path:
    """Build it from the copy of the source that the installed engine was built from; gives the program."""
    go = find_go()
    cache = subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    source = folder / "source"
    shutil.copytree(Path(cache) / f"{pins.MODULE}@{pins.VERSION}", source)
    for path in (source, *source.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    clock = source / "types/time/time.go"
    text = clock.read_text()
    assert text.count(NOW) == 1 and text.count(IMPORTS) == 1
    text = text.replace(NOW, NOW.replace("time.Now()", "time.Now().Add(shift())"))
    clock.write_text(text.replace(IMPORTS, 'import (\n\t"os"\n\t"sort"\n\t"strconv"\n') + SHIFT)
    program = folder / install.PROGRAM
    settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "GOPROXY": "off"}
    subprocess.run(
        [go, "build", "-o", str(program), "./cmd/cometbft"], cwd=source, env={**os.environ, **settings}, check=True
    )
    return program


def find_go() -> str:
    """The Go that the engine's installation would take: the machine's, or the one that it fetched."""
    fetched = [str(path) for path in install.engine_folder().glob("toolchain/**/bin/go")]
    for go in ("go", *fetched):
        version = install.go_version(go)
        if version is not None and version >= pins.MIN_GO:
            return go
    raise AssertionError("no Go: run `freehold ledger install`")


class Shift:
    """How far the clock of a `variant_daemon.py clock` is off; its waits are not. It may be set while it runs."""

    def __init__(self, folder: Path, shift_ms: int) -> None:
        self._engine, self._daemon = folder / "shift_ms", folder / "faketimerc"
        self.set(shift_ms)

    def set(self, shift_ms: int) -> None:
        """Take effect within a second; each file is replaced as a whole."""
        for path, text in ((self._engine, f"{shift_ms}"), (self._daemon, f"{shift_ms / 1_000:+.3f}s\n")):
            new = path.with_suffix(".new")
            new.write_text(text)
            new.rename(path)

    def environment(self, engine: Path) -> dict[str, str]:
        """Of the daemon."""
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        assert library is not None, "libfaketime is missing: run `make test-long`, or scripts/install-system.sh --all"
        return {
            "ENGINE": str(engine),
            "SHIFT_FILE": str(self._engine),
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._daemon),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


def remove_shared(pids: Iterable[int]) -> None:
    """Remove what libfaketime shares between a daemon and its children, and leaves behind when they are killed."""
    for pid in pids:
        for path in Path("/dev/shm").glob(f"*faketime_*_{pid}"):
            path.unlink(missing_ok=True)
