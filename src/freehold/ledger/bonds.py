"""Bonds: how a validator's owner puts tokens behind it, takes them back, and is paid.

Invariants: the table of candidates is bounded and sorted, and names exactly the bonds that say so; what leaves a bond
stays liable from the end of the era for the whole unbonding time. Spec: docs/spec/validators.md.
"""

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from freehold.base.amounts import MAX_AMOUNT
from freehold.base.limits import ID_BYTES, SIGNATURE_BYTES
from freehold.base.presets import Preset
from freehold.crypto.ecvrf import is_valid_key
from freehold.crypto.hashing import sha256
from freehold.ledger import keys, schedule
from freehold.ledger.accounts import credit, debit
from freehold.ledger.attendance import absence_of, forget_absence, may_return
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.elections import insert, preset_of, without
from freehold.ledger.events import BondChanged, FeesClaimed
from freehold.ledger.fee_shares import earned_of, settle_earnings
from freehold.ledger.records import Candidates, Elections, Unbonding, ValidatorAddress, ValidatorBond, VrfKeys
from freehold.ledger.slashing import is_due
from freehold.ledger.transactions import (
    AddBond,
    Bond,
    ClaimFees,
    Rejoin,
    ReleaseBond,
    Tx,
    WithdrawBond,
    validator_possession_bytes,
)
from freehold.ledger.validator_sets import EFFECT_DELAY, is_sitting, newest_members

BOND_VERSION: Final = 1
ADDRESS_VERSION: Final = 1
ADDRESS_BYTES: Final = 20
MAX_UNBONDING: Final = 8  # parts of one bond that are on their way back


def validator_address(validator: bytes) -> bytes:
    """Give the address by which the engine names a consensus key."""
    return sha256(validator)[:ADDRESS_BYTES]


def new_bond(
    owner: bytes, stake: int, deposit: int, *, vrf_key: bytes, fee_mark: bytes, height: int, power: int = 0
) -> ValidatorBond:
    """Build the record of a bond that begins at a height."""
    return ValidatorBond(
        version=BOND_VERSION,
        owner=owner,
        vrf_key=vrf_key,
        stake=stake,
        deposit=deposit,
        since_height=height,
        power=power,
        is_listed=True,
        is_removed=False,
        unbonding=[],
        fee_mark=fee_mark,
        earned=0,
        slashed=[],
    )


def process_bond(ctx: Context, tx: Tx, body: Bond) -> Code:
    """Offer a validator for the next elections."""
    elections = ctx.state.get(keys.ELECTIONS, Elections)
    if elections is None:
        return Code.NO_ELECTIONS
    if len(body.validator) != ID_BYTES or len(body.vrf_key) not in (0, ID_BYTES):
        return Code.BAD_FIELD
    if not 1 <= body.amount <= MAX_AMOUNT:
        return Code.BAD_AMOUNT
    if body.amount < preset_of(elections).min_bond:
        return Code.BOND_TOO_LOW
    key = keys.bond_key(body.validator)
    if ctx.state.get(key, ValidatorBond) is not None:
        return Code.ALREADY_EXISTS
    if ctx.state.get(keys.VRF_KEYS, VrfKeys) is not None and not is_valid_key(body.vrf_key):
        return Code.BAD_FIELD  # once elected it could not vote
    message = validator_possession_bytes(ctx.chain_id, body.validator, tx.sender, body.vrf_key)
    if len(body.possession) != SIGNATURE_BYTES or not ctx.verify(body.validator, message, body.possession):
        return Code.BAD_POSSESSION
    deposit = ctx.preset.record_deposit
    code = debit(ctx, tx.sender, body.amount + deposit)
    if code:
        return code
    power = dict(newest_members(ctx)).get(body.validator, 0)  # a validator of genesis that bonds only now
    elections = replace(elections, power=elections.power + power)
    ctx.state.put(keys.ELECTIONS, elections)
    bond = new_bond(
        tx.sender,
        body.amount,
        deposit,
        vrf_key=body.vrf_key,
        fee_mark=elections.fee_index,
        height=ctx.height,
        power=power,
    )
    ctx.state.put(key, bond)
    ctx.state.put(
        keys.validator_address_key(validator_address(body.validator)),
        ValidatorAddress(ADDRESS_VERSION, body.validator),
    )
    ctx.events.append(BondChanged(body.validator, tx.sender, "bonded", body.amount))
    return _list(ctx, elections, body.validator, bond)


