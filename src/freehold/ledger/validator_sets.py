"""Who votes at which height: the engine takes a change that block H returns into force at H + 2.

Invariants: the newest set is never empty; the sets in the state cover every height from the one before the newest block
on, so whoever proposed or voted can be told. Spec: docs/spec/validators.md.
"""

from collections.abc import Mapping
from typing import Final

from freehold.base.errors import check
from freehold.ledger import keys
from freehold.ledger.context import Context, load_params
from freehold.ledger.records import Params, ValidatorSets
from freehold.ledger.state import View, read

SETS_VERSION: Final = 1
EFFECT_DELAY: Final = 2  # heights from the block that returns a change to the first that it governs

Members = list[tuple[bytes, int]]  # (public key, power)


def set_at(view: View, height: int) -> Members:
    """Give the validators that propose and vote at a height.

    Args:
        view: a state of the ledger.
        height: from the one before its newest block to two after it.

    Raises:
        InvariantError: the height is older than what the state keeps.
    """
    sets = read(view, keys.VALIDATOR_SETS, ValidatorSets)
    return load_params(view)[0].validators if sets is None else _covering(sets, height)


def known_sets(view: View) -> list[Members]:
    """Give every set that the state holds, oldest first: those of genesis, and those around the newest block."""
    sets = read(view, keys.VALIDATOR_SETS, ValidatorSets)
    return [load_params(view)[0].validators, *([] if sets is None else [members for _, members in sets.sets])]


def members_at(ctx: Context, height: int) -> Members:
    """As `set_at`, while a block is executed."""
    sets = ctx.state.get(keys.VALIDATOR_SETS, ValidatorSets)
    return ctx.state.need(keys.PARAMS, Params).validators if sets is None else _covering(sets, height)


def newest_members(ctx: Context) -> Members:
    """Give the set that was decided last, in force or not yet."""
    return members_at(ctx, ctx.height + EFFECT_DELAY)


def is_sitting(ctx: Context, validator: bytes) -> bool:
    """Whether a validator votes at this block's height or later, as far as it is decided."""
    heights = range(ctx.height, ctx.height + EFFECT_DELAY + 1)
    return any(validator in dict(members_at(ctx, height)) for height in heights)


def install(ctx: Context, members: Mapping[bytes, int]) -> Members:
    """Decide the set that votes from two heights on; at most once a block, at its beginning.

    Returns:
        What the engine is told: (public key, power) of each change, power 0 for who leaves; ascending by key.

    Raises:
        InvariantError: the set is empty.
    """
    check(bool(members) and min(members.values()) > 0, "validator_set_not_empty", height=ctx.height)
    before = newest_members(ctx)
    old = dict(before)
    changes = [(key, members.get(key, 0)) for key in sorted({*old, *members}) if members.get(key, 0) != old.get(key, 0)]
    if not changes:
        return []
    record = ctx.state.get(keys.VALIDATOR_SETS, ValidatorSets)
    sets = [(0, before)] if record is None else record.sets
    # the newest that governs the height before this block, and all later ones
    first = max(index for index, (start, _) in enumerate(sets) if start <= max(ctx.height - 1, 0))
    entry = (ctx.height + EFFECT_DELAY, sorted(members.items()))
    ctx.state.put(keys.VALIDATOR_SETS, ValidatorSets(SETS_VERSION, [*sets[first:], entry]))
    return changes


def _covering(record: ValidatorSets, height: int) -> Members:
    found = [members for start, members in record.sets if start <= height]
    check(bool(found), "validator_set_known", height=height)
    return found[-1]
