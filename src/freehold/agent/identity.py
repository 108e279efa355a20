"""A node's home: its keys, its genesis, its settings. Made once, read at every start.

node.key, box.key   seeds of 32 bytes, mode 0600
genesis.json        the ledger that is trusted
node.toml           where the ledger answers, where the agent listens
data/               boxes, images, containers, volumes, mailbox: owned by the agent
"""

import os
from pathlib import Path

import msgspec

from freehold.base.decoders import decode_toml
from freehold.base.errors import InvalidInputError
from freehold.crypto.box import BoxKey
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.entropy import random_bytes
from freehold.light.genesis import TrustedGenesis, parse_genesis
from freehold.light.trust import GENESIS, parse_trust


class NodeSettings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """node.toml: `ledger` is the RPC's URL, `listen` an ip:port, `name` is for people, `dns` is what containers ask.

    The resolvers must be public: a container does not reach the farmer's own network. The default is Quad9. `trust` is
    where trust in the ledger begins: genesis, or HEIGHT:HASH where the servers keep no older blocks.
    """

    ledger: str
    listen: str
    name: str = "node"
    trust: str = GENESIS
    dns: tuple[str, ...] = ("9.9.9.9", "149.112.112.112")


class NodeHome:
    """A node's folder, opened: holds the keys in memory."""

    def __init__(self, folder: Path) -> None:
        """Read everything.

        Raises:
            InvalidInputError: something is missing, malformed or readable by others.
        """
        self.folder = folder
        self.seed = _read_key(folder / "node.key")
        self.key = PrivateKey.from_seed(self.seed)
        self.box_key = BoxKey.from_seed(_read_key(folder / "box.key"))
        self.settings = _read_settings(folder / "node.toml")
        self.trust = parse_trust(self.settings.trust)
        self.genesis = _read_genesis(folder / "genesis.json")

    @property
    def id(self) -> bytes:
        """The node id."""
        return self.key.public

    @property
    def data(self) -> Path:
        """Where the agent keeps what it owns."""
        return self.folder / "data"


def create_keys(folder: Path) -> tuple[PrivateKey, BoxKey]:
    """Make a node's keys in its home; keys that are there are kept.

    Raises:
        InvalidInputError: a key file is malformed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("node.key", "box.key"):
        path = folder / name
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(random_bytes(32))
                file.flush()
                os.fsync(file.fileno())
    return (
        PrivateKey.from_seed(_read_key(folder / "node.key")),
        BoxKey.from_seed(_read_key(folder / "box.key")),
    )


def write_settings(folder: Path, settings: NodeSettings) -> None:
    """Write node.toml."""
    lines = [f'{name} = "{getattr(settings, name)}"' for name in ("ledger", "listen", "name", "trust")]
    (folder / "node.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read_key(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}", code="no_key", hint=_INIT_HINT) from None
    if len(data) != 32:
        raise InvalidInputError(f"{path} is not a key of 32 bytes", code="bad_key")
    if mode & 0o077:
        raise InvalidInputError(f"{path} is readable by others", code="open_key", hint=f"chmod 600 {path}")
    return data


def _read_settings(path: Path) -> NodeSettings:
    try:
        return decode_toml(path.read_bytes(), NodeSettings)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}", code="no_settings", hint=_INIT_HINT) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidInputError(f"{path}: {error}", code="bad_settings") from None


def _read_genesis(path: Path) -> TrustedGenesis:
    try:
        return parse_genesis(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}", code="no_genesis", hint=_INIT_HINT) from None


_INIT_HINT = "prepare the home with `freehold node join`"
