"""Bad files, one trouble each: which code is told, at which path and line."""

import pytest

from freehold.client.compose.checking import check_compose

SERVICE = "services:\n  web:\n    image: nginx:1\n"


def entry(text: str) -> str:
    """A service with some lines of its own, which begin on line 4."""
    return SERVICE + "".join(f"    {line}\n" for line in text.splitlines())


# name: (file, code, path, line)
BAD: dict[str, tuple[str, str, str, int]] = {
    "empty": ("", "empty", "", 0),
    "comment only": ("# nothing\n", "empty", "", 0),
    "scalar": ("hello", "wrong_type", "", 1),
    "list": ("- a\n", "wrong_type", "", 1),
    "no services": ("name: x\n", "missing_key", "", 1),
    "empty services": ("services: {}\n", "no_services", "services", 1),
    "null services": ("services:\n", "wrong_type", "services", 1),
    "null volumes": (SERVICE + "volumes:\n", "wrong_type", "volumes", 4),
    "null service": ("services:\n  web:\n", "wrong_type", "services.web", 2),
    "tab": ("services:\n\tweb: x\n", "bad_yaml", "", 2),
    "open bracket": ("services: [\n", "bad_yaml", "", 2),
    "two documents": (SERVICE + "---\na: 1\n", "many_documents", "", 4),
    "duplicate key": (entry("image: b"), "duplicate_key", "services.web.image", 4),
    "duplicate service": (SERVICE + "  web: {image: b}\n", "duplicate_key", "services.web", 4),
    "number key": ("services:\n  80: {image: a}\n", "bad_key", "services", 2),
    "list key": ("services:\n  ? [a]\n  : {image: a}\n", "bad_key", "services", 2),
    "python tag": (entry("command: !!python/object/apply:os.system [ls]"), "bad_tag", "", 4),
    "reset tag": (entry("command: !reset null"), "bad_tag", "services.web.command", 4),
    "binary tag": (entry("command: !!binary aGk="), "bad_tag", "services.web.command", 4),
    "alias cycle": (SERVICE + "x-a: &a [*a]\n", "alias_cycle", "", 4),
    "unknown alias": (SERVICE + "x-a: *nothing\n", "unknown_anchor", "", 4),
    "merge of text": (entry("<<: text"), "bad_merge", 'services.web["<<"]', 4),
    "NUL": (entry(r'command: "a\0b"'), "bad_characters", "", 4),
    "unknown top key": (SERVICE + "service: {}\n", "unknown_key", "service", 4),
    "unknown service key": (entry("enviroment: {}"), "unknown_key", "services.web.enviroment", 4),
    "include": (SERVICE + "include: [a.yaml]\n", "unsupported_key", "include", 4),
    "configs": (SERVICE + "configs: {a: {file: ./a}}\n", "unsupported_key", "configs", 4),
    "no image": ("services:\n  web:\n    command: ls\n", "missing_key", "services.web", 2),
    "build": ("services:\n  web:\n    build: .\n", "unsupported_key", "services.web.build", 3),
    "upper-case image": ("services:\n  web:\n    image: NGINX\n", "bad_image", "services.web.image", 3),
    "image digest": ("services:\n  web:\n    image: a@sha256:12\n", "bad_image", "services.web.image", 3),
    "service name": ("services:\n  Web:\n    image: a\n", "bad_name", "services.Web", 2),
    "project name": ("name: ../x\n" + SERVICE, "bad_name", "name", 1),
    "privileged": (entry("privileged: true"), "unsupported_key", "services.web.privileged", 4),
    "privileged word": (entry("privileged: yes"), "unsupported_key", "services.web.privileged", 4),
    "cap_add": (entry("cap_add: [SYS_ADMIN]"), "unsupported_key", "services.web.cap_add", 4),
    "devices": (entry("devices: [/dev/kvm]"), "unsupported_key", "services.web.devices", 4),
    "host network": (entry("network_mode: host"), "unsupported_key", "services.web.network_mode", 4),
    "host pid": (entry("pid: host"), "unsupported_key", "services.web.pid", 4),
    "host ipc": (entry("ipc: host"), "unsupported_key", "services.web.ipc", 4),
    "userns": (entry("userns_mode: host"), "unsupported_key", "services.web.userns_mode", 4),
    "security_opt": (entry("security_opt: ['seccomp:unconfined']"), "unsupported_key", "services.web.security_opt", 4),
    "cgroup": (entry("cgroup: host"), "unsupported_key", "services.web.cgroup", 4),
    "sysctls": (entry("sysctls: {a: 1}"), "unsupported_key", "services.web.sysctls", 4),
    "api socket": (entry("use_api_socket: true"), "unsupported_key", "services.web.use_api_socket", 4),
    "extra_hosts": (entry("extra_hosts: ['a:1.2.3.4']"), "unsupported_key", "services.web.extra_hosts", 4),
    "profiles": (entry("profiles: [debug]"), "unsupported_key", "services.web.profiles", 4),
    "extends": (entry("extends: {service: a}"), "unsupported_key", "services.web.extends", 4),
    "container_name": (entry("container_name: a"), "unsupported_key", "services.web.container_name", 4),
    "docker socket": (
        entry("volumes: ['/var/run/docker.sock:/var/run/docker.sock']"),
        "host_mount",
        "services.web.volumes[0]",
        4,
    ),
    "host mount": (entry("volumes:\n- ./data:/data"), "host_mount", "services.web.volumes[0]", 5),
    "root mount": (entry("volumes: ['/:/host']"), "host_mount", "services.web.volumes[0]", 4),
    "home mount": (entry("volumes: ['~/x:/host']"), "host_mount", "services.web.volumes[0]", 4),
    "windows mount": (entry(r"volumes: ['C:\x:/host']"), "host_mount", "services.web.volumes[0]", 4),
    "bind mount": (
        entry("volumes: [{type: bind, source: /etc, target: /x}]"),
        "host_mount",
        "services.web.volumes[0]",
        4,
    ),
    "anonymous volume": (entry("volumes: [/data]"), "anonymous_volume", "services.web.volumes[0]", 4),
    "unknown volume": (entry("volumes: ['data:/data']"), "missing_volume", "services.web.volumes[0]", 4),
    "mount on proc": (
        entry("volumes: ['v:/proc/x']") + "volumes: {v: }\n",
        "bad_path",
        "services.web.volumes[0]",
        4,
    ),
    "mount with dots": (entry("volumes: ['v:/a/../b']") + "volumes: {v: }\n", "bad_path", "services.web.volumes[0]", 4),
    "relative mount": (entry("volumes: ['v:a']") + "volumes: {v: }\n", "bad_path", "services.web.volumes[0]", 4),
    "two on one path": (entry("tmpfs: [/a, /a]"), "duplicate_mount", "services.web", 2),
    "external volume": (SERVICE + "volumes: {v: {external: true}}\n", "unsupported_key", "volumes.v.external", 4),
    "volume driver": (SERVICE + "volumes: {v: {driver: nfs}}\n", "unsupported_key", "volumes.v.driver", 4),
    "driver_opts": (
        SERVICE + "volumes: {v: {driver_opts: {type: none, device: /, o: bind}}}\n",
        "unsupported_key",
        "volumes.v.driver_opts",
        4,
    ),
    "volume size": (
        SERVICE + "volumes: {v: {x-freehold: {size: 1}}}\n",
        "out_of_range",
        "volumes.v.x-freehold.size",
        4,
    ),
    "store volume": (
        SERVICE + "volumes: {v: {x-freehold: {kind: store}}}\n",
        "unsupported_value",
        "volumes.v.x-freehold.kind",
        4,
    ),
    "port range": (entry("ports: ['80-90:80-90']"), "unsupported_value", "services.web.ports[0]", 4),
    "udp": (entry("ports: ['53:53/udp']"), "unsupported_value", "services.web.ports[0]", 4),
    "all addresses": (entry("ports: ['0.0.0.0:80:80']"), "unsupported_value", "services.web.ports[0]", 4),
    "IPv6 address": (entry("ports: ['[::1]:80:80']"), "unsupported_value", "services.web.ports[0]", 4),
    "port 0": (entry("ports: [0]"), "bad_port", "services.web.ports[0]", 4),
    "port 65536": (entry("ports: ['65536:80']"), "bad_port", "services.web.ports[0]", 4),
    "port word": (entry("ports: [http]"), "bad_port", "services.web.ports[0]", 4),
    "port mode": (entry("ports: [{target: 80, mode: host}]"), "unsupported_key", "services.web.ports[0].mode", 4),
    "published twice": (
        entry("ports: ['80:80']") + "  b:\n    image: b\n    ports: ['80:81']\n",
        "duplicate_port",
        "services.b.ports",
        7,
    ),
    "self cycle": (entry("depends_on: [web]"), "dependency_cycle", "services.web.depends_on[0]", 4),
    "missing dependency": (entry("depends_on: [wep]"), "missing_service", "services.web.depends_on[0]", 4),
    "no healthcheck": (
        entry("depends_on: {b: {condition: service_healthy}}") + "  b: {image: b, expose: [1]}\n",
        "no_healthcheck",
        "services.web.depends_on.b",
        4,
    ),
    "completion": (
        entry("depends_on: {b: {condition: service_completed_successfully}}") + "  b: {image: b}\n",
        "unsupported_value",
        "services.web.depends_on.b.condition",
        4,
    ),
    "shell operator": (entry("command: a && b"), "shell_operator", "services.web.command", 4),
    "open quote": (entry('command: "a \'b"'), "bad_value", "services.web.command", 4),
    "number in command": (entry("command: [sleep, 10]"), "wrong_type", "services.web.command[1]", 4),
    "healthcheck kind": (entry("healthcheck: {test: [RUN, a]}"), "bad_value", "services.web.healthcheck.test", 4),
    "healthcheck time": (
        entry("healthcheck: {test: a, interval: 1 minute}"),
        "bad_duration",
        "services.web.healthcheck.interval",
        4,
    ),
    "healthcheck empty": (entry("healthcheck: {retries: 3}"), "missing_key", "services.web.healthcheck", 4),
    "restart": (entry("restart: sometimes"), "bad_value", "services.web.restart", 4),
    "restart false": (entry("restart: false"), "wrong_type", "services.web.restart", 4),
    "replicas": (
        entry("deploy: {replicas: 3}"),
        "unsupported_value",
        "services.web.deploy.replicas",
        4,
    ),
    "reservations": (
        entry("deploy: {resources: {reservations: {memory: 1g}}}"),
        "unsupported_key",
        "services.web.deploy.resources.reservations",
        4,
    ),
    "memory": (entry("mem_limit: lots"), "bad_size", "services.web.mem_limit", 4),
    "little memory": (entry("mem_limit: 1m"), "out_of_range", "services.web.mem_limit", 4),
    "negative cpus": (entry("cpus: -1"), "bad_value", "services.web.cpus", 4),
    "unlimited pids": (entry("pids_limit: -1"), "out_of_range", "services.web.pids_limit", 4),
    "two limits": (
        entry("cpus: 1\ndeploy: {resources: {limits: {cpus: '2'}}}"),
        "conflict",
        "services.web.cpus",
        4,
    ),
    "missing secret": (entry("secrets: [a]"), "missing_secret", "services.web.secrets[0]", 4),
    "secret outside": (SERVICE + "secrets: {a: {file: ../a}}\n", "file_missing", "secrets.a.file", 4),
    "secret unset": (SERVICE + "secrets: {a: {environment: A}}\n", "variable_required", "secrets.a.environment", 4),
    "secret external": (SERVICE + "secrets: {a: {external: true}}\n", "unsupported_key", "secrets.a.external", 4),
    "secret path": (
        entry("secrets: [{source: a, target: /etc/passwd}]") + "secrets: {a: {environment: HOME}}\n",
        "bad_path",
        "services.web.secrets[0].target",
        4,
    ),
    "external network": (SERVICE + "networks: {n: {external: true}}\n", "unsupported_key", "networks.n.external", 4),
    "missing network": (entry("networks: [n]"), "missing_network", "services.web.networks[0]", 4),
    "separated": (
        entry("networks: [a]") + "  b: {image: b, networks: [b]}\nnetworks: {a: , b: }\n",
        "separate_networks",
        "services.b.networks",
        5,
    ),
    "network alias": (
        entry("networks: {default: {aliases: [a]}}"),
        "unsupported_key",
        "services.web.networks.default.aliases",
        4,
    ),
    "required variable": (entry("command: ${A:?give A}"), "variable_required", "services.web.command", 4),
    "assigning variable": (entry("command: ${A:=b}"), "bad_interpolation", "services.web.command", 4),
    "open brace": (entry("command: '${A'"), "bad_interpolation", "services.web.command", 4),
    "env_file missing": (entry("env_file: ./a.env"), "file_missing", "services.web.env_file", 4),
    "standbys": (entry("x-freehold: {standbys: 5}"), "out_of_range", "services.web.x-freehold.standbys", 4),
    "standbys with data": (
        entry("volumes: ['v:/v']\nx-freehold: {standbys: 1}") + "volumes: {v: }\n",
        "conflict",
        "services.web.x-freehold.standbys",
        5,
    ),
    "x-freehold key": (entry("x-freehold: {standby: 1}"), "unknown_key", "services.web.x-freehold.standby", 4),
    "smtp": (entry("x-freehold: {smtp: true}"), "unsupported_key", "services.web.x-freehold.smtp", 4),
    "probe path": (
        entry("x-freehold: {probe: {http: {path: 'a b', port: 80}}}"),
        "bad_value",
        "services.web.x-freehold.probe.http.path",
        4,
    ),
    "probe both": (
        entry("x-freehold: {probe: {http: {port: 80}, tcp: 80}}"),
        "bad_value",
        "services.web.x-freehold.probe",
        4,
    ),
    "price": (SERVICE + "x-freehold: {max_price_per_hour: -1}\n", "bad_amount", "x-freehold.max_price_per_hour", 4),
    "prefer": (SERVICE + "x-freehold: {prefer: {planet: B}}\n", "bad_preference", "x-freehold.prefer", 4),
    "environment list": (entry("environment: [[a]]"), "wrong_type", "services.web.environment[0]", 4),
    "environment deep": (entry("environment: {a: [1]}"), "wrong_type", "services.web.environment.a", 4),
    "environment name": (entry("environment: ['a b=c']"), "bad_name", "services.web.environment[0]", 4),
    "hostname": (entry("hostname: a_b.c"), "bad_value", "services.web.hostname", 4),
    "user": (entry("user: 'root; ls'"), "bad_value", "services.web.user", 4),
    "signal": (entry("stop_signal: SIGFOO"), "bad_value", "services.web.stop_signal", 4),
    "grace": (entry("stop_grace_period: 1h"), "out_of_range", "services.web.stop_grace_period", 4),
    "working_dir": (entry("working_dir: a"), "bad_path", "services.web.working_dir", 4),
    "tmpfs option": (entry("tmpfs: /a:exec"), "unsupported_value", "services.web.tmpfs", 4),
    "tmpfs over memory": (entry("tmpfs: /a:size=1g"), "conflict", "services.web", 2),
    "duplicate label": (entry("labels: [a=1, a=2]"), "duplicate_key", "services.web.labels[1]", 4),
    "many labels": (
        entry("labels: {" + ", ".join(f"a{n}: 1" for n in range(513)) + "}"),
        "too_many",
        "services.web.labels",
        4,
    ),
    "long value": (entry("environment: {A: " + "a" * 140_000 + "}"), "bad_value", "services.web.environment.A", 4),
    "env_file without path": (entry("env_file: [{required: true}]"), "missing_key", "services.web.env_file[0]", 4),
    "env_file format": (
        entry("env_file: [{path: a, format: toml}]"),
        "unsupported_value",
        "services.web.env_file[0].format",
        4,
    ),
    "secret without source": (entry("secrets: [{target: a}]"), "missing_key", "services.web.secrets[0]", 4),
    "secrets of one name": (
        entry("secrets: [a, {source: b, target: a}]") + "secrets: {a: {environment: A}, b: {environment: B}}\n",
        "duplicate_mount",
        "services.web.secrets[1]",
        4,
    ),
    "secret of two sources": (SERVICE + "secrets: {a: {file: a, environment: A}}\n", "missing_key", "secrets.a", 4),
    "mount option": (
        entry("volumes: ['v:/v:z']") + "volumes: {v: }\n",
        "unsupported_value",
        "services.web.volumes[0]",
        4,
    ),
    "mount name": (entry("volumes: ['a b:/v']"), "bad_name", "services.web.volumes[0]", 4),
    "image mount": (
        entry("volumes: [{type: image, source: a, target: /a}]"),
        "unsupported_value",
        "services.web.volumes[0].type",
        4,
    ),
    "pipe mount": (
        entry("volumes: [{type: npipe, source: a, target: /a}]"),
        "host_mount",
        "services.web.volumes[0].type",
        4,
    ),
    "mount without target": (
        entry("volumes: [{type: volume, source: a}]"),
        "missing_key",
        "services.web.volumes[0]",
        4,
    ),
    "mount without source": (
        entry("volumes: [{type: volume, target: /a}]"),
        "anonymous_volume",
        "services.web.volumes[0]",
        4,
    ),
    "tmpfs settings of a volume": (
        entry("volumes: [{type: volume, source: a, target: /a, tmpfs: {size: 1m}}]"),
        "no_effect",
        "services.web.volumes[0].tmpfs",
        4,
    ),
    "source of a tmpfs": (
        entry("volumes: [{type: tmpfs, source: a, target: /a}]"),
        "no_effect",
        "services.web.volumes[0].source",
        4,
    ),
    "volume name": (SERVICE + "volumes: {'a b': }\n", "bad_name", 'volumes["a b"]', 4),
    "volume named as extension": (SERVICE + "volumes: {x-a: }\n", "bad_name", "volumes.x-a", 4),
    "volume kind": (SERVICE + "volumes: {v: {x-freehold: {kind: nfs}}}\n", "bad_value", "volumes.v.x-freehold.kind", 4),
    "shared volume": (
        entry("volumes: ['v:/v']") + "  b: {image: b, volumes: ['v:/v']}\nvolumes: {v: }\n",
        "shared_volume",
        "services.b.volumes[0]",
        5,
    ),
    "port listed twice": (entry("ports: [80, 80]"), "duplicate_port", "services.web.ports[1]", 4),
    "port without target": (entry("ports: [{published: 80}]"), "missing_key", "services.web.ports[0]", 4),
    "port boolean": (entry("ports: [true]"), "wrong_type", "services.web.ports[0]", 4),
    "long udp": (
        entry("ports: [{target: 1, protocol: udp}]"),
        "unsupported_value",
        "services.web.ports[0].protocol",
        4,
    ),
    "long address": (
        entry("ports: [{target: 1, host_ip: 1.2.3.4}]"),
        "unsupported_value",
        "services.web.ports[0].host_ip",
        4,
    ),
    "probe without port": (
        entry("x-freehold: {probe: {http: {path: /}}}"),
        "missing_key",
        "services.web.x-freehold.probe.http",
        4,
    ),
    "probe key": (
        entry("x-freehold: {probe: {http: /, port: 80, host: a}}"),
        "unknown_key",
        "services.web.x-freehold.probe.host",
        4,
    ),
    "tcp probe path": (
        entry("x-freehold: {probe: {tcp: {port: 80, path: /}}}"),
        "no_effect",
        "services.web.x-freehold.probe.tcp.path",
        4,
    ),
    "failover": (entry("x-freehold: {failover: always}"), "bad_value", "services.web.x-freehold.failover", 4),
    "failover without volumes": (
        entry("x-freehold: {failover: empty}"),
        "no_effect",
        "services.web.x-freehold.failover",
        4,
    ),
    "disabled healthcheck": (
        entry("healthcheck: {disable: true, test: a}"),
        "no_effect",
        "services.web.healthcheck",
        4,
    ),
    "dependency without condition": (
        entry("depends_on: {b: {}}") + "  b: {image: b}\n",
        "missing_key",
        "services.web.depends_on.b",
        4,
    ),
    "dependency condition": (
        entry("depends_on: {b: {condition: started}}") + "  b: {image: b}\n",
        "bad_value",
        "services.web.depends_on.b.condition",
        4,
    ),
    "many cpus": (entry("cpus: 1000"), "out_of_range", "services.web.cpus", 4),
    "boolean": (entry("read_only: perhaps"), "bad_value", "services.web.read_only", 4),
    "price list": (
        SERVICE + "x-freehold: {max_price_per_hour: [1]}\n",
        "wrong_type",
        "x-freehold.max_price_per_hour",
        4,
    ),
    "prefer text": (SERVICE + "x-freehold: {prefer: country=Belgium}\n", "bad_preference", "x-freehold.prefer", 4),
    "bad !!int": (entry("cpus: !!int a"), "bad_tag", "services.web.cpus", 4),
    "list tag": (entry("command: !!set {a}"), "bad_tag", "", 4),
    "jobs": (SERVICE + "jobs: {}\n", "unsupported_key", "jobs", 4),
    "x-freehold on network": (SERVICE + "networks: {n: {x-freehold: {}}}\n", "unknown_key", "networks.n.x-freehold", 4),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_told_by_code_path_and_line(name: str) -> None:
    text, code, path, line = BAD[name]
    result = check_compose(text)
    told = [(problem.code, problem.path, problem.line) for problem in result.problems]
    assert not result.ok
    assert result.model is None
    assert (code, path, line) in told


@pytest.mark.parametrize("name", BAD)
def test_every_refusal_has_a_message_and_most_a_hint(name: str) -> None:
    for problem in check_compose(BAD[name][0]).problems:
        assert problem.message
        assert len(problem.message) <= 400
        if problem.code in ("unsupported_key", "unsupported_value", "host_mount", "conflict"):
            assert problem.hint


def test_a_cycle_is_named_in_order_from_the_service_written_first() -> None:
    text = (
        "services:\n"
        "  c: {image: a, depends_on: [a], expose: [1]}\n"
        "  b: {image: a, depends_on: [c], expose: [1]}\n"
        "  a: {image: a, depends_on: [b], expose: [1]}\n"
    )
    (problem,) = check_compose(text).problems
    assert problem.code == "dependency_cycle"
    assert problem.message.endswith("c -> a -> b -> c")
    assert problem.line == 2


def test_two_cycles_are_both_named() -> None:
    text = "services:\n" + "".join(
        f"  {name}: {{image: a, depends_on: [{other}], expose: [1]}}\n"
        for name, other in (("a", "b"), ("b", "a"), ("c", "d"), ("d", "c"))
    )
    messages = [problem.message for problem in check_compose(text).problems]
    assert len(messages) == 2
    assert "a -> b -> a" in messages[0]
    assert "c -> d -> c" in messages[1]
