"""Executing blocks and checking transactions: the two entry points of the state machine.

Invariants: a refused transaction changes nothing and pays nothing; the same state and block give the same results and
changes everywhere; cheap checks come before signatures, signatures before rules. Spec: docs/spec/transactions.md.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final

import msgspec

from freehold.base.codec import decode, encode
from freehold.base.errors import CodecError, LocalProtocolError
from freehold.base.limits import ID_BYTES, MAX_BLOCK_TXS, MAX_SIGNERS, MAX_TX_BYTES, SIGNATURE_BYTES
from freehold.ledger import keys
from freehold.ledger.beacons import has_vrf, read_vrf_beacon
from freehold.ledger.codes import Code
from freehold.ledger.context import Context, Verify, load_params
from freehold.ledger.epochs import beacon_value, begin_block
from freehold.ledger.events import Event
from freehold.ledger.records import Account, Node, Totals
from freehold.ledger.rules import RuleSet, rules_at
from freehold.ledger.state import View, read
from freehold.ledger.transactions import (
    FREE_BODIES,
    GOVERNANCE_BODIES,
    MAX_VALID_HEIGHTS,
    TX_VERSION,
    BeaconTx,
    Claim,
    Tx,
    beacon_signing_bytes,
    received_signing_bytes,
)
from freehold.ledger.validator_sets import set_at
from freehold.ledger.votes import Misbehavior, Vote

MAX_NONCES_AHEAD: Final = 1_024
_BEACON_PREFIX: Final = encode(BeaconTx(0, b""))[:8]
_MAX_BEACON_BYTES: Final = 128
_DECODE_CODES: Final = {"oversized": Code.OVERSIZED}

# Gives a transaction by its bytes, if it was decoded before and all its signatures were found good.
Find = Callable[[bytes], Tx | None]


class Lane(IntEnum):
    """Which part of the mempool a transaction waits in, and of a block it may fill."""

    REPORTS = 0  # free: reports, verdicts, acceptances
    GOVERNANCE = 1  # who validates, and by which rules
    USERS = 2  # ordered by fee across senders, by nonce within one


class CheckResult(msgspec.Struct, frozen=True, gc=False):
    """What the mempool needs to know of a transaction.

    Attributes:
        code: `OK` if it may wait.
        lane: where.
        tx: itself, where its bytes are a transaction of the rules in force; with valid signatures if it is `OK`.
        next_nonce: its sender's in the state; 0 where none is needed.
    """

    code: Code
    lane: Lane = Lane.USERS
    tx: Tx | None = None
    next_nonce: int = 0


class BlockInput(msgspec.Struct, frozen=True):
    """A decided block: its first transaction is the beacon that its proposer put there."""

    height: int
    time_ms: int
    proposer: bytes  # public key
    txs: list[bytes]
    last_votes: list[Vote] = []  # the commit of the block before, as this block holds it
    misbehavior: list[Misbehavior] = []  # evidence that the engine verified and this block holds


class TxResult(msgspec.Struct, frozen=True, gc=False):
    """What became of a transaction; `events` are not part of consensus."""

    code: Code
    data: bytes = b""
    events: list[Event] = []


class BlockResult(msgspec.Struct, frozen=True):
    """What a block changes: None removes a key."""

    results: list[TxResult]
    changes: dict[bytes, bytes | None]
    validator_updates: list[tuple[bytes, int]] = []  # key and power, 0 for who leaves; in force two heights later


def beacon_tx(height: int, signature: bytes) -> bytes:
    """Encode a proposer's first transaction.

    Args:
        height: of its block.
        signature: over `beacon_signing_bytes`.
    """
    return encode(BeaconTx(height, signature))


def check_proposal(view: View, block: BlockInput, verify: Verify) -> Code:
    """Check what makes a block acceptable as a whole: the proposer's beacon comes first, and there are not too many.

    Raises:
        LocalProtocolError: its rules are unknown: nothing may be said of it, and no vote given.
    """
    rules_at(load_params(view)[0], block.height)
    if len(block.txs) > MAX_BLOCK_TXS + 1:
        return Code.TOO_MANY
    beacon = _read_beacon(view, block, verify)
    return beacon if isinstance(beacon, Code) else Code.OK


def _read_beacon(view: View, block: BlockInput, verify: Verify) -> bytes | Code:
    """Give the beacon of a block, or why it has none."""
    if not block.txs:
        return Code.MISPLACED_BEACON
    if has_vrf(view):
        if block.proposer not in dict(set_at(view, block.height)):
            return Code.BAD_BEACON
        return read_vrf_beacon(view, block.height, block.txs[0])
    try:
        tx = decode(block.txs[0], BeaconTx, max_bytes=_MAX_BEACON_BYTES)
    except CodecError:
        return Code.MISPLACED_BEACON
    params, _ = load_params(view)
    if block.proposer not in dict(set_at(view, block.height)) or tx.height != block.height:
        return Code.BAD_BEACON
    message = beacon_signing_bytes(params.chain_id, block.height)
    if len(tx.signature) != SIGNATURE_BYTES or not verify(block.proposer, message, tx.signature):
        return Code.BAD_BEACON
    return beacon_value(params.chain_id, block.height, tx.signature)


def nothing_known(_: bytes) -> Tx | None:
    """Find nothing: everything is decoded and verified."""
    return None


def execute_block(view: View, block: BlockInput, verify: Verify, find: Find = nothing_known) -> BlockResult:
    """Execute a decided block.

    Args:
        view: the state after the block before.
        block: height and time follow those of the state.
        verify: checks a signature (public key, message, signature); the shell may remember those it checked before.
        find: gives the transactions that the shell remembers.

    Raises:
        LocalProtocolError: a block without a valid beacon was decided, or its rules are unknown.
        InvariantError: height or time do not follow.
    """
    return _execute(view, block, verify, find, is_proposal=False)[1]


def propose_block(
    view: View, block: BlockInput, verify: Verify, find: Find = nothing_known
) -> tuple[list[bytes], BlockResult]:
    """Execute a block that its proposer is composing, and leave out the transactions that are refused.

    A refused transaction changes nothing and pays nothing, so without this one balance could fill blocks for free; and
    the rest of the block has the same results without it.

    Args:
        view: the state after the block before.
        block: its first transaction is the beacon.
        verify: checks a signature.
        find: as for `execute_block`.

    Returns:
        The block's transactions, and what `execute_block` gives for them.

    Raises:
        LocalProtocolError: the beacon is not valid, or the block's rules are unknown.
        InvariantError: height or time do not follow.
    """
    return _execute(view, block, verify, find, is_proposal=True)


def _execute(
    view: View, block: BlockInput, verify: Verify, find: Find, *, is_proposal: bool
) -> tuple[list[bytes], BlockResult]:
    beacon = _read_beacon(view, block, verify)
    if isinstance(beacon, Code):
        raise LocalProtocolError(
            f"block {block.height} was decided without a valid beacon ({beacon.name})", code=beacon.name.lower()
        )
    ctx = Context(view, height=block.height, time_ms=block.time_ms, verify=verify)
    rules = rules_at(ctx.params, block.height)
    begin_block(ctx, beacon)
    rules.begin(ctx, block.misbehavior, block.last_votes)
    ctx.state.commit()
    results, kept = [TxResult(Code.OK, b"", ctx.events)], [block.txs[0]]
    fees = 0
    for data in block.txs[1:]:
        ctx.events, ctx.data = [], b""
        known = find(data)
        tx = _read_tx(data, rules, known)
        code = tx if isinstance(tx, Code) else _apply(ctx, rules, tx, data, is_signed=known is not None)
        if code or isinstance(tx, Code):
            ctx.state.rollback()
            if not is_proposal:
                results.append(TxResult(code))
            continue
        ctx.state.commit()
        kept.append(data)
        fees += _charge(tx)
        results.append(TxResult(Code.OK, ctx.data, ctx.events))
    if fees:
        rules.end(ctx, fees)
        ctx.state.commit()
    return kept, BlockResult(results, ctx.state.changes(), ctx.validator_updates)


def check_tx(view: View, data: bytes, height: int, verify: Verify, find: Find = nothing_known) -> CheckResult:
    """Check a transaction for the mempool against the newest state.

    One whose nonce is its sender's next (or that needs none) is tried out as a whole; a later nonce is checked as far
    as it can be: form, signatures, fee. The lane of governance is only for what was tried out, so that nobody holds its
    reserved room with what would be refused.

    Args:
        view: the newest committed state.
        data: from outside.
        height: of the block in which it could be included.
        verify: checks a signature.
        find: as for `execute_block`.
    """
    rules = rules_at(load_params(view)[0], height)
    known = find(data)
    tx = _read_tx(data, rules, known)
    if isinstance(tx, Code):
        return CheckResult(tx)
    totals = read(view, keys.TOTALS, Totals)
    ctx = Context(view, height=height, time_ms=totals.time_ms if totals else 0, verify=verify)
    code = _apply(ctx, rules, tx, data, is_check=True, is_signed=known is not None)
    if isinstance(tx.body, FREE_BODIES):
        return CheckResult(code, Lane.REPORTS, tx)
    ctx.state.rollback()
    account = ctx.state.get(keys.account_key(tx.sender), Account)
    due = account.nonce if account is not None else 0
    is_governance = isinstance(tx.body, GOVERNANCE_BODIES) and tx.nonce == due
    return CheckResult(code, Lane.GOVERNANCE if is_governance else Lane.USERS, tx, due)


def _read_tx(data: bytes, rules: RuleSet, known: Tx | None) -> Tx | Code:
    """Decode a transaction; a body of later rules gets the code that a program without them gives."""
    if known is not None:
        return known if type(known.body) in rules.processes else Code.UNDECODABLE
    if data.startswith(_BEACON_PREFIX):
        return Code.MISPLACED_BEACON
    try:
        tx = decode(data, Tx, max_bytes=MAX_TX_BYTES)
    except CodecError as error:
        return _DECODE_CODES.get(error.code, Code.UNDECODABLE)
    if type(tx.body) not in rules.processes:
        return Code.UNDECODABLE
    return tx if tx.version == TX_VERSION else Code.UNKNOWN_VERSION


def _charge(tx: Tx) -> int:
    """Give what the sender itself pays: a claim's fee comes out of what is claimed."""
    return 0 if isinstance(tx.body, Claim) else tx.fee


