"""`ledger.transfers`: the shipped application (rules, signatures, tree, one fsync a block) beside bare verification."""

import gc
import random
import tempfile
from pathlib import Path
from typing import NamedTuple

from nacl.bindings import crypto_sign_open

from benchmarks.rows import Row, Spent, by_cpu, measured, one_core, row
from freehold.base.amounts import TOKEN
from freehold.base.codec import encode
from freehold.base.presets import MAINNET
from freehold.consensus import application as abci
from freehold.consensus.ledger_application import LedgerApplication
from freehold.consensus.state_store import StateStore
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.ledger.genesis import app_state_document
from freehold.ledger.transactions import TX_VERSION, Transfer, Tx, tx_signing_bytes

ACCOUNTS = 100_000
BLOCKS = 20
PER_BLOCK = 1_000
CHAIN = "freehold-bench"
GENESIS_MS = 1_700_000_000_000


class Batch(NamedTuple):
    """A block's transactions, and (public key, signature and message) of each."""

    txs: list[bytes]
    messages: list[tuple[bytes, bytes]]


def run(accounts: int = ACCOUNTS, blocks: int = BLOCKS) -> list[Row]:
    """Transfers among accounts drawn uniformly; signing and set-up are not counted."""
    rng = random.Random(7)
    keys = [PrivateKey.from_seed(sha256(index.to_bytes(4, "big"))) for index in range(accounts)]
    validator = PrivateKey.from_seed(sha256(b"validator"))
    state = app_state_document(MAINNET, [], [], accounts={key.public: 50 * TOKEN for key in keys})
    with tempfile.TemporaryDirectory() as folder, one_core():
        store = StateStore.open(Path(folder) / "state", MAINNET.state_heights)
        application = LedgerApplication(store, validator)
        application.init_chain(
            abci.InitChainRequest(
                chain_id=CHAIN,
                time_ms=GENESIS_MS,
                initial_height=1,
                validators=(abci.Validator(validator.public, 10),),
                app_state=state,
            )
        )
        nonces = [0] * accounts
        batches = [_batch(rng, keys, nonces) for _ in range(blocks)]
        gc.collect()
        gc.freeze()  # as the ledger's process does at its start; here also what only the benchmark holds
        bare, spent = Spent(), Spent()
        for height, batch in enumerate(batches, start=1):
            with measured(bare):
                for public, signed in batch.messages:
                    crypto_sign_open(signed, public)
            with measured(spent):
                _block(application, validator, height, batch.txs)
        application.close()
        gc.unfreeze()
        return [_row(accounts, blocks, spent, bare)]


def _row(accounts: int, blocks: int, spent: Spent, bare: Spent) -> Row:
    count = blocks * PER_BLOCK
    workload = (
        f"{count} transfers in {blocks} blocks of {PER_BLOCK}, {accounts} accounts drawn uniformly, signatures checked "
        f"once, one fsync a block, one core; {by_cpu(count, spent, bare)}"
    )
    rate, bare_rate = count / spent.wall_s, count / bare.wall_s
    return row(
        "ledger.transfers",
        rate,
        "transfers/s",
        "PyNaCl's bare verifications of the same messages/s",
        bare_rate,
        workload,
        spent.cpu_s,
    )


def _batch(rng: random.Random, keys: list[PrivateKey], nonces: list[int]) -> Batch:
    batch = Batch([], [])
    for _ in range(PER_BLOCK):
        index = rng.randrange(len(keys))
        tx, message = _transfer(keys[index], keys[rng.randrange(len(keys))].public, nonces[index])
        nonces[index] += 1
        batch.txs.append(tx)
        batch.messages.append(message)
    return batch


def _transfer(sender: PrivateKey, to: bytes, nonce: int) -> tuple[bytes, tuple[bytes, bytes]]:
    body = Transfer(to, 1_000)
    unsigned = Tx(TX_VERSION, CHAIN, sender.public, nonce, MAINNET.min_fee, 5_000, body, [])
    message = tx_signing_bytes(unsigned)
    signature = sender.sign(message)
    signed = Tx(TX_VERSION, CHAIN, sender.public, nonce, MAINNET.min_fee, 5_000, body, [(sender.public, signature)])
    return encode(signed), (sender.public, signature + message)


def _block(application: LedgerApplication, validator: PrivateKey, height: int, txs: list[bytes]) -> None:
    time_ms = GENESIS_MS + height * 1_000
    proposal = application.prepare_proposal(
        abci.PrepareProposalRequest(
            height=height, time_ms=time_ms, proposer=validator.public, txs=tuple(txs), max_tx_bytes=1 << 20
        )
    )
    request = abci.FinalizeBlockRequest(height=height, time_ms=time_ms, proposer=validator.public, txs=proposal.txs)
    results = application.finalize_block(request).tx_results
    refused = [result for result in results if result.code]
    if refused:
        raise RuntimeError(f"{len(refused)} transfers were refused, the first with code {refused[0].code}")
    application.commit()
