"""An engine whose consensus or state sync has failed stays as a process; the supervisor ends it and starts another."""

import asyncio
from pathlib import Path

import pytest

from freehold.consensus.comet.supervisor import FAILURES, Supervisor

PROGRAM = "echo begun; if [ -e failed ]; then exec sleep 60; fi; touch failed; echo '{}: no space'; exec sleep 60"


@pytest.mark.parametrize("words", [words.decode() for words in FAILURES])
def test_an_engine_that_only_looks_alive_is_started_again(tmp_path: Path, words: str) -> None:
    log = tmp_path / "engine.log"
    log.write_bytes(b"CONSENSUS FAILURE!!! of an earlier run\n")

    async def main() -> None:
        kept = Supervisor(["sh", "-c", f"cd {tmp_path}; {PROGRAM.format(words)}"], log)
        running = asyncio.create_task(kept.run())
        async with asyncio.timeout(20):
            while kept.starts < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert kept.starts == 2 and kept.pid is not None  # the word of the earlier engine is not held against it
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
