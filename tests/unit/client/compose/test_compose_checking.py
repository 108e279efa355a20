"""What a good file becomes, and how variables, defaults and YAML's traps are read."""

import json

import pytest

from freehold.base.amounts import TOKEN
from freehold.base.errors import InvalidInputError
from freehold.client.compose.checking import CheckResult, check_compose
from freehold.client.compose.model import (
    ComposeFile,
    Dependency,
    Healthcheck,
    Limits,
    Port,
    Probe,
    Restart,
    SecretMount,
    Service,
    Tmpfs,
    VolumeMount,
)

DIGEST = "sha256:" + "a" * 64
FULL = f"""\
name: guestbook
x-freehold:
  max_price_per_hour: 1.50
  prefer: {{country: be, farm: [alpha, "!beta"]}}
x-base: &base
  restart: unless-stopped
  environment: &env {{A: a, B: 2, C: true, D: null}}
services:
  web:
    <<: *base
    image: registry.example:5000/team/web:1.2@{DIGEST}
    command: serve --name "two words"
    entrypoint: ["/entry"]
    environment:
      <<: *env
      A: "${{NAME:-none}}"
    env_file: [web.env, {{path: missing.env, required: false}}]
    ports: ["127.0.0.1:8080:80", {{target: 443, published: "8443", protocol: tcp}}, 9000]
    expose: ["7000", 7001/tcp]
    depends_on: {{db: {{condition: service_healthy}}}}
    deploy: {{replicas: 1, resources: {{limits: {{cpus: "0.5", memory: 1.5g, pids: 64}}}}}}
    hostname: front
    working_dir: /srv/
    user: "1000:1000"
    stop_signal: QUIT
    stop_grace_period: 1m30s
    read_only: true
    tmpfs: ["/tmp:size=16m,mode=700"]
    labels: ["a=b"]
    x-freehold: {{standbys: 2, probe: {{http: {{path: /health, port: 80}}}}}}
  db:
    image: postgres:16
    volumes:
      - data:/var/lib/postgresql
      - {{type: tmpfs, target: /cache, tmpfs: {{size: 32m}}}}
      - {{type: volume, source: logs, target: /logs, read_only: true}}
    healthcheck: {{test: pg_isready -q, interval: 5s, timeout: 2s, retries: 5, start_period: 1s}}
    secrets: [password, {{source: key, target: tls.key}}]
    expose: [5432]
    mem_limit: 512m
    cpus: 1
    pids_limit: 100
    networks: [default]
volumes:
  data: {{x-freehold: {{size: 2GiB, kind: local}}}}
  logs:
secrets:
  password: {{environment: PASSWORD}}
  key: {{file: ./tls.key}}
"""
FILES = {"web.env": b"A=file\nE='x y'\n", "./tls.key": b"\x00key"}


def read_file(path: str) -> bytes:
    if path not in FILES:
        raise InvalidInputError(f"no {path}", code="file_missing")
    return FILES[path]


def service(text: str, **environment: str) -> Service:
    """The service of a file that has one, whose keys are given."""
    body = "".join(f"    {line}\n" for line in text.splitlines())
    result = check_compose(f"services:\n  web:\n    image: a\n{body}", environment=environment)
    assert result.model is not None, result.problems
    return result.model.services["web"]


def codes(text: str, **environment: str) -> list[str]:
    return [problem.code for problem in check_compose(text, environment=environment).problems]


@pytest.fixture(scope="module")
def full() -> ComposeFile:
    result = check_compose(FULL, environment={"PASSWORD": "pw"}, env_file_text="NAME=named\n", read_file=read_file)
    assert [problem.code for problem in result.problems] == ["warning_unset_variable"]  # D has no value
    assert result.model is not None
    return result.model


def test_a_full_file_is_read_to_the_last_key(full: ComposeFile) -> None:
    web = full.services["web"]
    assert str(web.image) == f"registry.example:5000/team/web:1.2@{DIGEST}"
    assert web.command == ("serve", "--name", "two words")
    assert web.entrypoint == ("/entry",)
    assert web.environment == {"A": "named", "B": "2", "C": "true", "E": "x y"}
    assert web.ports == (Port(80, 8080), Port(443, 8443), Port(9000))
    assert web.expose == (7000, 7001)
    assert web.depends_on == (Dependency("db", "service_healthy"),)
    assert web.limits == Limits(500, 1536, 64)
    assert (web.hostname, web.working_dir, web.user) == ("front", "/srv", "1000:1000")
    assert (web.stop_signal, web.stop_grace_ms, web.read_only) == ("SIGQUIT", 90_000, True)
    assert web.tmpfs == (Tmpfs("/tmp", 16, 0o700),)
    assert web.labels == {"a": "b"}
    assert web.restart == Restart("unless-stopped")
    assert (web.standbys, web.probe) == (2, Probe("http", 80, "/health"))


