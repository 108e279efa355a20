"""An embedded ledger with a history of transfers, and its last state."""

from pathlib import Path

from freehold.base.amounts import TOKEN
from freehold.base.presets import MINIMAL
from freehold.client.session import sign_tx
from freehold.consensus.block_store import BlockStore
from freehold.consensus.chain import Chain
from freehold.consensus.leaving import LastState, export_last_state
from freehold.consensus.ledger_application import LedgerApplication
from freehold.consensus.signing import SignerState
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.genesis import app_state_document
from freehold.ledger.transactions import Transfer
from freehold.light.genesis import TrustedGenesis, genesis_document, parse_genesis
from freehold.light.types import Timestamp

OLD = "old-1"
GENESIS_MS = 1_790_000_000_000
VALIDATOR = PrivateKey.from_seed(b"validator" + bytes(23))
ALICE, BOB = (PrivateKey.from_seed(bytes([number]) * 32) for number in (1, 2))


def old_genesis(chain_id: str = OLD) -> TrustedGenesis:
    document = genesis_document(
        chain_id=chain_id,
        genesis_time=Timestamp.from_ms(GENESIS_MS),
        validators=[(VALIDATOR.public, 10, "v0")],
        app_state=app_state_document(MINIMAL, [], [], accounts={ALICE.public: 100 * TOKEN, BOB.public: 100 * TOKEN}),
    )
    return parse_genesis(document)


def make_ledger(folder: Path, transfers: int = 3, chain_id: str = OLD) -> LastState:
    """Blocks of one transfer each from Alice to Bob, the last one still without its proof block."""
    genesis = old_genesis(chain_id)
    folder.mkdir(parents=True, exist_ok=True)
    application = LedgerApplication.open(folder, genesis, VALIDATOR)
    with BlockStore(folder / "blocks") as blocks:
        chain = Chain(genesis, application, blocks, VALIDATOR, SignerState(folder / "last_signed"))
        chain.start()
        for nonce in range(transfers):
            body = Transfer(BOB.public, TOKEN)
            tx = sign_tx(chain_id, ALICE, nonce, MINIMAL.min_fee, 500, body)
            assert not chain.make_block(GENESIS_MS + 1_000 * nonce, (tx,)).results[-1].code
    application.close()
    return export_last_state(folder, genesis, VALIDATOR, GENESIS_MS + 1_000 * transfers)
