"""What changes in a ledger's state when other validators go on with it under a new chain id; all else stays as it is.

Changed: `Params` (chain id, validators, one more entry of rules). Added: `VrfKeys`, `Elections`, `Candidates`,
`Attendance`. The beacon of the last height stays in its ring, so the first votes build on it.
Spec: docs/spec/leaving-embedded.md.
"""

from collections.abc import Mapping
from typing import Final, NoReturn

from msgspec.structs import replace

from freehold.base.codec import encode
from freehold.base.errors import InvalidInputError
from freehold.base.presets import AttendancePreset, ElectionPreset
from freehold.ledger import keys
from freehold.ledger.attendance import new_attendance
from freehold.ledger.elections import CANDIDATES_VERSION, era_at, new_elections
from freehold.ledger.records import Candidates, Carried, Deployment, Params, Totals, VrfKeys
from freehold.ledger.state import read

RULES: Final = 3
CARRIED_VERSION: Final = 1
_SHOWN: Final = 5


def outer_records(records: Mapping[bytes, bytes]) -> tuple[Params, Totals]:
    """Give the two records that every state has.

    Raises:
        InvalidInputError: `bad_genesis`: these are no ledger's records.
    """
    params, totals = read(records, keys.PARAMS, Params), read(records, keys.TOTALS, Totals)
    if params is None or totals is None:
        _refuse("bad_genesis", "the carried state has no parameters or totals", "export it again")
    return params, totals


def check_leavable(records: Mapping[bytes, bytes]) -> None:
    """Refuse a state with work in flight, whose promises name the old chain and its clock.

    Raises:
        InvalidInputError: `deployments_run`, `challenges_open`, `upgrade_pending` or `not_embedded`.
    """
    params, totals = outer_records(records)
    names = sorted(
        deployment.name
        for key in records
        if key[:1] == keys.deployment_key(b"") and (deployment := read(records, key, Deployment)) is not None
    )
    leases = sum(key[:1] == keys.lease_key(b"") for key in records)
    if names or leases:
        shown = ", ".join(names[:_SHOWN]) + (", .." if len(names) > _SHOWN else "")
        _refuse(
            "deployments_run",
            f"{len(names)} deployments ({shown}) with {leases} leases stand on this ledger",
            "their tenants take them down (`freehold down`); wait until the last claims are paid, then try again",
        )
    if any(key[:1] == keys.challenge_key(b"") for key in records):
        _refuse("challenges_open", "a challenge is open", "wait until it is resolved, some epochs at most")
    if params.rules[-1][0] > totals.height:
        _refuse("upgrade_pending", f"other rules begin at height {params.rules[-1][0]}", "wait until they have begun")
    if any(key in records for key in (keys.VRF_KEYS, keys.ELECTIONS, keys.VALIDATOR_SETS, keys.CARRIED)):
        _refuse("not_embedded", "this ledger's validators are elected already", "nothing has to be done")


def carry_over(
    records: Mapping[bytes, bytes],
    *,
    chain_id: str,
    validators: list[tuple[bytes, int]],
    vrf: VrfKeys,
    elections: ElectionPreset,
    attendance: AttendancePreset,
    header_hash: bytes,
) -> dict[bytes, bytes]:
    """Build the state with which the new chain begins.

    Args:
        records: the whole state of the old one after its last height.
        chain_id: another than the old one's.
        validators: public key and power of each.
        vrf: their VRF keys.
        elections: how later ones are elected.
        attendance: how much they must sign.
        header_hash: of the old chain's last header, which holds the root of `records`.

    Raises:
        InvalidInputError: the state cannot be left, or the chain id stays.
    """
    check_leavable(records)
    params, totals = outer_records(records)
    if chain_id == params.chain_id:
        _refuse("same_chain_id", f"the chain id {chain_id} is the old chain's", "choose another: the old one may go on")
    rules = params.rules if params.rules[-1][1] >= RULES else [*params.rules, (totals.height + 1, RULES)]
    preset_epoch = max(totals.epoch, 0)
    changed = {
        keys.PARAMS: replace(params, chain_id=chain_id, validators=validators, rules=rules),
        keys.VRF_KEYS: vrf,
        keys.ELECTIONS: new_elections(elections, era=era_at(elections, preset_epoch), power=0),
        keys.CANDIDATES: Candidates(CANDIDATES_VERSION, []),
        keys.ATTENDANCE: new_attendance(attendance, since_height=totals.height),
        keys.CARRIED: Carried(CARRIED_VERSION, params.chain_id, totals.height, header_hash),
    }
    return dict(records) | {key: encode(record) for key, record in changed.items()}


def _refuse(code: str, message: str, hint: str) -> NoReturn:
    raise InvalidInputError(message, code=code, hint=hint)
