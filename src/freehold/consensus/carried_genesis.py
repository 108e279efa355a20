"""A genesis document that carries the whole state of an embedded ledger, and the old chain's last light block.

The light block's header, one height above the state, holds its root; it is signed by the validators that the state
itself names. So whoever has the old genesis can tell that nothing was changed but what `ledger.carrying` lists, and
everyone else that the document agrees with itself. Spec: docs/spec/leaving-embedded.md.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec

from freehold.base.decoders import convert
from freehold.base.errors import FreeholdError, InvalidInputError
from freehold.base.presets import ATTENDANCE, ELECTIONS
from freehold.consensus.tree import subtree
from freehold.crypto.smt import hash_leaf, hash_path, hash_value
from freehold.crypto.strkey import encode_account
from freehold.ledger.carrying import RULES, carry_over, check_leavable, outer_records
from freehold.ledger.context import VALUE_NAMES, preset_values
from freehold.ledger.genesis import parse_preset
from freehold.ledger.genesis_beacon import VrfEntry, vrf_record
from freehold.ledger.genesis_elections import ElectionsEntry, elections_document, parse_attendance, parse_elections
from freehold.light.genesis import MAX_GENESIS_BYTES, TrustedGenesis
from freehold.light.headers import make_validator, validators_hash
from freehold.light.skipping import check_light_block
from freehold.light.types import LightBlock
from freehold.light.verify import verify_commit

ROOM_BYTES: Final = 256 * 1024  # of a document, for validators and all else
MAX_CARRIED_BYTES: Final = MAX_GENESIS_BYTES - ROOM_BYTES


class CarriedEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The old chain: when its epochs began, its last light block and its state as (key, value), all base64."""

    genesis_ms: int
    light_block: str
    records: list[tuple[str, str]]


class CarriedState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `app_state` of a genesis document that goes on with another chain's state."""

    rules: int
    preset: str
    values: dict[str, int]
    faucet: str | None
    carried: CarriedEntry
    elections: ElectionsEntry
    vrf: list[VrfEntry]


def is_carried(app_state: Mapping[str, Any]) -> bool:
    """Whether a genesis carries another chain's state."""
    return "carried" in app_state


def state_root(records: Mapping[bytes, bytes]) -> bytes:
    """Give the root of a state, 32 bytes."""
    leaves = sorted((hash_path(key), hash_value(value)) for key, value in records.items())
    return subtree([(path, hash_leaf(path, value)) for path, value in leaves], 0)[1]


