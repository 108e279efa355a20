"""Four validators whose state fills many chunks, one of whom loses it and joins anew, as its operator would."""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from validators import Validators, ask, rich, url

from freehold.base.amounts import TOKEN
from freehold.base.presets import MINIMAL
from freehold.consensus.comet.client import CometClient
from freehold.consensus.comet.operators import Card
from freehold.consensus.snapshot_format import MIN_CHUNK_BYTES
from freehold.ledger.genesis import app_state_document

LOST: Final = 3  # which validator loses its home
OTHERS: Final = (0, 1, 2)
CROWD: Final = 26_000  # accounts, so that a snapshot has more than twenty of the smallest chunks
CHUNKS: Final = 20  # at least
INTERVAL: Final = 10
KEEP: Final = 10
RESTORE_S: Final = 150.0
VARIANTS: Final = Path(__file__).with_name("variant_daemon.py")


def crowded(_: list[Card]) -> dict[str, Any]:
    """A ledger with many who own a little, and the load's senders."""
    rng = random.Random(CROWD)
    crowd = {rng.randbytes(32): TOKEN + n for n in range(CROWD)}
    return app_state_document(MINIMAL, [], [], accounts=crowd | rich())


def serve_snapshots(net: Validators, *, interval: int = INTERVAL) -> None:
    """Settings of every validator: small chunks, many snapshots."""
    for home in net.homes:
        settings = home.settings()
        home.save_settings(
            msgspec.structs.replace(
                settings, snapshot_interval=interval, snapshot_keep=KEEP, snapshot_chunk_bytes=MIN_CHUNK_BYTES
            )
        )


async def freehold(net: Validators, *arguments: str) -> dict[str, Any]:
    """Type a command in the hub; its document."""
    program = Path(sys.executable).with_name("freehold")
    command = ["nsenter", f"--net=/run/netns/{net.net.hub}", "--", program, *arguments, "--json"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done
    return dict(json.loads(done.stdout))


async def lose_and_join(net: Validators) -> int:
    """The stopped one gives up all that it holds of the chain, and is to begin with a peer's snapshot.

    Returns:
        The newest height that the join has verified.
    """
    home = net.homes[LOST].folder
    servers = ",".join(url(other) for other in OTHERS[:2])
    joined = await freehold(net, "ledger", "join", "--home", str(home), "--state-sync", servers, "--force")
    assert not (home / "data/state").exists() and not (home / "engine/data/blockstore.db").exists()
    return int(joined["newest"])


async def snapshot_stands(net: Validators, above: int, members: tuple[int, ...] = OTHERS) -> None:
    """Wait until each of `members` serves a snapshot of a later height than that."""
    for index in members:
        folder = net.homes[index].data / "snapshots"
        async with asyncio.timeout(RESTORE_S):
            while not any(entry.name.isdigit() and int(entry.name) > above for entry in folder.glob("*")):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def caught_up(net: Validators) -> int:
    """Wait until the one that joined has the newest block, and hold its blocks against all others.

    Returns:
        Its lowest block: the one after the snapshot.
    """
    newest = max([await net.height(index) for index in OTHERS])
    await net.reach(newest + 1, [LOST], RESTORE_S)
    async with CometClient(net.homes[LOST].rpc_socket) as engine:
        lowest = (await engine.status()).lowest_height
    net.begins_at(LOST, lowest)
    await net.agree()
    return lowest


async def stop(net: Validators, index: int) -> None:
    """Ask a daemon to end, and look at its disk; the root on it must be the one that the others sign."""
    daemon = net.daemons[index]
    daemon.process.terminate()
    assert await asyncio.to_thread(daemon.wait_ended) == 0, daemon.lines[-3:]
    daemon.close()
    del net.daemons[index]
    net.check_disk(index)


async def halted(index: int) -> dict[str, Any]:
    """Why a validator says that it makes no blocks; empty while it does not say so."""
    return dict((await ask(index, "/v1/status")).get("halted") or {})
