"""`freehold ledger snapshot` and `freehold ledger rollback`: a state copied, or taken back by a block."""

import re
import subprocess
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from freehold.base.errors import FreeholdError, InvalidInputError, RefusedError
from freehold.cli.output import Json, Result, Table
from freehold.consensus.comet import install
from freehold.consensus.comet.operators import OperatorHome
from freehold.consensus.folder import FolderLock
from freehold.consensus.ledger_application import genesis_preset
from freehold.consensus.snapshot_format import CHUNK_BYTES, SnapshotMetadata, encode_metadata, snapshot_hash
from freehold.consensus.snapshot_store import SnapshotFolder
from freehold.consensus.snapshot_writer import LATEST, take_snapshot
from freehold.consensus.state_store import StateStore
from freehold.consensus.state_sync import SNAPSHOTS, recover

ENGINE_LIMIT_S: Final = 120
_ROLLED_BACK: Final = re.compile(r"to height (\d+) and hash ([0-9A-F]{64})")

app = App(name="snapshot", help="Snapshots of the ledger's state, from which other validators can begin.")


@app.command(name="list")
def list_(*, home: Path, json: Json = False) -> Result:
    """List the snapshots that a validator serves, newest first.

    Parameters
    ----------
    home
        The validator's folder; it may be running.
    """
    own = OperatorHome(home)
    own.genesis()  # an empty list would hide that this is no home
    folder = SnapshotFolder(own.data / SNAPSHOTS)
    table = Table(("height", "keys", "chunks", "bytes", "hash"))
    rows = []
    for _, metadata in folder.listed():
        row = _row(metadata, folder)
        rows.append(row)
        table.add(row["height"], row["keys"], row["chunks"], row["bytes"], str(row["hash"])[:16])
    text = table.text() if rows else f"no snapshots; next: `freehold ledger snapshot create --home {home}`"
    return Result({"home": str(home), "snapshots": rows}, text)


@app.command
def create(*, home: Path, height: int = LATEST, keep: int = 2, json: Json = False) -> Result:
    """Take a snapshot of the state now, also while the validator runs; older ones beyond --keep are removed.

    Parameters
    ----------
    home
        The validator's folder.
    height
        Of the state, one of those that are kept; the newest when left out.
    keep
        How many snapshots to keep, this one included.
    """
    if keep < 1:
        raise InvalidInputError("--keep must be at least 1", code="bad_usage", hint="the new snapshot is one of them")
    if height < 1 and height != LATEST:
        raise InvalidInputError("--height must be at least 1", code="bad_usage", hint="leave it out for the newest")
    own = OperatorHome(home)
    folder = SnapshotFolder(own.data / SNAPSHOTS)
    chunk_bytes = own.settings().snapshot_chunk_bytes if own.settings_path.exists() else CHUNK_BYTES
    chain_id = own.genesis().chain_id
    done = take_snapshot(own.data / "state", folder, chain_id, height=height, keep=keep, chunk_bytes=chunk_bytes)
    row = _row(done, folder)
    text = f"snapshot of height {done.height}: {row['keys']} keys, {row['chunks']} chunks, {row['bytes']} bytes"
    return Result({"home": str(home), **row}, text)


def rollback(
    *,
    home: Path,
    hard: bool = False,
    force: Annotated[bool, Parameter(negative="")] = False,
    json: Json = False,
) -> Result:
    """Take a stopped validator back by one block, application and engine together.

    For a validator whose program computed something else than the others': install the right program, roll back,
    start. The block is executed again; with --hard it is removed too, and fetched again from the peers.

    Parameters
    ----------
    home
        The validator's folder.
    hard
        Remove the engine's newest block as well.
    force
        Do it; without this nothing is changed, and what would be destroyed is named.
    """
    own = _home_of(home)
    if not (own.data / "state/data.mdb").exists():
        raise InvalidInputError(
            f"{own.data / 'state'} holds no state: there is nothing to take back", code="no_state", hint="see --home"
        )
    program = Path(install.require().path)
    with FolderLock(own.data):
        recover(own.data / "state")
        with StateStore.open(own.data / "state", genesis_preset(own.genesis()).state_heights) as state:
            height = state.height
            engine_state = f"the engine's state of height {height} ({own.engine / 'data' / 'state.db'})"
            destroyed = [f"the state after block {height} ({own.data / 'state'})", engine_state]
            if hard:
                destroyed.append(f"the engine's newest block ({own.engine / 'data' / 'blockstore.db'})")
            if not force:
                raise RefusedError(
                    "a rollback destroys " + "; ".join(destroyed),
                    code="needs_force",
                    hint="nothing was changed: add --force to do it",
                )
            # The application first: an engine that is ahead executes the block again, whatever happens in between.
            now = state.rollback()
            app_hash = state.app_hash
        engine_height, engine_hash = _roll_engine_back(program, own, hard=hard)
        if engine_height >= height:
            destroyed.remove(engine_state)  # it keeps a block that it has not executed, and goes no further back
    document = {
        "home": str(home),
        "from_height": height,
        "height": now,
        "app_hash": app_hash.hex(),
        "engine_height": engine_height,
        "engine_app_hash": engine_hash,
        "destroyed": destroyed,
    }
    text = f"the state is that of height {now}, the engine's that of {engine_height}\ndestroyed: "
    text += "; ".join(destroyed) + f"\nnext: `freehold ledger run --home {home}`"
    return Result(document, text)


def _home_of(folder: Path) -> OperatorHome:
    own = OperatorHome(folder)
    if own.settings_path.exists():
        return own
    if not own.folder.exists():
        raise InvalidInputError(f"{folder} does not exist", code="missing_file", hint="see --home")
    raise InvalidInputError(
        f"{folder} is no home of a validator on CometBFT: it has no {own.settings_path.name}",
        code="not_comet",
        hint="see --home; an embedded ledger has no rollback",
    )


def _roll_engine_back(program: Path, home: OperatorHome, *, hard: bool) -> tuple[int, str]:
    command = [str(program), "rollback", "--home", str(home.engine), *(["--hard"] if hard else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ENGINE_LIMIT_S, check=False)
    found = _ROLLED_BACK.search(done.stdout)
    if done.returncode or found is None:
        raise FreeholdError(
            f"the engine was not rolled back: {(done.stderr or done.stdout).strip()[:300]}",
            code="engine_not_rolled_back",
            hint="the state was; start the validator, its engine executes the block again",
        )
    return int(found[1]), found[2].lower()


def _row(metadata: SnapshotMetadata, folder: SnapshotFolder) -> dict[str, int | str]:
    return {
        "height": metadata.height,
        "format": metadata.format,
        "keys": metadata.leaves,
        "chunks": len(metadata.chunks),
        "bytes": folder.size(metadata.height),
        "app_hash": metadata.app_hash.hex(),
        "hash": snapshot_hash(encode_metadata(metadata)).hex(),
    }
