"""What engine tests share: a genesis of one validator, clocks, an opened chain."""

from collections.abc import Callable
from pathlib import Path

from kv_application import KvApplication

from freehold.consensus.block_store import BlockStore
from freehold.consensus.chain import Chain
from freehold.consensus.signing import Signer, SignerState
from freehold.crypto.ed25519 import PrivateKey
from freehold.light.genesis import TrustedGenesis, genesis_document, parse_genesis
from freehold.light.types import Timestamp

GENESIS_MS = 1_790_000_000_000
VALIDATOR = PrivateKey.from_seed(b"v" * 32)


def make_genesis(chain_id: str = "kv-1", *, key: PrivateKey = VALIDATOR, app_hash: bytes = b"") -> TrustedGenesis:
    return parse_genesis(
        genesis_document(
            chain_id=chain_id,
            genesis_time=Timestamp.from_ms(GENESIS_MS),
            validators=[(key.public, 10, "one")],
            app_state={},
            app_hash=app_hash,
        )
    )


class FakeClock:
    def __init__(self, wall_ms: int = GENESIS_MS + 1_000) -> None:
        self.wall = wall_ms
        self.monotonic = 0

    def wall_ms(self) -> int:
        return self.wall

    def monotonic_ms(self) -> int:
        return self.monotonic


class LoggingSigner:
    """Signs, and remembers every message before its signature leaves."""

    def __init__(self, key: PrivateKey = VALIDATOR) -> None:
        self._key = key
        self.public = key.public
        self.messages: list[bytes] = []

    def sign(self, message: bytes) -> bytes:
        self.messages.append(message)
        return self._key.sign(message)


class Node:
    """A chain with its stores, opened by hand and closed as a crash would: without a word to the chain."""

    def __init__(
        self,
        folder: Path,
        *,
        genesis: TrustedGenesis | None = None,
        signer: Signer | None = None,
        trace: Callable[[str], None] = lambda _: None,
        twist: bytes = b"",
        keep_blocks: int = 0,
    ) -> None:
        self.blocks = BlockStore(folder / "blocks")
        self.app = KvApplication(folder, twist=twist, keep_blocks=keep_blocks)
        self.signer_state = SignerState(folder / "last_signed")
        self.chain = Chain(
            genesis or make_genesis(), self.app, self.blocks, signer or VALIDATOR, self.signer_state, trace=trace
        )

    def start(self) -> "Node":
        self.chain.start()
        return self

    def close(self) -> None:
        self.app.close()
        self.blocks.close()

    def __enter__(self) -> "Node":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
