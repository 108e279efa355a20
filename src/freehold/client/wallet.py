"""The wallet: one mnemonic from which every key of a tenant or farmer follows, in an encrypted file.

The file holds the account id in clear, so that balances can be shown without the passphrase, and the mnemonic sealed
under Argon2id and an AEAD (docs/spec/keys.md).
"""

import getpass
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from freehold.base.decoders import decode_json
from freehold.base.errors import InvalidInputError
from freehold.client.home import Home
from freehold.crypto import mnemonic, slip10
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.keystore import open_keystore, seal_keystore
from freehold.crypto.strkey import decode_account, encode_account

MIN_PASSPHRASE = 8


class _WalletFile(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    account: str
    keystore: str


@dataclass(frozen=True)
class Wallet:
    """The opened wallet's keys."""

    account: PrivateKey
    endpoint: PrivateKey

    @property
    def id(self) -> bytes:
        """The account id."""
        return self.account.public

    @property
    def address(self) -> str:
        """The account id as people see it: Stellar `G...`."""
        return encode_account(self.account.public)


def keys_of(words: str) -> Wallet:
    """The keys of a mnemonic: the account at SEP-0005's path, the p2p endpoint on a branch of its own."""
    seed = mnemonic.to_seed(mnemonic.validate(words))
    return Wallet(
        slip10.derive(seed, slip10.ACCOUNT_PATH.format(index=0)),
        slip10.derive(seed, slip10.ENDPOINT_PATH.format(index=0)),
    )


def create(home: Home, passphrase: str, words: str | None = None) -> tuple[Wallet, str]:
    """Make a wallet from new words or given ones, and write it.

    Raises:
        InvalidInputError: there is a wallet already, the words are not a mnemonic, or the passphrase is short.
    """
    if home.wallet_path.exists():
        raise InvalidInputError(
            f"there is a wallet at {home.wallet_path}",
            code="wallet_exists",
            hint="move it away first, or choose another FREEHOLD_HOME; nothing is ever overwritten",
        )
    if len(passphrase) < MIN_PASSPHRASE:
        raise InvalidInputError(f"the passphrase has fewer than {MIN_PASSPHRASE} characters", code="short_passphrase")
    words = mnemonic.new() if words is None else mnemonic.validate(words)
    wallet = keys_of(words)
    keystore = seal_keystore(words.encode(), passphrase).decode()
    home.write(home.wallet_path, msgspec.json.encode(_WalletFile("freehold-wallet/1", wallet.address, keystore)))
    return wallet, words


def address(home: Home) -> str:
    """The wallet's account, without opening it."""
    return _load(home).account


def open_wallet(home: Home, passphrase: str) -> Wallet:
    """Open the wallet.

    Raises:
        InvalidInputError: no wallet, a damaged one, or the wrong passphrase.
    """
    file = _load(home)
    wallet = keys_of(open_keystore(file.keystore.encode(), passphrase).decode())
    if wallet.id != decode_account(file.account):
        raise InvalidInputError("the wallet file names another account than its key", code="bad_wallet")
    return wallet


def read_passphrase(*, confirm: bool = False) -> str:
    """The passphrase: from the file that `FREEHOLD_PASSPHRASE_FILE` names, else asked for on the terminal.

    Raises:
        InvalidInputError: the file cannot be read, there is no terminal, or the two entries differ.
    """
    named = os.environ.get("FREEHOLD_PASSPHRASE_FILE")
    if named:
        try:
            return Path(named).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"cannot read the passphrase file {named}: {error}", code="no_passphrase") from None
    if not sys.stdin.isatty():
        raise InvalidInputError(
            "a passphrase is needed and there is no terminal to ask on",
            code="no_passphrase",
            hint="put it into a file of mode 0600 and name that in FREEHOLD_PASSPHRASE_FILE",
        )
    first = getpass.getpass("Passphrase: ", stream=sys.stderr)
    if confirm and getpass.getpass("The same again: ", stream=sys.stderr) != first:
        raise InvalidInputError("the two passphrases differ", code="no_passphrase")
    return first


def _load(home: Home) -> _WalletFile:
    try:
        file = decode_json(home.wallet_path.read_bytes(), _WalletFile)
    except FileNotFoundError:
        raise InvalidInputError(
            f"no wallet at {home.wallet_path}", code="no_wallet", hint="make one with `freehold wallet new`"
        ) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidInputError(f"{home.wallet_path} is damaged: {error}", code="bad_wallet") from None
    if file.format != "freehold-wallet/1":
        raise InvalidInputError(f"wallet format {file.format!r} is not known", code="bad_wallet")
    return file
