"""The demo's images, built from Debian packages: one base, then the front and the database side by side over it.

Each image is an OCI layout of three layers (base, packages, app), made by mmdebstrap and umoci from the machine's own
apt sources. A build works in a folder of its own and is renamed into the cache when whole, so an interrupted one
leaves nothing half; the folder's name is a hash of everything that goes in. mmdebstrap runs in namespaces of its own:
its mounts and processes end with it.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from freehold.base.errors import FreeholdError
from freehold.demo.image_layers import NEWEST_SECONDS, prune, write_layer
from freehold.demo.image_recipes import BASE_PACKAGES, DB, RECIPE, WEB, Recipe
from freehold.demo.image_sources import AptSource, debian_sources

TAG = "1"
CREATED = "2023-06-10T00:00:00Z"
STEP_SECONDS = 600
HOOKS = Path("/usr/share/mmdebstrap/hooks/merged-usr")

Report = Callable[[str], None]


@dataclass(frozen=True)
class DemoImages:
    """OCI layouts, each with one image, for `freehold image import`; names as the compose file has them."""

    web: Path
    db: Path

    @property
    def names(self) -> dict[str, Path]:
        """Layout by image name."""
        return {"guestbook-web:1": self.web, "guestbook-db:1": self.db}


async def build_images(example: Path, cache: Path, report: Report) -> DemoImages:
    """Return the demo's images, building them first when the cache does not hold them.

    Args:
        example: the folder examples/guestbook.
        cache: a folder for images and downloaded packages; may be removed at any time between builds.
        report: called with one line at a time about what happens.

    Raises:
        FreeholdError: no apt sources, no network, no root, a tool is missing or failed, the disk is full.
    """
    sources, suite = await asyncio.to_thread(_machine_sources)
    key = _key(example, sources, suite)
    done = cache / f"images-{key}"
    images = DemoImages(done / "web", done / "db")
    if done.is_dir():
        report("images: as built before")
        return images
    if os.geteuid() != 0:
        raise FreeholdError("building images needs root", code="not_root", hint="run the demo as root")
    async with _locked(cache, report):
        if not done.is_dir():
            builder = _Builder(example, cache, sources, suite, report)
            try:
                await builder.build()
                builder.work.joinpath("done").rename(done)
            finally:
                await asyncio.to_thread(shutil.rmtree, builder.work, ignore_errors=True)
    return images


class _Builder:
    def __init__(self, example: Path, cache: Path, sources: tuple[AptSource, ...], suite: str, report: Report) -> None:
        self.example = example
        self.cache = cache
        self.sources = sources
        self.suite = suite
        self.report = report
        self.work = cache / "work"

    async def build(self) -> None:
        """Make `work/done` with both layouts."""
        await asyncio.to_thread(shutil.rmtree, self.work, ignore_errors=True)
        (self.work / "done").mkdir(parents=True)
        (self.work / "sources.list").write_text("".join(f"{source.line}\n" for source in self.sources))
        (self.cache / "packages").mkdir(exist_ok=True)
        self.report(f"base: Debian {self.suite}, from {len(self.sources)} apt sources of this machine")
        base = await self.unpack("base", ())
        await asyncio.to_thread(_finish_base, base)
        tar = self.work / "base.tar"
        await asyncio.to_thread(write_layer, base, tar)
        layout = self.work / "layout"
        await self.umoci("base", "init", "--layout", layout)
        await self.umoci("base", "new", "--image", f"{layout}:{TAG}")
        await self.add_layer("base", layout, tar, "Debian packages of the base")
        try:
            async with asyncio.TaskGroup() as group:
                for recipe in (WEB, DB):
                    group.create_task(self.image(recipe, base, layout))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the other was cancelled, or says the same

    async def image(self, recipe: Recipe, base: Path, base_layout: Path) -> None:
        """Make one image over the base."""
        name = recipe.name
        root = await self.unpack(name, recipe.packages, recipe.pruned)
        await asyncio.to_thread(_finish_base, root)
        if recipe.is_python:
            self.report(f"{name}: compiling Python's modules")
            folders = [f"/{path.relative_to(root)}" for path in sorted(root.glob("usr/lib/python3*"))]
            await self.run(name, *_ISOLATED, "chroot", root, *_COMPILE, *folders)
        packages, app = self.work / f"{name}-packages.tar", self.work / f"{name}-app.tar"
        await asyncio.to_thread(write_layer, root, packages, [base])
        full = self.work / f"{name}-full"
        await asyncio.to_thread(_add_app, recipe, self.example, root, full)
        await asyncio.to_thread(write_layer, full, app, [root])
        layout = self.work / "done" / name
        await asyncio.to_thread(shutil.copytree, base_layout, layout)
        await self.add_layer(name, layout, packages, "Debian packages: " + " ".join(recipe.packages))
        await self.add_layer(name, layout, app, "the guestbook's own files")
        user = f"--config.user={recipe.user[0]}"
        history = (f"--created={CREATED}", f"--history.created={CREATED}")
        await self.umoci(name, "config", "--image", f"{layout}:{TAG}", user, *history, *recipe.config)
        await self.umoci(name, "gc", "--layout", layout)
        self.report(f"{name}: ready, {_folder_mib(layout)} MiB")

    async def unpack(self, name: str, packages: tuple[str, ...], pruned: tuple[str, ...] = ()) -> Path:
        """Unpack the base's and further packages into a pruned root."""
        root = self.work / name
        # Hard links both ways: packages enter the cache whole or not at all, and apt checks their hashes anew.
        cache = shlex.quote(str(self.cache / "packages"))
        fill = (
            f'mkdir -p "$1"/var/cache/apt/archives; cp -lf {cache}/*.deb "$1"/var/cache/apt/archives/ 2>/dev/null || :'
        )
        keep = f'cp -lf "$1"/var/cache/apt/archives/*.deb {cache}/'
        await self.run(
            name,
            *_ISOLATED,
            "mmdebstrap",
            "--verbose",
            "--mode=root",
            "--variant=extract",
            "--format=directory",
            f"--hook-dir={HOOKS}",
            f"--setup-hook={fill}",
            f"--extract-hook={keep}",
            f"--include={','.join((*BASE_PACKAGES, *packages))}",
            self.suite,
            root,
            self.work / "sources.list",
        )
        await asyncio.to_thread(prune, root, pruned)
        return root

    async def add_layer(self, name: str, layout: Path, tar: Path, comment: str) -> None:
        """Append a plain tar to the layout's image."""
        history = (f"--history.created={CREATED}", f"--history.comment={comment}")
        await self.umoci(name, "raw", "add-layer", "--image", f"{layout}:{TAG}", *history, tar)
        tar.unlink()

    async def umoci(self, name: str, *arguments: str | Path) -> None:
        """Run umoci without a network."""
        await self.run(name, "setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--", "umoci", *arguments)

    async def run(self, name: str, *arguments: str | Path) -> None:
        """Run one tool and tell what a person wants to know of apt; it dies with all it started when cancelled."""
        lines: deque[str] = deque(maxlen=12)
        packages = ""
        try:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **_proxies()},
            )
        except FileNotFoundError:
            raise _missing_tool(str(arguments[0])) from None
        try:
            async with asyncio.timeout(STEP_SECONDS):
                async for line in _lines(process.stdout):
                    lines.append(line)
                    if match := re.search(r"(\d+) newly installed", line):
                        packages = match[1]
                    elif match := re.match(r"Need to get (.+) of archives", line):
                        self.report(f"{name}: {_apt_words(packages, match[1])}")
                code = await process.wait()
        except TimeoutError:
            raise FreeholdError(f"{name}: took longer than {STEP_SECONDS} s", code="build_timeout") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code != 0:
            raise _failed(name, lines)


