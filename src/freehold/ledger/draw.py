"""The draw of witnesses: pure, so that a target, its witnesses, the ledger and any verifier compute the same.

Candidate i is H(DRAW, beacon, target, i): its first 8 bytes choose a slot, the next 8 are compared with the slot's
weight. Nobody enumerates the grid. Spec: docs/spec/witnesses.md.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from freehold.base.limits import MAX_DRAW_TRIES
from freehold.base.presets import Preset
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.ledger.records import NodeSlot

_MIN_AGE_PARTS = 8  # the youngest weighs an eighth
_U64_BITS = 64


def stake_at(slot: NodeSlot, epoch: int) -> int:
    """Give the stake that counts in an epoch: as it stood when the epoch before began."""
    stake = 0
    for from_epoch, value in slot.stakes:
        if from_epoch > epoch:
            break
        stake = value
    return stake


def is_active(slot: NodeSlot, epoch: int) -> bool:
    """Whether a slot takes part in an epoch, as witness and as reporter."""
    return slot.first_epoch <= epoch and (slot.last_epoch < 0 or epoch <= slot.last_epoch)


def weight(slot: NodeSlot, epoch: int, preset: Preset) -> int:
    """Give min(stake, cap) x max(1/8, age / full age), in units of 1 / (8 x full age) of 10^-7 token."""
    full = preset.full_age_epochs
    age = full if slot.genesis else min(max(0, epoch - slot.first_epoch), full)
    return min(stake_at(slot, epoch), preset.weight_cap) * max(full, _MIN_AGE_PARTS * age)


def threshold_for(drawn: int, preset: Preset) -> int:
    """Give how many of the drawn must agree: t when w were drawn, else two thirds and one, never below 2."""
    if drawn >= preset.witnesses:
        return preset.threshold
    return max(2, 2 * drawn // 3 + 1)


def draw(
    preset: Preset,
    *,
    beacon: bytes,
    target: bytes,
    epoch: int,
    slots: int,
    lookup: Callable[[int], NodeSlot | None],
    excluded: AbstractSet[bytes],
) -> list[int]:
    """Draw the witnesses of a target.

    Args:
        preset: w, the weight cap and the full age.
        beacon: of the epoch's first block, or of the block after a challenge.
        target: the id of the node, or of the challenge.
        epoch: whose weights count.
        slots: M, the slots handed out when the epoch began.
        lookup: gives a slot's row.
        excluded: owners that may not witness: the target's own, and in a challenge everyone with a stake in it.

    Returns:
        At most w slots in the order of the draw. One owner has at most ceil(w/3) of them, unless nobody else was left
        when the tries ended: then those that its ceiling had set aside fill up, in order.
    """
    wanted = preset.witnesses
    ceiling = -(-wanted // 3)
    scale = preset.weight_cap * _MIN_AGE_PARTS * preset.full_age_epochs
    drawn: list[int] = []
    set_aside: list[int] = []
    decided: set[int] = set()  # no later candidate changes anything about these slots
    per_owner: dict[bytes, int] = {}
    for attempt in range(MAX_DRAW_TRIES):
        if len(drawn) == wanted or len(decided) >= slots:
            break
        digest = tagged_hash(Purpose.DRAW, beacon, target, attempt.to_bytes(4, "big"))
        number = int.from_bytes(digest[:8], "big") % slots
        if number in decided:
            continue
        slot = lookup(number)
        if slot is None or slot.owner in excluded or not is_active(slot, epoch):
            decided.add(number)
            continue
        if int.from_bytes(digest[8:16], "big") * scale >= weight(slot, epoch, preset) << _U64_BITS:
            continue
        decided.add(number)
        if per_owner.get(slot.owner, 0) >= ceiling:
            set_aside.append(number)
        else:
            per_owner[slot.owner] = per_owner.get(slot.owner, 0) + 1
            drawn.append(number)
    return (drawn + set_aside)[:wanted]