def process_add_bond(ctx: Context, tx: Tx, body: AddBond) -> Code:
    """Raise a bond; one that lost its place in the table takes it again if it is high enough."""
    if not 1 <= body.amount <= MAX_AMOUNT:
        return Code.BAD_AMOUNT
    bond = _own_bond(ctx, tx, body.validator)
    if isinstance(bond, Code):
        return bond
    if bond.is_removed:
        return Code.VALIDATOR_REMOVED
    if absence_of(ctx, body.validator) is not None:
        return Code.VALIDATOR_ABSENT
    elections = ctx.state.need(keys.ELECTIONS, Elections)
    if bond.stake + body.amount < preset_of(elections).min_bond:
        return Code.BOND_TOO_LOW
    code = debit(ctx, tx.sender, body.amount)
    if code:
        return code
    ctx.events.append(BondChanged(body.validator, tx.sender, "added", body.amount))
    return _list(ctx, elections, body.validator, replace(bond, stake=bond.stake + body.amount))


def process_rejoin(ctx: Context, tx: Tx, body: Rejoin) -> Code:
    """Take a place in the table again after the validator lost its own by not signing."""
    bond = _own_bond(ctx, tx, body.validator)
    if isinstance(bond, Code):
        return bond
    absence = absence_of(ctx, body.validator)
    if absence is None:
        return Code.NOT_ABSENT
    if bond.is_removed:
        return Code.VALIDATOR_REMOVED
    elections = ctx.state.need(keys.ELECTIONS, Elections)
    if bond.stake < preset_of(elections).min_bond:
        return Code.BOND_TOO_LOW
    if not may_return(ctx, elections, absence):
        return Code.DEADLINE_NOT_PASSED
    forget_absence(ctx, body.validator)
    ctx.events.append(BondChanged(body.validator, tx.sender, "returned", bond.stake))
    return _list(ctx, elections, body.validator, bond)


def _list(ctx: Context, elections: Elections, validator: bytes, bond: ValidatorBond) -> Code:
    """Put a bond at its place in the table; who loses a place by it keeps the bond, unlisted."""
    table = ctx.state.need(keys.CANDIDATES, Candidates)
    entry = (bond.stake, validator, bond.owner)
    found = insert(without(table.entries, validator), entry, preset_of(elections).max_candidates)
    if found is None:
        return Code.NO_PLACE
    entries, evicted = found
    if evicted is not None:
        key = keys.bond_key(evicted[1])
        ctx.state.put(key, replace(ctx.state.need(key, ValidatorBond), is_listed=False))
        ctx.events.append(BondChanged(evicted[1], evicted[2], "evicted", evicted[0]))
    ctx.state.put(keys.CANDIDATES, replace(table, entries=entries))
    ctx.state.put(keys.bond_key(validator), replace(bond, is_listed=True))
    return Code.OK


def _own_bond(ctx: Context, tx: Tx, validator: bytes) -> ValidatorBond | Code:
    if len(validator) != ID_BYTES:
        return Code.BAD_FIELD
    bond = ctx.state.get(keys.bond_key(validator), ValidatorBond)
    if bond is None:
        return Code.UNKNOWN_VALIDATOR
    return bond if bond.owner == tx.sender else Code.NOT_OWNER


def process_withdraw_bond_2(ctx: Context, tx: Tx, body: WithdrawBond) -> Code:
    """Begin to take tokens back, by rule-set 2: their blocks count from here."""
    return _withdraw(ctx, tx, body, lambda _: ctx.height)


def process_withdraw_bond(ctx: Context, tx: Tx, body: WithdrawBond) -> Code:
    """Begin to take tokens back: all of them, or so much that the least bond stays.

    Their blocks count from the last one for which the sitting set may vote, as their time does.
    """
    return _withdraw(ctx, tx, body, lambda end_ms: last_height(ctx.preset, ctx.height, end_ms - ctx.time_ms))


def last_height(preset: Preset, height: int, left_ms: int) -> int:
    """Give a height that no set elected for the present era votes above, however fast blocks are made.

    Args:
        preset: of the ledger.
        height: of the present block.
        left_ms: from its time to the end of the era.
    """
    return height + schedule.most_blocks(preset, max(0, left_ms)) + EFFECT_DELAY


def era_end_ms(ctx: Context, elections: Elections) -> int:
    """Give the end of the present era."""
    epoch = (elections.era + 1) * preset_of(elections).era_epochs
    return schedule.epoch_start_ms(ctx.preset, ctx.genesis_ms, epoch)


