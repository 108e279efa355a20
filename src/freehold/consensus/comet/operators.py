"""An operator's home, and the public card by which others put its validator into genesis.

Keys are made in the home and never leave it: `validator.key` signs blocks, `vrf.key` makes this validator's part of the
beacon, `p2p.key` is the engine's identity among its peers. `operator.json` holds the public halves and an address, and
is what operators exchange.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from freehold.base.decoders import decode_json, decode_toml
from freehold.base.errors import InvalidInputError
from freehold.base.ids import is_name, parse_id
from freehold.consensus.comet.addresses import MAX_PEERS, check_address, check_peer_id, check_state_sync, parse_peer
from freehold.consensus.errors import StorageError
from freehold.consensus.home_files import read_file, read_key
from freehold.consensus.snapshot_format import CHUNK_BYTES, MIN_CHUNK_BYTES
from freehold.consensus.storage import write_file
from freehold.crypto.ed25519 import SEED_BYTES, PrivateKey
from freehold.crypto.entropy import random_bytes
from freehold.crypto.hashing import sha256
from freehold.crypto.strkey import decode_account
from freehold.ledger.genesis_beacon import GenesisVrf, is_possessed, prove_possession
from freehold.light.genesis import MAX_GENESIS_BYTES, TrustedGenesis, parse_genesis

MAX_CARD_BYTES: Final = 4_096
DEFAULT_SNAPSHOT_INTERVAL: Final = 1_000


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What others need to know of an operator.

    Attributes:
        name: a short word for people.
        validator: the public key that signs, hex.
        vrf: the public key of its part of the beacon, hex.
        possession: that key's proof over the validator's, hex.
        peer: the engine's id among its peers, hex of 20 bytes.
        address: `ip:port` of its engine; public.
        owner: the account (G...) that bonds it in a new chain; empty for none.
    """

    name: str
    validator: str
    vrf: str
    possession: str
    peer: str
    address: str
    owner: str = ""

    @property
    def validator_key(self) -> bytes:
        """The validator's public key."""
        return parse_id(self.validator)

    @property
    def vrf_member(self) -> GenesisVrf:
        """The validator's VRF key with its proof."""
        return GenesisVrf(self.validator_key, parse_id(self.vrf), bytes.fromhex(self.possession))


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """validator.toml.

    Attributes:
        name: a short word for people.
        listen: `ip:port` at which this engine is reached by its peers.
        peers: `id@host:port` of others.
        keep_blocks: 0 for all.
        metrics: `ip:port` at which Prometheus finds the engine's own page; empty for nowhere.
        snapshot_interval: a snapshot of the state is taken at each height that it divides; 0 for never.
        snapshot_keep: how many snapshots are kept.
        snapshot_chunk_bytes: how large the pieces are in which peers fetch a snapshot. Smaller ones suit slow links;
            operators who choose the same can serve one restore together.
        state_sync: HTTP faces (`http://host:port`) of two validators or more, from which a home without blocks learns
            what it may believe while it restores a peer's snapshot; empty to fetch all blocks instead.
        trust: `HEIGHT:HASH` of a header that the operator trusts, for that.
    """

    name: str
    listen: str
    peers: Annotated[list[str], Meta(max_length=MAX_PEERS)] = []
    keep_blocks: Annotated[int, Meta(ge=0)] = 0
    metrics: str = ""
    snapshot_interval: Annotated[int, Meta(ge=0)] = DEFAULT_SNAPSHOT_INTERVAL
    snapshot_keep: Annotated[int, Meta(ge=1, le=10)] = 2
    snapshot_chunk_bytes: Annotated[int, Meta(ge=MIN_CHUNK_BYTES, le=CHUNK_BYTES)] = CHUNK_BYTES
    state_sync: Annotated[list[str], Meta(max_length=MAX_PEERS)] = []
    trust: str = ""


