"""Taking an embedded ledger's last proven state out of its folder, which is left able to go on.

The newest block's own state is in no header yet. So one whose transactions came from users gets its proof block, as the
engine would make it; what is exported is the state below the newest block. Spec: docs/spec/leaving-embedded.md.
"""

import shutil
import tempfile
from pathlib import Path

import msgspec

from freehold.base.errors import InvalidInputError, check
from freehold.consensus.block_store import BlockStore
from freehold.consensus.chain import Chain
from freehold.consensus.folder import FolderLock
from freehold.consensus.ledger_application import LedgerApplication, genesis_preset
from freehold.consensus.signing import Signer, SignerState
from freehold.consensus.state_store import StateStore
from freehold.light.genesis import TrustedGenesis
from freehold.light.types import LightBlock


class LastState(msgspec.Struct, frozen=True):
    """A whole state, and the light block one height above it whose header holds its root."""

    light_block: LightBlock
    records: dict[bytes, bytes]


def export_last_state(folder: Path, genesis: TrustedGenesis, signer: Signer, wall_ms: int) -> LastState:
    """Give the newest state that a header proves.

    Args:
        folder: the engine's, which no engine holds.
        genesis: of its chain.
        signer: its validator's key; signs at most a missing proof block.
        wall_ms: the wall clock.

    Raises:
        FolderInUseError: an engine runs on the folder.
        StorageError: the folder is damaged, or there is no room for a copy of the state.
        InvalidInputError: `no_blocks`: the chain has not begun.
    """
    if not (folder / "blocks").is_dir():
        raise InvalidInputError(f"{folder} holds no ledger", code="no_blocks", hint="name the home of an embedded one")
    with FolderLock(folder):
        light_block = _settle(folder, genesis, signer, wall_ms)
        with tempfile.TemporaryDirectory(prefix="leaving-", dir=folder.parent) as copy:
            path = Path(copy) / "state"
            shutil.copytree(folder / "state", path)
            with StateStore.open(path, genesis_preset(genesis).state_heights) as state:
                check(state.height == light_block.header.height, "state_at_newest_block", height=state.height)
                state.rollback()
                return LastState(light_block, dict(state.items()))


def _settle(folder: Path, genesis: TrustedGenesis, signer: Signer, wall_ms: int) -> LightBlock:
    application = LedgerApplication.open(folder, genesis, signer)
    try:
        with BlockStore(folder / "blocks") as blocks:
            chain = Chain(genesis, application, blocks, signer, SignerState(folder / "last_signed"))
            chain.start()
            while chain.is_block_due:
                chain.make_block(wall_ms, ())
            light_block = chain.light_block(chain.height)
    finally:
        application.close()
    if light_block is None or light_block.header.height < 2:
        raise InvalidInputError("this ledger has no proven block yet", code="no_blocks", hint="let it make two blocks")
    return light_block