def test_volumes_secrets_and_short_limits(full: ComposeFile) -> None:
    db = full.services["db"]
    assert db.volumes == (VolumeMount("data", "/var/lib/postgresql"), VolumeMount("logs", "/logs", read_only=True))
    assert db.tmpfs == (Tmpfs("/cache", 32),)
    assert db.healthcheck == Healthcheck(("/bin/sh", "-c", "pg_isready -q"), 5_000, 2_000, 5, 1_000)
    assert db.secrets == (SecretMount("password", "password"), SecretMount("key", "tls.key"))
    assert db.limits == Limits(1_000, 512, 100)
    assert (db.standbys, db.probe) == (0, None)
    assert full.volume_mib(db) == 2 * 1024 + 1024
    assert full.secrets["password"].data == b"pw"
    assert full.secrets["key"].data == b"\x00key"
    assert "key" not in repr(full.secrets["key"].data.hex()) and "bytes" in repr(full.secrets["key"])


def test_file_settings(full: ComposeFile) -> None:
    assert full.name == "guestbook"
    assert full.max_price_per_hour == 15 * TOKEN // 10
    assert full.prefer == (("country", "BE"), ("farm", "alpha"), ("farm", "!beta"))


def test_defaults() -> None:
    web = service("")
    assert web.limits == Limits(250, 256, 256, 256)
    assert (web.standbys, web.restart, web.command, web.entrypoint) == (1, Restart("no"), None, None)
    assert service("ports: [80]").probe == Probe("tcp", 80)
    assert service("command: []").command == ()
    assert service("command: ''").command == ()
    assert service("healthcheck: {disable: true}").healthcheck == Healthcheck(())
    assert service("healthcheck: {test: [NONE]}").healthcheck == Healthcheck(())


def test_probe_forms() -> None:
    assert service("x-freehold: {probe: {tcp: 80}}").probe == Probe("tcp", 80)
    assert service("x-freehold: {probe: {tcp: {port: 80}}}").probe == Probe("tcp", 80)
    assert service("x-freehold: {probe: {http: /a, port: 80}}").probe == Probe("http", 80, "/a")
    assert service("x-freehold: {probe: {http: {port: 80}}}").probe == Probe("http", 80, "/")


def test_tags_of_the_core_schema() -> None:
    web = service("environment: {A: !!str 1.10, B: !!int '7', C: !!float 2, D: !!bool 'true', E: !!null ''}", E="e")
    assert web.environment == {"A": "1.10", "B": "7", "C": "2", "D": "true", "E": "e"}


def test_wishes_as_text() -> None:
    result = check_compose("services: {a: {image: a}}\nx-freehold: {prefer: 'country=nl,farm=a'}")
    assert result.model is not None
    assert result.model.prefer == (("country", "NL"), ("farm", "a"))


def test_failover_empty_allows_standbys_with_volumes() -> None:
    text = "services: {a: {image: a, volumes: ['v:/v'], x-freehold: {failover: empty}}}\nvolumes: {v: }\n"
    result = check_compose(text)
    assert result.model is not None
    assert result.model.services["a"].standbys == 1
    assert result.model.services["a"].failover_empty


def test_json_face_has_exactly_the_promised_keys() -> None:
    face = check_compose("services: {a: {image: a, privileged: true}}").as_json()
    assert set(face) == {"ok", "services", "problems"}
    assert face["ok"] is False
    assert face["services"] == ["a"]
    assert [set(problem) for problem in face["problems"]] == [{"code", "path", "line", "message", "hint"}]
    json.dumps(face)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "y", "22:22", "2001-01-01", "0x", "1_a"])
