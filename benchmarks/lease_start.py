"""`lease.start`: from an accepted lease to its running process, beside a bare run of the same bundle.

What is timed is the agent's own order of calls: the deployment's network, `create`, the fence, `start`. The image is
there, as for every standby and every restart. The bare run is `RUNTIME run --detach` on the bundle that the node made,
by the same runtime: crun, or runc where cgroups are hybrid.
"""

import asyncio
import contextlib
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.rows import Row, load, measured, row
from freehold.base.limits import MIB
from freehold.base.presets import MAINNET
from freehold.lightclient.client import boottime_ms
from freehold.runtime import cgroups, kernel, mounts
from freehold.runtime.containers import ContainerRuntime
from freehold.runtime.spec import ContainerSpec

ROUNDS = 20
WARM_UP = 2
PROGRAM = Path("/bin/sleep")
DEPLOYMENT = "22" * 32


@dataclass
class Times:
    """Milliseconds of each round."""

    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    engine: str = ""


def run(rounds: int = ROUNDS) -> Iterator[Row]:
    """Start a service again and again, each time as a new lease; needs root."""
    with tempfile.TemporaryDirectory(prefix="freehold-bench-") as name:
        folder = Path(name)
        image = _build_image(folder)
        namespace = folder / "node.ns"
        kernel.new_network_namespace(namespace)
        try:
            with measured() as spent:
                times = kernel.in_network_namespace(
                    namespace, lambda: asyncio.run(_rounds(folder, image, rounds + WARM_UP))
                )
        finally:
            mounts.unmount_tree(namespace)
            namespace.unlink(missing_ok=True)
    ours, bare = statistics.median(times.ours[WARM_UP:]), statistics.median(times.bare[WARM_UP:])
    yield row(
        "lease.start",
        ours,
        "ms",
        f"ms of a bare `{times.engine} run --detach` of the same bundle",
        bare,
        f"median of {rounds} starts, image present: network, create, fence, start until the process runs; "
        f"{ours - bare:.0f} ms more than bare; slowest {max(times.ours[WARM_UP:]):.0f} ms; {load()}",
        spent.cpu_s,
    )


async def _rounds(folder: Path, image: Path, rounds: int) -> Times:
    runtime = ContainerRuntime(folder / "node", "bench")
    times = Times(engine=runtime.engine.name)
    try:
        await runtime.adopt()
        await asyncio.to_thread(runtime.watchdog.ensure)
        for number in range(rounds):
            spec = _service(number, image)
            began = time.perf_counter()
            await asyncio.to_thread(runtime.networks.add, DEPLOYMENT)
            await runtime.create(spec)
            runtime.fence.renew(spec.id, boottime_ms() + MAINNET.fence_ms, 1)
            await runtime.start(spec.id)
            times.ours.append((time.perf_counter() - began) * 1e3)
            bundle = runtime.places.of(spec.id).bundle
            times.bare.append(await asyncio.to_thread(_bare_run, runtime.engine.path, bundle, folder))
            await runtime.remove(spec.id)
            runtime.fence.lift(spec.id)
            await asyncio.to_thread(runtime.networks.remove, DEPLOYMENT)
    finally:
        await runtime.destroy()
    return times


def _service(number: int, image: Path) -> ContainerSpec:
    return ContainerSpec(
        id=number.to_bytes(32, "big").hex(),
        tenant="11" * 32,
        deployment=DEPLOYMENT,
        image_path=str(image),
        argv=(str(PROGRAM), "600"),
        env=("PATH=/bin", "GREETING=hello"),
        hostname="web",
        hosts=(("db", "10.0.0.2"),),
        memory_bytes=128 * MIB,
        cpu_milli=500,
        pids=256,
        scratch_bytes=64 * MIB,
    )


def _bare_run(engine: str, bundle: Path, folder: Path) -> float:
    """Milliseconds until `run --detach` of a copy of the bundle is back: its process runs then."""
    config = json.loads((bundle / "config.json").read_text())
    config["linux"]["cgroupsPath"] += "-bare"
    (folder / "config.json").write_text(json.dumps(config))
    command = [engine, f"--root={folder / 'bare'}"]
    began = time.perf_counter()
    try:
        _quietly([*command, "run", "--detach", f"--bundle={folder}", "bare"])
        return (time.perf_counter() - began) * 1e3
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            _quietly([*command, "delete", "--force", "bare"])
        cgroups.remove(config["linux"]["cgroupsPath"])


def _quietly(command: list[str]) -> None:
    # not captured: a detached container would hold the pipe open
    null = subprocess.DEVNULL
    subprocess.run(command, check=True, stdin=null, stdout=null, stderr=null)


def _build_image(folder: Path) -> Path:
    """Build an image of one program and its libraries, as good as one that a node has unpacked."""
    root, image = folder / "root", folder / "image.erofs"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(PROGRAM.resolve(), root / "bin" / PROGRAM.name)
    listing = subprocess.run(["ldd", PROGRAM], capture_output=True, text=True, check=True).stdout
    for word in listing.split():
        if word.startswith("/"):
            target = root / word.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, target)
    subprocess.run(["mkfs.erofs", "-T0", "--quiet", image, root], check=True, capture_output=True)
    return image
