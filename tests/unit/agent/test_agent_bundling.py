"""What a spec and an image become on the node: command, signal, names of volumes, mounts."""

import signal
from typing import Any

import msgspec
import pytest

from freehold.agent.bundling import container_spec, stop_signal, volume_name
from freehold.base.errors import InvalidInputError
from freehold.base.limits import MIB
from freehold.ledger.records import Lease
from freehold.ledger.transactions import Probe, ProbeKind, Resources
from freehold.protocol.spec import RestartSpec, ServiceSpec, TmpfsSpec, VolumeSpec
from freehold.runtime.spec import is_container_id


class _Image(msgspec.Struct):
    config: Any
    path: Any


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("15", 15),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", signal.SIGRTMAX - 1),
        ("RTMIN", signal.SIGRTMIN),
    ],
)
def test_signals(name: str, number: int) -> None:
    assert stop_signal(name) == number


@pytest.mark.parametrize("name", ["", "0", "65", "SIGNONE", "-1", "SIGRTMIN+99", "SIGRTMIN-1", "999999999999", "²"])
def test_no_signals(name: str) -> None:
    with pytest.raises(InvalidInputError):
        stop_signal(name)


def _lease() -> Lease:
    blank = {field.name: b"" for field in msgspec.structs.fields(Lease)}
    known = {"deployment": bytes(32), "tenant": bytes([7]) * 32, "resources": Resources(500, 64, 16)}
    return Lease(**(blank | known | {"probe": Probe(ProbeKind.NONE, 0, "")}))  # type: ignore[arg-type]


def _spec(**settings: Any) -> ServiceSpec:
    base: dict[str, Any] = {
        "version": 1,
        "deployment": "shop",
        "service": "web",
        "replica": 0,
        "image": "x",
        "entrypoint": None,
        "command": ["run"],
        "environment": [],
        "working_dir": "",
        "user": "",
        "hostname": "",
        "pids": 10,
        "scratch_mib": 16,
        "read_only": False,
        "volumes": [],
        "tmpfs": [],
        "secrets": [],
        "health": None,
        "restart": RestartSpec("no", 0),
        "stop_signal": "",
        "stop_grace_ms": 0,
        "peers": [],
        "image_proof": bytes(32),
    }
    return ServiceSpec(**(base | settings))


def test_every_name_that_a_file_may_give_a_volume_names_one_on_the_node() -> None:
    names = ["data", "Data", "a" * 63, "A" * 63, "x.", "x-", "x..y"]
    made = [volume_name(_lease(), _spec(), name) for name in names]
    assert len(set(made)) == len(names)
    assert all(is_container_id(name) and name.startswith(f"{'0' * 24}-") for name in made)


def test_mounts_command_and_limits() -> None:
    class Config:
        entrypoint, cmd, env = ("/entry",), ("image",), ("A=1",)
        working_dir, user, stop_signal = "/srv", "", "SIGQUIT"

    class Path:
        @staticmethod
        def absolute() -> str:
            return "/images/x.erofs"

    spec = _spec(tmpfs=[TmpfsSpec("/cache", 8, 0o700)], volumes=[VolumeSpec("data", "/data", 32, True)])
    made = container_spec(bytes([1]) * 32, _lease(), 3, spec, _Image(Config(), Path()), [])  # type: ignore[arg-type]
    assert made.argv == ("/entry", "run")
    assert (made.stop_signal, made.cwd, made.hostname, made.term) == (signal.SIGQUIT, "/srv", "web", 3)
    assert [(tmpfs.path, tmpfs.size_bytes, tmpfs.mode) for tmpfs in made.tmpfs] == [("/cache", 8 * MIB, 0o700)]
    assert [(volume.path, volume.size_bytes, volume.read_only) for volume in made.volumes] == [
        ("/data", 32 * MIB, True)
    ]
    assert made.memory_bytes == 64 * MIB
    dropped = _spec(entrypoint=["/mine"], command=None)
    made = container_spec(bytes(32), _lease(), 1, dropped, _Image(Config(), Path()), [])  # type: ignore[arg-type]
    assert made.argv == ("/mine",)
