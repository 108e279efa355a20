"""A container's life: start, output, exit, stop, restart, identity, files, health."""

import asyncio
import json
import signal

import pytest
from lab import MIB, Node

from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.runtime.records import ExitReason, Status
from freehold.runtime.spec import VolumeMount

pytestmark = pytest.mark.root


def test_runs_writes_and_exits(node: Node) -> None:
    ended, text = node.python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(42)")
    assert (ended.reason, ended.code, ended.signal) == (ExitReason.EXITED, 42, 0)
    assert sorted(text.split()) == ["err", "out"]


def test_identity_and_environment(node: Node) -> None:
    code = """
import json, os, socket
print(json.dumps({
    "uid": os.getuid(), "groups": os.getgroups(), "cwd": os.getcwd(), "env": dict(os.environ),
    "host": socket.gethostname(), "hosts": open("/etc/hosts").read(), "dns": open("/etc/resolv.conf").read(),
    "secret": open("/run/secrets/token").read(), "map": open("/proc/self/uid_map").read().split(),
    "status": {line.split(":")[0]: line.split(":")[1].strip() for line in open("/proc/self/status") if ":" in line},
}))"""
    _, text = node.python(
        code,
        user="user",
        cwd="/home/user",
        env=("NAME=value=with=equals",),
        hostname="web",
        hosts=(("database", "198.18.0.2"),),
        dns=("9.9.9.9",),
        secrets=(("token", b"s3cret"),),
    )
    seen = json.loads(text)
    assert (seen["uid"], seen["groups"], seen["cwd"], seen["host"]) == (1000, [2000], "/home/user", "web")
    assert seen["env"]["NAME"] == "value=with=equals"
    assert seen["env"]["HOME"] == "/home/user"
    assert "198.18.0.2 database" in seen["hosts"]
    assert "nameserver 9.9.9.9" in seen["dns"]
    assert seen["secret"] == "s3cret"
    assert int(seen["map"][1]) >= 1 << 24 and seen["map"][2] == "65536"
    assert seen["status"]["NoNewPrivs"] == "1" and seen["status"]["Seccomp"] == "2"
    assert int(seen["status"]["CapEff"], 16) == 0
    bounding = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 10))
    assert int(seen["status"]["CapBnd"], 16) == bounding


def test_stop_asks_before_it_kills(node: Node) -> None:
    polite = (
        "import signal,sys,time\nsignal.signal(15, lambda *_: sys.exit(7))\nprint('up', flush=True)\ntime.sleep(60)"
    )
    deaf = "import signal,time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)"

    async def body() -> None:
        for name, code, status, timeout in (("polite", polite, 7, 10.0), ("deaf", deaf, 137, 0.3)):
            await node.begin(name, code)
            await wait_for_line(node, name, "up")
            stopped = await node.runtime.stop(name, timeout)
            assert stopped.status is Status.EXITED
            assert stopped.exit is not None
            assert (stopped.exit.reason, stopped.exit.code) == (ExitReason.STOPPED, status)

    node.lab.run(body)
    events = [json.loads(line) for line in (node.home / "term.log").read_text().splitlines()]
    assert [(row["event"], row["container"]) for row in events] == [
        ("started", "polite"),
        ("stopped", "polite"),
        ("started", "deaf"),
        ("stopped", "deaf"),
    ]
    times = [row["boottime_ms"] for row in events]
    assert times == sorted(times)


def test_killed_by_a_signal_and_started_again(node: Node) -> None:
    code = "import os,time\nprint(os.path.exists('/mark'), flush=True)\nopen('/mark','w').close()\ntime.sleep(60)"

    async def body() -> None:
        first = await node.begin("c", code)
        await wait_for_line(node, "c", "False")
        await node.runtime.kill("c", signal.SIGKILL)
        ended = await node.runtime.wait("c")
        assert (ended.reason, ended.signal) == (ExitReason.SIGNALED, 9)
        second = await node.runtime.start("c")
        assert second.pid != first.pid and second.starts == 2
        await wait_for_line(node, "c", "True")  # the scratch outlives a restart
        assert (await node.runtime.state("c")).status is Status.RUNNING

    node.lab.run(body)


def test_failures_leave_nothing_and_say_why(node: Node) -> None:
    async def body() -> None:
        with pytest.raises(FreeholdError, match=r"no such file|not found") as caught:
            await node.runtime.create(node.spec("c", ("/no/such/program",)))
        assert caught.value.code == "create_failed"
        with pytest.raises(InvalidInputError, match="no user"):
            await node.runtime.create(node.spec("c", ("/bin/sh",), user="nobody-here"))
        with pytest.raises(InvalidInputError, match="no image"):
            await node.runtime.create(node.spec("c", ("/bin/sh",), image_path="/nowhere.erofs"))
        with pytest.raises(FreeholdError, match="cannot reserve"):
            await node.runtime.create(node.spec("c", ("/bin/sh",), scratch_bytes=2048 << 30))
        assert await node.runtime.list() == []
        assert list((node.places.run / "c").iterdir()) == []

    node.lab.run(body)


