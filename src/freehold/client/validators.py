"""What a person sees of validators, and what a bond costs and brings, before anything is paid.

Everything is read with proofs at one height. Spec: docs/spec/validators.md.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from freehold.base.codec import Record
from freehold.base.errors import InvalidInputError, RefusedError
from freehold.base.presets import AttendancePreset, ElectionPreset, Preset
from freehold.client.session import Session
from freehold.ledger import keys, schedule
from freehold.ledger.attendance import attendance_preset, least_blocks
from freehold.ledger.bonds import last_height
from freehold.ledger.elections import elect, era_at, insert, preset_of, without
from freehold.ledger.fee_shares import earned_of
from freehold.ledger.records import (
    Attendance,
    Candidates,
    Elections,
    Params,
    Totals,
    Unbonding,
    UpgradeRecord,
    ValidatorBond,
    ValidatorSets,
)

R = TypeVar("R", bound=Record)


class Values(Protocol):
    """Records of one state."""

    def get(self, key: bytes, kind: type[R]) -> R | None:
        """The record at a key that was asked for; None where the state has none."""


Reader = Callable[[Sequence[bytes]], Awaitable[Values]]

COUNTS_ERA: Final = 3  # the rule-set from which on a withdrawal's blocks count from the era's end, as its time does
_RECORDS = (
    keys.PARAMS,
    keys.TOTALS,
    keys.ELECTIONS,
    keys.CANDIDATES,
    keys.VALIDATOR_SETS,
    keys.UPGRADE,
    keys.ATTENDANCE,
)


class ValidatorRow(Struct, frozen=True, kw_only=True):
    """One validator or candidate.

    Attributes:
        validator: its public key.
        power: in the set that votes at the height that was read; 0 when it does not.
        next_power: in the newest set.
        bond: its record; None for a validator of genesis without a bond.
        earned: fees that were not claimed yet.
        missed: blocks of this era without its vote.
        returns_ms: from when its owner may put it back, when it lost its place for not signing; 0 when it did not.
    """

    validator: bytes
    power: int
    next_power: int
    bond: ValidatorBond | None
    earned: int
    missed: int = 0
    returns_ms: int = 0


class ValidatorsView(Struct, frozen=True, kw_only=True):
    """The validators of a ledger at a height.

    Attributes:
        height: of the state that was read.
        time_ms: of its newest block.
        rules: (first height, version), ascending.
        upgrade: the newest agreed change, when there was one.
        preset: how validators are elected; None where those of genesis stay.
        table: of candidates: (stake, validator, owner), highest first.
        next_election_ms: the beginning of the next era; 0 without elections.
        liable_height: from which the blocks of a withdrawal count that is sent now.
        attendance: how much validators must sign; None where nobody counts.
        least_blocks: an era with fewer judges nobody; 0 where nobody counts.
        counted: blocks of this era whose votes were counted.
        rows: by power, then stake.
    """

    height: int
    time_ms: int
    rules: list[tuple[int, int]]
    upgrade: UpgradeRecord | None
    preset: ElectionPreset | None
    table: list[tuple[int, bytes, bytes]]
    next_election_ms: int
    liable_height: int
    attendance: AttendancePreset | None
    least_blocks: int
    counted: int
    rows: list[ValidatorRow]

    @property
    def power(self) -> int:
        """Of all that vote."""
        return sum(row.power for row in self.rows)

    def find(self, validator: bytes) -> ValidatorRow | None:
        """Give the row of a validator."""
        return next((row for row in self.rows if row.validator == validator), None)

    def elections(self) -> ElectionPreset:
        """Give how validators are elected.

        Raises:
            RefusedError: they are not.
        """
        if self.preset is None:
            raise RefusedError(
                "this ledger keeps the validators of its genesis: nobody is elected, and nothing is bonded",
                code="no_elections",
                hint="ledgers on CometBFT elect validators; an older one needs rule-set 2: docs/spec/upgrades.md",
            )
        return self.preset


class BondPlan(Struct, frozen=True, kw_only=True):
    """What a bond would cost and bring, if the election were now.

    Attributes:
        amount: that leaves the owner's balance for the bond.
        deposit: refundable, of a new bond.
        fee: of the transaction.
        stake: of the validator afterwards.
        rank: its place in the table, from 1; 0 when it finds none.
        seats: that are elected.
        power: that it would have; 0 when it would not sit.
        total_power: of that set; 0 when nobody would be elected.
        evicts: the validator that would lose its place; empty for none.
    """

    amount: int
    deposit: int
    fee: int
    stake: int
    rank: int
    seats: int
    power: int
    total_power: int
    evicts: bytes


async def read_validators(session: Session, also: bytes = b"") -> ValidatorsView:
    """Read the validators and candidates, verified.

    Args:
        session: with the ledger.
        also: a validator that is looked up although it neither votes nor stands.

    Raises:
        UnreachableError: no answer in time.
        NotVerifiedError: what was answered is not proven.
    """
    height: int | None = None

    async def read(wanted: Sequence[bytes]) -> Values:
        nonlocal height
        found = await session.ledger.read(wanted, height)
        height = found.at.height
        return found

    return await view_validators(read, session.preset, also)


async def view_validators(read: Reader, chain: Preset, also: bytes = b"") -> ValidatorsView:
    """Put the validators and candidates together from records of one state, whoever reads them.

    Args:
        read: gives records by their keys, each time of the same state.
        chain: its preset.
        also: a validator that is looked up although it neither votes nor stands.

    Raises:
        RefusedError: the state holds no ledger.
    """
    found = await read(_RECORDS)
    params, totals = found.get(keys.PARAMS, Params), found.get(keys.TOTALS, Totals)
    if params is None or totals is None:
        raise RefusedError("the state holds no ledger", code="no_ledger")
    elections = found.get(keys.ELECTIONS, Elections)
    table = found.get(keys.CANDIDATES, Candidates)
    sets = found.get(keys.VALIDATOR_SETS, ValidatorSets)
    entries = [] if table is None else table.entries
    by_height = [(0, params.validators)] if sets is None else sets.sets
    now = dict([members for start, members in by_height if start <= totals.height][-1])
    newest = dict(by_height[-1][1])
    attendance = found.get(keys.ATTENDANCE, Attendance)
    missed, absent = ({}, {}) if attendance is None else (dict(attendance.missed), dict(attendance.absent))
    listed = [entry[1] for entry in entries]
    everyone = list(dict.fromkeys([*newest, *now, *listed, *absent, *([also] if also else [])]))
    bonds = await read([keys.bond_key(key) for key in everyone])
    preset = None if elections is None else preset_of(elections)
    judged = None if attendance is None else attendance_preset(attendance)

    def begin_ms(era: int) -> int:
        first = 0 if preset is None else era * preset.era_epochs
        return schedule.epoch_start_ms(chain, params.genesis_ms, first)

    next_ms = 0 if preset is None else begin_ms(era_at(preset, totals.epoch) + 1)
    counts_era = next(version for start, version in reversed(params.rules) if start <= totals.height + 1) >= COUNTS_ERA
    rows = []
    for key in everyone:
        bond = bonds.get(keys.bond_key(key), ValidatorBond)
        if bond is not None or key in now or key in newest:
            earned = 0 if bond is None or elections is None else earned_of(elections, bond)
            row = ValidatorRow(
                validator=key,
                power=now.get(key, 0),
                next_power=newest.get(key, 0),
                bond=bond,
                earned=earned,
                missed=missed.get(key, 0),
                returns_ms=begin_ms(absent[key] + judged.wait_eras) if judged is not None and key in absent else 0,
            )
            rows.append(row)
    return ValidatorsView(
        height=totals.height,
        time_ms=totals.time_ms,
        rules=params.rules,
        upgrade=found.get(keys.UPGRADE, UpgradeRecord),
        preset=preset,
        table=entries,
        next_election_ms=next_ms,
        liable_height=(
            last_height(chain, totals.height + 1, next_ms - totals.time_ms) if counts_era else totals.height + 1
        ),
        attendance=judged,
        least_blocks=least_blocks(chain, preset) if judged is not None and preset is not None else 0,
        counted=0 if attendance is None else totals.height - attendance.since_height,
        rows=sorted(rows, key=lambda row: (-row.power, -(row.bond.stake if row.bond else 0), row.validator)),
    )


def plan_bond(view: ValidatorsView, session: Session, validator: bytes, owner: bytes, amount: int) -> BondPlan:
    """Say what bonding, or adding to a bond, would cost and bring.

    Raises:
        RefusedError: nobody is elected here, the validator has another owner or was removed.
        InvalidInputError: the bond would be too low.
    """
    preset = view.elections()
    row = view.find(validator)
    bond = None if row is None else row.bond
    if bond is not None and bond.owner != owner:
        raise RefusedError("this validator's bond has another owner", code="not_owner", hint="use its owner's wallet")
    if bond is not None and bond.is_removed:
        raise RefusedError(
            "this validator misbehaved: its key never stands again",
            code="validator_removed",
            hint="take the rest back with `freehold ledger unbond`, and bond another key",
        )
    if row is not None and row.returns_ms:
        raise RefusedError(
            "this validator lost its place because it did not sign",
            code="validator_absent",
            hint=f"put it back first: `freehold ledger rejoin {validator.hex()}`",
        )
    stake = amount + (0 if bond is None else bond.stake)
    if stake < preset.min_bond:
        raise InvalidInputError(
            f"the bond would be {stake} of at least {preset.min_bond} (10^-7 token)", code="bond_too_low"
        )
    others = without(view.table, validator)
    placed = insert(others, (stake, validator, owner), preset.max_candidates)
    entries, evicted = (others, None) if placed is None else placed
    powers = elect(preset, entries) or {}
    rank = next((at for at, entry in enumerate(entries, 1) if entry[1] == validator), 0)
    return BondPlan(
        amount=amount,
        deposit=session.preset.record_deposit if bond is None else 0,
        fee=session.preset.min_fee,
        stake=stake,
        rank=rank,
        seats=preset.seats,
        power=powers.get(validator, 0),
        total_power=sum(powers.values()),
        evicts=b"" if evicted is None else evicted[1],
    )


def due_parts(view: ValidatorsView, bond: ValidatorBond) -> list[Unbonding]:
    """Give the parts of a bond that may be paid out in the next block."""
    return [part for part in bond.unbonding if view.time_ms >= part.due_ms and view.height + 1 >= part.due_height]
