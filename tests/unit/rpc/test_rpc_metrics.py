"""The metrics' page, the alarms on it and their runbook: each names only what the others have."""

import re
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families
from rpc_kit import Face, FakeDesk, desk_at, run

from freehold.rpc.app import make_app
from freehold.rpc.archive import IndexStanding
from freehold.rpc.desk import Halted
from freehold.rpc.metrics import Metrics
from freehold.rpc.rates import RateLimiter
from freehold.rpc.routes import ROUTES

ROOT = Path(__file__).parents[3]
ALARMS = ROOT / "docs/alarms.yml"
# As CometBFT v0.38.25 prints them (consensus/metrics.gen.go, state/metrics.gen.go), and Prometheus' own `up`.
ENGINES = {
    "cometbft_consensus_missing_validators_power",
    "cometbft_consensus_validators_power",
    "cometbft_consensus_validator_missed_blocks",
    "cometbft_consensus_block_interval_seconds_count",
    "cometbft_consensus_round_duration_seconds_count",
    "cometbft_state_block_processing_time_sum",
    "cometbft_state_block_processing_time_count",
}


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def test_gauges_say_where_the_engine_stands(tmp_path: Path) -> None:
    desk = desk_at(3)
    now_s = desk.standing().time_ms / 1_000 + 7
    metrics = Metrics(desk, tmp_path, lambda: now_s)
    assert value(metrics, "freehold_height") == 3
    assert abs(value(metrics, "freehold_block_age_seconds") - 7) < 1e-6
    assert value(metrics, "freehold_halted", code="") == 0
    assert value(metrics, "freehold_disk_free_bytes") > 0
    desk.halted = Halted("disk_full", "no space", "make some")
    assert value(metrics, "freehold_halted", code="disk_full") == 1
    assert value(metrics, "freehold_proposing") == 0


def test_gauges_say_how_far_history_is() -> None:
    desk, standing = desk_at(3), IndexStanding(2, 0, "")
    metrics = Metrics(desk, index=lambda: standing)
    assert value(metrics, "freehold_index_behind_blocks") == 1
    assert value(metrics, "freehold_index_failed", code="") == 0
    standing = IndexStanding(-1, 7, "index_slow")
    assert value(metrics, "freehold_index_behind_blocks") == 3
    assert value(metrics, "freehold_index_missing_blocks") == 7
    assert value(metrics, "freehold_index_failed", code="index_slow") == 1
    assert not [name for name, _ in samples(Metrics(desk)) if "index" in name]


def test_requests_are_counted_by_route_and_never_by_what_a_client_wrote() -> None:
    async def go() -> Metrics:
        async with Face(desk_at(3)) as face:
            metrics = Metrics(face.desk)
            face.app = make_app(face.service, RateLimiter(1e6, 1e6), lambda *_: None, metrics.answered)
            face.http._transport.app = face.app
            for path in ("/v1/status", "/v1/status", "/v1/tx/" + "00" * 32, "/nowhere/" + "x" * 50, "/"):
                await face.get(path)
            return metrics

    metrics = run(go())
    assert value(metrics, "freehold_http_requests_total", route="status", status="200") == 2
    assert value(metrics, "freehold_http_requests_total", route="tx", status="404") == 1
    assert value(metrics, "freehold_http_request_seconds_count", route="status") == 2
    routes = {dict(labels).get("route", "") for _, labels in samples(metrics)}
    assert routes <= {"", "/", "/v1/genesis", "/openapi.json", *(route.name for route in ROUTES)}


def test_what_alarms_look_for_an_increase_of_begins_at_zero() -> None:
    """Prometheus sees no increase where a counter's first value is that of the first failure."""
    metrics = Metrics(desk_at(3))
    assert {value(metrics, "freehold_http_requests_total", route=route.name, status="500") for route in ROUTES} == {0}
    assert value(metrics, "freehold_misbehaviors_total") == 0
    assert value(metrics, "freehold_snapshots_failed_total") == 0


def test_every_alarm_is_shown_to_fire_and_to_be_silent() -> None:
    """By `make alarms`: the vectors name each alarm with and without an alert expected."""
    rules = [rule for group in yaml.safe_load(ALARMS.read_text())["groups"] for rule in group["rules"]]
    vectors = yaml.safe_load((ROOT / "tests/vectors/alarms.test.yml").read_text())
    cases = [case for test in vectors["tests"] for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in rules}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names
    assert all(rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"] for rule in rules)


def test_alarms_and_runbook_name_what_there_is() -> None:
    groups = yaml.safe_load(ALARMS.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    text = (ROOT / "docs/runbook.md").read_text()
    headings = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert [rule["alert"] for rule in rules] == headings
    metrics = Metrics(FakeDesk(), ROOT, index=lambda: IndexStanding(0, 0, ""))
    metrics.answered("status", 200, 0.01)
    known = {name for name, _ in samples(metrics)} | ENGINES | {"up"}
    for rule in rules:
        named = set(re.findall(r"\b(?:freehold|cometbft|process)_\w+|\bup\b", rule["expr"]))
        assert named, rule
        assert named <= known, sorted(named - known)
    routes = {route.name for route in ROUTES}
    named = {
        name
        for rule in rules
        for names in re.findall(r'route!?[=~]+"([\w|]+)"', rule["expr"])
        for name in names.split("|")
    }
    assert named == {"submit", "faucet"} <= routes
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    halts = text.partition("### LedgerHalted")[2].partition("###")[0]
    for code in re.findall(r"`([a-z]+_[a-z_]+)`", halts):
        assert f'"{code}"' in source, code