def test_a_broken_image_file_is_refused(node: Node) -> None:
    bad = node.lab.folder / "bad.erofs"
    bad.write_bytes(b"not a file system" * 1000)

    async def body() -> None:
        with pytest.raises((FreeholdError, OSError)):
            await node.runtime.create(node.spec("c", ("/bin/sh",), image_path=str(bad)))

    node.lab.run(body)


def test_volume_is_filled_once_kept_and_bounded(node: Node) -> None:
    volume = VolumeMount(name="vol", path="/data", size_bytes=16 * MIB)
    code = """
import os
print(open('/data/seed').read().strip(), os.path.exists('/data/mine'), os.stat('/data').st_uid)
open('/data/mine', 'w').write('kept')
try:
    with open('/data/hog', 'wb') as f:
        for _ in range(64): f.write(b'x' * (1 << 20)); f.flush(); os.fsync(f.fileno())
    print('endless')
except OSError as error:
    print(error.errno)
os.unlink('/data/hog')"""
    first = node.python(code, volumes=(volume,))[1].split("\n")
    second = node.python(code, volumes=(volume,), tenant="bb")[1].split("\n")
    assert first == ["from the image False 0", "28"]
    assert second == ["from the image True 0", "28"]  # other ids on the host, the same inside
    with pytest.raises(InvalidInputError, match="holds"):
        node.python(code, volumes=(VolumeMount(name="vol", path="/data", size_bytes=32 * MIB),))
    assert node.runtime.volumes.names() == ["vol"]
    node.runtime.volumes.remove("vol")
    assert node.runtime.volumes.names() == []


def test_read_only_root(node: Node) -> None:
    code = "open('/tmp/x','w')\ntry: open('/x','w')\nexcept OSError as error: print(error.errno)"
    assert node.python(code, read_only_root=True)[1] == "30"


def test_health_check_runs_inside(node: Node) -> None:
    async def body() -> None:
        await node.begin("c", "import time; print('up', flush=True); time.sleep(60)", user="user")
        await wait_for_line(node, "c", "up")
        good = await node.runtime.execute("c", ["/bin/sh", "-c", "id -u; exit 3"], 10)
        assert (good.code, good.output) == (3, b"1000\n")
        status = await node.runtime.execute("c", ["/bin/cat", "/proc/self/status"], 10)
        rights = dict(line.split(":\t", 1) for line in status.output.decode().splitlines())
        assert (rights["NoNewPrivs"], rights["Seccomp"], int(rights["CapEff"], 16)) == ("1", "2", 0)
        loud = await node.runtime.execute("c", ["/bin/python3", "-c", "print('x' * 1000000)"], 10)
        assert (loud.code, len(loud.output)) == (0, 4_096)
        slow = await node.runtime.execute("c", ["/bin/sh", "-c", "sleep 50 & sleep 50"], 0.5)
        assert slow.timed_out and slow.code == -1
        left = await node.runtime.execute("c", ["/bin/python3", "-c", LIST_PROGRAMS], 10)
        assert b"sleep" not in left.output
        missing = await node.runtime.execute("c", ["/no/such"], 10)
        assert missing.code not in (0, -1)

    node.lab.run(body)


LIST_PROGRAMS = """
import os
rows = [open(f"/proc/{pid}/stat").read() for pid in os.listdir("/proc") if pid.isdigit()]
print([row for row in rows if ") Z " not in row])"""


def test_usage_is_counted(node: Node) -> None:
    async def body() -> None:
        await node.begin("c", "x = b'y' * (40 << 20); print('up', flush=True)\nwhile True: pass")
        await wait_for_line(node, "c", "up")
        usage = await node.runtime.stats("c")
        assert usage.memory_bytes > 40 * MIB and usage.memory_limit_bytes == 128 * MIB
        assert usage.pids == 1 and usage.oom_kills == 0 and usage.cpu_us > 0

    node.lab.run(body)


def test_two_nodes_of_one_host_do_not_meet(node: Node) -> None:
    other = Node(node.lab, node.image, "other")
    try:

        async def body() -> None:
            ours = await node.begin("c", "import time; time.sleep(60)")
            theirs = await other.begin("c", "import time; time.sleep(60)")
            assert [item.pid for item in await node.runtime.list()] == [ours.pid]
            assert [item.pid for item in await other.runtime.list()] == [theirs.pid]
            assert ours.address != theirs.address
            assert await other.runtime.cleanup(set()) == ["c"]
            assert (await node.runtime.state("c")).status is Status.RUNNING

        node.lab.run(body)
    finally:
        other.close()


async def wait_for_line(node: Node, container: str, text: str) -> None:
    """Wait until a container has written a line; fails after 20 s."""

    async def look() -> None:
        async for line in node.runtime.follow(container):
            if line.text.decode() == text:
                return
        raise AssertionError(f"{container} ended: {await node.output(container)}")

    await asyncio.wait_for(look(), 20)
