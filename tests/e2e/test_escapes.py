"""The escape list: what a tenant's root may try from inside a container, each with a control that it could work.

Every attack runs as root inside. A control does the same where it is allowed (on the host, in the same deployment, or
with a wider limit), so a test that always passes is noticed.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lab import (
    HOST_PORT,
    INTERNET,
    LAN,
    LAN_PUBLIC,
    METADATA,
    MIB,
    NODE_LAN,
    NODE_UPLINK,
    Node,
)
from test_runtime_life import wait_for_line

from freehold.runtime import kernel, mounts
from freehold.runtime.netfilter import Grant
from freehold.runtime.records import ExitReason
from freehold.runtime.spec import VolumeMount

pytestmark = pytest.mark.root

# Put before each attack: `attempt` tells "ok" or the error's name.
PRELUDE = """
import ctypes, errno, json, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
seen = {}
def attempt(name, work):
    try:
        work(); seen[name] = "ok"
    except OSError as error:
        seen[name] = errno.errorcode.get(error.errno, "timeout")
def call(number, *args):
    if libc.syscall(ctypes.c_long(number), *args) < 0:
        raise OSError(ctypes.get_errno(), "refused")
"""
TELL = "\nprint(json.dumps(seen))\n"


def inside(node: Node, code: str, **settings: Any) -> dict[str, Any]:
    """Run an attack in a container."""
    _, text = node.python(PRELUDE + code + TELL, **settings)
    return dict(json.loads(text.splitlines()[-1]))


def outside(code: str, *arguments: str, **settings: Any) -> dict[str, Any]:
    """Run the same on the host."""
    command = ["/usr/bin/python3", "-IS", "-c", PRELUDE + code + TELL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **settings)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def in_namespace(node: Node, code: str) -> dict[str, Any]:
    """Run the same in the node's network namespace."""
    return kernel.in_network_namespace(node.lab.node, lambda: outside(code))


SEARCH = """
import sys
def search(word):
    for top in ("/", "/proc/1/root", "/proc/self/root", "/proc/1/cwd", "../../../../../.."):
        for folder, folders, files in os.walk(top, onerror=lambda error: None):
            if folder.startswith(("/proc/", "/sys/")) and top == "/": folders[:] = []
            if word in files or word in folders: return os.path.join(folder, word)
            if folder.count("/") > 12: folders[:] = []
seen["found"] = search(WORD)
"""


def test_host_files(node: Node) -> None:
    marker = Path("/var/tmp") / f"freehold-marker-{os.getpid()}"
    marker.write_text("the farmer's")
    marker.chmod(0o644)
    code = f"WORD = {marker.name!r}" + SEARCH.replace('"/proc/1/root", "/proc/self/root", "/proc/1/cwd", ', "")
    host = code.replace('top in ("/", ', 'top in ("/var/tmp", ')
    try:
        assert outside(host)["found"] == str(marker)
        assert inside(node, code)["found"] is None
        links = "for pid in ('1', 'self'):\n attempt(pid, lambda: open(f'/proc/{pid}/root" + f"{marker}'))"
        assert set(inside(node, links).values()) == {"ENOENT"}
        assert outside(links)["self"] == "ok"
    finally:
        marker.unlink()


def test_devices(node: Node, tmp_path: Path) -> None:
    code = """
where = sys.argv[1] if len(sys.argv) > 1 else "/root"
def make(name, kind, major, minor):
    os.mknod(f"{where}/{name}", kind | 0o600, os.makedev(major, minor))
attempt("disk", lambda: make("disk", 0o060000, 7, 0))
attempt("mem", lambda: make("kmsg", 0o020000, 1, 11))
attempt("open_disk", lambda: os.open(f"{where}/disk", os.O_RDONLY))
attempt("loop", lambda: os.open("/dev/loop0", os.O_RDONLY))
attempt("loop_control", lambda: os.open("/dev/loop-control", os.O_RDONLY))
attempt("kmsg", lambda: os.open("/dev/kmsg", os.O_RDONLY))
seen["devices"] = sorted(name for name in os.listdir("/dev"))
"""
    tried = inside(node, code)
    devices = tried.pop("devices")
    assert " ".join(devices) == "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert set(tried.values()) <= {"EPERM", "ENOENT"}, tried
    control = outside(code, str(tmp_path))
    assert (control["disk"], control["open_disk"], control["kmsg"]) == ("ok", "ok", "ok")


