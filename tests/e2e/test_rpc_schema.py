"""Schemathesis makes questions from the daemon's own OpenAPI document; every answer must be one that it describes."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest
from ledger_process import LedgerProcess, client_for, make_home

SEED = 20_261_126
ANSWERED = "status_code_conformance,content_type_conformance,response_schema_conformance,not_a_server_error"


def ask_all(home: Path, examples: int, seed: int) -> None:
    with LedgerProcess(home) as daemon:
        url = daemon.wait_started()

        async def first_block() -> None:
            await (await client_for(home, url)).close()

        asyncio.run(first_block())
        run = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "run",
                f"{url}/openapi.json",
                "--checks",
                ANSWERED,
                "--phases",
                "fuzzing",
                "--max-examples",
                str(examples),
                "--seed",
                str(seed),
                "--request-timeout",
                "30",
                "--generation-database",
                "none",
                "--no-color",
            ],
            cwd=home,
            capture_output=True,
            text=True,
        )
        print(run.stdout[-6_000:])
        assert run.returncode == 0, run.stdout[-6_000:] + run.stderr[-2_000:]
        assert daemon.stop() == 0
    assert not [line for line in daemon.lines if line["event"] == "request_failed"]


def test_answers_are_those_that_openapi_describes(tmp_path):
    ask_all(make_home(tmp_path / "ledger"), 3, SEED)


@pytest.mark.long
def test_many_answers_are_those_that_openapi_describes(tmp_path):
    ask_all(make_home(tmp_path / "ledger"), 300, random.SystemRandom().randrange(1 << 32))
