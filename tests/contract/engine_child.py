"""A validator process under load, made to be killed: it tells what it does line by line, without buffers.

Lines: `READY height`, `STEP name`, `SIGN height digest` (before the signature leaves), `OFFERED id`, `ACK id height`.
Usage: engine_child.py FOLDER GENESIS RUN [early_ack | forgetful]
"""

import asyncio
import os
import sys
from pathlib import Path

import lmdb

from freehold.base.codec import encode
from freehold.base.errors import CodecError
from freehold.base.presets import MINIMAL
from freehold.consensus.application import QueryRequest
from freehold.consensus.chain import Chain
from freehold.consensus.embedded import EmbeddedEngine
from freehold.consensus.ledger_engine import open_ledger_engine
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import sha256
from freehold.ledger import keys
from freehold.ledger.records import Account
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import Transfer, Tx, tx_id, tx_signing_bytes
from freehold.light.canonical import CanonicalVote
from freehold.light.genesis import parse_genesis
from freehold.light.wire import decode_varint

SENDERS = [PrivateKey.from_seed(bytes([n]) * 32) for n in range(1, 9)]
CHAIN_ID = "kill-1"
AHEAD = 12  # transactions of one sender on their way at a time


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class TellingSigner:
    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self.public = key.public

    def sign(self, message: bytes) -> bytes:
        try:
            length, at = decode_varint(message, 0, len(message))
            vote = CanonicalVote.decode(message[at : at + length])
            tell("SIGN", vote.height, sha256(message).hex())
        except CodecError:
            pass  # the beacon, which has one form per height
        return self._key.sign(message)


def transfer(sender: PrivateKey, nonce: int, amount: int) -> bytes:
    body = Transfer(SENDERS[nonce % len(SENDERS)].public, amount)
    fields = (1, CHAIN_ID, sender.public, nonce, MINIMAL.min_fee, 5_000, body)
    signature = sender.sign(tx_signing_bytes(Tx(*fields, [])))
    return encode(Tx(*fields, [(sender.public, signature)]))


async def load(engine: EmbeddedEngine, sender: PrivateKey, run: int, *, early_ack: bool) -> None:
    newest = await engine.query(QueryRequest(keys.account_key(sender.public), engine.status().height))
    assert newest.value is not None
    nonce = decode_record(newest.value, Account).nonce
    window = asyncio.Semaphore(AHEAD)

    async def acknowledge(tx: bytes) -> None:
        done = await engine.wait_committed(tx_id(tx))
        assert done.result.code == 0
        if not early_ack:
            tell("ACK", tx_id(tx).hex(), done.height)
        window.release()

    async with asyncio.TaskGroup() as group:
        while True:
            await window.acquire()
            tx = transfer(sender, nonce, 1 + run)
            nonce += 1
            answer = await engine.submit(tx)
            assert answer.code == 0, answer
            tell("OFFERED", tx_id(tx).hex())
            if early_ack:
                tell("ACK", tx_id(tx).hex(), engine.status().height + 1)
            group.create_task(acknowledge(tx))


def forget(folder: Path) -> None:
    """What a build would find that kept neither its proposal nor its vote on disk."""
    (folder / "last_signed").unlink(missing_ok=True)
    Chain._check_signer_state = lambda self, stored: None  # type: ignore[method-assign]
    if not (folder / "blocks").exists():
        return
    with lmdb.open(str(folder / "blocks"), max_dbs=4) as env:
        blocks, commits = env.open_db(b"blocks"), env.open_db(b"commits")
        with env.begin(write=True) as txn:
            last = txn.cursor(commits)
            height = int.from_bytes(last.key(), "big") if last.last() else 0
            txn.delete((height + 1).to_bytes(8, "big"), db=blocks)


async def main() -> None:
    folder, genesis, run = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    mode = sys.argv[4] if len(sys.argv) > 4 else ""
    if mode == "forgetful":
        forget(folder)
    trusted = parse_genesis(genesis.read_bytes())
    signer = TellingSigner(PrivateKey.from_seed(b"v" * 32))
    async with open_ledger_engine(folder, trusted, signer, trace=lambda step: tell("STEP", step)) as engine:
        blocks = engine.subscribe()
        await anext(blocks)
        tell("READY", engine.status().height)
        blocks.close()
        async with asyncio.TaskGroup() as group:
            for sender in SENDERS:
                group.create_task(load(engine, sender, run, early_ack=mode == "early_ack"))


if __name__ == "__main__":
    asyncio.run(main())