def test_other_tenants_files(node: Node) -> None:
    mine = "open('/root/tenant-b-secret', 'w').write('b'); print('up', flush=True); time.sleep(60)"
    code = "WORD = 'tenant-b-secret'" + SEARCH

    async def body() -> tuple[str, str]:
        await node.begin("b", PRELUDE + mine, tenant="bb", deployment="deployment-b")
        await wait_for_line(node, "b", "up")
        _, other = await node.python_in(PRELUDE + code + TELL, "a", tenant="aa")
        # The host's root sees the file, owned by an id of tenant b's own range, closed to all others.
        scratch = node.runtime.places.of("b").scratch / "upper/root/tenant-b-secret"
        range_a, range_b = (node.runtime._core.ids.base(tenant) for tenant in ("aa", "bb"))
        assert scratch.stat().st_uid == range_b
        assert abs(range_a - range_b) >= 65_536
        denied = await asyncio.to_thread(
            subprocess.run,
            ["/usr/bin/python3", "-c", f"open({str(node.runtime.places.of('b').rootfs / 'root/tenant-b-secret')!r})"],
            user=range_a,
            group=range_a,
            capture_output=True,
            text=True,
            check=False,
        )
        itself = await node.runtime.execute("b", ["/bin/python3", "-c", PRELUDE + code + TELL], 30)
        assert json.loads(itself.output.splitlines()[-1])["found"] == "/root/tenant-b-secret"
        return other, denied.stderr

    other, denied = node.lab.run(body)
    assert json.loads(other.splitlines()[-1])["found"] is None
    assert "PermissionError" in denied


def test_other_processes(node: Node) -> None:
    code = """
TARGET = int(PID)
pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
seen["count"] = len(pids)
attempt("signal", lambda: os.kill(TARGET, 0))
attempt("pidfd", lambda: os.pidfd_open(TARGET))
attempt("environment", lambda: open(f"/proc/{TARGET}/environ").read())
attempt("all", lambda: os.kill(-1, 0))
"""
    victim = subprocess.Popen(["/bin/sleep", "60"])

    async def body() -> dict[str, Any]:
        await node.begin("b", "import time; print('up', flush=True); time.sleep(60)", tenant="bb")
        await wait_for_line(node, "b", "up")
        _, text = await node.python_in(PRELUDE + code.replace("PID", str(victim.pid)) + TELL, "a")
        return dict(json.loads(text))

    try:
        tried = node.lab.run(body)
        assert tried["count"] == 1
        assert (tried["signal"], tried["pidfd"], tried["environment"]) == ("ESRCH", "EINVAL", "ENOENT") or (
            tried["signal"],
            tried["pidfd"],
            tried["environment"],
        ) == ("ESRCH", "ESRCH", "ENOENT")
        control = outside(code.replace("PID", str(victim.pid)).replace('attempt("all"', '("not here"'))
        assert (control["signal"], control["pidfd"], control["environment"]) == ("ok", "ok", "ok")
        assert control["count"] > 5
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_ptrace_of_outside(node: Node) -> None:
    code = """
PTRACE_SEIZE, word = 0x4206, ctypes.c_ulong
class Vec(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
buffer = ctypes.create_string_buffer(8)
vec = Vec(ctypes.addressof(buffer), 8)
for name, pid in (("first", 1), ("host", TARGET), ("high", 30000)):
    if pid == os.getpid(): continue
    attempt(name, lambda: call(101, PTRACE_SEIZE, pid, None, None))
    attempt(name + "_read", lambda: call(310, pid, ctypes.byref(vec), word(1), ctypes.byref(vec), word(1), word(0)))
child = os.fork()
if child == 0: time.sleep(30); os._exit(0)
attempt("own_child", lambda: call(101, PTRACE_SEIZE, child, None, None))
os.kill(child, 9)
"""
    victim = subprocess.Popen(["/bin/sleep", "60"])
    try:
        tried = inside(node, code.replace("TARGET", str(victim.pid)))
        assert tried.pop("own_child") == "ok"  # debugging inside is allowed: the call itself is not what is missing
        assert set(tried.values()) == {"ESRCH"}, tried
        control = outside(code.replace("TARGET", str(victim.pid)))
        assert control["host"] == "ok"
    finally:
        victim.kill()
        victim.wait()