def _apply(ctx: Context, rules: RuleSet, tx: Tx, data: bytes, *, is_signed: bool, is_check: bool = False) -> Code:
    """Authorise a transaction and execute its body in the context's open transaction.

    Args:
        ctx: of its block.
        rules: in force.
        tx: the transaction.
        data: its bytes.
        is_signed: whether its signatures were found good before; who had to sign is asked all the same.
        is_check: a later nonce than the sender's next is no fault.
    """
    process = rules.processes[type(tx.body)]
    if tx.chain_id != ctx.chain_id:
        return Code.WRONG_CHAIN
    if tx.valid_until < ctx.height:
        return Code.EXPIRED
    if tx.valid_until - ctx.height > MAX_VALID_HEIGHTS:
        return Code.VALID_UNTIL_TOO_FAR
    if len(tx.sender) != ID_BYTES:
        return Code.BAD_FIELD
    if isinstance(tx.body, FREE_BODIES):
        code = _authorise_free(ctx, tx) or (Code.OK if is_signed else _verify_all(ctx, tx, data))
        return code or process(ctx, tx, tx.body)
    account = ctx.state.get(keys.account_key(tx.sender), Account)
    if account is None:
        return Code.UNKNOWN_ACCOUNT
    code = _check_paid(ctx, tx, account, is_check=is_check) or _check_signers(tx, account)
    code = code or (Code.OK if is_signed else _verify_all(ctx, tx, data))
    if code:
        return code
    if tx.nonce != account.nonce:
        return Code.OK  # only while checking: it waits for those before it
    ctx.state.put(
        keys.account_key(tx.sender),
        Account(
            account.version,
            account.balance - _charge(tx),
            account.nonce + 1,
            account.reserved,
            account.threshold,
            account.signers,
        ),
    )
    return process(ctx, tx, tx.body)


