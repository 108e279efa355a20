"""The validators' share of fees: accrued to a pool per unit of power, pulled by whoever asks.

Invariants: the pool covers what all validators have earned and not claimed; a block does the same small work whatever
the number of validators. Spec: docs/spec/validators.md.
"""

from typing import Final

from msgspec.structs import replace

from freehold.ledger import keys
from freehold.ledger.context import Context
from freehold.ledger.records import Elections, ValidatorBond

FRACTION_BITS: Final = 32
INDEX_BYTES: Final = 16
NO_FEES: Final = bytes(INDEX_BYTES)


def book_fees(ctx: Context, fees: int, permill: int) -> None:
    """Book the fees of a block: the validators' share to their pool, the rest to the ledger's fees.

    Args:
        ctx: at the end of the block.
        fees: what its transactions paid.
        permill: the validators' share.
    """
    elections = ctx.state.need(keys.ELECTIONS, Elections)
    share = fees * permill // 1_000 if elections.power else 0
    if share:
        index = int.from_bytes(elections.fee_index, "big") + (share << FRACTION_BITS) // elections.power
        ctx.state.put(
            keys.ELECTIONS,
            replace(elections, pool=elections.pool + share, fee_index=index.to_bytes(INDEX_BYTES, "big")),
        )
    ctx.add_totals(fees=fees - share)


def settle_earnings(elections: Elections, bond: ValidatorBond) -> ValidatorBond:
    """Give a bond whose earnings count up to now, at the power that it had until now."""
    return replace(bond, earned=earned_of(elections, bond), fee_mark=elections.fee_index)


def earned_of(elections: Elections, bond: ValidatorBond) -> int:
    """Give what a validator has earned and not yet claimed."""
    gone = int.from_bytes(elections.fee_index, "big") - int.from_bytes(bond.fee_mark, "big")
    return bond.earned + (bond.power * gone >> FRACTION_BITS)
