"""What it costs a validator to vote twice, or to vote for a chain that never was.

Each (validator, height) is cut once; what is cut goes to the treasury, so nobody earns by another's fault. A validator
that misbehaved leaves the set at the next change, and its key never returns. Spec: docs/spec/validators.md.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from msgspec.structs import replace

from freehold.base.presets import ElectionPreset
from freehold.ledger import keys
from freehold.ledger.context import Context
from freehold.ledger.elections import PERMILL, preset_of, without
from freehold.ledger.events import BondChanged
from freehold.ledger.records import Candidates, Elections, Unbonding, ValidatorBond
from freehold.ledger.votes import Misbehavior

MAX_REMEMBERED: Final = 64  # heights for which one bond was cut


class MisbehaviorKind(IntEnum):
    """As the engine numbers it (ABCI `MisbehaviorType`)."""

    UNKNOWN = 0
    DUPLICATE_VOTE = 1
    LIGHT_CLIENT_ATTACK = 2


def is_expired(ctx: Context, preset: ElectionPreset, height: int, time_ms: int) -> bool:
    """Whether something lies further back than bonds are liable for, in time and in heights both."""
    return ctx.time_ms - time_ms > preset.unbonding_ms and ctx.height - height > preset.unbonding_blocks


def slash(ctx: Context, elections: Elections, misbehavior: Sequence[Misbehavior]) -> set[bytes]:
    """Cut the bonds of validators that misbehaved, and say who leaves the set.

    A validator of genesis without a bond has nothing to lose but its seat.
    """
    preset = preset_of(elections)
    cuts: dict[int, int] = {
        MisbehaviorKind.DUPLICATE_VOTE: preset.duplicate_vote_permill,
        MisbehaviorKind.LIGHT_CLIENT_ATTACK: preset.light_attack_permill,
    }
    removed: set[bytes] = set()
    for fault in misbehavior:
        permill = cuts.get(fault.kind)
        if permill is None or is_expired(ctx, preset, fault.height, fault.time_ms):
            continue
        removed.add(fault.validator)
        bond = ctx.state.get(keys.bond_key(fault.validator), ValidatorBond)
        if bond is not None:
            # what it did before this bond began is not this bond's to pay
            _cut(ctx, preset, bond, fault, permill if fault.height >= bond.since_height else 0)
    return removed


def _cut(ctx: Context, preset: ElectionPreset, bond: ValidatorBond, fault: Misbehavior, permill: int) -> None:
    known = [entry for entry in bond.slashed if not is_expired(ctx, preset, *entry)]
    if any(height == fault.height for height, _ in known):
        return
    stake = bond.stake - bond.stake * permill // PERMILL
    unbonding = [_cut_part(ctx, part, permill) for part in bond.unbonding]
    cut = bond.stake - stake + sum(part.amount for part in bond.unbonding) - sum(part.amount for part in unbonding)
    ctx.state.put(
        keys.bond_key(fault.validator),
        replace(
            bond,
            stake=stake,
            unbonding=unbonding,
            is_listed=False,
            is_removed=True,
            slashed=[*known, (fault.height, fault.time_ms)][-MAX_REMEMBERED:],
        ),
    )
    table = ctx.state.need(keys.CANDIDATES, Candidates)
    ctx.state.put(keys.CANDIDATES, replace(table, entries=without(table.entries, fault.validator)))
    ctx.add_totals(treasury=cut)
    ctx.events.append(BondChanged(fault.validator, bond.owner, "slashed", cut))


def _cut_part(ctx: Context, part: Unbonding, permill: int) -> Unbonding:
    """What is due already is its owner's, whether or not it was called for."""
    if is_due(ctx, part):
        return part
    return replace(part, amount=part.amount - part.amount * permill // PERMILL)


def is_due(ctx: Context, part: Unbonding) -> bool:
    """Whether a part of a bond may be paid out."""
    return ctx.time_ms >= part.due_ms and ctx.height >= part.due_height
