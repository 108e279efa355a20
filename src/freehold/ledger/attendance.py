"""Who signs: blocks that each sitting validator missed in an era, and what too many of them cost: its place.

Nothing is cut: who did not sign may have been cut off, or left out by proposers. Its bond leaves the table of
candidates, so that the seat goes to somebody else, until its owner puts it back.

Invariants: one counter for each validator of the newest set at most; who is put out never makes an election seat
nobody; all that are out together hold at most a share of the power at each judgement. Spec: docs/spec/validators.md.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from freehold.base.errors import check
from freehold.base.presets import ATTENDANCE, AttendancePreset, ElectionPreset, Preset
from freehold.ledger import keys, schedule
from freehold.ledger.context import Context
from freehold.ledger.elections import PERMILL, Entry, elect, era_at, in_order, preset_of, without
from freehold.ledger.events import BondChanged
from freehold.ledger.records import Attendance, Candidates, Elections, ValidatorBond
from freehold.ledger.validator_sets import newest_members
from freehold.ledger.votes import Vote

ATTENDANCE_VERSION: Final = 1
VALUE_NAMES: Final = tuple(field.name for field in msgspec.structs.fields(AttendancePreset))

Absence = tuple[bytes, int]  # validator, era in which it was put out


def attendance_values(preset: AttendancePreset) -> list[int]:
    """Give the values as `Attendance` holds them."""
    return [getattr(preset, name) for name in VALUE_NAMES]


def attendance_preset(record: Attendance) -> AttendancePreset:
    """Give the values by which a ledger judges attendance.

    Raises:
        InvariantError: the ledger was made with other values than these rules know.
    """
    check(len(record.values) == len(VALUE_NAMES), "attendance_values_match", count=len(record.values))
    return AttendancePreset(**dict(zip(VALUE_NAMES, record.values, strict=True)))


def new_attendance(preset: AttendancePreset, *, since_height: int) -> Attendance:
    """Build the record with which counting begins, after a height."""
    return Attendance(ATTENDANCE_VERSION, attendance_values(preset), since_height, [], [])


def count_votes(ctx: Context, votes: Sequence[Vote]) -> None:
    """Count who is missing in the commit of the block before; where nobody is, nothing is written.

    Who leaves the newest set leaves its count behind. The first block of rule-set 3 begins with the preset's values
    where genesis named none.
    """
    record = ctx.state.get(keys.ATTENDANCE, Attendance)
    if record is None:
        record = new_attendance(ATTENDANCE[ctx.params.preset], since_height=ctx.height - 1)
        ctx.state.put(keys.ATTENDANCE, record)
    away = [vote.validator for vote in votes if not vote.signed]
    if not away and not record.missed:
        return
    sitting = dict(newest_members(ctx))
    counts = dict(record.missed)
    for key in away:
        counts[key] = counts.get(key, 0) + 1
    missed = sorted((key, count) for key, count in counts.items() if key in sitting)
    if missed != record.missed:
        ctx.state.put(keys.ATTENDANCE, replace(record, missed=missed))


def close_era(ctx: Context, elections: Elections) -> None:
    """At the first block of an era, before its election: put out who signed too little, and count anew.

    Who is out and would not be elected if it were back is out for other reasons by now, and is forgotten.
    """
    record = ctx.state.need(keys.ATTENDANCE, Attendance)
    preset, voting = attendance_preset(record), preset_of(elections)
    table = ctx.state.need(keys.CANDIDATES, Candidates)
    absent, entries = record.absent, table.entries
    power = elect(voting, in_order([*entries, *_standing(ctx, absent)]))  # were all back
    blocks = ctx.height - record.since_height
    if power is not None:
        absent = [entry for entry in absent if entry[0] in power]
        if blocks >= least_blocks(ctx.preset, voting):
            most = blocks * (PERMILL - preset.min_signed_permill)
            wanting = sorted((-count, key) for key, count in record.missed if count * PERMILL > most)
            gone = choose_absent(
                voting, preset, entries, power, [key for key, _ in absent], [key for _, key in wanting]
            )
            if gone:
                absent = [*absent, *((key, era_at(voting, ctx.epoch)) for key in gone)]
                _put_out(ctx, gone)
    ctx.state.put(keys.ATTENDANCE, replace(record, since_height=ctx.height, missed=[], absent=absent))


def least_blocks(preset: Preset, voting: ElectionPreset) -> int:
    """Give the number of blocks below which an era is void, as an epoch is, and judges nobody."""
    return -(-preset.void_percent * schedule.ticks_per_epoch(preset) * voting.era_epochs // 100)


def choose_absent(
    voting: ElectionPreset,
    preset: AttendancePreset,
    entries: Sequence[Entry],
    power: Mapping[bytes, int],
    absent: Sequence[bytes],
    wanting: Sequence[bytes],
) -> list[bytes]:
    """Give who is put out, while those that stay can be elected and keep enough of the power.

    Enough before and after the owners' cap is taken anew: it may cut the rich among those that stay, and would so give
    the others more than the share of who is out.

    Args:
        voting: the values of elections.
        preset: the values of attendance.
        entries: of the table of candidates, highest stake first.
        power: what an election would give everybody, were all that are out back.
        absent: who is out, each of them in `power`.
        wanting: who signed too little, the worst first; who has no power or no place leaves anyway.
    """
    total, gone = sum(power.values()), []
    stays = total - sum(power[key] for key in absent)
    for key in wanting:
        rest = without(entries, key)
        elected = elect(voting, rest)
        if key not in power or elected is None:
            continue
        kept = sum(elected[other] for other in elected.keys() & power.keys())
        if min(stays - power[key], kept) * PERMILL < total * (PERMILL - preset.max_absent_permill):
            continue
        entries, stays = rest, stays - power[key]
        gone.append(key)
    return gone


def _put_out(ctx: Context, validators: Sequence[bytes]) -> None:
    """Take the places of validators in the table; their bonds stay as they are."""
    table = ctx.state.need(keys.CANDIDATES, Candidates)
    for key in validators:
        bond = ctx.state.need(keys.bond_key(key), ValidatorBond)
        ctx.state.put(keys.bond_key(key), replace(bond, is_listed=False))
        ctx.events.append(BondChanged(key, bond.owner, "absent", bond.stake))
    entries = [entry for entry in table.entries if entry[1] not in validators]
    ctx.state.put(keys.CANDIDATES, replace(table, entries=entries))


def _standing(ctx: Context, absent: Sequence[Absence]) -> list[Entry]:
    """Give those that are out as they would stand if they were back."""
    bonds = [(key, ctx.state.need(keys.bond_key(key), ValidatorBond)) for key, _ in absent]
    return [(bond.stake, key, bond.owner) for key, bond in bonds if not bond.is_removed]


def absence_of(ctx: Context, validator: bytes) -> Absence | None:
    """Give why a validator is out; None when it is not, or under rules that count nobody's votes."""
    record = ctx.state.get(keys.ATTENDANCE, Attendance)
    return next((entry for entry in record.absent if entry[0] == validator), None) if record is not None else None


def may_return(ctx: Context, elections: Elections, absence: Absence) -> bool:
    """Whether a validator has been out for long enough."""
    preset = attendance_preset(ctx.state.need(keys.ATTENDANCE, Attendance))
    return era_at(preset_of(elections), ctx.epoch) >= absence[1] + preset.wait_eras


def forget_absence(ctx: Context, validator: bytes) -> None:
    """Take a validator off the list of those that are out; one that is not there changes nothing."""
    if absence_of(ctx, validator) is None:
        return
    record = ctx.state.need(keys.ATTENDANCE, Attendance)
    absent = [entry for entry in record.absent if entry[0] != validator]
    ctx.state.put(keys.ATTENDANCE, replace(record, absent=absent))
