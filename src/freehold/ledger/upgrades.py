"""How the rules of a ledger change: validators of more than 2/3 of the power agree on a version and a height.

A ledger may agree on rules that this program does not know: the program then halts at that height, before it signs
anything. Spec: docs/spec/upgrades.md.
"""

from typing import Final

from msgspec.structs import replace

from freehold.base.limits import ID_BYTES, SIGNATURE_BYTES
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.context import Context
from freehold.ledger.events import UpgradeAgreed
from freehold.ledger.fields import MAX_U32, is_ascending
from freehold.ledger.records import Params, UpgradeRecord
from freehold.ledger.transactions import Tx, Upgrade, upgrade_bytes
from freehold.ledger.validator_sets import members_at

UPGRADE_VERSION: Final = 1
NOTICE_BLOCKS: Final = 10  # at least, between agreement and change
MAX_AHEAD_BLOCKS: Final = 10_000_000
MAX_SETTINGS: Final = 16
MAX_APPROVALS: Final = 128  # a transaction holds no more


def process_upgrade(ctx: Context, tx: Tx, body: Upgrade) -> Code:
    """Agree on other rules from a height on."""
    if not (1 <= body.rules <= MAX_U32 and all(0 <= value <= MAX_U32 for value in body.settings)):
        return Code.BAD_FIELD
    if len(body.settings) > MAX_SETTINGS or len(body.approvals) > MAX_APPROVALS:
        return Code.TOO_MANY
    if body.height > ctx.height + MAX_AHEAD_BLOCKS:
        return Code.BAD_FIELD
    if body.height < ctx.height + NOTICE_BLOCKS:
        return Code.UPGRADE_TOO_SOON
    params = ctx.state.need(keys.PARAMS, Params)
    last_height, last_version = params.rules[-1]
    if last_height > ctx.height:
        return Code.UPGRADE_PENDING
    if body.rules <= last_version:
        return Code.UNKNOWN_VERSION
    code = _check_approvals(ctx, body)
    if code:
        return code
    ctx.state.put(keys.PARAMS, replace(params, rules=[*params.rules, (body.height, body.rules)]))
    ctx.state.put(keys.UPGRADE, UpgradeRecord(UPGRADE_VERSION, body.height, body.rules, body.settings))
    ctx.events.append(UpgradeAgreed(body.height, body.rules))
    return Code.OK


def _check_approvals(ctx: Context, body: Upgrade) -> Code:
    """Check that validators of more than 2/3 of the power at this height signed; signatures last."""
    if not is_ascending([key for key, _ in body.approvals]):
        return Code.NOT_SORTED
    powers = dict(members_at(ctx, ctx.height))
    if any(len(key) != ID_BYTES or key not in powers for key, _ in body.approvals):
        return Code.UNKNOWN_VALIDATOR
    agreed = sum(powers[key] for key, _ in body.approvals)
    if agreed * 3 <= sum(powers.values()) * 2:
        return Code.NOT_ENOUGH_POWER
    message = upgrade_bytes(ctx.chain_id, body.height, body.rules, body.settings)
    for key, signature in body.approvals:
        if len(signature) != SIGNATURE_BYTES or not ctx.verify(key, message, signature):
            return Code.BAD_SIGNATURE
    return Code.OK
