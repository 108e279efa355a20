"""What a container is to be, and the OCI runtime configuration that makes it so (pure; docs/spec/runtime.md).

Invariants: a user namespace of the tenant's own 65,536 ids; no new privileges; the capabilities below and no others;
every limit present; a root that is read-only below a sized scratch; no device but the harmless ones.
"""

import re
from typing import Any, Final

import msgspec

from freehold.base.errors import InvalidInputError
from freehold.base.limits import GIB, MIB

IDS_PER_TENANT: Final = 65_536
MAX_ARGUMENTS: Final = 1_024
MAX_ENVIRONMENT: Final = 1_024
MAX_TEXT_BYTES: Final = 64 * 1024
MAX_VOLUMES: Final = 32
MAX_TMPFS: Final = 32
MAX_SECRETS: Final = 64
MAX_SECRET_BYTES: Final = 64 * 1024
MAX_HOSTS: Final = 256

# What images that start as root and step down (redis, nginx, postgres) need; each counts inside the user namespace
# only. Not given, among docker's defaults: NET_RAW (raw sockets), MKNOD, AUDIT_WRITE, SETFCAP, SETPCAP, SYS_CHROOT.
CAPABILITIES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETGID",
    "CAP_SETUID",
)
RLIMITS: Final = {
    "RLIMIT_NOFILE": 65_536,
    "RLIMIT_CORE": 0,
    "RLIMIT_MEMLOCK": 8 * MIB,
    "RLIMIT_MSGQUEUE": 819_200,
}
MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/diskstats",
    "/proc/driver",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/mtrr",
    "/proc/partitions",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/sysvipc",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/firmware",
)
READONLY_PATHS: Final = ("/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_ID = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,78}[a-z0-9])?\Z", re.ASCII)
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}\Z", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z", re.ASCII)
_ADDRESS = re.compile(r"[0-9a-f.:]{2,45}\Z", re.ASCII)
_RESERVED = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/secrets")


class VolumeMount(msgspec.Struct, frozen=True, kw_only=True):
    """A volume of the deployment, mounted in the container.

    Attributes:
        name: the volume's name on the node.
        path: absolute path inside.
        size_bytes: what it holds; made at that size on first use.
        read_only: mounted without the right to write.
    """

    name: str
    path: str
    size_bytes: int
    read_only: bool = False


