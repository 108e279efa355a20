"""Bounds of a container's specification and the configuration made from it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.base.errors import InvalidInputError
from freehold.base.limits import GIB, MIB
from freehold.runtime import spec as specs
from freehold.runtime.spec import ContainerSpec, Identity, Paths, TmpfsMount, VolumeMount


def make(**settings: Any) -> ContainerSpec:
    base: dict[str, Any] = {
        "id": "c1",
        "tenant": "aa",
        "deployment": "shop",
        "image_path": "/images/x.erofs",
        "argv": ("/bin/true",),
    }
    return ContainerSpec(**(base | settings))


def config(spec: ContainerSpec, **settings: Any) -> dict[str, Any]:
    specs.validate_spec(spec)
    base: dict[str, Any] = {
        "base_id": 1 << 24,
        "identity": Identity(0, 0, (), "/root"),
        "paths": Paths(rootfs="/r", bundle="/b", volumes=tuple(f"/v{n}" for n in range(len(spec.volumes)))),
        "cgroup": "/freehold-00000000/c1",
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        "counts_swap": True,
        "rlimits": {"RLIMIT_CORE": 0},
    }
    return specs.build_config(spec, **(base | settings))


def test_the_default_is_valid() -> None:
    specs.validate_spec(make())


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "../etc"},
        {"id": "a..b"},
        {"id": "A"},
        {"id": ""},
        {"id": "x" * 81},
        {"tenant": "a/b"},
        {"deployment": "a b"},
        {"image_path": "relative"},
        {"image_path": "/a/../b"},
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("a\0b",)},
        {"argv": ("x",) * 1_025},
        {"argv": ("x" * 70_000,)},
        {"env": ("NOVALUE",)},
        {"env": ("=x",)},
        {"cwd": "tmp"},
        {"cwd": "/a/./b"},
        {"user": "u" * 129},
        {"hostname": "-bad"},
        {"hostname": "x" * 64},
        {"hosts": (("two words", "198.18.0.2"),)},
        {"hosts": (("name", "198.18.0.2 evil"),)},
        {"hosts": (("name", "198.18.0.2\nevil"),)},
        {"dns": ("9.9.9.9",) * 4},
        {"dns": ("9.9.9.9\noptions",)},
        {"memory_bytes": MIB},
        {"cpu_milli": 0},
        {"pids": 0},
        {"pids": 70_000},
        {"scratch_bytes": 0},
        {"shm_bytes": 0},
        {"volumes": (VolumeMount(name="v", path="/", size_bytes=GIB),)},
        {"volumes": (VolumeMount(name="v", path="/proc/x", size_bytes=GIB),)},
        {"volumes": (VolumeMount(name="v", path="/etc/hosts", size_bytes=GIB),)},
        {"volumes": (VolumeMount(name="v", path="/etc", size_bytes=GIB),)},
        {"tmpfs": (TmpfsMount(path="/dev/x", size_bytes=MIB),)},
        {"tmpfs": (TmpfsMount(path="/cache", size_bytes=1),)},
        {"tmpfs": (TmpfsMount(path="/cache", size_bytes=MIB, mode=0o10000),)},
        {"tmpfs": (TmpfsMount(path="/cache", size_bytes=MIB),) * 2},
        {
            "tmpfs": (TmpfsMount(path="/data", size_bytes=MIB),),
            "volumes": (VolumeMount(name="v", path="/data", size_bytes=GIB),),
        },
        {"volumes": (VolumeMount(name="v", path="/data", size_bytes=1),)},
        {"volumes": (VolumeMount(name="../v", path="/data", size_bytes=GIB),)},
        {
            "volumes": (
                VolumeMount(name="v", path="/d", size_bytes=GIB),
                VolumeMount(name="w", path="/d", size_bytes=GIB),
            )
        },
        {"secrets": (("a/b", b""),)},
        {"secrets": ((".", b""),)},
        {"secrets": (("big", b"x" * 70_000),)},
        {"stop_signal": 0},
        {"log_bytes": 1},
        {"term": -1},
    ],
)
def test_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        specs.validate_spec(make(**wrong))


def test_every_limit_is_in_the_configuration() -> None:
    made = config(make(memory_bytes=64 * MIB, cpu_milli=250, pids=32))
    resources = made["linux"]["resources"]
    assert resources["memory"] == {"limit": 64 * MIB, "swap": 64 * MIB}
    assert resources["cpu"] == {"shares": 256, "quota": 25_000, "period": 100_000}
    assert resources["pids"] == {"limit": 32}
    assert resources["devices"] == [{"allow": False, "access": "rwm"}]
    assert made["process"]["noNewPrivileges"] is True
    assert made["process"]["capabilities"]["bounding"] == list(specs.CAPABILITIES)
    assert made["process"]["capabilities"]["ambient"] == []
    assert made["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1 << 24, "size": 65_536}]
    kinds = {space["type"] for space in made["linux"]["namespaces"]}
    assert kinds == {"user", "pid", "mount", "ipc", "uts", "cgroup", "network"}


def test_no_dangerous_capability_is_given() -> None:
    dangerous = {
        "NET_RAW",
        "NET_ADMIN",
        "SYS_ADMIN",
        "SYS_PTRACE",
        "SYS_MODULE",
        "MKNOD",
        "DAC_READ_SEARCH",
        "SYS_RAWIO",
    }
    assert dangerous.isdisjoint(name.removeprefix("CAP_") for name in specs.CAPABILITIES)


def test_every_mount_is_nosuid_and_nodev() -> None:
    volume = VolumeMount(name="v", path="/data", size_bytes=GIB, read_only=True)
    mounts = config(make(volumes=(volume,), secrets=(("s", b"x"),)))["mounts"]
    for mount in mounts:
        options = mount["options"]
        assert "nosuid" in options
        assert "nodev" in options or mount["type"] == "devpts" or mount["destination"] == "/dev"
    assert "ro" in next(mount for mount in mounts if mount["destination"] == "/data")["options"]
    assert "sysfs" not in {mount["type"] for mount in mounts}


def test_swap_is_left_out_where_it_cannot_be_counted() -> None:
    assert "swap" not in config(make(), counts_swap=False)["linux"]["resources"]["memory"]


def test_home_and_path_are_added_only_when_missing() -> None:
    env = config(make(env=("HOME=/x", "PATH=/y")))["process"]["env"]
    assert env == ["HOME=/x", "PATH=/y"]
    assert "HOME=/root" in config(make())["process"]["env"]


def test_files() -> None:
    spec = make(hosts=(("db", "198.18.3.2"),), dns=("9.9.9.9",), hostname="web")
    assert specs.hosts_file(spec) == "127.0.0.1 localhost\n127.0.0.1 web\n198.18.3.2 db\n"
    assert specs.resolv_file(spec).startswith("nameserver 9.9.9.9\n")


@given(st.text(max_size=60))
def test_accepted_ids_and_paths_are_plain(text: str) -> None:
    if specs.is_container_id(text):
        assert (Path("/base") / text).parent == Path("/base") and text not in (".", "..")
        assert text == text.strip() and text.isascii()
    if specs.is_inside_path(text):
        assert text.startswith("/") and ".." not in text.split("/") and "\n" not in text


def test_specification_survives_the_codec() -> None:
    spec = make(secrets=(("s", b"\0\xff"),), volumes=(VolumeMount(name="v", path="/data", size_bytes=GIB),))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=ContainerSpec) == spec


def test_mounts_lie_inside_each_other_and_never_over_the_nodes_own_files() -> None:
    spec = make(
        tmpfs=(TmpfsMount(path="/data/cache", size_bytes=MIB, mode=0o700), TmpfsMount(path="/run", size_bytes=MIB)),
        volumes=(VolumeMount(name="v", path="/data", size_bytes=GIB),),
        secrets=(("s", b"x"),),
    )
    places = [mount["destination"] for mount in config(spec)["mounts"]]
    assert places.index("/data") < places.index("/data/cache")
    assert places.index("/run") < places.index("/run/secrets")
    assert places.count("/run") == 1
    cache = next(mount for mount in config(spec)["mounts"] if mount["destination"] == "/data/cache")
    assert {"mode=700", f"size={MIB}", "nosuid", "nodev"} <= set(cache["options"])
