"""`freehold ledger bond|unbond|release|claim|rejoin|possession`: the tokens behind a validator."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from freehold.base.amounts import format_amount, parse_amount
from freehold.base.decoders import decode_json
from freehold.base.errors import InvalidInputError, RefusedError
from freehold.base.ids import parse_id
from freehold.cli.output import Json, Result, say
from freehold.cli.validators import part_document, time_text, with_session
from freehold.client import wallet as wallets
from freehold.client.home import Home
from freehold.client.session import Session
from freehold.client.validators import BondPlan, ValidatorsView, due_parts, plan_bond, read_validators
from freehold.consensus.comet.operators import OperatorHome
from freehold.crypto.strkey import decode_account, encode_account
from freehold.ledger.records import ValidatorBond
from freehold.ledger.transactions import (
    AddBond,
    Body,
    Bond,
    ClaimFees,
    Rejoin,
    ReleaseBond,
    WithdrawBond,
    validator_possession_bytes,
)
from freehold.lightclient.client import Outcome

MAX_CARD_BYTES = 4_096


class PossessionCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A consensus key's agreement to be bonded by an owner; all of it is public."""

    chain_id: str
    validator: str
    owner: str
    vrf_key: str
    possession: str


def possession(*, home: Path, owner: str, json: Json = False) -> Result:
    """Let a validator's key agree to be bonded by an owner's account; the printed document holds nothing secret.

    For a wallet on another machine: give it the document as `freehold ledger bond AMOUNT --possession FILE`.

    Parameters
    ----------
    home
        The validator's folder.
    owner
        The account (G...) that will bond it.
    """
    card = _agree(OperatorHome(home), decode_account(owner))
    return Result(msgspec.to_builtins(card), msgspec.json.encode(card).decode())


def bond(
    amount: str,
    /,
    *,
    home: Path | None = None,
    possession: Path | None = None,
    plan: bool = False,
    json: Json = False,
) -> Result:
    """Bond tokens behind a validator, so that it stands for election; or add to its bond.

    Parameters
    ----------
    amount
        Tokens, such as 1000.
    home
        The validator's folder, when it is on this machine.
    possession
        The document of `freehold ledger possession`, when it is not.
    plan
        Only show what it costs and brings.
    """
    units = _amount(amount)
    place = Home.default()
    owner = decode_account(wallets.address(place))
    if (home is None) == (possession is None):
        raise InvalidInputError(
            "say which validator: --home of it, or --possession from its machine",
            code="bad_usage",
            hint="make the document there with `freehold ledger possession --home .. --owner ..`",
        )
    card = _agree(OperatorHome(home), owner) if home is not None else _read_possession(possession or Path())
    if decode_account(card.owner) != owner:
        raise InvalidInputError(
            "the document names another owner than this wallet",
            code="wrong_owner",
            hint=f"make it again with --owner {encode_account(owner)}",
        )
    validator = parse_id(card.validator)
    wallet = None if plan else wallets.open_wallet(place, wallets.read_passphrase())

    async def work(session: Session) -> tuple[ValidatorsView, BondPlan, Outcome | None]:
        if card.chain_id != session.ledger.chain_id:
            raise InvalidInputError(f"the document is for chain {card.chain_id}", code="wrong_chain")
        view = await read_validators(session, validator)
        planned = plan_bond(view, session, validator, owner, units)
        if wallet is None:
            return view, planned, None
        say(_plan_text(view, planned))
        row = view.find(validator)
        body: Body = AddBond(validator, units)
        if row is None or row.bond is None:
            vrf_key = parse_id(card.vrf_key) if card.vrf_key else b""
            body = Bond(validator, vrf_key, bytes.fromhex(card.possession), units)
        return view, planned, await session.submit(wallet.account, body)

    view, planned, outcome = asyncio.run(with_session(Session(place, wallet), work))
    document: dict[str, Any] = {"validator": card.validator, "plan": _plan_document(view, planned)}
    if outcome is None:
        return Result(document, _plan_text(view, planned))
    document |= {"tx": outcome.tx_id.hex(), "height": outcome.height}
    return Result(document, f"bonded {format_amount(units)} tokens behind {card.validator} at height {outcome.height}")