def carried_app_state(
    light_block: LightBlock, records: Mapping[bytes, bytes], *, max_bytes: int = MAX_CARRIED_BYTES
) -> dict[str, Any]:
    """Build the `app_state`, to which `comet.founding.genesis_of` adds the operators' VRF keys.

    Args:
        light_block: the old chain's, one height above the state.
        records: the whole state.
        max_bytes: of its text in the document.

    Raises:
        InvalidInputError: the state cannot be left, is not what the header holds, or is too large (`state_too_large`).
    """
    check_leavable(records)
    params, _ = outer_records(records)
    _check_proven(light_block, records)
    size = sum(4 * (-(-len(part) // 3)) + 4 for item in records.items() for part in item)
    if size > max_bytes:
        raise InvalidInputError(
            f"the state takes {size} bytes of a genesis document, which holds {max_bytes} of it",
            code="state_too_large",
            hint="a ledger of this size cannot leave the embedded engine; begin a new one",
        )
    return {
        "rules": RULES,
        "preset": params.preset,
        "values": dict(zip(VALUE_NAMES, params.values, strict=True)),
        "faucet": encode_account(params.faucet) if params.faucet else None,
        "carried": {
            "genesis_ms": params.genesis_ms,
            "light_block": _text(light_block.encode()),
            "records": [[_text(key), _text(value)] for key, value in sorted(records.items())],
        },
        "elections": elections_document(ELECTIONS[params.preset], [], ATTENDANCE[params.preset]),
    }


def continued_state(
    app_state: Mapping[str, Any],
    chain_id: str,
    *,
    initial_height: int,
    genesis_time_ms: int,
    validators: list[tuple[bytes, int]],
) -> dict[bytes, bytes]:
    """Build the state before the first block of a chain that goes on with another's.

    Args:
        app_state: of the genesis document.
        chain_id: of the new chain.
        initial_height: its first height, that of the old chain's last header.
        genesis_time_ms: later than that header.
        validators: public key and power of each.

    Raises:
        InvalidInputError: `carried_state_mismatch`, `carried_header_invalid`, `bad_genesis` or what `carry_over` says.
    """
    document, records, light_block = _read(app_state)
    _check_proven(light_block, records)
    params, totals = outer_records(records)
    header = light_block.header
    preset = parse_preset(document.preset, document.values)
    if header.height != initial_height or totals.height != initial_height - 1:
        _refuse(f"the carried state is of height {totals.height}, its header of {header.height}: the chain must begin "
                f"at {totals.height + 1}, not {initial_height}")  # fmt: skip
    if genesis_time_ms <= header.time.ms:
        _refuse("the new chain begins before the old one's last header")
    if document.rules != RULES or document.carried.genesis_ms != params.genesis_ms:
        _refuse("rules or genesis_ms are not those of the carried state")
    faucet = encode_account(params.faucet) if params.faucet else None
    if (preset.name, preset_values(preset), document.faucet) != (params.preset, params.values, faucet):
        _refuse("preset, values or faucet are not those of the carried state")
    if document.elections.bonds:
        _refuse("a carried state begins without bonds")
    if document.elections.attendance is None:
        _refuse("it does not say how much validators must sign")
    return carry_over(
        records,
        chain_id=chain_id,
        validators=validators,
        vrf=vrf_record(document.vrf, dict(validators)),
        elections=parse_elections(document.elections.values),
        attendance=parse_attendance(document.elections.attendance),
        header_hash=light_block.signed_header.commit.block_id.hash,
    )


def check_origin(genesis: TrustedGenesis, old: TrustedGenesis) -> int:
    """Check that a chain goes on from the one that an old genesis began: for whoever trusted that one.

    Returns:
        The old chain's last height whose state is carried.

    Raises:
        InvalidInputError: `other_origin`, or the document does not agree with itself.
    """
    if not is_carried(genesis.app_state):
        raise InvalidInputError(f"{genesis.chain_id} carries no other chain's state", code="other_origin")
    _, records, light_block = _read(genesis.app_state)
    header = light_block.header
    if header.chain_id != old.chain_id or header.validators_hash != old.validators_hash:
        raise InvalidInputError(
            f"{genesis.chain_id} goes on from {header.chain_id[:50]}, not from the {old.chain_id} of this genesis",
            code="other_origin",
            hint="ask the operators for the genesis that carries your ledger",
        )
    continued_state(
        genesis.app_state,
        genesis.chain_id,
        initial_height=genesis.initial_height,
        genesis_time_ms=genesis.genesis_time.ms,
        validators=[(member.pub_key.ed25519, member.voting_power) for member in genesis.validators.validators],
    )
    params, totals = outer_records(records)
    if params.genesis_ms != old.genesis_time_ms:
        raise InvalidInputError("the carried ledger began at another time", code="other_origin")
    return totals.height


def _read(app_state: Mapping[str, Any]) -> tuple[CarriedState, dict[bytes, bytes], LightBlock]:
    try:
        document = convert(app_state, CarriedState)
        pairs = [(_bytes(key), _bytes(value)) for key, value in document.carried.records]
        light_block = LightBlock.decode(_bytes(document.carried.light_block), max_bytes=ROOM_BYTES)
    except (msgspec.ValidationError, binascii.Error, FreeholdError) as error:
        _refuse(f"app_state of genesis: {str(error)[:200]}")
    if pairs != sorted(dict(pairs).items()):
        _refuse("the carried records are not in order, each once")
    return document, dict(pairs), light_block


def _check_proven(light_block: LightBlock, records: Mapping[bytes, bytes]) -> None:
    """Check state against header first: only what is proven may be decoded by the rules."""
    header, commit = light_block.signed_header.header, light_block.signed_header.commit
    if state_root(records) != header.app_hash:
        raise InvalidInputError(
            f"the carried state hashes to {state_root(records).hex()[:16]}, the old chain's last header says "
            f"{header.app_hash.hex()[:16]}",
            code="carried_state_mismatch",
            hint="the genesis file was edited: fetch it again from its maker",
        )
    try:
        check_light_block(light_block, header.chain_id)
        verify_commit(header.chain_id, light_block.validator_set, commit.block_id, header.height, commit)
        params, _ = outer_records(records)
        members = [make_validator(key, power) for key, power in params.validators]
        known = header.chain_id == params.chain_id and validators_hash(members) == header.validators_hash
    except FreeholdError as error:
        raise _header_invalid(str(error)) from None
    if not known:
        raise _header_invalid("it is of another chain, or of other validators, than the carried state")


def _header_invalid(reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"the old chain's last header does not hold: {reason}",
        code="carried_header_invalid",
        hint="fetch the genesis file again from its maker",
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _refuse(message: str) -> NoReturn:
    raise InvalidInputError(message, code="bad_genesis", hint="fetch the genesis file again from its maker")