def test_yaml_1_1_words_are_text(word: str) -> None:
    assert service(f"environment: {{A: {word}}}").environment == {"A": word}


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("1.10", "1.1"),
        ("0x10", "16"),
        ("0777", "511"),
        ("0o17", "15"),
        ("1_000", "1000"),
        ("1e3", "1000"),
        ("True", "true"),
    ],
)
def test_unquoted_numbers_are_written_as_compose_does_with_a_warning(written: str, text: str) -> None:
    file = f"services: {{a: {{image: a, environment: {{A: {written}}}}}}}"
    result = check_compose(file)
    assert result.model is not None
    assert result.model.services["a"].environment == {"A": text}
    assert [problem.code for problem in result.problems] == ["warning_unquoted_number"]
    assert service(f'environment: {{A: "{written}"}}').environment == {"A": written}


def test_restart_no_needs_no_quotes_and_booleans_may_come_from_variables() -> None:
    assert service("restart: no").restart == Restart("no")
    assert service("read_only: ${RO}", RO="true").read_only is True
    assert service("deploy: {replicas: '${N}'}", N="1").replicas == 1


def test_sexagesimal_port_is_read_as_compose_does_and_warned_of() -> None:
    result = check_compose("services: {a: {image: a, ports: [22:22]}}")
    assert result.ok
    assert [problem.code for problem in result.problems] == ["warning_unquoted_port"]
    assert result.model is not None
    assert result.model.services["a"].ports == (Port(22, 22),)
    assert codes('services: {a: {image: a, ports: ["22:22"]}}') == []


def test_warnings_leave_a_file_usable() -> None:
    text = "version: '3'\nservices: {a: {image: a, read_only: on, command: $X}}\nvolumes: {v: }\nx-freehod: {}\n"
    result = check_compose(text)
    assert result.ok
    assert {problem.code for problem in result.problems} == {
        "warning_obsolete_version",
        "warning_yaml_boolean",
        "warning_unset_variable",
        "warning_unused",
        "warning_extension",
    }


def test_a_dependency_without_ports_is_warned_of() -> None:
    assert codes("services: {a: {image: a, depends_on: [b]}, b: {image: b}}") == ["warning_no_port"]


def test_environment_wins_over_dotenv_and_keys_are_not_interpolated() -> None:
    text = "services: {a: {image: a, environment: {$X: $X, E: ''}}}"
    result = check_compose(text, environment={"X": "env"}, env_file_text="X=file\n")
    assert result.model is not None
    assert result.model.services["a"].environment == {"$X": "env", "E": ""}


def test_bad_dotenv_is_told_with_its_line() -> None:
    result = check_compose("services: {a: {image: a}}", env_file_text="A=1\n???\n")
    assert [(problem.code, problem.path, problem.line) for problem in result.problems] == [
        ("bad_env_file", '[".env"]', 2)
    ]


def test_harmless_values_of_refused_keys_are_accepted() -> None:
    assert service("privileged: false\ntty: false\nstdin_open: false\ninit: false").name == "web"


def test_a_misspelt_key_is_suggested() -> None:
    (problem,) = check_compose("services: {a: {image: a, enviroment: {}}}").problems
    assert problem.hint == "is `environment` meant?"


def test_the_name_comes_from_the_folder() -> None:
    result = check_compose("services: {a: {image: a}}", "/home/me/My Guest.Book/compose.yaml")
    assert result.model is not None
    assert result.model.name == "myguestbook"


def test_bytes_with_a_mark_are_read_and_other_encodings_told_by_line() -> None:
    assert check_compose(b"\xef\xbb\xbfservices: {a: {image: a}}").ok
    (problem,) = check_compose(b"services:\n  a: {image: \xff}\n").problems
    assert (problem.code, problem.line) == ("bad_encoding", 2)


def test_where_only_the_schema_sees_trouble_it_is_told() -> None:
    (problem,) = check_compose("services: {a: {image: a, deploy: {labels: [a=b, a=b]}}}").problems
    assert problem.code in ("schema", "duplicate_key")
    assert problem.line == 1


def lines_of(result: CheckResult) -> list[int]:
    return [problem.line for problem in result.problems]


def test_lines_of_merged_and_aliased_parts_point_to_where_they_are_written() -> None:
    text = "x-a: &a\n  privileged: true\nservices:\n  b:\n    <<: *a\n    image: a\n"
    assert lines_of(check_compose(text)) == [2]
