"""What a tenant's root may use up: processes, memory, disk, logs; with a control under a wider limit."""

import asyncio
import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from attack import PRELUDE, TELL, inside
from lab import (
    MIB,
    Node,
)
from test_runtime_life import wait_for_line

from freehold.runtime.records import ExitReason

pytestmark = pytest.mark.root


def test_fork_bomb(node: Node) -> None:
    code = """
def bomb():
    born = 0
    try:
        while born < 5000:
            if os.fork() == 0:
                time.sleep(600); os._exit(0)
            born += 1
    finally: seen["born"] = born
attempt("bomb", bomb)
print(json.dumps(seen), flush=True); time.sleep(600)
"""

    async def body() -> dict[str, Any]:
        await node.begin("c", PRELUDE + code, pids=64)
        async for line in node.runtime.follow("c"):
            seen = json.loads(line.text)
            break
        assert (await node.runtime.stats("c")).pids == 64
        await asyncio.to_thread(subprocess.run, ["/bin/true"], check=True)  # the host can still fork
        began = time.monotonic()
        await node.runtime.stop("c", 0)
        assert time.monotonic() - began < 5
        return dict(seen)

    assert node.lab.run(body) == {"bomb": "EAGAIN", "born": 63}
    control = inside(
        node, code.replace("5000", "100").replace("; time.sleep(600)\n", "\nos.kill(-1, 9)\n"), container="d", pids=256
    )
    assert control == {"bomb": "ok", "born": 100}


def test_fork_bomb_that_never_stops_is_killed(node: Node) -> None:
    code = "import os\nprint('up', flush=True)\nwhile True:\n try: os.fork()\n except OSError: pass"

    async def body() -> None:
        await node.begin("c", code, pids=100, cpu_milli=500)
        await wait_for_line(node, "c", "up")
        stopped = await node.runtime.stop("c", 0)
        assert stopped.exit is not None and stopped.exit.reason is ExitReason.STOPPED
        assert (await node.runtime.stats("c")).pids == 0

    node.lab.run(body)


def test_memory_hog(node: Node) -> None:
    hog = "data = []\nfor _ in range(100): data.append(bytearray(b'x' * (1 << 20)))\nprint('survived')"
    ended, text = node.python(hog, memory_bytes=48 * MIB)
    assert (ended.reason, ended.signal, text) == (ExitReason.OOM, 9, "")
    ended, text = node.python(hog, memory_bytes=256 * MIB)
    assert (ended.reason, ended.code, text) == (ExitReason.EXITED, 0, "survived")


def test_memory_hog_in_temporary_files(node: Node) -> None:
    fill = """
for path in ("/tmp/hog", "/dev/shm/hog", "/run/hog"):
    def write():
        with open(path, "wb") as f:
            for _ in range(64): f.write(b"x" * (1 << 20))
    attempt(path, write)
"""
    small = {"tmp_bytes": 4 * MIB, "shm_bytes": 4 * MIB}
    assert set(inside(node, fill, **small).values()) == {"ENOSPC"}
    ended, _ = node.python(PRELUDE + fill, memory_bytes=32 * MIB, tmp_bytes=64 * MIB)
    assert ended.reason is ExitReason.OOM  # what lies there counts as the container's memory
    roomy = {"tmp_bytes": 80 * MIB, "shm_bytes": 80 * MIB, "memory_bytes": 400 * MIB}
    assert set(inside(node, fill, **roomy).values()) == {"ok"}


def test_disk_hog(node: Node) -> None:
    code = """
def write():
    with open("/root/hog", "wb") as f:
        for _ in range(48): f.write(b"x" * (1 << 20)); f.flush(); os.fsync(f.fileno())
attempt("bytes", write)
def files():
    for number in range(200000): open(f"/root/{number}", "w").close()
attempt("files", files)
"""
    used = []

    async def body() -> dict[str, Any]:
        await node.begin("c", PRELUDE + code + TELL + "\nsys.stdout.flush(); time.sleep(60)", scratch_bytes=16 * MIB)
        used.append(_allocated(node.home))
        async for line in node.runtime.follow("c"):
            seen = dict(json.loads(line.text))
            break
        used.append(_allocated(node.home))
        return seen

    tried = node.lab.run(body)
    assert tried == {"bytes": "ENOSPC", "files": "ENOSPC"}
    assert used[1] - used[0] < MIB  # every block had been reserved before it started
    control = code.split("def files")[0]
    assert inside(node, control, container="d", scratch_bytes=128 * MIB) == {"bytes": "ok"}


def _allocated(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total


def test_log_flood(node: Node) -> None:
    code = "import os\nline = b'x' * 999 + b'\\n'\nfor _ in range(8000): os.write(1, line)\nprint('the end')"
    most = 256 * 1024

    async def body() -> tuple[int, int, list[str]]:
        await node.begin("c", code, log_bytes=most)
        biggest = 0
        waiting = asyncio.create_task(node.runtime.wait("c"))
        while not waiting.done():
            await node.runtime.list()
            biggest = max(biggest, _log_bytes(node))
            await asyncio.wait({waiting}, timeout=0.02)
        lines = await node.runtime.logs("c")
        return biggest, _log_bytes(node), [line.text[:20].decode() for line in lines]

    biggest, after, lines = node.lab.run(body)
    assert lines[-1] == "the end"
    assert max(biggest, after) <= 3 * most + 64 * 1024
    assert len(lines) > 100  # of eight megabytes at least the newest part was kept
    _, text = node.python(code, "control", log_bytes=16 * MIB)
    assert len(text) > 8_000_000  # the control: with room for it, all of it is there


def _log_bytes(node: Node) -> int:
    sizes = {}
    for path in (node.home / "containers/c").glob("log*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())