def unbond(
    validator: str, amount: str | None = None, /, *, all: bool = False, plan: bool = False, json: Json = False
) -> Result:
    """Begin to take tokens back from a bond; they stay liable for the unbonding time, then `release` pays them.

    Parameters
    ----------
    validator
        Its public key, hex.
    amount
        Tokens; what stays must be at least the least bond.
    all
        Everything: the validator retires at the next election.
    plan
        Only show when they come back.
    """
    if (amount is None) != all:
        raise InvalidInputError("say how much: an amount, or --all", code="bad_usage")
    key = parse_id(validator)

    def choose(view: ValidatorsView, record: ValidatorBond) -> tuple[Body, dict[str, Any], str]:
        preset = view.elections()
        units = record.stake if all else _amount(amount or "")
        due_ms = max(view.time_ms, view.next_election_ms) + preset.unbonding_ms
        due_height = view.liable_height + preset.unbonding_blocks
        facts = {
            "amount": format_amount(units),
            "due": time_text(due_ms),
            "due_height": due_height,
            "retires": units == record.stake,
        }
        text = (
            f"{format_amount(units)} tokens come back after {time_text(due_ms)} and height {due_height}, both; "
            "until then they can be cut for misbehaviour"
        )
        return WithdrawBond(key, units), facts, text

    return _owned(key, choose, plan=plan)


def release(validator: str, /, *, plan: bool = False, json: Json = False) -> Result:
    """Pay out the parts of a bond whose unbonding time has passed.

    Parameters
    ----------
    validator
        Its public key, hex.
    plan
        Only show what is due.
    """
    key = parse_id(validator)

    def choose(view: ValidatorsView, record: ValidatorBond) -> tuple[Body, dict[str, Any], str]:
        due = sum(part.amount for part in due_parts(view, record))
        waiting = [part for part in record.unbonding if part not in due_parts(view, record)]
        facts = {"due": format_amount(due), "waiting": [part_document(part.amount, part.due_ms) for part in waiting]}
        return ReleaseBond(key), facts, f"{format_amount(due)} tokens are due, {len(waiting)} parts wait"

    return _owned(key, choose, plan=plan)


def claim(validator: str, /, *, plan: bool = False, json: Json = False) -> Result:
    """Pay a validator's share of fees to its owner.

    Parameters
    ----------
    validator
        Its public key, hex.
    plan
        Only show what it has earned.
    """
    key = parse_id(validator)

    def choose(view: ValidatorsView, record: ValidatorBond) -> tuple[Body, dict[str, Any], str]:
        row = view.find(key)
        earned = format_amount(row.earned if row is not None else 0)
        return ClaimFees(key), {"earned": earned}, f"{earned} tokens were earned and not claimed yet"

    return _owned(key, choose, plan=plan)


def rejoin(validator: str, /, *, plan: bool = False, json: Json = False) -> Result:
    """Let a validator stand again that lost its place because it did not sign.

    Parameters
    ----------
    validator
        Its public key, hex.
    plan
        Only show from when this is possible.
    """
    key = parse_id(validator)

    def choose(view: ValidatorsView, record: ValidatorBond) -> tuple[Body, dict[str, Any], str]:
        row = view.find(key)
        returns_ms = row.returns_ms if row is not None else 0
        if not returns_ms:
            raise RefusedError(
                "this validator is not out for not signing",
                code="not_absent",
                hint="`freehold ledger validators` shows how it stands; a higher bond finds a place in the table",
            )
        facts = {"may_rejoin": time_text(returns_ms), "next_election": time_text(view.next_election_ms)}
        text = f"may stand again from {time_text(returns_ms)} on, and votes once an election after that seats it"
        return Rejoin(key), facts, text

    return _owned(key, choose, plan=plan)