# Our death is theirs; mounts and processes of what runs inside end with its namespaces.
_ISOLATED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
)
# Hashes in place of times, never compared: the modules are read-only, and the result is the same everywhere.
_COMPILE = (
    *("/usr/bin/python3", "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
    *("-s", "/", "-p", "/"),
)
_ETC = {
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "hosts": "",
    "resolv.conf": "",
    "hostname": "",
}


def _finish_base(root: Path) -> None:
    """What the packages' own scripts would have done, and mount points for what a container gets."""
    for name in ("passwd", "group"):
        (root / "etc" / name).write_bytes((root / f"usr/share/base-passwd/{name}.master").read_bytes())
    for name, text in _ETC.items():
        path = root / "etc" / name
        path.unlink(missing_ok=True)
        path.write_text(text)
    for name in ("dev", "proc", "sys", "run", "tmp"):
        (root / name).mkdir(exist_ok=True)
    for path in (root / "etc").iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(0o644)
    (root / "tmp").chmod(0o1777)


def _add_app(recipe: Recipe, example: Path, root: Path, full: Path) -> None:
    """Make `full`: the packages' root with the service's own files and user; unchanged files are hard links."""
    shutil.copytree(root, full, symlinks=True, copy_function=os.link)
    user, number = recipe.user
    for name, line in (
        ("passwd", f"{user}:x:{number}:{number}::/:/usr/sbin/nologin\n"),
        ("group", f"{user}:x:{number}:\n"),
    ):
        path = full / "etc" / name
        text = path.read_text() + line
        path.unlink()
        path.write_text(text)
    for source, place in recipe.files:
        target = full / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((example / source).read_bytes())
        target.chmod(0o644)
    (program,) = [part.partition("=/")[2] for part in recipe.config if part.startswith("--config.entrypoint=")]
    if not (full / program).is_file():
        raise FreeholdError(f"{recipe.name}: the packages hold no /{program}", code="build_failed")
    for name in recipe.owned:
        (full / name).mkdir(mode=0o750)
        os.chown(full / name, number, number)


@contextlib.asynccontextmanager
async def _locked(cache: Path, report: Report) -> AsyncIterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("images: waiting for another build to end")
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield


def _machine_sources() -> tuple[tuple[AptSource, ...], str]:
    release = platform.freedesktop_os_release()
    codename = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not codename:
        raise FreeholdError(
            f"this is {release.get('PRETTY_NAME', 'not Debian')}", code="not_debian", hint="the demo needs Debian 12"
        )
    parts = Path("/etc/apt/sources.list.d")
    paths = [Path("/etc/apt/sources.list"), *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    return debian_sources({str(path): path.read_text() for path in paths if path.is_file()}, codename), codename


def _key(example: Path, sources: tuple[AptSource, ...], suite: str) -> str:
    """A hash of all that goes into the images, but for the versions that the archive has just now."""
    digest = hashlib.sha256()
    parts = [
        RECIPE,
        suite,
        platform.machine(),
        str(NEWEST_SECONDS),
        repr(BASE_PACKAGES),
        repr(sources),
        repr((WEB, DB)),
    ]
    contents = [(example / source).read_bytes() for recipe in (WEB, DB) for source, _ in recipe.files]
    for part in (*(part.encode() for part in parts), *contents):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


async def _lines(stream: asyncio.StreamReader | None) -> AsyncIterator[str]:
    """Lines of a tool's output; progress bars end in a carriage return, and nothing here is trusted to be short."""
    rest = ""
    while stream is not None and (data := await stream.read(1 << 16)):
        *whole, rest = re.split(r"[\r\n]+", (rest + data.decode("utf-8", "replace"))[-(1 << 17) :])
        for line in whole:
            yield line.strip()


def _apt_words(packages: str, size: str) -> str:
    if size.startswith("0 B"):
        return f"unpacking {packages} packages, all downloaded before"
    return f"downloading {packages} packages ({size.partition('/')[0].strip()})"


def _proxies() -> dict[str, str]:
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    return {name: os.environ[name] for name in names if name in os.environ}


def _missing_tool(tool: str) -> FreeholdError:
    return FreeholdError(f"{tool} is not installed", code="tool_missing", hint="run `make system` as root")


def _failed(name: str, lines: deque[str]) -> FreeholdError:
    text = "\n  ".join(line for line in lines if line)
    if "No space left" in text:
        return FreeholdError(f"{name}: the disk is full", code="disk_full", hint="free about 1 GiB, then try again")
    if re.search(r"Could not resolve|Failed to fetch|Unable to (?:fetch|connect)|Temporary failure", text):
        hint = "is there a network? `apt-get update` must work"
        return FreeholdError(f"{name}: apt could not download:\n  {text}", code="download_failed", hint=hint)
    if match := re.search(r"failed to execute (\w+): No such file", text):
        return _missing_tool(match[1])
    return FreeholdError(f"{name}: the build failed:\n  {text}", code="build_failed")


def _folder_mib(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) >> 20