class TmpfsMount(msgspec.Struct, frozen=True, kw_only=True):
    """Memory as a file system, empty at each start; what it holds counts as the container's memory.

    Attributes:
        path: absolute path inside.
        size_bytes: the most it holds.
        mode: permission bits of its root.
    """

    path: str
    size_bytes: int
    mode: int = 0o1777


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One container to run; everything the runtime needs, nothing of the ledger.

    Attributes:
        id: 1 to 80 of a-z 0-9 _ . -; unique on the node; the agent takes the lease id's hex.
        tenant: the tenant's key as hex; chooses the range of ids.
        deployment: names the private network that it joins.
        image_path: the EROFS file that the node built.
        argv: program and arguments.
        env: `NAME=value` lines.
        cwd: absolute path inside.
        user: `uid`, `uid:gid`, or names that the image's /etc/passwd and /etc/group know; empty is root.
        hostname: what the container calls itself.
        hosts: (name, address) lines for /etc/hosts.
        dns: addresses of resolvers for /etc/resolv.conf.
        memory_bytes: hard limit, temporary file systems included; no swap.
        cpu_milli: thousandths of a core.
        pids: most processes and threads.
        scratch_bytes: what may be written outside volumes.
        shm_bytes: size of /dev/shm; counts as memory.
        tmp_bytes: size of /tmp and of /run; counts as memory.
        volumes: volumes and where they are mounted.
        tmpfs: file systems in memory; one at /tmp or /run takes the place of the usual one.
        secrets: (name, bytes) files under /run/secrets; kept in memory alone.
        read_only_root: no scratch at all.
        stop_signal: number of the signal that asks it to end.
        log_bytes: size at which its log rotates.
        term: the lease's term, for the term log.
        allow_smtp: mail ports are open.
    """

    id: str
    tenant: str
    deployment: str
    image_path: str
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    hostname: str = "container"
    hosts: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    memory_bytes: int = 256 * MIB
    cpu_milli: int = 500
    pids: int = 256
    scratch_bytes: int = 256 * MIB
    shm_bytes: int = 64 * MIB
    tmp_bytes: int = 64 * MIB
    volumes: tuple[VolumeMount, ...] = ()
    tmpfs: tuple[TmpfsMount, ...] = ()
    secrets: tuple[tuple[str, bytes], ...] = ()
    read_only_root: bool = False
    stop_signal: int = 15
    log_bytes: int = 8 * MIB
    term: int = 0
    allow_smtp: bool = False


class Identity(msgspec.Struct, frozen=True):
    """Numeric user and groups inside the container, and the user's home."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """Where the node has put a container's parts, as absolute paths of the host."""

    rootfs: str
    bundle: str
    volumes: tuple[str, ...] = ()


def is_container_id(text: str) -> bool:
    """Whether text may name a container: 1 to 80 of a-z 0-9 _ . -, a letter or digit at both ends."""
    return _ID.match(text) is not None and ".." not in text


def is_inside_path(path: str) -> bool:
    """Whether path is absolute, plain and bounded: no `..`, no empty part, no control character."""
    if not path.startswith("/") or len(path.encode()) > 4_096 or any(ord(char) < 32 for char in path):
        return False
    return path == "/" or all(part not in ("", ".", "..") for part in path[1:].split("/"))


def validate_spec(spec: ContainerSpec) -> None:
    """Check every field of a specification against its bounds.

    Raises:
        InvalidInputError: the first field that is wrong, by name.
    """
    for good, field, hint in _rules(spec):
        if not good:
            raise InvalidInputError(f"container {spec.id[:80]!r}: bad {field}", code="bad_container", hint=hint)


def _rules(spec: ContainerSpec) -> list[tuple[bool, str, str]]:
    paths = [volume.path for volume in spec.volumes] + [tmpfs.path for tmpfs in spec.tmpfs]
    text = sum(len(item.encode()) for item in (*spec.argv, *spec.env))
    addresses = [address for _, address in spec.hosts] + list(spec.dns)
    return [
        (is_container_id(spec.id), "id", "1 to 80 of a-z 0-9 _ . -"),
        (_ID.match(spec.tenant) is not None, "tenant", "the account's key as hex"),
        (_ID.match(spec.deployment) is not None, "deployment", "a plain name"),
        (is_inside_path(spec.image_path), "image path", "an absolute path"),
        (0 < len(spec.argv) <= MAX_ARGUMENTS and spec.argv[0] != "", "command", "give a command or an image with one"),
        (len(spec.env) <= MAX_ENVIRONMENT and all("=" in line[1:] for line in spec.env), "environment", "NAME=value"),
        (text <= MAX_TEXT_BYTES, "size of command and environment", f"at most {MAX_TEXT_BYTES} bytes"),
        (not any("\0" in item for item in (*spec.argv, *spec.env, spec.user)), "zero byte", "remove it"),
        (is_inside_path(spec.cwd), "working directory", "an absolute path"),
        (len(spec.user) <= 128, "user", "uid, uid:gid or names"),
        (_HOST.match(spec.hostname) is not None and len(spec.hostname) <= 63, "hostname", "letters, digits, - and ."),
        (len(spec.hosts) <= MAX_HOSTS and all(_HOST.match(name) for name, _ in spec.hosts), "hosts", "plain names"),
        (len(spec.dns) <= 3 and all(_ADDRESS.match(item) for item in addresses), "address", "a numeric address"),
        (4 * MIB <= spec.memory_bytes <= 4096 * GIB, "memory", "at least 4 MiB"),
        (10 <= spec.cpu_milli <= 1_024_000, "cpu", "10 or more thousandths of a core"),
        (1 <= spec.pids <= 65_536, "pids", "1 to 65,536"),
        (4 * MIB <= spec.scratch_bytes <= 4096 * GIB, "scratch", "at least 4 MiB"),
        (
            4_096 <= spec.shm_bytes <= 4096 * GIB and 4_096 <= spec.tmp_bytes <= 4096 * GIB,
            "shm or tmp",
            "4 KiB or more",
        ),
        (len(spec.volumes) <= MAX_VOLUMES, "volumes", f"at most {MAX_VOLUMES}"),
        (len(spec.tmpfs) <= MAX_TMPFS, "tmpfs", f"at most {MAX_TMPFS}"),
        (len(set(paths)) == len(paths), "mounts", "one path each"),
        (
            all(_is_volume(volume) for volume in spec.volumes),
            "volume",
            "a plain name, an absolute path, 16 MiB or more",
        ),
        (all(_is_tmpfs(tmpfs) for tmpfs in spec.tmpfs), "tmpfs", "an absolute path, 4 KiB or more, permission bits"),
        (len(spec.secrets) <= MAX_SECRETS and all(_is_secret(item) for item in spec.secrets), "secret", "64 KiB each"),
        (1 <= spec.stop_signal <= 64, "stop signal", "1 to 64"),
        (64 * 1024 <= spec.log_bytes <= 1 * GIB, "log size", "64 KiB to 1 GiB"),
        (0 <= spec.term < 1 << 63, "term", "not negative"),
    ]


def _is_mountable(path: str) -> bool:
    reserved = any(path == taken or path.startswith(taken + "/") for taken in _RESERVED)
    return is_inside_path(path) and path not in ("/", "/etc") and not reserved


def _is_volume(volume: VolumeMount) -> bool:
    sized = 16 * MIB <= volume.size_bytes <= 4096 * GIB
    return is_container_id(volume.name) and _is_mountable(volume.path) and sized


def _is_tmpfs(tmpfs: TmpfsMount) -> bool:
    return _is_mountable(tmpfs.path) and 4_096 <= tmpfs.size_bytes <= 4096 * GIB and 0 <= tmpfs.mode <= 0o7777


def _is_secret(secret: tuple[str, bytes]) -> bool:
    return _SECRET.match(secret[0]) is not None and len(secret[1]) <= MAX_SECRET_BYTES


def hosts_file(spec: ContainerSpec) -> str:
    """The text of /etc/hosts."""
    lines = ["127.0.0.1 localhost", f"127.0.0.1 {spec.hostname}"]
    return "\n".join(lines + [f"{address} {name}" for name, address in spec.hosts]) + "\n"


def resolv_file(spec: ContainerSpec) -> str:
    """The text of /etc/resolv.conf."""
    return "".join(f"nameserver {address}\n" for address in spec.dns) + "options timeout:2 attempts:2\n"


def build_config(
    spec: ContainerSpec,
    *,
    base_id: int,
    identity: Identity,
    paths: Paths,
    cgroup: str,
    seccomp: dict[str, Any],
    counts_swap: bool,
    rlimits: dict[str, int],
) -> dict[str, Any]:
    """The OCI runtime configuration (config.json) of a container.

    Args:
        spec: checked by `validate_spec`.
        base_id: first host id of the tenant's 65,536.
        identity: numeric user inside.
        paths: where its parts lie on the host.
        cgroup: absolute path below each hierarchy's root.
        seccomp: from `flatten_profile`.
        counts_swap: the host can limit memory and swap together.
        rlimits: `RLIMITS`, each no higher than the agent's own (a user namespace can only lower them).

    Source: OCI runtime specification 1.0.2.
    """
    mapping = [{"containerID": 0, "hostID": base_id, "size": IDS_PER_TENANT}]
    return {
        "ociVersion": "1.0.2",
        "process": _process(spec, identity, rlimits),
        "root": {"path": paths.rootfs, "readonly": spec.read_only_root},
        "hostname": spec.hostname,
        "mounts": _mounts(spec, paths),
        "linux": {
            "uidMappings": mapping,
            "gidMappings": mapping,
            "namespaces": [
                {"type": "user"},
                {"type": "pid"},
                {"type": "mount"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "cgroup"},
                {"type": "network"},
            ],
            "cgroupsPath": cgroup,
            "resources": _resources(spec, counts_swap),
            "seccomp": seccomp,
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "rootfsPropagation": "private",
        },
    }


def _process(spec: ContainerSpec, identity: Identity, rlimits: dict[str, int]) -> dict[str, Any]:
    env = list(spec.env)
    if not any(line.startswith("PATH=") for line in env):
        env.append("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if not any(line.startswith("HOME=") for line in env):
        env.append(f"HOME={identity.home}")
    caps = list(CAPABILITIES)
    return {
        "terminal": False,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)},
        "args": list(spec.argv),
        "env": env,
        "cwd": spec.cwd,
        "noNewPrivileges": True,
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": []},
        "rlimits": [{"type": kind, "hard": value, "soft": value} for kind, value in rlimits.items()],
        "oomScoreAdj": 500,
    }


def memory_mounts(spec: ContainerSpec) -> list[TmpfsMount]:
    """The file systems in memory: those asked for, and /tmp and /run unless something else is mounted there."""
    taken = {volume.path for volume in spec.volumes} | {tmpfs.path for tmpfs in spec.tmpfs}
    usual = (("/tmp", 0o1777), ("/run", 0o755))  # noqa: S108 - a path inside the container
    return list(spec.tmpfs) + [
        TmpfsMount(path=path, size_bytes=spec.tmp_bytes, mode=mode) for path, mode in usual if path not in taken
    ]


def _tmpfs(path: str, size: int, mode: str, *extra: str) -> dict[str, Any]:
    inodes = max(1_024, size // 4_096)
    options = ["nosuid", "nodev", f"mode={mode}", f"size={size}", f"nr_inodes={inodes}", *extra]
    return {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options}


def _bind(source: str, path: str, *extra: str) -> dict[str, Any]:
    options = ["rbind", "nosuid", "nodev", "rprivate", *extra]
    return {"destination": path, "type": "bind", "source": source, "options": options}


def _mounts(spec: ContainerSpec, paths: Paths) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "max=64"]
    files = f"{paths.bundle}/files"
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": safe},
        _tmpfs("/dev", 64 * 1024, "755", "noexec", "strictatime"),
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        _tmpfs("/dev/shm", spec.shm_bytes, "1777", "noexec"),  # noqa: S108 - a path inside the container
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": safe},
        # No sysfs: it shows the host's hardware and is where a namespace leaks first. Only an empty folder.
        _tmpfs("/sys", 4_096, "555", "noexec", "ro"),
    ]
    asked = [_tmpfs(tmpfs.path, tmpfs.size_bytes, f"{tmpfs.mode:o}") for tmpfs in memory_mounts(spec)]
    for volume, source in zip(spec.volumes, paths.volumes, strict=True):
        asked.append(_bind(source, volume.path, "ro" if volume.read_only else "rw"))
    # The outer ones first, so that none hides another; and all before the node's own files, for the same reason.
    mounts += sorted(asked, key=lambda mount: str(mount["destination"]).split("/"))
    mounts += [
        _bind(f"{files}/{name}", f"/etc/{name}", "ro", "noexec") for name in ("hosts", "hostname", "resolv.conf")
    ]
    if spec.secrets:
        mounts.append(_bind(f"{paths.bundle}/secrets", "/run/secrets", "ro", "noexec"))
    return mounts


def _resources(spec: ContainerSpec, counts_swap: bool) -> dict[str, Any]:
    memory: dict[str, Any] = {"limit": spec.memory_bytes}
    if counts_swap:
        memory["swap"] = spec.memory_bytes
    return {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": memory,
        "cpu": {
            "shares": max(2, spec.cpu_milli * 1_024 // 1_000),
            "quota": spec.cpu_milli * 100,
            "period": 100_000,
        },
        "pids": {"limit": spec.pids},
    }
