"""Elections: at the first block of an era the candidates with the highest bonds become the validators.

A span of epochs is an era. Power is bonded whole tokens, cut to a cap per owner. What a block does is bounded by the
table of candidates, never by the number of bonds. Spec: docs/spec/validators.md.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from freehold.base.amounts import TOKEN
from freehold.base.errors import check
from freehold.base.presets import ELECTIONS, ElectionPreset
from freehold.ledger import keys
from freehold.ledger.context import Context
from freehold.ledger.events import ValidatorsChanged
from freehold.ledger.fee_shares import NO_FEES, settle_earnings
from freehold.ledger.records import Candidates, Elections, UpgradeRecord, ValidatorBond
from freehold.ledger.validator_sets import EFFECT_DELAY, install, newest_members

ELECTIONS_VERSION: Final = 1
CANDIDATES_VERSION: Final = 1
PERMILL: Final = 1_000
VALUE_NAMES: Final = tuple(field.name for field in msgspec.structs.fields(ElectionPreset))

Entry = tuple[int, bytes, bytes]  # stake, validator, owner


def election_values(preset: ElectionPreset) -> list[int]:
    """Give the values as `Elections` holds them."""
    return [getattr(preset, name) for name in VALUE_NAMES]


def preset_of(elections: Elections) -> ElectionPreset:
    """Give the values that a ledger's elections run on.

    Raises:
        InvariantError: the ledger was made with other values than these rules know.
    """
    check(len(elections.values) == len(VALUE_NAMES), "election_values_match", count=len(elections.values))
    return ElectionPreset(**dict(zip(VALUE_NAMES, elections.values, strict=True)))


def new_elections(preset: ElectionPreset, *, era: int, power: int) -> Elections:
    """Build the record with which elections begin."""
    return Elections(ELECTIONS_VERSION, election_values(preset), era, 0, NO_FEES, power, is_elected=False)


def era_at(preset: ElectionPreset, epoch: int) -> int:
    """Give the era of an epoch."""
    return epoch // preset.era_epochs


def begin_rules_2(ctx: Context) -> Elections | None:
    """Give the elections' record; make it at the first block of new rules when the upgrade asked for elections.

    The settings of an upgrade to version 2, or past it, are one number: 1 for elections by the preset's values.
    """
    elections = ctx.state.get(keys.ELECTIONS, Elections)
    if elections is not None:
        return elections
    upgrade = ctx.state.get(keys.UPGRADE, UpgradeRecord)
    if upgrade is None or upgrade.height != ctx.height or upgrade.settings[:1] != [1]:
        return None
    preset = ELECTIONS[ctx.params.preset]
    elections = new_elections(preset, era=era_at(preset, ctx.epoch), power=0)
    ctx.state.put(keys.ELECTIONS, elections)
    ctx.state.put(keys.CANDIDATES, Candidates(CANDIDATES_VERSION, []))
    return elections


def is_new_era(ctx: Context, elections: Elections) -> bool:
    """Whether this block is the first of an era later than that of the newest election."""
    return era_at(preset_of(elections), ctx.epoch) != elections.era


def choose_set(ctx: Context, elections: Elections, removed: set[bytes]) -> None:
    """Decide who votes next: an election at the first block of an era, and when somebody is removed.

    Where too few stand, the sitting set stays without the removed, and as it is where nobody would be left.
    """
    preset = preset_of(elections)
    era = era_at(preset, ctx.epoch)
    sitting = dict(newest_members(ctx))
    if not is_new_era(ctx, elections) and removed.isdisjoint(sitting):
        return
    elected = elect(preset, ctx.state.need(keys.CANDIDATES, Candidates).entries)
    kept = {key: power for key, power in sitting.items() if key not in removed}
    changes = install(ctx, elected or kept or sitting)
    is_elected = elected is not None or (elections.is_elected and not changes)
    power = _write_powers(ctx, elections, changes)
    ctx.state.put(keys.ELECTIONS, replace(elections, era=era, power=power, is_elected=is_elected))
    if changes:
        ctx.validator_updates.extend(changes)
        ctx.events.append(ValidatorsChanged(ctx.height + EFFECT_DELAY, era, changes))


def _write_powers(ctx: Context, elections: Elections, changes: Iterable[tuple[bytes, int]]) -> int:
    """Settle what each changed validator earned at its old power; give the power of all that have a bond."""
    total = elections.power
    for key, power in changes:
        bond = ctx.state.get(keys.bond_key(key), ValidatorBond)
        if bond is not None:
            total += power - bond.power
            ctx.state.put(keys.bond_key(key), replace(settle_earnings(elections, bond), power=power))
    return total


def elect(preset: ElectionPreset, entries: Sequence[Entry]) -> dict[bytes, int] | None:
    """Give the power of each validator that the table of candidates elects, or None when too few stand.

    Args:
        preset: the values.
        entries: of the table, highest stake first.
    """
    seated = [entry for entry in entries[: preset.seats] if entry[0] >= preset.min_bond]
    owners = {owner for _, _, owner in seated}
    if len(owners) < preset.min_owners or sum(stake for stake, _, _ in seated) < preset.min_total_bond:
        return None
    tokens = [(stake // TOKEN, validator, owner) for stake, validator, owner in seated]
    held = dict.fromkeys(sorted(owners), 0)
    for weight, _, owner in tokens:
        held[owner] += weight
    limit = owner_limit(list(held.values()), preset.cap_permill)
    powers: dict[bytes, int] = {}
    passed = dict.fromkeys(held, 0)
    for weight, validator, owner in tokens:
        # an owner's allowed power is shared among its validators by stake; the pieces sum up to it exactly
        allowed, whole, start = min(held[owner], limit), held[owner], passed[owner]
        passed[owner] = start + weight
        power = allowed * (start + weight) // whole - allowed * start // whole
        if power:
            powers[validator] = power
    return powers


def owner_limit(held: Sequence[int], cap_permill: int) -> int:
    """Give the most power that one owner may have, so that none exceeds the cap's share of the whole.

    With k owners the share is at least 1/k: fewer than 1000/cap owners have equal power. The limit L is the largest at
    which the j richest, cut to L, hold at most j shares: L = share * rest / (1 - j * share), for the smallest j that
    leaves nobody above it.

    Args:
        held: what each owner bonded, in whole tokens, each at least 1.
        cap_permill: the cap.
    """
    amounts = sorted(held, reverse=True)
    share = max(cap_permill, -(-PERMILL // len(amounts)))
    rest = sum(amounts)
    for richer, amount in enumerate(amounts):
        # `rest` is what all but the `richer` first hold
        limit = share * rest // (PERMILL - richer * share)
        if amount <= limit:
            return limit
        rest -= amount
    check(False, "owner_limit_exists", share=share)
    return 0


def insert(entries: Sequence[Entry], entry: Entry, size: int) -> tuple[list[Entry], Entry | None] | None:
    """Put a candidate into the table.

    Args:
        entries: without this validator, highest stake first.
        entry: the candidate.
        size: how many the table holds.

    Returns:
        The table, and who lost a place by it; None when the table is full of others with as much or more.
    """
    if len(entries) < size:
        return in_order([*entries, entry]), None
    last = entries[-1]
    if entry[0] <= last[0]:
        return None
    return in_order([*entries[:-1], entry]), last


def without(entries: Sequence[Entry], validator: bytes) -> list[Entry]:
    """Give the table without a validator."""
    return [entry for entry in entries if entry[1] != validator]


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Give candidates as the table holds them: highest stake first, then by key."""
    return sorted(entries, key=lambda entry: (-entry[0], entry[1]))
