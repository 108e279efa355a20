"""Every compose key that counts as supported shows its effect in or on a running container of a real grid.

Two deployments hold nearly all services: `keys`, whose services run, and `ends`, whose services end. `EFFECTS` says
which test shows which key of `client/compose/keys.py`; a key without one fails `test_every_supported_key_has_a_test`.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from compose_programs import (
    CLIENT,
    DEAF,
    DOOR,
    LIMITS,
    POLITE,
    STORAGE,
    SURROUNDINGS,
    WEB,
    compose,
    python,
    service,
)
from local_grid import LocalGrid

from freehold.client.compose import keys

pytestmark = pytest.mark.root


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def keys_file(image_digest: str) -> str:
    unhealthy = {"test": ["CMD", "/bin/sh", "-c", "exit 1"], "interval": "1s", "timeout": "5s", "retries": 2}
    services = {
        # The image's own command; named by digest.
        "plain": service(image=f"test-image@{image_digest}", labels={"seen": "nowhere"}),
        "web": service(
            WEB,
            ports=[{"target": 8080, "published": "${WEB_PORT}", "protocol": "tcp", "host_ip": "127.0.0.1"}],
            expose=["9000"],
            networks={"front": None, "default": None},
            healthcheck={"test": "test -e /tmp/ready", "interval": "1s", "timeout": "5s", "retries": 60},
            **{"x-freehold": {"standbys": 0, "probe": {"http": "/healthz", "port": 8080}}},
        ),
        "client": service(CLIENT, depends_on={"web": {"condition": "service_healthy"}}),
        "third": service("tell(ready=True)\nrest()", depends_on=["client"]),
        "door": service(
            DOOR, ports=["9100"], networks=["front"], **{"x-freehold": {"standbys": 0, "probe": {"tcp": 9100}}}
        ),
        "bare": service(SURROUNDINGS),
        "words": service(
            None,
            entrypoint=python(SURROUNDINGS),
            command="one 'two three' ${UNSET:-four} ${FROM_DOTENV} $$5",
            environment=["LISTED=${FROM_DOTENV:-no}", "FROM_SHELL", "TWICE=from environment"],
            env_file=["./list.env", {"path": "raw.env", "format": "raw"}, {"path": "none.env", "required": False}],
            hostname="chosen",
            working_dir="/home/user",
            user="user:extra",
            read_only=True,
            secrets=["from_file", {"source": "from_variable", "target": "renamed"}],
            deploy={"replicas": 1, "labels": ["a=b"]},
        ),
        "store": service(
            STORAGE,
            restart="always",
            volumes=[
                "data:/data",
                {"type": "volume", "source": "fixed", "target": "/fixed", "read_only": True},
                {"type": "tmpfs", "target": "/memory", "tmpfs": {"size": "4m", "mode": 0o700}},
            ],
            tmpfs=["/cache:size=6m,mode=0750"],
            **{"x-freehold": {"standbys": 0}},
        ),
        "sick": service("rest()", healthcheck=unhealthy),
        "slow": service(
            "rest()", healthcheck=unhealthy | {"test": ["CMD", "/bin/sleep", "20"], "timeout": "1s"}, networks=["front"]
        ),
        "spared": service("rest()", healthcheck=unhealthy | {"start_period": "1h"}),
        "patient": service("rest()", healthcheck=unhealthy | {"retries": 50}),
        "rare": service("rest()", healthcheck=unhealthy | {"interval": "1h", "retries": 1}),
        "unchecked": service("rest()", healthcheck={"disable": True}),
        "small": service(
            LIMITS,
            cpus=0.2,
            deploy={"resources": {"limits": {"cpus": "0.2", "memory": "64M", "pids": 20}}},
        ),
        "short": service(LIMITS, cpus=0.2, mem_limit="64m", pids_limit=12),
    }
    del services["small"]["cpus"], services["small"]["mem_limit"]  # said in `deploy` alone
    for entry in services.values():
        entry.setdefault("networks", ["front"])
    return compose(
        "keys",
        services,
        version="3.8",
        networks={"front": {"labels": {"a": "b"}}},
        volumes={
            "data": {"x-freehold": {"size": "32MiB", "kind": "local"}, "labels": ["a=b"]},
            "fixed": {"x-freehold": {"size": "16MiB"}},
        },
        secrets={
            "from_file": {"file": "./secret.txt", "labels": {"a": "b"}},
            "from_variable": {"environment": "SECRET_WORD"},
        },
    )


@dataclass
class Seen:
    """What a deployment showed: `ps`, every log, when containers started and stopped (boot time in ms)."""

    services: dict[str, dict[str, Any]]
    logs: dict[str, list[str]]
    started: dict[str, list[int]] = field(default_factory=dict)
    stopped: dict[str, list[int]] = field(default_factory=dict)

    def told(self, name: str) -> dict[str, Any]:
        """The last line of JSON that a service printed."""
        return self.all_told(name)[-1]

    def all_told(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.logs[name] if line.startswith("{")]


def look(grid: LocalGrid, deployment: str) -> Seen:
    found = {name.partition("/")[2]: row for name, row in grid.services().items() if name.startswith(f"{deployment}/")}
    return Seen(found, {name: grid.logs(f"{deployment}/{name}") for name in found})


def times(grid: LocalGrid, seen: Seen) -> None:
    names = {row["lease"]: name for name, row in seen.services.items()}
    for node in grid.node_status():
        for entry in grid.term_log(node):
            if entry["container"] in names:
                kept = seen.started if entry["event"] == "started" else seen.stopped
                kept.setdefault(names[entry["container"]], []).append(entry["boottime_ms"])


@pytest.fixture(scope="module")
def web_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def running(local_grid: LocalGrid, web_port: int) -> Iterator[Seen]:
    """The deployment `keys`, once everything in it has told what it found."""
    digest = next(image["digest"] for image in local_grid.cli("image", "list")["images"])
    files: dict[str, str | bytes] = {
        "list.env": "LISTED=overridden\nTWICE=from file\nQUOTED='a b'\n",
        "raw.env": "RAW='as it is'\n",
        "secret.txt": b"from a file\n",
        ".env": "FROM_DOTENV=dotenv\nFROM_SHELL=lost\n",
    }
    variables = {"FROM_SHELL": "from the shell", "SECRET_WORD": "swordfish", "WEB_PORT": str(web_port)}
    done = local_grid.run("deploy", str(local_grid.write_app(keys_file(digest), files)), "--json", **variables)
    assert done.code == 0, f"{done}\n{local_grid.last_logs()}"

    def finished() -> bool:
        nonlocal seen
        seen = look(local_grid, "keys")
        health = [seen.services[name]["health"] for name in ("sick", "slow")]
        return (
            all(seen.all_told(name) for name in ("client", "third", "bare", "words", "small", "short"))
            and len(seen.all_told("store")) == 2
            and health == ["unhealthy", "unhealthy"]
        )

    seen = look(local_grid, "keys")
    local_grid.wait_for(finished, 60, poll=1)
    times(local_grid, seen)
    yield seen
    with contextlib.suppress(AssertionError):
        local_grid.end("keys")


# By table of `keys`: which test shows the effect of which keys.
EFFECTS: dict[str, dict[str, str]] = {
    "FILE": {
        "test_image_by_digest_runs_its_own_command": "version name services",
        "test_volumes_keep_data_over_a_restart_and_have_their_size": "volumes",
        "test_expose_and_networks_let_others_in_by_name": "networks",
        "test_secrets": "secrets",
    },
    "SERVICE": {
        "test_image_by_digest_runs_its_own_command": "image",
        "test_entrypoint_and_command": "entrypoint command",
        "test_environment_and_env_file": "environment env_file",
        "test_ports_are_listened_for_where_the_file_publishes_them": "ports",
        "test_expose_and_networks_let_others_in_by_name": "expose networks",
        "test_volumes_keep_data_over_a_restart_and_have_their_size": "volumes",
        "test_tmpfs_has_size_and_mode_and_is_empty_after_a_restart": "tmpfs",
        "test_healthchecks": "healthcheck",
        "test_restart_policies": "restart",
        "test_depends_on_waits_for_health_and_for_the_start": "depends_on",
        "test_limits": "deploy mem_limit cpus pids_limit",
        "test_secrets": "secrets",
        "test_hostname_working_dir_user": "hostname working_dir user",
        "test_stop_signal_and_grace_period": "stop_signal stop_grace_period",
        "test_read_only": "read_only",
        "test_labels_have_no_effect": "labels",
    },
    "DEPLOY": {"test_limits": "resources", "test_labels_have_no_effect": "labels replicas"},
    "RESOURCES": {"test_limits": "limits"},
    "LIMITS": {"test_limits": "cpus memory pids"},
    "HEALTHCHECK": {"test_healthchecks": "test interval timeout retries start_period disable"},
    "PORT": {"test_ports_are_listened_for_where_the_file_publishes_them": "target published protocol host_ip"},
    "SERVICE_VOLUME": {
        "test_volumes_keep_data_over_a_restart_and_have_their_size": "type source target read_only",
        "test_tmpfs_has_size_and_mode_and_is_empty_after_a_restart": "tmpfs",
    },
    "TMPFS": {"test_tmpfs_has_size_and_mode_and_is_empty_after_a_restart": "size mode"},
    "ENV_FILE": {"test_environment_and_env_file": "path required format"},
    "DEPENDENCY": {"test_depends_on_waits_for_health_and_for_the_start": "condition"},
    "SERVICE_SECRET": {"test_secrets": "source target"},
    "SERVICE_NETWORK": {},
    "VOLUME": {"test_labels_have_no_effect": "labels"},
    "NETWORK": {"test_labels_have_no_effect": "labels"},
    "SECRET": {"test_secrets": "file environment", "test_labels_have_no_effect": "labels"},
    "FREEHOLD_FILE": {
        "test_price_limit_of_the_file": "max_price_per_hour",
        "test_prefer_standbys_and_failover": "prefer",
    },
    "FREEHOLD_SERVICE": {
        "test_prefer_standbys_and_failover": "standbys failover",
        "test_witnesses_speak_to_the_probe": "probe",
    },
    "FREEHOLD_PROBE": {"test_witnesses_speak_to_the_probe": "tcp http"},
    "FREEHOLD_HTTP": {"test_witnesses_speak_to_the_probe": "path port"},
    "FREEHOLD_VOLUME": {"test_volumes_keep_data_over_a_restart_and_have_their_size": "size kind"},
}


def test_every_supported_key_has_a_test() -> None:
    tables = {name: table for name, table in vars(keys).items() if isinstance(table, keys.KeyTable)}
    assert EFFECTS.keys() == tables.keys()
    for name, table in tables.items():
        shown = [key for named in EFFECTS[name].values() for key in named.split()]
        assert sorted(shown) == sorted(table.supported), name
        assert all(test in globals() for test in EFFECTS[name]), name


def test_image_by_digest_runs_its_own_command(running: Seen) -> None:
    assert running.logs["plain"] == ["serving"]
    assert running.services["plain"]["state"] == "running"


def test_what_is_not_asked_for_is_as_the_image_and_the_name_say(running: Seen) -> None:
    bare = running.told("bare")
    assert (bare["hostname"], bare["cwd"], bare["uid"], bare["gid"]) == ("bare", "/srv", 0, 0)
    assert (bare["root"], bare["tmp"], bare["secrets"]) == ("ok", "ok", None)
    assert bare["env"]["IMAGE_WORD"] == "from-the-image"


def test_entrypoint_and_command(running: Seen) -> None:
    assert running.told("words")["argv"] == ["one", "two three", "four", "dotenv", "$5"]


def test_environment_and_env_file(running: Seen) -> None:
    env = running.told("words")["env"]
    assert env["LISTED"] == "dotenv"  # environment over env_file, variables filled in
    assert env["FROM_SHELL"] == "from the shell"  # a name alone: from the caller, who wins over .env
    assert env["TWICE"] == "from environment"
    assert env["QUOTED"] == "a b"
    assert env["RAW"] == "'as it is'"
    assert env["IMAGE_WORD"] == "from-the-image"


def test_hostname_working_dir_user(running: Seen) -> None:
    words = running.told("words")
    assert words["hostname"] == "chosen"
    assert words["resolved"] == "127.0.0.1"
    assert words["cwd"] == "/home/user"
    assert (words["uid"], words["gid"]) == (1000, 2000)


def test_read_only(running: Seen) -> None:
    assert running.told("words")["root"] in ("EROFS", "EACCES")
    assert running.told("words")["tmp"] == "ok"


def test_secrets(running: Seen) -> None:
    assert running.told("words")["secrets"] == {"from_file": "from a file\n", "renamed": "swordfish"}
    assert "swordfish" not in json.dumps(running.told("words")["env"])


def test_labels_have_no_effect(running: Seen) -> None:
    assert "seen" not in json.dumps(running.services["plain"]) + json.dumps(running.told("words")["env"])


def test_ports_are_listened_for_where_the_file_publishes_them(
    local_grid: LocalGrid, running: Seen, web_port: int
) -> None:
    document = local_grid.cli("connect", "keys/web", "8080", "--detach")
    local_grid.forwards["keys/web", 8080] = document["address"]
    assert document["address"] == f"127.0.0.1:{web_port}"
    assert local_grid.http_get("keys/web", 8080) == "hello from web\n"
    assert local_grid.refused("connect", "keys/web", "9001", "--local", "0", expect=2)["code"] == "port_not_published"


def test_expose_and_networks_let_others_in_by_name(running: Seen) -> None:
    client = running.told("client")
    assert client["answer"] == "hello from web"
    assert client["exposed"] == "ok"
    assert client["closed"] in ("ECONNREFUSED", "TimeoutError", "ETIMEDOUT", "EHOSTUNREACH")


def test_depends_on_waits_for_health_and_for_the_start(running: Seen) -> None:
    assert running.told("client")["ready"] == "True"
    assert running.started["client"][0] >= running.started["web"][0] + 3_000
    assert running.started["third"][0] >= running.started["client"][0]
    assert running.started["bare"][0] < running.started["client"][0]


def test_healthchecks(running: Seen) -> None:
    health = {name: row["health"] for name, row in running.services.items()}
    assert (health["web"], health["sick"]) == ("healthy", "unhealthy")
    assert health["slow"] == "unhealthy"  # its test runs into the timeout
    assert health["spared"] == "starting"  # failures in the start period do not count
    assert health["patient"] == "starting"  # not as often as `retries`
    assert health["rare"] == "starting"  # not yet looked at
    assert health["unchecked"] == ""
    assert health["bare"] == ""


def test_volumes_keep_data_over_a_restart_and_have_their_size(running: Seen) -> None:
    first, second = running.all_told("store")
    assert (first["first"], second["first"]) == (True, False)
    assert second["kept"]["/data"] is True
    for told in (first, second):
        result, mib = told["data"]
        assert result == "ENOSPC"
        assert 20 <= mib < 32
        assert told["fixed"] == "EROFS"
    assert running.services["store"]["restarts"] == 1


def test_a_new_volume_holds_what_the_image_has_there(running: Seen) -> None:
    assert running.told("store")["seed"] == "from the image\n"


def test_tmpfs_has_size_and_mode_and_is_empty_after_a_restart(running: Seen) -> None:
    first, second = running.all_told("store")
    assert (second["kept"]["/cache"], second["kept"]["/memory"]) == (False, False)
    for told in (first, second):
        assert told["cache"][0] == told["memory"][0] == "ENOSPC"
        assert (told["cache"][1], told["memory"][1]) in ((6, 4), (5, 3))
        assert (told["cache_mode"], told["memory_mode"]) == ("0o750", "0o700")


@pytest.mark.parametrize(("name", "pids"), [("small", 20), ("short", 12)])
def test_limits(running: Seen, name: str, pids: int) -> None:
    told = running.told(name)
    assert 0.02 < told["share"] < 0.3  # of a core, 0.2 allowed
    assert told["processes"] <= pids
    assert told["processes"] >= pids - 3
    assert told["refused"] == "EAGAIN"
    assert told["hog"] == -9  # 200 MiB in a limit of 64


def test_witnesses_speak_to_the_probe(local_grid: LocalGrid, running: Seen) -> None:
    local_grid.wait_for(lambda: "probed /healthz" in local_grid.logs("keys/web"), 40, poll=1)
    # `deploy` knocks once when it waits; witnesses come three times an epoch.
    local_grid.wait_for(lambda: local_grid.logs("keys/door").count("knock") >= 4, 40, poll=1)


# Services that end, or are ended.

FAIL = "tell(run=1)\nsys.exit(3)"
ENDS = compose(
    "ends",
    {
        "once": service(FAIL),
        "tries": service(FAIL, restart="on-failure:2"),
        "done": service("tell(run=1)", restart="on-failure"),
        "again": service("tell(run=1)", restart="unless-stopped"),
        "never": service(FAIL, restart="no"),
        "hog": service("time.sleep(1)\nx = bytearray(200 << 20)\nrest()", mem_limit="32m"),
        "polite": service(POLITE, stop_signal="SIGUSR1", stop_grace_period="1m"),
        "deaf": service(DEAF, stop_grace_period="3s"),
    },
)


@pytest.fixture(scope="module")
def ended(local_grid: LocalGrid) -> Seen:
    """The deployment `ends` as it stood before it was ended; its logs, starts and stops to the last."""
    done = local_grid.run("deploy", str(local_grid.write_app(ENDS)), "--json")
    # Told at once, unless every service was seen running before it ended.
    assert done.code == 0 or (done.code, done.error["code"]) == (1, "service_exited"), done

    def settled() -> bool:
        rows = local_grid.services()
        exited = [rows[f"ends/{name}"]["state"] for name in ("once", "tries", "done", "never", "hog")]
        running = [rows[f"ends/{name}"]["state"] for name in ("polite", "deaf")]
        again = rows["ends/again"]["restarts"]
        return exited == ["exited"] * 5 and running == ["running"] * 2 and again is not None and again >= 2

    local_grid.wait_for(settled, 60, poll=1)
    seen = look(local_grid, "ends")
    with local_grid.following("ends/polite") as polite, local_grid.following("ends/deaf") as deaf:
        local_grid.wait_for(lambda: polite.read_text() and deaf.read_text(), 20)
        asked_ms = int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)
        local_grid.end("ends")
        local_grid.wait_for(lambda: "got" in polite.read_text() and "got" in deaf.read_text(), 10)
    seen.logs |= {"polite": polite.read_text().splitlines(), "deaf": deaf.read_text().splitlines()}
    times(local_grid, seen)
    seen.started["end"] = [asked_ms]
    return seen


def test_restart_policies(ended: Seen) -> None:
    rows = {name: (row["state"], row["restarts"]) for name, row in ended.services.items()}
    assert rows["once"] == rows["never"] == ("exited", 0)
    assert rows["tries"] == ("exited", 2)
    assert rows["done"] == ("exited", 0)
    assert ended.services["again"]["restarts"] >= 2
    runs = {name: len(ended.started[name]) for name in ended.services}
    assert (runs["once"], runs["tries"], runs["done"]) == (1, 3, 1)
    assert ended.services["once"]["last_exit"] == "exit 3"
    assert ended.services["done"]["last_exit"] == "exit 0"


def test_memory_limit_kills_and_is_told_as_oom(ended: Seen) -> None:
    assert ended.services["hog"]["last_exit"].startswith("oom")


def test_stop_signal_and_grace_period(ended: Seen) -> None:
    assert "got SIGUSR1" in ended.logs["polite"]
    assert "got SIGTERM" not in ended.logs["polite"]
    assert "got SIGTERM" in ended.logs["deaf"]
    took = {name: ended.stopped[name][-1] - ended.started["end"][0] for name in ("polite", "deaf")}
    assert took["deaf"] >= 3_000
    assert took["polite"] < took["deaf"]
    assert took["deaf"] < 12_000  # not the 10 s that a container is given by default, and a poll


# What the plan and a failover show.

MOVES = compose(
    "moves",
    {
        "plain": service(WEB, ports=["8080"], **{"x-freehold": {"standbys": 1}}),
        "empty": service(
            WEB,
            ports=["8080"],
            volumes=["data:/data"],
            **{"x-freehold": {"standbys": 1, "failover": "empty"}},
        ),
    },
    volumes={"data": {"x-freehold": {"size": "16MiB"}}},
    **{"x-freehold": {"prefer": {"country": "BE", "farm": "!porto"}}},
)


@pytest.mark.long
def test_prefer_standbys_and_failover(local_grid: LocalGrid) -> None:
    local_grid.deploy(MOVES)
    for name in ("moves/plain", "moves/empty"):
        primary, standby = local_grid.members_of(name)
        assert primary == "ghent-1"  # the one node in Belgium
        assert standby in ("vienna-1", "brno-1")
        assert local_grid.python(name, "open('/data/made', 'w').write('x')") == ""
    local_grid.kill_node("ghent-1")
    try:
        look_for_it = "import os; print(os.path.exists('/data/made'), os.path.ismount('/data'))"
        for name, mounted in (("moves/plain", False), ("moves/empty", True)):
            local_grid.wait_for(lambda name=name: local_grid.service(name)["term"] == 2, 60, poll=1)  # type: ignore[misc]
            assert local_grid.python(name, look_for_it, timeout=60) == f"False {mounted}\n"
    finally:
        local_grid.start_agent("ghent-1")
    local_grid.end("moves")


def test_price_limit_of_the_file(local_grid: LocalGrid) -> None:
    def plan(limit: str) -> str:
        text = compose("priced", {"web": service()}, **{"x-freehold": {"max_price_per_hour": limit}})
        return str(local_grid.write_app(text))

    assert local_grid.cli("deploy", plan("1"), "--plan")["price"]["per_hour"] < "1"
    assert local_grid.refused("deploy", plan("0.0000001"), "--plan", expect=3)["code"] == "price_above_limit"