def _owned(
    key: bytes, choose: Callable[[ValidatorsView, ValidatorBond], tuple[Body, dict[str, Any], str]], *, plan: bool
) -> Result:
    """Show what a transaction about a bond does, and send it unless it is only planned."""
    place = Home.default()
    wallet = None if plan else wallets.open_wallet(place, wallets.read_passphrase())

    async def work(session: Session) -> Result:
        view = await read_validators(session, key)
        row = view.find(key)
        if row is None or row.bond is None:
            raise RefusedError(
                f"{key.hex()} has no bond here", code="unknown_validator", hint="see `ledger validators`"
            )
        body, facts, text = choose(view, row.bond)
        fee = format_amount(session.preset.min_fee)
        document: dict[str, Any] = {"validator": key.hex(), "plan": facts | {"fee": fee}}
        if wallet is None:
            return Result(document, f"{text}; the transaction costs {fee}")
        say(text)
        outcome = await session.submit(wallet.account, body)
        return Result(
            document | {"tx": outcome.tx_id.hex(), "height": outcome.height}, f"done at height {outcome.height}"
        )

    return asyncio.run(with_session(Session(place, wallet), work))


def _amount(text: str) -> int:
    units = parse_amount(text)
    if units == 0:
        raise InvalidInputError("the amount is zero", code="bad_amount")
    return units


def _agree(home: OperatorHome, owner: bytes) -> PossessionCard:
    key, genesis = home.validator_key(), home.genesis()
    vrf_key = home.vrf_key().public if "vrf" in genesis.app_state else b""
    message = validator_possession_bytes(genesis.chain_id, key.public, owner, vrf_key)
    signature = key.sign(message).hex()
    return PossessionCard(genesis.chain_id, key.public.hex(), encode_account(owner), vrf_key.hex(), signature)


def _read_possession(path: Path) -> PossessionCard:
    try:
        data = path.read_bytes()[: MAX_CARD_BYTES + 1]
        card = decode_json(data, PossessionCard)
        bytes.fromhex(card.possession)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}", code="missing_file") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(
            f"{path}: {error}", code="bad_possession", hint="make it with `freehold ledger possession --json`"
        ) from None
    return card


def _plan_document(view: ValidatorsView, planned: BondPlan) -> dict[str, Any]:
    preset = view.elections()
    return {
        "amount": format_amount(planned.amount),
        "deposit": format_amount(planned.deposit),
        "fee": format_amount(planned.fee),
        "bond": format_amount(planned.stake),
        "rank": planned.rank,
        "seats": planned.seats,
        "power": planned.power,
        "total_power": planned.total_power,
        "evicts": planned.evicts.hex() or None,
        "election": time_text(view.next_election_ms),
        "unbonding_seconds": preset.unbonding_ms // 1_000,
        "cut_permill": {"duplicate_vote": preset.duplicate_vote_permill, "light_attack": preset.light_attack_permill},
    }


def _plan_text(view: ValidatorsView, planned: BondPlan) -> str:
    preset = view.elections()
    pays = format_amount(planned.amount + planned.deposit + planned.fee)
    if not planned.rank:
        standing = "finds no place in the table of candidates: it will be refused"
    elif planned.power:
        standing = (
            f"is number {planned.rank} of {planned.seats} seats, with {planned.power} of {planned.total_power} power"
        )
    elif planned.total_power:
        standing = f"is number {planned.rank} for {planned.seats} seats: it would not be elected"
    else:
        standing = "stands, but too few stand for an election"
    return (
        f"pays {pays}: {format_amount(planned.amount)} bond, {format_amount(planned.deposit)} refundable deposit, "
        f"{format_amount(planned.fee)} fee\n"
        f"with a bond of {format_amount(planned.stake)} it {standing}\n"
        f"next election {time_text(view.next_election_ms)}\n"
        f"tokens come back {preset.unbonding_ms // 1_000} s after the end of the era in which they are withdrawn\n"
        f"cut for voting twice {preset.duplicate_vote_permill / 10:g} %, for an attack on light clients "
        f"{preset.light_attack_permill / 10:g} %"
    )
