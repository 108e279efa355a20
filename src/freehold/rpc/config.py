"""The ledger daemon's home: genesis.json, validator.key, optional faucet.key, ledger.toml, data/.

Keys are 32 raw bytes, private to their owner: a file that others may read is refused, as ssh does.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from freehold.base.decoders import decode_toml
from freehold.base.errors import InvalidInputError
from freehold.consensus.home_files import read_file, read_key
from freehold.crypto.ed25519 import PrivateKey
from freehold.light.genesis import MAX_GENESIS_BYTES, TrustedGenesis, parse_genesis

MAX_CONFIG_BYTES: Final = 64 * 1024
MAX_LISTEN: Final = 16

Rate = Annotated[float, Meta(gt=0, le=1_000_000)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """ledger.toml: where to listen (`ip:port`, `[ip6]:port`), and how many points a client may spend.

    A light request costs one point, a heavy one more (docs/spec/rpc.md). `keep_blocks` of 0 keeps all.
    `metrics` is where Prometheus finds its page (docs/runbook.md), for the operator alone; nowhere when it is empty.
    `index` is where history is kept: `sqlite` in the home, a connection string of PostgreSQL, or `off`
    (docs/spec/history.md).
    """

    listen: Annotated[list[str], Meta(min_length=1, max_length=MAX_LISTEN)]
    points_per_second: Rate = 500.0
    points_burst: Rate = 2_000.0
    keep_blocks: Annotated[int, Meta(ge=0)] = 0
    metrics: str = ""
    index: Annotated[str, Meta(pattern=r"^(?:sqlite|off|postgres(?:ql)?://\S{1,500})\Z")] = "sqlite"


class Address(msgspec.Struct, frozen=True):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class DaemonHome(msgspec.Struct, frozen=True):
    """What a home holds, read and checked.

    Attributes:
        folder: the home.
        settings: of ledger.toml.
        addresses: where to listen.
        metrics: where to listen for Prometheus; None for nowhere.
        genesis: parsed.
        genesis_bytes: as they are served.
        validator: the key that signs blocks.
        faucet: the key that gives, when there is one.
    """

    folder: Path
    settings: Settings
    addresses: tuple[Address, ...]
    metrics: Address | None
    genesis: TrustedGenesis
    genesis_bytes: bytes
    validator: PrivateKey
    faucet: PrivateKey | None

    @property
    def data(self) -> Path:
        """The engine's folder."""
        return self.folder / "data"

    @property
    def index_folder(self) -> Path:
        """Where history is kept, unless in PostgreSQL; may be removed at any time: it is made anew."""
        return self.folder / "index"


def load_home(folder: Path) -> DaemonHome:
    """Read a home.

    Raises:
        InvalidInputError: something is missing, malformed, or open to other users.
    """
    genesis_bytes = read_file(folder / "genesis.json", MAX_GENESIS_BYTES)
    try:
        settings = decode_toml(read_file(folder / "ledger.toml", MAX_CONFIG_BYTES), Settings)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidInputError(
            f"{folder / 'ledger.toml'}: {error}",
            code="bad_settings",
            hint='it needs at least: listen = ["127.0.0.1:4600"]',
        ) from None
    faucet_path = folder / "faucet.key"
    return DaemonHome(
        folder,
        settings,
        tuple(parse_address(text) for text in settings.listen),
        parse_address(settings.metrics) if settings.metrics else None,
        parse_genesis(genesis_bytes),
        genesis_bytes,
        read_key(folder / "validator.key"),
        read_key(faucet_path) if faucet_path.exists() else None,
    )


def parse_address(text: str) -> Address:
    """Read `ip:port` or `[ip6]:port`; port 0 lets the system choose.

    Raises:
        InvalidInputError: it is neither.
    """
    host, _, port = text.rpartition(":")
    is_v6 = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if is_v6 else host)
    except ValueError:
        address = None
    if address is None or (address.version == 6) != is_v6 or not (port.isascii() and port.isdigit()):
        raise _bad_address(text)
    if int(port) > 65_535:
        raise _bad_address(text)
    return Address(str(address), int(port))


def _bad_address(text: str) -> InvalidInputError:
    return InvalidInputError(
        f"{text[:80]!r} is not an address to listen on", code="bad_address", hint="write it as 127.0.0.1:4600"
    )