class OperatorHome:
    """Paths and small files of an operator's folder.

    Attributes:
        folder: the home.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @property
    def data(self) -> Path:
        """The application's state."""
        return self.folder / "data"

    @property
    def engine(self) -> Path:
        """The engine's own folder: its configuration, blocks, last signed vote."""
        return self.folder / "engine"

    @property
    def socket(self) -> Path:
        """Where the engine finds its application."""
        return self.folder / "abci.sock"

    @property
    def rpc_socket(self) -> Path:
        """Where the engine answers; open to the owner of the home alone."""
        return self.folder / "rpc.sock"

    @property
    def genesis_path(self) -> Path:
        """The chain's genesis document."""
        return self.folder / "genesis.json"

    @property
    def card_path(self) -> Path:
        """operator.json: the public card."""
        return self.folder / "operator.json"

    @property
    def settings_path(self) -> Path:
        """validator.toml: where the engine listens, its peers, snapshots."""
        return self.folder / "validator.toml"

    @property
    def rpc_settings_path(self) -> Path:
        """ledger.toml: where the HTTP face listens, and its limits."""
        return self.folder / "ledger.toml"

    def make_keys(self, name: str, address: str, owner: str = "") -> Card:
        """Make what is missing of the keys and give the public card; keys that are there are kept.

        Args:
            name: lower-case letters, digits and dashes.
            address: `ip:port`.
            owner: the account (G...) that bonds it in a new chain.

        Raises:
            InvalidInputError: a malformed name, address or key file.
            StorageError: a file cannot be written.
        """
        check_name(name)
        check_address(address)
        if owner:
            decode_account(owner)
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be made: {error.strerror}", code="storage_failed", hint="choose another --home"
            ) from error
        for path in (self.folder / "validator.key", self.folder / "vrf.key", self.folder / "p2p.key"):
            if not path.exists():
                write_file(path, random_bytes(SEED_BYTES))
        validator = self.validator_key().public
        vrf = prove_possession(self.vrf_key(), validator)
        peer = peer_id(self.peer_key().public)
        card = Card(name, validator.hex(), vrf.vrf_key.hex(), vrf.possession.hex(), peer, address, owner)
        write_file(self.card_path, msgspec.json.encode(card) + b"\n")
        return card

    def card(self) -> Card:
        """Read the public card.

        Raises:
            InvalidInputError: it is missing or malformed.
        """
        return read_card(self.card_path)

    def validator_key(self) -> PrivateKey:
        """Read the key that signs.

        Raises:
            InvalidInputError: it is missing, malformed, or open to others.
        """
        return read_key(self.folder / "validator.key")

    def vrf_key(self) -> PrivateKey:
        """Read the key of this validator's part of the beacon.

        Raises:
            InvalidInputError: it is missing, malformed, or open to others.
        """
        return read_key(self.folder / "vrf.key")

    def peer_key(self) -> PrivateKey:
        """Read the engine's identity.

        Raises:
            InvalidInputError: it is missing, malformed, or open to others.
        """
        return read_key(self.folder / "p2p.key")

    def settings(self) -> Settings:
        """Read validator.toml.

        Raises:
            InvalidInputError: it is missing or malformed.
        """
        path = self.settings_path
        try:
            settings = decode_toml(read_file(path, MAX_CARD_BYTES * 4), Settings)
        except (msgspec.MsgspecError, ValueError) as error:
            raise InvalidInputError(
                f"{path}: {error}", code="bad_settings", hint="make it with `freehold ledger init`"
            ) from None
        check_address(settings.listen)
        for peer in settings.peers:
            parse_peer(peer)
        if settings.metrics:
            check_address(settings.metrics)
        check_state_sync(settings.state_sync, settings.trust)
        return settings

    def save_settings(self, settings: Settings) -> None:
        """Write validator.toml.

        Raises:
            StorageError: it cannot be written.
        """
        peers = ", ".join(f'"{peer}"' for peer in settings.peers)
        servers = ", ".join(f'"{server}"' for server in settings.state_sync)
        text = (
            f'name = "{settings.name}"\nlisten = "{settings.listen}"\npeers = [{peers}]\n'
            f'keep_blocks = {settings.keep_blocks}\nmetrics = "{settings.metrics}"\n'
            f"snapshot_interval = {settings.snapshot_interval}\nsnapshot_keep = {settings.snapshot_keep}\n"
            f"snapshot_chunk_bytes = {settings.snapshot_chunk_bytes}\n"
            f'state_sync = [{servers}]\ntrust = "{settings.trust}"\n'
        )
        write_file(self.settings_path, text.encode())

    def genesis(self) -> TrustedGenesis:
        """Read the genesis document.

        Raises:
            InvalidInputError: it is missing or malformed.
        """
        return parse_genesis(read_file(self.genesis_path, MAX_GENESIS_BYTES))


def check_name(name: str) -> None:
    """Refuse what is no operator's name.

    Raises:
        InvalidInputError: `bad_name`.
    """
    if not is_name(name):
        raise InvalidInputError(
            f"{name[:40]!r} is no name", code="bad_name", hint="use lower-case letters, digits and dashes"
        )


def read_card(path: Path) -> Card:
    """Read another operator's card.

    Raises:
        InvalidInputError: it is missing or malformed.
    """
    try:
        card = decode_json(read_file(path, MAX_CARD_BYTES), Card)
    except msgspec.MsgspecError as error:
        raise InvalidInputError(
            f"{path} is no operator's card: {error}", code="bad_card", hint="ask its operator for operator.json again"
        ) from None
    if not is_name(card.name):
        raise InvalidInputError(f"{path} has no proper name", code="bad_card")
    if not _has_possession(card):
        raise InvalidInputError(
            f"{path} does not prove that its operator holds the VRF key it names",
            code="bad_card",
            hint="ask its operator for operator.json again",
        )
    check_peer_id(card.peer)
    check_address(card.address)
    if card.owner:
        decode_account(card.owner)
    return card


def peer_id(public: bytes) -> str:
    """Give the id that CometBFT derives from a peer's key: hex of the first 20 bytes of its SHA-256."""
    return sha256(public)[:20].hex()


def _has_possession(card: Card) -> bool:
    parse_id(card.validator)
    parse_id(card.vrf)
    try:
        return is_possessed(card.vrf_member)
    except ValueError:
        return False