CONNECT = """
def connect(host, port):
    with socket.socket() as s:
        s.settimeout(2); s.connect((host, port)); s.recv(64)
for host, port in TARGETS: attempt(f"{host}:{port}", lambda: connect(host, port))
"""


def test_lan_and_host_addresses(node: Node) -> None:
    gateway = node.lab.run(lambda: asyncio.to_thread(node.runtime.networks.add, "deployment-a"))
    tunnel = node.runtime.networks.service_address
    service = node.lab.run(lambda: asyncio.to_thread(tunnel, "deployment-a", "database"))
    node.lab.serve_in_node(service, 5432)
    forbidden = [(LAN, 80), (LAN_PUBLIC, 80), (METADATA, 80), ("203.0.113.1", 80)]
    forbidden += [(host, HOST_PORT) for host in (NODE_LAN, NODE_UPLINK, "11.22.33.2", gateway, service)]
    mail = [(INTERNET, 25), (INTERNET, 587)]
    everything = [*forbidden, *mail, (INTERNET, 80), (service, 5432)]
    code = f"TARGETS = {everything!r}" + CONNECT
    granted = [Grant(service, "tcp", 5432)]

    def grant(*, smtp: bool) -> None:
        node.lab.run(
            lambda: asyncio.to_thread(node.runtime.networks.set_grants, "deployment-a", granted, allow_smtp=smtp)
        )

    control = in_namespace(node, code)
    assert set(control.values()) == {"ok"}, control  # all of them answer the node itself
    before = inside(node, code)
    assert before[f"{service}:5432"] != "ok"
    grant(smtp=False)
    tried = inside(node, code)
    assert {name for name, result in tried.items() if result == "ok"} == {f"{INTERNET}:80", f"{service}:5432"}
    grant(smtp=True)
    tried = inside(node, code)
    assert {name for name, result in tried.items() if result == "ok"} == {
        f"{INTERNET}:80",
        f"{INTERNET}:25",
        f"{INTERNET}:587",
        f"{service}:5432",
    }


def test_other_tenants_network(node: Node) -> None:
    server = """
import socket
s = socket.create_server(("0.0.0.0", 80)); print("up", flush=True)
while True:
    c, _ = s.accept(); c.sendall(b"hello"); c.close()"""

    async def body() -> dict[str, dict[str, Any]]:
        theirs = await node.begin("b", server, tenant="bb", deployment="deployment-b", user="user")
        await wait_for_line(node, "b", "up")
        code = f"TARGETS = [({theirs.address!r}, 80)]" + CONNECT
        results = {}
        for name, tenant, deployment in (("stranger", "aa", "deployment-a"), ("sibling", "bb", "deployment-b")):
            _, text = await node.python_in(PRELUDE + code + TELL, name, tenant=tenant, deployment=deployment)
            results[name] = json.loads(text)[f"{theirs.address}:80"]
        results["agent"] = (await asyncio.to_thread(outside, code))[f"{theirs.address}:80"]
        return results

    results = node.lab.run(body)
    assert results["stranger"] != "ok"
    assert (results["sibling"], results["agent"]) == ("ok", "ok")


