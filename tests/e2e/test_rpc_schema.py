"""Schemathesis makes questions from the daemon's own OpenAPI document; every answer must be one that it describes.

Its coverage phase goes through the boundaries of each parameter and field, the same ones each time; its fuzzing phase
draws. Both are asked of both engines' faces.
"""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest
from comet_process import make_validators
from ledger_process import LedgerProcess, client_for, make_home

SEED = 20_261_126
LIMIT_S = 900
ANSWERED = "status_code_conformance,content_type_conformance,response_schema_conformance,not_a_server_error"


def make_comet_home(folder: Path) -> Path:
    """A validator whose face has the limits of the other engine's here."""
    home = make_validators(folder, 1)[0]
    (home / "ledger.toml").write_bytes((make_home(folder / "embedded") / "ledger.toml").read_bytes())
    return home


HOMES = {"embedded": make_home, "comet": make_comet_home}


def ask_all(home: Path, phases: str, seed: int, examples: int = 1) -> None:
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
                phases,
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
            timeout=LIMIT_S,
        )
        print(run.stdout[-6_000:])
        assert run.returncode == 0, run.stdout[-6_000:] + run.stderr[-2_000:]
        assert daemon.stop() == 0
    assert not [line for line in daemon.lines if line["event"] == "request_failed"]


@pytest.mark.parametrize("engine", ["embedded", pytest.param("comet", marks=pytest.mark.long)])
def test_answers_are_those_that_openapi_describes(tmp_path, engine):
    ask_all(HOMES[engine](tmp_path / "ledger"), "coverage", SEED)


@pytest.mark.long
@pytest.mark.timeout(LIMIT_S + 60)
@pytest.mark.parametrize("engine", HOMES)
def test_many_answers_are_those_that_openapi_describes(tmp_path, engine):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    ask_all(HOMES[engine](tmp_path / "ledger"), "fuzzing", seed, 300)
