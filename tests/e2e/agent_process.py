"""An agent for tests to kill: `agent_process.py HOME NAME IMAGE MODE`, told by its first line of input what to run.

MODE `hold`: creates and starts the containers of the JSON list (id, code, fence), prints their pids, and renews the
fences half a second ahead for as long as it lives. MODE `churn`: creates, starts and removes containers for ever.
"""

import asyncio
import json
import sys
from pathlib import Path

from freehold.runtime.containers import ContainerRuntime
from freehold.runtime.spec import ContainerSpec, VolumeMount
from freehold.runtime.watchdog import boottime_ms

MIB = 1 << 20
FENCE_MS = 500


def spec(image: str, container: str, code: str, **settings: object) -> ContainerSpec:
    """A small container that runs Python code."""
    return ContainerSpec(
        id=container,
        tenant="aa",
        deployment="deployment-a",
        image_path=image,
        argv=("/bin/python3", "-IS", "-c", code),
        memory_bytes=64 * MIB,
        scratch_bytes=8 * MIB,
        cpu_milli=2_000,
        term=7,
        **settings,  # type: ignore[arg-type]
    )


async def hold(runtime: ContainerRuntime, image: str, wanted: list[tuple[str, str, bool]]) -> None:
    """Run containers and renew their fences."""
    pids = {}
    fenced = [name for name, _, fence in wanted if fence]
    for name, code, _ in wanted:
        await runtime.create(spec(image, name, code))
        if name in fenced:
            runtime.fence.renew(name, boottime_ms() + FENCE_MS, 7)
        pids[name] = (await runtime.start(name)).pid
    print(json.dumps(pids), flush=True)
    while True:
        for name in fenced:
            runtime.fence.renew(name, boottime_ms() + FENCE_MS, 7)
        await asyncio.sleep(0.05)


async def churn(runtime: ContainerRuntime, image: str) -> None:
    """Make and remove containers until killed."""
    print("{}", flush=True)
    volume = VolumeMount(name="vol", path="/data", size_bytes=16 * MIB)

    async def one(name: str) -> None:
        while True:
            await runtime.create(spec(image, name, "import time; time.sleep(60)", volumes=(volume,)))
            await runtime.start(name)
            await runtime.remove(name)

    await asyncio.gather(one("a"), one("b"))


async def main() -> None:
    """Open the runtime and do as told."""
    home, name, image, mode = sys.argv[1:]
    runtime = ContainerRuntime(Path(home), name)
    await runtime.adopt()
    if mode == "hold":
        await hold(runtime, image, json.loads(sys.stdin.readline()))
    else:
        await churn(runtime, image)


if __name__ == "__main__":
    asyncio.run(main())