def test_nobody_comes_in_from_outside(node: Node) -> None:
    server = "import socket,time\ns = socket.create_server(('0.0.0.0', 80)); print('up', flush=True); time.sleep(60)"

    async def body() -> tuple[str, str]:
        container = await node.begin("c", server)
        await wait_for_line(node, "c", "up")
        code = f"TARGETS = [({container.address!r}, 80)]" + CONNECT.replace("s.recv(64)", "pass")
        route = ["ip", "route", "replace", f"{container.address}/32", "via"]

        def from_world(via: str) -> str:
            subprocess.run([*route, via], check=True)
            return str(outside(code)[f"{container.address}:80"])

        results = [kernel.in_network_namespace(node.lab.world, lambda via=via: from_world(via)) for via in
                   (NODE_LAN, NODE_UPLINK)]  # fmt: skip
        assert "ok" not in results, results
        return (await asyncio.to_thread(outside, code))[f"{container.address}:80"], results[0]

    assert node.lab.run(body)[0] == "ok"


def test_raw_and_strange_sockets(node: Node) -> None:
    code = """
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("raw_ip", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("alg", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
def move():
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    address = struct.pack("=BBBBI", 2, 24, 0, 0, 2) + struct.pack("=HH4s", 8, 2, bytes([198, 18, 0, 9]))
    s.send(struct.pack("=IHHII", 16 + len(address), 20, 0x605, 1, 0) + address)
    code = -struct.unpack_from("=i", s.recv(4096), 16)[0]
    if code: raise OSError(code, "netlink")
attempt("address", move)
attempt("tcp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
"""
    tried = inside(node, code)
    assert tried.pop("tcp") == "ok"
    assert set(tried.values()) <= {"EPERM", "ENOSYS", "EACCES"}, tried
    control = outside(code.replace('attempt("address", move)', ""))
    assert {control[name] for name in ("raw", "raw_ip", "packet", "tcp")} == {"ok"}


def test_mount_and_namespaces(node: Node, tmp_path: Path) -> None:
    code = """
where = sys.argv[1] if len(sys.argv) > 1 else "/root"
text = lambda value: ctypes.c_char_p(value.encode())
attempt("tmpfs", lambda: call(165, text("x"), text(where), text("tmpfs"), 0, None))
attempt("proc", lambda: call(165, text("x"), text(where), text("proc"), 0, None))
attempt("remount", lambda: call(165, text("x"), text("/proc/sys"), None, 4096 | 32, None))
attempt("umount", lambda: call(166, text(where), 2))
attempt("fsopen", lambda: call(430, text("tmpfs"), 0))
attempt("open_tree", lambda: call(428, -100, text("/"), 1))
attempt("pivot_root", lambda: call(155, text(where), text(where)))
attempt("unshare_user", lambda: call(272, 0x10000000))
attempt("unshare_mount", lambda: call(272, 0x20000))
attempt("clone_user", lambda: call(56, 0x10000000 | 17, None, None, None, None))
attempt("clone3", lambda: call(435, None, 0))
attempt("setns", lambda: call(308, os.open("/proc/1/ns/net", os.O_RDONLY), 0))
attempt("chroot", lambda: os.chroot(where))
attempt("sysctl", lambda: open("/proc/sys/kernel/core_pattern", "w"))
attempt("sysrq", lambda: open("/proc/sysrq-trigger", "w"))
"""
    tried = inside(node, code)
    assert tried.pop("sysrq") in ("EROFS", "ENOENT")  # not every kernel has it
    assert set(tried.values()) <= {"EPERM", "ENOSYS", "EROFS", "EACCES"}, tried
    only = [line for line in code.splitlines() if line.startswith(("where", "text")) or '"tmpfs", lambda' in line]
    only += [
        'attempt("umount", lambda: call(166, text(where), 2))',
        'attempt("fsopen", lambda: call(430, text("tmpfs"), 0))',
    ]
    assert set(outside("\n".join(only), str(tmp_path)).values()) == {"ok"}


