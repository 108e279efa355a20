"""`freehold ledger upgrade`: validators agree on other rules from a height on."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from freehold.base.decoders import decode_json
from freehold.base.errors import InvalidInputError
from freehold.base.ids import parse_id
from freehold.cli.output import Json, Result
from freehold.client import wallet as wallets
from freehold.client.home import Home
from freehold.client.session import Session
from freehold.client.validators import read_validators
from freehold.consensus.comet.operators import OperatorHome
from freehold.ledger.rules import RULE_SETS
from freehold.ledger.transactions import Upgrade, upgrade_bytes

Files = Annotated[list[Path] | None, Parameter(consume_multiple=True)]
MAX_APPROVAL_BYTES = 4_096


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One validator's agreement; all of it is public."""

    chain_id: str
    height: int
    rules: int
    settings: list[int]
    validator: str
    signature: str


def upgrade(
    *,
    home: Path | None = None,
    height: int = 0,
    rules: int = max(RULE_SETS),
    elections: bool = False,
    approvals: Files = None,
    json: Json = False,
) -> Result:
    """Approve a change of the rules with a validator's key, or send the approvals of more than 2/3 of the power.

    Each operator prints an approval (--home, --height); one of them gathers the documents and sends them (--approvals).

    Parameters
    ----------
    home
        The folder of the validator that approves.
    height
        From which the new rules hold.
    rules
        Their version; the newest that this program knows unless said.
    elections
        Where validators are those of genesis: elect validators from then on.
    approvals
        Documents of validators, to be sent by this wallet.
    """
    if (home is None) == (not approvals):
        raise InvalidInputError("say either --home and --height, or --approvals", code="bad_usage")
    if home is not None:
        if height < 1:
            raise InvalidInputError("say from which --height on", code="bad_usage")
        approval = _approve(OperatorHome(home), height, rules, [1] if elections else [])
        return Result(msgspec.to_builtins(approval), msgspec.json.encode(approval).decode())
    given = [_read(path) for path in approvals or []]
    return asyncio.run(_send(given))


def _approve(home: OperatorHome, height: int, rules: int, settings: list[int]) -> Approval:
    key, chain_id = home.validator_key(), home.genesis().chain_id
    signature = key.sign(upgrade_bytes(chain_id, height, rules, settings))
    return Approval(chain_id, height, rules, settings, key.public.hex(), signature.hex())


def _read(path: Path) -> Approval:
    try:
        approval = decode_json(path.read_bytes()[: MAX_APPROVAL_BYTES + 1], Approval)
        bytes.fromhex(approval.signature)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}", code="missing_file") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(
            f"{path}: {error}", code="bad_approval", hint="make it with `freehold ledger upgrade --home ..`"
        ) from None
    return approval


async def _send(given: list[Approval]) -> Result:
    first = given[0]
    if any(
        (one.chain_id, one.height, one.rules, one.settings)
        != (first.chain_id, first.height, first.rules, first.settings)
        for one in given
    ):
        raise InvalidInputError("the approvals are for different changes", code="bad_approval")
    place = Home.default()
    wallet = wallets.open_wallet(place, wallets.read_passphrase())
    session = Session(place, wallet)
    try:
        if first.chain_id != session.ledger.chain_id:
            raise InvalidInputError(f"the approvals are for chain {first.chain_id}", code="wrong_chain")
        view = await read_validators(session)
        signed = sorted({parse_id(one.validator): bytes.fromhex(one.signature) for one in given}.items())
        agreed = sum(row.power for row in view.rows if row.validator in dict(signed))
        if agreed * 3 <= view.power * 2:
            raise InvalidInputError(
                f"the approvals hold {agreed} of {view.power} power: more than 2/3 are needed", code="not_enough_power"
            )
        outcome = await session.submit(wallet.account, Upgrade(first.height, first.rules, first.settings, signed))
    finally:
        await session.close()
    document = {"height": outcome.height, "tx": outcome.tx_id.hex(), "rules": first.rules, "from": first.height}
    text = f"rules {first.rules} hold from height {first.height} on: every validator needs a release that knows them"
    return Result(document, text)
