"""What `ledger status` says of a validator and of the others that are out."""

import pytest

from freehold.cli.validators import standing_document, standing_text
from freehold.client.validators import ValidatorRow, ValidatorsView
from freehold.ledger.records import ValidatorBond

OWN, OTHER = b"\x11" * 32, b"\x22" * 32
RETURNS_MS = 1_790_000_000_000


def bond(*, is_removed: bool = False) -> ValidatorBond:
    fields = {name: 0 for name in ValidatorBond.__struct_fields__}
    return ValidatorBond(**fields | {"owner": OWN, "unbonding": [], "is_removed": is_removed})


def view(*rows: ValidatorRow) -> ValidatorsView:
    return ValidatorsView(
        height=9,
        time_ms=0,
        rules=[(1, 3)],
        upgrade=None,
        preset=None,
        table=[],
        next_election_ms=0,
        liable_height=0,
        attendance=None,
        least_blocks=0,
        counted=40,
        rows=list(rows),
    )


def row(key: bytes, power: int, *, returns_ms: int = 0, is_removed: bool = False) -> ValidatorRow:
    made = bond(is_removed=is_removed)
    return ValidatorRow(
        validator=key, power=power, next_power=power, bond=made, earned=0, missed=3, returns_ms=returns_ms
    )


@pytest.mark.parametrize(
    ("own", "state", "step"),
    [
        (row(OWN, 200), "votes", ""),
        (row(OWN, 0, returns_ms=RETURNS_MS), "absent", f"freehold ledger rejoin {OWN.hex()}"),
        (row(OWN, 0, is_removed=True), "removed", f"freehold ledger unbond {OWN.hex()} --all"),
        (row(OWN, 0), "unlisted", "freehold ledger bond AMOUNT --home HOME"),
        (None, "no_bond", "freehold ledger bond AMOUNT --home HOME"),
    ],
)
def test_a_validator_is_told_how_it_stands_and_what_puts_it_back(own: ValidatorRow | None, state: str, step: str):
    said = standing_document(view(*filter(None, [own]), row(OTHER, 0, returns_ms=RETURNS_MS)), OWN)
    assert (said["state"], said["next"], said["absent"]) == (state, step, [OTHER.hex()])
    assert (said["may_rejoin"] is not None) == (state == "absent")
    first, second = standing_text(said)
    assert OWN.hex()[:16] in first and step in first
    assert OTHER.hex()[:16] in second


def test_nobody_else_is_named_where_nobody_is_out() -> None:
    said = standing_document(view(row(OWN, 200), row(OTHER, 200)), OWN)
    assert said["absent"] == [] and len(standing_text(said)) == 1
