"""The ledger daemon with an application or a signer that misbehaves: `variant_daemon.py VARIANT --home DIR`.

All else is the shipped daemon. Variants:
    points: dies by SIGKILL at the step named in `DIR/die_at`, once.
    early: persists before Commit, and dies as `points` does; the canary.
    invalid: proposes blocks that break the rules, every time.
    oversize: proposes a transaction longer than any may be.
    silent: withholds its vote extension.
    clock: its whole clock is off, with another build of the engine (`shifted_clock.py`).
    shifted: its votes' times are those of a clock far off, by a remote signer (`remote_signer.py`).
    restoring: a fault strikes it while it restores a snapshot (`restore_variants.py`), once.
    later: offers its snapshots under the format of a later release.
    believing: takes chunks of a snapshot without comparing their hashes; the canary of poisoned chunks.
    indexing: dies at a step of its index as `points` does.
    torn: the same, and its index counts blocks in another transaction than it writes them in; the canary of the index.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remote_signer import serve_signer
from restore_variants import believe_chunks, break_restores, offer_later_format

from freehold.base.limits import MAX_TX_BYTES
from freehold.consensus import application as abci
from freehold.consensus.comet import configuration, install, node
from freehold.consensus.ledger_application import LedgerApplication
from freehold.indexer.databases import Transaction
from freehold.indexer.records import BlockRecord
from freehold.indexer.store import Index
from freehold.rpc import archive
from freehold.rpc.main import main

HOME = Path(sys.argv[sys.argv.index("--home") + 1]) if "--home" in sys.argv else Path()
STEPS = ("finalize", "finalized", "commit", "committed", "told")
INDEX_STEPS = ("rows", "counted", "indexed")


def pass_step(step: str) -> None:
    """Die here if this is the step that was asked for."""
    path = HOME / "die_at"
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == step:
            path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class Points(LedgerApplication):
    """Dies between a call of the engine and its reply, or between a reply and the next call."""

    _is_told = False

    def finalize_block(self, request: abci.FinalizeBlockRequest) -> abci.FinalizeBlockResponse:
        pass_step("finalize")
        response = super().finalize_block(request)
        self.finish(response)
        pass_step("finalized")
        return response

    def finish(self, response: abci.FinalizeBlockResponse) -> None:
        """Nothing is durable yet."""

    def commit(self) -> abci.CommitResponse:
        pass_step("commit")
        response = super().commit()
        self._is_told = True
        pass_step("committed")
        return response

    def check_tx(self, request: abci.CheckTxRequest) -> abci.CheckTxResponse:
        if self._is_told and request.kind is abci.CheckKind.RECHECK:  # asked only after the reply to Commit
            pass_step("told")
        return super().check_tx(request)

    def process_proposal(self, request: abci.ProcessProposalRequest) -> abci.ProcessProposalResponse:
        if self._is_told:
            pass_step("told")
        return super().process_proposal(request)


class Early(Points):
    """Persists what a block changes when it is executed."""

    def finish(self, response: abci.FinalizeBlockResponse) -> None:
        self.state.commit()

    def commit(self) -> abci.CommitResponse:
        pass_step("commit")
        return abci.CommitResponse()


class Invalid(LedgerApplication):
    """Proposes blocks without the beacon that each must begin with, and finds all blocks good."""

    def prepare_proposal(self, request: abci.PrepareProposalRequest) -> abci.PrepareProposalResponse:
        return self.spoilt(super().prepare_proposal(request).txs)

    def spoilt(self, txs: tuple[bytes, ...]) -> abci.PrepareProposalResponse:
        """What it proposes in place of a good block."""
        return abci.PrepareProposalResponse(txs[1:])

    def process_proposal(self, request: abci.ProcessProposalRequest) -> abci.ProcessProposalResponse:
        return abci.ProcessProposalResponse(True)


class Oversize(Invalid):
    """Adds a transaction longer than any may be."""

    def spoilt(self, txs: tuple[bytes, ...]) -> abci.PrepareProposalResponse:
        return abci.PrepareProposalResponse((*txs, bytes(2 * MAX_TX_BYTES)))


class Silent(LedgerApplication):
    """Puts nothing into its votes."""

    def extend_vote(self, request: abci.ExtendVoteRequest) -> abci.ExtendVoteResponse:
        return abci.ExtendVoteResponse()


PATCHES = {"later": offer_later_format, "believing": believe_chunks}
APPLICATIONS = {"points": Points, "early": Early, "invalid": Invalid, "oversize": Oversize, "silent": Silent}


def shift_votes() -> None:
    """Give the engine a signer of ours, at a socket in the home."""
    plain = configuration.config_text

    def config_text(home: Any, settings: Any, preset: Any) -> str:
        serve_signer(home.folder / "signer.sock", home.validator_key(), int(os.environ["SHIFT_MS"]))
        return f'priv_validator_laddr = "unix://{home.folder}/signer.sock"\n' + plain(home, settings, preset)

    configuration.config_text = config_text


class Indexing(Index):
    """Dies when a block's rows are written, when it is counted too, or when both are durable."""

    def add(self, blocks: Sequence[BlockRecord]) -> None:
        super().add(blocks)
        pass_step("indexed")

    def _add_rows(self, transaction: Transaction, block: BlockRecord) -> None:
        super()._add_rows(transaction, block)
        pass_step("rows")

    def _add_span(self, transaction: Transaction, height: int, newest: int) -> None:
        super()._add_span(transaction, height, newest)
        pass_step("counted")


class Torn(Index):
    """Makes durable that it holds blocks before it holds them."""

    def add(self, blocks: Sequence[BlockRecord]) -> None:
        with self._database.write() as transaction:
            for block in blocks:
                self._add_span(transaction, block.height, block.height - 1)
        pass_step("counted")
        with self._database.write() as transaction:
            for block in blocks:
                self._add_rows(transaction, block)


def use_engine(program: str) -> None:
    """Run another program in place of the installed engine, whose digest would refuse it."""
    found = install.Installed(program, "", "", "")
    install.require = lambda folder=None: found


if __name__ == "__main__":
    variant = sys.argv[1]
    if variant == "shifted":
        shift_votes()
    elif variant in PATCHES:
        PATCHES[variant]()
    elif variant == "restoring":
        node.LedgerApplication = break_restores(HOME)
    elif variant in ("indexing", "torn"):
        archive.Index = Torn if variant == "torn" else Indexing
    elif variant == "clock":
        use_engine(os.environ["ENGINE"])
    else:
        node.LedgerApplication = APPLICATIONS[variant]
    sys.exit(main(sys.argv[2:]))
