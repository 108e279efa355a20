"""The escape list: what a tenant's root may try from inside a container, each with a control that it could work.

Every attack runs as root inside. A control does the same where it is allowed (on the host, in the same deployment, or
with a wider limit), so a test that always passes is noticed.
"""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from attack import PRELUDE, TELL, inside, outside
from lab import (
    MIB,
    Node,
)
from test_runtime_life import wait_for_line

from freehold.runtime import mounts
from freehold.runtime.spec import VolumeMount

pytestmark = pytest.mark.root


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
