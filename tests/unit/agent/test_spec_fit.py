"""A spec may not ask for more disk than its lease pays for."""

import pytest
from msgspec.structs import replace

from freehold.base.errors import RemoteProtocolError
from freehold.protocol.spec import SPEC_VERSION, PeerSpec, RestartSpec, ServiceSpec, VolumeSpec, check_spec, require_fit

SPEC = ServiceSpec(
    version=SPEC_VERSION,
    deployment="shop",
    service="web",
    replica=0,
    image="web:1",
    image_proof=bytes(32),
    entrypoint=None,
    command=None,
    environment=[],
    working_dir="",
    user="",
    hostname="",
    pids=64,
    scratch_mib=256,
    read_only=False,
    volumes=[VolumeSpec("data", "/data", 1_024, False)],
    tmpfs=[],
    secrets=[],
    health=None,
    restart=RestartSpec("no", 0),
    stop_signal="",
    stop_grace_ms=1_000,
    peers=[],
)


def test_what_is_paid_for_fits() -> None:
    require_fit(SPEC, 1_280)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        replace(SPEC, scratch_mib=1_279 - 1_024 + 1, volumes=SPEC.volumes),
        replace(SPEC, volumes=[VolumeSpec("data", "/data", -5, False), VolumeSpec("more", "/more", 1_000, False)]),
        replace(SPEC, scratch_mib=-1),
    ],
)
def test_more_is_refused(spec: ServiceSpec) -> None:
    with pytest.raises(RemoteProtocolError, match="disk"):
        require_fit(spec, 1_279)


@pytest.mark.parametrize("grace_ms", [-1, 300_001, 1 << 62])
def test_a_container_does_not_outlive_its_lease_by_long(grace_ms: int) -> None:
    with pytest.raises(RemoteProtocolError, match="to end"):
        require_fit(replace(SPEC, stop_grace_ms=grace_ms), 1_280)


DB = PeerSpec("db", [bytes(32)], [5432], "healthy")


def test_services_with_leases_and_ports_are_accepted() -> None:
    check_spec(replace(SPEC, peers=[DB]))


@pytest.mark.parametrize(
    "change",
    [
        {"peers": [replace(DB, ports=[0])]},
        {"peers": [replace(DB, ports=[65_536])]},
        {"peers": [replace(DB, ports=list(range(1, 20_000)))]},
        {"peers": [replace(DB, leases=[])]},
        {"peers": [replace(DB, leases=[b"short"])]},
        {"peers": [replace(DB, service="db\n127.0.0.1 bank.example")]},
        {"peers": [replace(DB, condition="never")]},
        {"peers": [DB, DB]},
        {"peers": [replace(DB, service=f"s{number}") for number in range(65)]},
        {"restart": RestartSpec("sometimes", 0)},
        {"restart": RestartSpec("on-failure", -1)},
    ],
)
def test_what_the_agent_acts_on_is_bounded(change: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError, match="out of bounds"):
        check_spec(replace(SPEC, **change))
