"""Elections as a genesis document states them: their values, and the first bonds.

Everything is named in public keys, amounts are texts of tokens. Spec: docs/spec/validators.md.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec

from freehold.base.amounts import MAX_AMOUNT, TOKEN, format_amount, parse_amount
from freehold.base.codec import Record
from freehold.base.decoders import convert
from freehold.base.errors import InvalidInputError
from freehold.base.ids import parse_id
from freehold.base.presets import AttendancePreset, ElectionPreset
from freehold.crypto.strkey import decode_account, encode_account
from freehold.ledger import keys
from freehold.ledger.attendance import VALUE_NAMES as ATTENDANCE_NAMES
from freehold.ledger.attendance import new_attendance
from freehold.ledger.bonds import ADDRESS_VERSION, new_bond, validator_address
from freehold.ledger.elections import CANDIDATES_VERSION, VALUE_NAMES, Entry, new_elections
from freehold.ledger.fee_shares import NO_FEES
from freehold.ledger.records import Candidates, ValidatorAddress

MAX_SEATS: Final = 128  # what the approvals of an upgrade can name
_MAX_UNBONDING_MS: Final = 3_660 * 86_400_000


class BondEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A validator of genesis that has a bond; it comes out of its owner's balance."""

    validator: str
    owner: str
    bond: str
    vrf_key: str


class ElectionsEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The values by which validators are elected, the first bonds, and from rule-set 3 on who must sign how much."""

    values: dict[str, int]
    bonds: list[BondEntry]
    attendance: dict[str, int] | None = None


class GenesisBond(msgspec.Struct, frozen=True):
    """What `app_state_document` needs of a validator that has a bond."""

    validator: bytes
    owner: bytes
    bond: int
    vrf_key: bytes = b""


def elections_document(
    preset: ElectionPreset, bonds: list[GenesisBond], attendance: AttendancePreset
) -> dict[str, Any]:
    """Build the `elections` of an `app_state`."""
    return {
        "values": msgspec.structs.asdict(preset),
        "attendance": msgspec.structs.asdict(attendance),
        "bonds": [
            {
                "validator": bond.validator.hex(),
                "owner": encode_account(bond.owner),
                "bond": format_amount(bond.bond),
                "vrf_key": bond.vrf_key.hex(),
            }
            for bond in bonds
        ],
    }


def election_records(
    entry: ElectionsEntry, validators: dict[bytes, int], deposit: int, take: Callable[[bytes, int], None]
) -> dict[bytes, Record]:
    """Build the records with which elections begin; genesis' validators sit until one seats enough candidates.

    Args:
        entry: of the document.
        validators: power by public key.
        deposit: of each bond's record.
        take: takes an amount from an account, or refuses.

    Raises:
        InvalidInputError: a value or a bond is not one that elections can begin with.
    """
    records: dict[bytes, Record] = {}
    preset = parse_elections(entry.values)
    table: list[Entry] = []
    for bond in entry.bonds:
        validator, owner, stake = parse_id(bond.validator), decode_account(bond.owner), parse_amount(bond.bond)
        if validator not in validators:
            _refuse(f"{bond.validator} has a bond and is no validator of genesis", "bond it by a transaction")
        if keys.bond_key(validator) in records:
            _refuse(f"validator {bond.validator} has two bonds", "name each once")
        if stake < preset.min_bond or len(table) == preset.max_candidates:
            _refuse(f"validator {bond.validator} has too low a bond, or too many have one", "see `elections.values`")
        take(owner, stake + deposit)
        records[keys.bond_key(validator)] = new_bond(
            owner,
            stake,
            deposit,
            vrf_key=parse_id(bond.vrf_key) if bond.vrf_key else b"",
            fee_mark=NO_FEES,
            height=0,
            power=validators[validator],
        )
        records[keys.validator_address_key(validator_address(validator))] = ValidatorAddress(ADDRESS_VERSION, validator)
        table.append((stake, validator, owner))
    power = sum(validators[validator] for _, validator, _ in table)
    records[keys.ELECTIONS] = new_elections(preset, era=0, power=power)
    if entry.attendance is not None:
        records[keys.ATTENDANCE] = new_attendance(parse_attendance(entry.attendance), since_height=0)
    records[keys.CANDIDATES] = Candidates(CANDIDATES_VERSION, sorted(table, key=lambda row: (-row[0], row[1])))
    return records


def read_elections(app_state: Mapping[str, Any]) -> ElectionPreset | None:
    """Give the values of elections that the `app_state` of a genesis document begins with; None without any.

    Raises:
        InvalidInputError: they are malformed.
    """
    entry = app_state.get("elections")
    if entry is None:
        return None
    try:
        return parse_elections(convert(entry, ElectionsEntry).values)
    except msgspec.ValidationError as error:
        _refuse(f"elections of genesis: {error}", "see docs/spec/validators.md")


def parse_elections(values: dict[str, int]) -> ElectionPreset:
    """Build the values of elections from all of them.

    Raises:
        InvalidInputError: a missing or unknown value, or values that elections cannot run on.
    """
    if set(values) != set(VALUE_NAMES):
        wrong = sorted(set(values) ^ set(VALUE_NAMES))
        _refuse(f"missing or unknown values of elections: {', '.join(wrong)[:200]}", "list every value once")
    preset = ElectionPreset(**values)
    problem = _elections_problem(preset)
    if problem:
        _refuse(f"the elections cannot work: {problem}", "see docs/spec/validators.md")
    return preset


def parse_attendance(values: dict[str, int]) -> AttendancePreset:
    """Build the values of attendance from all of them.

    Raises:
        InvalidInputError: a missing or unknown value, or values that nobody could keep.
    """
    if set(values) != set(ATTENDANCE_NAMES):
        wrong = sorted(set(values) ^ set(ATTENDANCE_NAMES))
        _refuse(f"missing or unknown values of attendance: {', '.join(wrong)[:200]}", "list every value once")
    preset = AttendancePreset(**values)
    rules = {
        "who must sign, and who may be out, are shares of at most 1000 permill": 0 <= preset.min_signed_permill <= 1_000
        and 0 <= preset.max_absent_permill <= 1_000,
        "an absence lasts at least one era": 1 <= preset.wait_eras <= 1 << 20,
    }
    problem = next((problem for problem, holds in rules.items() if not holds), "")
    if problem:
        _refuse(f"attendance cannot work: {problem}", "see docs/spec/validators.md")
    return preset


def _elections_problem(preset: ElectionPreset) -> str:
    if not all(0 <= getattr(preset, name) <= MAX_AMOUNT for name in VALUE_NAMES):
        return "a value is out of range"
    rules = {
        f"seats must be 1 to {MAX_SEATS}": 1 <= preset.seats <= MAX_SEATS,
        "the table of candidates must hold the seats, and at most four times as many": preset.seats
        <= preset.max_candidates
        <= 4 * preset.seats,
        "a bond is at least one token": preset.min_bond >= TOKEN,
        "more owners than seats are asked for": 1 <= preset.min_owners <= preset.seats,
        "the cap of an owner must be 1 to 1000 permill": 1 <= preset.cap_permill <= 1_000,
        "an era has at least one epoch": 1 <= preset.era_epochs <= 1 << 20,
        "the unbonding time is out of range": 1 <= preset.unbonding_ms <= _MAX_UNBONDING_MS,
        "the unbonding blocks are out of range": 1 <= preset.unbonding_blocks <= 1 << 40,
        "a share or a cut is more than the whole": max(
            preset.fee_permill, preset.duplicate_vote_permill, preset.light_attack_permill
        )
        <= 1_000,
    }
    return next((problem for problem, holds in rules.items() if not holds), "")


def _refuse(message: str, hint: str) -> NoReturn:
    raise InvalidInputError(message, code="bad_genesis", hint=hint)
