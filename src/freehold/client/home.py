"""A person's folder: genesis, wallet, images, settings. `FREEHOLD_HOME`, else ~/.freehold; private to its owner."""

import os
import re
from pathlib import Path

import msgspec

from freehold.base.decoders import decode_toml
from freehold.base.errors import InvalidInputError
from freehold.light.genesis import MAX_GENESIS_BYTES, TrustedGenesis, parse_genesis
from freehold.light.trust import GENESIS, Trust, parse_trust
from freehold.lightclient.private_file import write_private

DEFAULT_RPC = "http://127.0.0.1:4600"
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]{1,255}/?\Z", re.ASCII)


class Settings(msgspec.Struct, kw_only=True, omit_defaults=True):
    """settings.toml: where the ledger answers; several URLs with commas between them are asked in turn."""

    rpc: str = DEFAULT_RPC


class Home:
    """Paths of a home, and safe reading and writing of its small files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def default(cls) -> "Home":
        """The home that the environment names."""
        named = os.environ.get("FREEHOLD_HOME")
        return cls(Path(named) if named else Path.home() / ".freehold")

    @property
    def wallet_path(self) -> Path:
        """The encrypted wallet."""
        return self.folder / "wallet.json"

    @property
    def genesis_path(self) -> Path:
        """The genesis document that is trusted."""
        return self.folder / "genesis.json"

    @property
    def images_folder(self) -> Path:
        """Imported images."""
        return self.folder / "images"

    @property
    def forwards_folder(self) -> Path:
        """One file for each published port that is being forwarded."""
        return self.folder / "forwards"

    @property
    def grid_folder(self) -> Path:
        """A local grid's processes and homes."""
        return self.folder / "grid"

    @property
    def trust_folder(self) -> Path:
        """The newest verified light block, and evidence of servers that told two stories."""
        return self.folder / "light"

    def trust(self) -> Trust:
        """Where trust in the ledger begins: `FREEHOLD_TRUST`, else genesis.

        Raises:
            InvalidInputError: `bad_trust`.
        """
        return parse_trust(os.environ.get("FREEHOLD_TRUST") or GENESIS)

    def settings(self) -> Settings:
        """Settings, with `FREEHOLD_RPC` over the file.

        Raises:
            InvalidInputError: the file is malformed.
        """
        path = self.folder / "settings.toml"
        settings = Settings()
        if path.exists():
            try:
                settings = decode_toml(path.read_bytes(), Settings)
            except (msgspec.DecodeError, ValueError) as error:
                raise InvalidInputError(f"{path}: {error}", code="bad_settings") from None
        named = os.environ.get("FREEHOLD_RPC")
        if named:
            settings.rpc = named
        if not all(_URL.match(url.strip()) for url in settings.rpc.split(",")):
            raise InvalidInputError(
                f"{settings.rpc[:80]!r} is not the URL of a ledger",
                code="bad_url",
                hint="write http://HOST:PORT in FREEHOLD_RPC or settings.toml; several with commas between them",
            )
        return settings

    def save_settings(self, settings: Settings) -> None:
        """Write settings.toml."""
        self.write(self.folder / "settings.toml", f'rpc = "{settings.rpc}"\n'.encode())

    def genesis(self, path: Path | None = None) -> TrustedGenesis:
        """The genesis that is trusted.

        Raises:
            InvalidInputError: there is none, or it is malformed.
        """
        path = path or self.genesis_path
        try:
            with path.open("rb") as file:
                data = file.read(MAX_GENESIS_BYTES + 1)
        except OSError:
            raise InvalidInputError(
                f"no genesis at {path}",
                code="no_genesis",
                hint="start a local grid with `freehold grid up`, or copy the genesis.json of the grid you trust",
            ) from None
        if len(data) > MAX_GENESIS_BYTES:
            raise InvalidInputError(
                f"{path} is too large for a genesis",
                code="oversized",
                hint="fetch the genesis file again from its source",
            )
        return parse_genesis(data)

    def write(self, path: Path, data: bytes) -> None:
        """Write a private file so that a crash leaves the old or the new one whole."""
        write_private(path, data)