def test_modules_and_kernel_memory(node: Node) -> None:
    code = """
attempt("init_module", lambda: call(175, ctypes.c_char_p(b"x" * 64), 64, ctypes.c_char_p(b"")))
attempt("finit_module", lambda: call(313, 0, ctypes.c_char_p(b""), 0))
attempt("delete_module", lambda: call(176, ctypes.c_char_p(b"x"), 0))
attempt("kexec", lambda: call(246, 0, 0, None, 0))
attempt("bpf", lambda: call(321, 0, None, 0))
attempt("perf", lambda: call(298, None, 0, -1, -1, 0))
attempt("keyctl", lambda: call(250, 0, -1, 0))
attempt("io_uring", lambda: call(425, 1, None))
attempt("userfaultfd", lambda: call(323, 0))
attempt("iopl", lambda: call(172, 3))
attempt("syslog", lambda: call(103, 10, None, 0))
for path in ("/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore", "/proc/kmsg", "/proc/kpagecount"):
    def read():
        if not open(path, "rb").read(1): raise OSError(errno.ENOENT, "empty")
    attempt(path, read)
"""
    tried = inside(node, code)
    assert set(tried.values()) <= {"EPERM", "ENOSYS", "ENOENT", "EACCES"}, tried
    control = outside(code.replace('"/proc/kmsg", ', ""))
    assert control["syslog"] == "ok"
    # Other refusals on the host are for the arguments, not for the right to call.
    assert {control["keyctl"], control["bpf"]}.isdisjoint({"EPERM", "ENOSYS"})
    assert control["io_uring"] == "EFAULT"


def test_setuid_gains_nothing(node: Node, tmp_path: Path) -> None:
    code = """
import subprocess
script = "import os; print(os.geteuid(), os.access('/etc/shadow-test', os.R_OK))"
done = subprocess.run([sys.argv[1] if len(sys.argv) > 1 else "/bin/suid-python", "-ISc", script], capture_output=True)
seen["euid"] = done.stdout.decode().split()[0]
"""
    assert inside(node, code, user="user")["euid"] == "1000"
    # The control: the same file on a host's file system that honours the bit.
    open_folder = Path("/var/tmp") / f"freehold-suid-{os.getpid()}"
    open_folder.mkdir()
    try:
        program = open_folder / "suid-python"
        shutil.copy("/usr/bin/python3.11", program)
        program.chmod(0o4755)
        assert outside(code, str(program), user=1000, group=1000)["euid"] == "0"
    finally:
        shutil.rmtree(open_folder)


def test_a_setuid_file_made_inside_gains_nothing_outside(node: Node) -> None:
    volume = VolumeMount(name="vol", path="/data", size_bytes=16 * MIB)
    code = "os.chmod('/data/seed', 0o4777); os.chown('/data/seed', 0, 0)"

    async def body() -> None:
        await node.begin("c", PRELUDE + code + "\nprint('up', flush=True); time.sleep(60)", volumes=(volume,))
        await wait_for_line(node, "c", "up")
        places = node.runtime.places.of("c")
        for folder in (places.rootfs, places.volume(0), node.places.run / "volumes/vol", places.scratch):
            assert os.statvfs(folder).f_flag & os.ST_NOSUID, folder

    node.lab.run(body)


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


def test_the_image_cannot_be_written_or_parsed_by_a_tenant(node: Node) -> None:
    before = node.image.read_bytes()
    code = """
attempt("overwrite", lambda: open("/bin/sh", "wb").write(b"x"))
seen["now"] = open("/bin/sh", "rb").read(1).decode()
"""
    assert inside(node, code) == {"overwrite": "ok", "now": "x"}  # in its own scratch
    assert node.image.read_bytes() == before
    assert inside(node, "seen['now'] = open('/bin/sh', 'rb').read(4)[1:].decode()") == {"now": "ELF"}
    assert not mounts.mounted_under(node.places.run / "c")


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
