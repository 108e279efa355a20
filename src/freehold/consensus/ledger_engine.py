"""The ledger on the embedded engine, put together: what a validator process starts."""

from collections.abc import Callable
from pathlib import Path

from freehold.base.errors import InvalidInputError
from freehold.consensus.embedded import EmbeddedEngine
from freehold.consensus.ledger_application import LedgerApplication, genesis_preset
from freehold.consensus.signing import Signer
from freehold.consensus.timing import Clock, Pace
from freehold.ledger.transactions import tx_id
from freehold.light.genesis import TrustedGenesis


def open_ledger_engine(
    folder: Path,
    genesis: TrustedGenesis,
    signer: Signer,
    *,
    keep_blocks: int = 0,
    clock: Clock | None = None,
    trace: Callable[[str], None] = lambda _: None,
) -> EmbeddedEngine:
    """Open the ledger under a folder; transactions go by `freehold.ledger.transactions.tx_id`.

    Args:
        folder: held by this engine alone.
        genesis: the chain; its preset gives the pace of blocks and the versions kept.
        signer: the validator's key.
        keep_blocks: how many blocks to keep; 0 for all.
        clock: the machine's, unless a test brings its own.
        trace: told of each durable step.

    Raises:
        FolderInUseError: another engine runs on the folder.
        StorageError: the folder cannot be used, or contradicts itself.
        InvalidInputError: genesis is not for this key, not ours, or promises another app hash.
    """
    preset = genesis_preset(genesis)
    if "vrf" in genesis.app_state:
        raise InvalidInputError(
            f"the votes of {genesis.chain_id} carry its beacon, and the embedded engine's votes carry nothing",
            code="needs_comet",
            hint="run it with `freehold ledger run` in a home made by `freehold ledger init`",
        )
    return EmbeddedEngine(
        folder,
        genesis,
        signer,
        lambda path: LedgerApplication.open(path, genesis, signer, keep_blocks=keep_blocks),
        Pace(tick_ms=preset.tick_ms, min_block_gap_ms=preset.min_block_gap_ms),
        clock=clock,
        identify=tx_id,
        trace=trace,
    )
