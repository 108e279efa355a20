"""The VRF keys with which a ledger begins; a genesis without them keeps the beacon of a single proposer's signature."""

from typing import Any, Final, NoReturn

import msgspec

from freehold.base.errors import InvalidInputError
from freehold.base.ids import parse_id
from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger.beacons import possession_input
from freehold.ledger.records import VrfKeys

VRF_KEYS_VERSION: Final = 1


class VrfEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A validator of genesis, its VRF key, and that key's proof over the validator's; all hex."""

    validator: str
    vrf_key: str
    possession: str


class GenesisVrf(msgspec.Struct, frozen=True):
    """What `app_state_document` needs of a validator's VRF key."""

    validator: bytes
    vrf_key: bytes
    possession: bytes


def prove_possession(key: PrivateKey, validator: bytes) -> GenesisVrf:
    """Say that a VRF key belongs to a validator, with a proof that only its holder can make.

    Args:
        key: the VRF key.
        validator: the consensus key.
    """
    return GenesisVrf(validator, key.public, ecvrf.prove(key, possession_input(validator)))


def is_possessed(entry: GenesisVrf) -> bool:
    """Whether the proof holds: a proper VRF key, not the consensus key itself."""
    if entry.vrf_key == entry.validator:
        return False
    return ecvrf.verify(entry.vrf_key, possession_input(entry.validator), entry.possession) is not None


def vrf_document(members: list[GenesisVrf]) -> list[dict[str, Any]]:
    """Build the `vrf` of an `app_state`."""
    return [
        {"validator": one.validator.hex(), "vrf_key": one.vrf_key.hex(), "possession": one.possession.hex()}
        for one in sorted(members, key=lambda one: one.validator)
    ]


def vrf_record(entries: list[VrfEntry], validators: dict[bytes, int]) -> VrfKeys:
    """Build the record of genesis' VRF keys.

    Args:
        entries: of the document.
        validators: power by consensus key.

    Raises:
        InvalidInputError: not one key for each validator, each proven and unlike all others.
    """
    members = []
    for entry in entries:
        try:
            possession = bytes.fromhex(entry.possession)
        except ValueError:
            _refuse(f"the proof of validator {entry.validator[:16]}'s VRF key is not hex")
        member = GenesisVrf(parse_id(entry.validator), parse_id(entry.vrf_key), possession)
        if not is_possessed(member):
            _refuse(f"validator {entry.validator[:16]} does not prove that it holds its VRF key")
        members.append((member.validator, member.vrf_key))
    members.sort()
    if [validator for validator, _ in members] != sorted(validators):
        _refuse("the VRF keys are not those of genesis' validators, each once")
    if len({vrf_key for _, vrf_key in members}) != len(members):
        _refuse("two validators have the same VRF key")
    return VrfKeys(VRF_KEYS_VERSION, members)


def _refuse(message: str) -> NoReturn:
    raise InvalidInputError(message, code="bad_genesis", hint="collect every operator's card again")