def _authorise_free(ctx: Context, tx: Tx) -> Code:
    """A free body is signed by its sender's own key alone, and carries neither nonce nor fee."""
    if tx.nonce:
        return Code.WRONG_NONCE
    if tx.fee:
        return Code.BAD_AMOUNT
    if len(tx.signatures) != 1 or tx.signatures[0][0] != tx.sender:
        return Code.BAD_SIGNATURE
    if ctx.state.get(keys.node_key(tx.sender), Node) is None:
        return Code.UNKNOWN_NODE  # before the signature: checking one for nobody would be free work for strangers
    return Code.OK


def _check_paid(ctx: Context, tx: Tx, account: Account, *, is_check: bool) -> Code:
    """Check nonce, fee and the balance for it."""
    if tx.nonce != account.nonce and not (is_check and 0 < tx.nonce - account.nonce <= MAX_NONCES_AHEAD):
        return Code.WRONG_NONCE
    if tx.fee < ctx.preset.min_fee:
        return Code.FEE_TOO_LOW
    if isinstance(tx.body, Claim):
        return Code.OK if tx.fee == ctx.preset.min_fee else Code.BAD_AMOUNT
    return Code.OK if tx.fee <= account.balance - account.reserved else Code.INSUFFICIENT_BALANCE


def _check_signers(tx: Tx, account: Account) -> Code:
    """Check that signers of enough weight signed, and nobody else did."""
    if not account.threshold:
        own = len(tx.signatures) == 1 and tx.signatures[0][0] == tx.sender
        return Code.OK if own else Code.BAD_SIGNATURE
    if len(tx.signatures) > MAX_SIGNERS:
        return Code.TOO_MANY
    signers = dict(account.signers)
    previous, total = b"", 0
    for key, _ in tx.signatures:
        if key <= previous:
            return Code.NOT_SORTED
        if key not in signers:
            return Code.BAD_SIGNATURE
        previous = key
        total += signers[key]
    return Code.NOT_ENOUGH_WEIGHT if total < account.threshold else Code.OK


def _verify_all(ctx: Context, tx: Tx, data: bytes) -> Code:
    message = received_signing_bytes(tx, data)
    for key, signature in tx.signatures:
        if len(signature) != SIGNATURE_BYTES or not ctx.verify(key, message, signature):
            return Code.BAD_SIGNATURE
    return Code.OK
