"""Who signs the ledger, who could have made a header up, and who can bend the draw of witnesses: in words.

All of it follows the set that signed the header in question, by power and by owner: one owner's validators count as one
where the ledger names owners. Spec: docs/spec/proofs.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from freehold.crypto.strkey import encode_account
from freehold.ledger.lottery import most_left_out
from freehold.light.genesis import TrustedGenesis
from freehold.light.trust import Forgers
from freehold.light.types import ValidatorSet

SHOWN: Final = 8  # parties that are named; documents name all
_SHORT_KEY, _SHORT_ACCOUNT = 8, 12


def forger_lines(validators: int, forgers: Forgers | None, owners: Mapping[bytes, bytes]) -> list[str]:
    """Who could have made a verified header up.

    Args:
        validators: of the set that signed it.
        forgers: the smallest group; None when the reader named the header's hash.
        owners: of validators, by public key, as far as they are known.
    """
    if forgers is None:
        return [f"validators: {validators}; nobody could have forged it: its hash is the one that you trust"]
    if validators == 1 and forgers.validators == 1:
        return ["validators: 1: its operator can rewrite this ledger"]
    is_owned = any(key in owners for key in forgers.members)
    whole = f"the {forgers.validators} validators of height {forgers.height}"
    if is_owned:
        group = f"{forgers.count} of the {forgers.parties} owners of {whole}"
    elif forgers.validators != validators:
        group = f"{forgers.count} of {whole}"
    else:
        group = f"{forgers.count} of them"
    verb = "together could have forged it" if forgers.count > 1 else "alone could have forged it"
    lines = [f"validators: {validators}; {group} {verb}", f"that group: {group_text(forgers, owners)}"]
    if not all(key in owners for key in forgers.members):
        lines.append("owners of validators are counted as far as this names them: one of them may run several more")
    return lines


def group_text(forgers: Forgers, owners: Mapping[bytes, bytes]) -> str:
    """A group by its members, the strongest party first, and the share of the power that it holds."""
    names = [
        f"validator {keys[0].hex()[:_SHORT_KEY]}"
        if party is None
        else f"owner {encode_account(party)[:_SHORT_ACCOUNT]} ({len(keys)} validator{'s' * (len(keys) > 1)})"
        for party, keys in _parties(forgers.members, owners)
    ]
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{shown}; {forgers.power * 100 / forgers.total_power:.4g} % of the power of height {forgers.height}"


def forger_document(forgers: Forgers, owners: Mapping[bytes, bytes]) -> dict[str, Any]:
    """A group for `--json`; the owner of a validator is null where it is not known."""
    return {
        "count": forgers.count,
        "parties": forgers.parties,
        "validators": forgers.validators,
        "height": forgers.height,
        "power": forgers.power,
        "total_power": forgers.total_power,
        "members": [
            {"owner": None if party is None else encode_account(party), "validators": [key.hex() for key in keys]}
            for party, keys in _parties(forgers.members, owners)
        ],
    }


def rewriter_warning(forgers: Forgers, owners: Mapping[bytes, bytes]) -> str:
    """What one party's power over a ledger means; empty when one alone has not enough.

    Args:
        forgers: the fewest that hold more than two thirds of the power.
        owners: of validators, by public key, as far as they are known.
    """
    if forgers.count > 1:
        return ""
    if forgers.validators == 1:
        return "this ledger has one validator: its operator can rewrite it and choose the witnesses"
    return (
        f"more than two thirds of this ledger's power are in one hand ({group_text(forgers, owners)}): "
        "it can rewrite the ledger and choose the witnesses"
    )


def beacon_line(trusted: TrustedGenesis, validators: ValidatorSet) -> str:
    """Who can bend the draw of witnesses, by the form that genesis chose for the beacon and the set that signed.

    Args:
        trusted: the genesis.
        validators: of the header in question.
    """
    powers = [member.voting_power for member in validators.validators]
    if "vrf" not in trusted.app_state:
        if len(powers) == 1:
            return "the validator can choose the witnesses"
        return "the validator that proposes an epoch's first block can choose the epoch's witnesses"
    if len(powers) == 1:
        return "the validator knows the witnesses of every epoch in advance"
    return (
        "witnesses are drawn by VRF outputs of more than two thirds of the validators' power: a proposer can choose "
        f"among at most {most_left_out(powers) + 1} draws with the validators that signed this, more with several turns"
    )


def _parties(members: Sequence[bytes], owners: Mapping[bytes, bytes]) -> list[tuple[bytes | None, list[bytes]]]:
    """The validators of each party, in the order in which the parties stand."""
    found: dict[bytes, tuple[bytes | None, list[bytes]]] = {}
    for key in members:
        owner = owners.get(key)
        found.setdefault(owner or key, (owner, []))[1].append(key)
    return list(found.values())
