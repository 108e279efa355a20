"""Prometheus itself, with the operators' alarms, beside a real validator: each expression finds what it looks for."""

import asyncio
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from comet_process import free_port, make_validators
from ledger_process import LedgerProcess

from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.operators import OperatorHome
from freehold.grid.processes import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
ALARMS = ROOT / "docs/alarms.yml"
LIMIT_S = 90.0
CONDITIONAL = {"ClockOff", "ValidatorOut"}  # their label is there only while they fire


def ask(port: int, query: str) -> list[Any]:
    answer = httpx2.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, trust_env=False).json()
    assert answer["status"] == "success", (query, answer)
    return list(answer["data"]["result"])


def found(port: int, query: str) -> bool:
    try:
        return bool(ask(port, query))
    except httpx2.HTTPError:
        return False


def height(home: Path) -> int:
    async def now() -> int:
        async with CometClient(OperatorHome(home).rpc_socket) as client:
            return (await client.status()).height

    return asyncio.run(now())


def engine_of(daemon: LedgerProcess) -> int:
    """The process of the engine, a child of the daemon."""
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    return int(next(one for one in children if "cometbft" in Path(f"/proc/{one}/cmdline").read_text()))


def test_every_alarm_finds_its_series_on_a_running_validator(tmp_path: Path) -> None:
    homes = make_validators(tmp_path, 4)
    ports = {"freehold": free_port(), "cometbft": free_port()}
    for name, job in (("ledger.toml", "freehold"), ("validator.toml", "cometbft")):
        path = homes[0] / name
        text = re.sub(r"(?m)^metrics = .*\n", "", path.read_text())
        path.write_text(f'{text}metrics = "127.0.0.1:{ports[job]}"\n')
    jobs = [{"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{ports[job]}"]}]} for job in ports]
    settings = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(ALARMS)]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(settings | {"scrape_configs": jobs}))
    port = free_port()
    command = [ROOT / ".tools/prometheus/prometheus", f"--config.file={tmp_path}/prometheus.yml"]
    command += [f"--storage.tsdb.path={tmp_path}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
    daemons = [LedgerProcess(home) for home in homes]
    prometheus = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for daemon in daemons:
            daemon.wait_started()
        assert wait_until(lambda: found(port, "cometbft_consensus_block_interval_seconds_count > 5"), LIMIT_S)
        # while its engine stands still the others go on, and what it catches up with lacks its votes
        engine, begun = engine_of(daemons[0]), height(homes[1])
        os.kill(engine, signal.SIGSTOP)
        try:
            assert wait_until(lambda: height(homes[1]) > begun + 6, LIMIT_S)
        finally:
            os.kill(engine, signal.SIGCONT)
        httpx2.get(daemons[0].lines[-1]["listen"][0].join(("http://", "/v1/status")), trust_env=False)
        rules = [rule for group in yaml.safe_load(ALARMS.read_text())["groups"] for rule in group["rules"]]
        deadline, missing = time.monotonic() + LIMIT_S, {rule["alert"]: rule["expr"] for rule in rules}
        missing = {name: expr for name, expr in missing.items() if name not in CONDITIONAL}
        while missing and time.monotonic() < deadline:
            missing = {
                name: expr
                for name, expr in missing.items()
                if not found(port, re.sub(r" (>|<|==) ", r" \1 bool ", expr, count=1))
            }
        assert not missing
        assert ask(port, 'freehold_notice{code=""} == 0')
        loaded = httpx2.get(f"http://127.0.0.1:{port}/api/v1/rules", trust_env=False).json()["data"]["groups"]
        health = {rule["name"]: (rule["health"], rule.get("lastError")) for group in loaded for rule in group["rules"]}
        assert health == {rule["alert"]: ("ok", None) for rule in rules}
    finally:
        prometheus.terminate()
        prometheus.wait(30)
        for daemon in daemons:
            daemon.close()