def _withdraw(ctx: Context, tx: Tx, body: WithdrawBond, since_height: Callable[[int], int]) -> Code:
    """Begin to take tokens back; `since_height` gives from which height they count, by the end of the era."""
    bond = _own_bond(ctx, tx, body.validator)
    if isinstance(bond, Code):
        return bond
    if not 1 <= body.amount <= bond.stake:
        return Code.BAD_AMOUNT
    if len(bond.unbonding) >= MAX_UNBONDING:
        return Code.TOO_MANY
    elections = ctx.state.need(keys.ELECTIONS, Elections)
    preset = preset_of(elections)
    left = bond.stake - body.amount
    if 0 < left < preset.min_bond:
        return Code.BOND_TOO_LOW
    # it backs the power of the sitting set until the next election
    end_ms = era_end_ms(ctx, elections)
    part = Unbonding(
        body.amount,
        max(ctx.time_ms, end_ms) + preset.unbonding_ms,
        since_height(end_ms) + preset.unbonding_blocks,
    )
    bond = replace(bond, stake=left, unbonding=[*bond.unbonding, part], is_listed=bond.is_listed and left > 0)
    ctx.state.put(keys.bond_key(body.validator), bond)
    table = ctx.state.need(keys.CANDIDATES, Candidates)
    entries = without(table.entries, body.validator)
    if bond.is_listed:
        found = insert(entries, (left, body.validator, bond.owner), preset.max_candidates)
        entries = entries if found is None else found[0]
    ctx.state.put(keys.CANDIDATES, replace(table, entries=entries))
    ctx.events.append(BondChanged(body.validator, tx.sender, "withdrawn", body.amount))
    return Code.OK


def process_release_bond_2(ctx: Context, tx: Tx, body: ReleaseBond) -> Code:
    """Pay out what is due, by rule-set 2: a bond of which nothing is left may end at its last election."""
    return _release(ctx, tx, body, lambda bond: bond.power > 0)


def process_release_bond(ctx: Context, tx: Tx, body: ReleaseBond) -> Code:
    """Pay out what is due; a bond of which nothing is left ends, once its validator has cast its last vote.

    The bond holds the key by which the next block checks what came with that vote.
    """
    return _release(ctx, tx, body, lambda _: is_sitting(ctx, body.validator))


def _release(ctx: Context, tx: Tx, body: ReleaseBond, sits: Callable[[ValidatorBond], bool]) -> Code:
    bond = _own_bond(ctx, tx, body.validator)
    if isinstance(bond, Code):
        return bond
    waiting = [part for part in bond.unbonding if not is_due(ctx, part)]
    amount = sum(part.amount for part in bond.unbonding) - sum(part.amount for part in waiting)
    is_over = not bond.stake and not waiting and not sits(bond)
    if len(waiting) == len(bond.unbonding) and not is_over:
        return Code.NOTHING_DUE
    credit(ctx, bond.owner, amount)
    if not is_over:
        ctx.state.put(keys.bond_key(body.validator), replace(bond, unbonding=waiting))
        ctx.events.append(BondChanged(body.validator, bond.owner, "released", amount))
        return Code.OK
    _pay_fees(ctx, body.validator, bond)
    credit(ctx, bond.owner, bond.deposit)
    ctx.state.delete(keys.bond_key(body.validator))
    ctx.state.delete(keys.validator_address_key(validator_address(body.validator)))
    forget_absence(ctx, body.validator)
    ctx.events.append(BondChanged(body.validator, bond.owner, "ended", amount))
    return Code.OK


def process_claim_fees(ctx: Context, tx: Tx, body: ClaimFees) -> Code:
    """Pay a validator's earnings to its owner."""
    if len(body.validator) != ID_BYTES:
        return Code.BAD_FIELD
    bond = ctx.state.get(keys.bond_key(body.validator), ValidatorBond)
    if bond is None:
        return Code.UNKNOWN_VALIDATOR
    if not earned_of(ctx.state.need(keys.ELECTIONS, Elections), bond):
        return Code.NOTHING_DUE
    ctx.state.put(keys.bond_key(body.validator), _pay_fees(ctx, body.validator, bond))
    return Code.OK


def _pay_fees(ctx: Context, validator: bytes, bond: ValidatorBond) -> ValidatorBond:
    elections = ctx.state.need(keys.ELECTIONS, Elections)
    settled = settle_earnings(elections, bond)
    if settled.earned:
        ctx.state.put(keys.ELECTIONS, replace(elections, pool=elections.pool - settled.earned))
        credit(ctx, bond.owner, settled.earned)
        ctx.events.append(FeesClaimed(validator, bond.owner, settled.earned))
    return replace(settled, earned=0)
