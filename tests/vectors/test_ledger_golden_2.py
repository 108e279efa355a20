"""Golden bytes of rule-set 2: its transactions and records, and a history that begins under rule-set 1.

`python tests/vectors/test_ledger_golden_2.py` prints the vectors anew: a difference is a change of consensus, and needs
a new version of the rules or of a record, not new vectors.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "property"), str(HERE)]

from ledger_grid import Grid, preset_with, state_digest  # noqa: E402
from test_ledger_golden import A, B, key_of, records, transaction  # noqa: E402

from freehold.base.amounts import TOKEN  # noqa: E402
from freehold.base.codec import encode  # noqa: E402
from freehold.base.presets import ELECTIONS  # noqa: E402
from freehold.crypto.ed25519 import verify  # noqa: E402
from freehold.ledger.bonds import validator_address  # noqa: E402
from freehold.ledger.elections import elect, election_values  # noqa: E402
from freehold.ledger.rules import RULE_SETS  # noqa: E402
from freehold.ledger.transactions import (  # noqa: E402
    AddBond,
    Bond,
    ClaimFees,
    ReleaseBond,
    Transfer,
    WithdrawBond,
    decode_tx,
    tx_id,
    tx_signing_bytes,
    upgrade_bytes,
    validator_possession_bytes,
)
from freehold.ledger.votes import Misbehavior  # noqa: E402

FILE = HERE / "ledger_rules_2.json"
BODIES = [Bond(A, B, bytes(64), 100 * TOKEN), AddBond(A, TOKEN), WithdrawBond(A, TOKEN), ReleaseBond(A), ClaimFees(A)]
TABLE = [
    (stake * TOKEN, bytes([at]) * 32, bytes([owner]) * 32)
    for at, (stake, owner) in enumerate([(5_000, 1), (1_000, 2), (900, 1), (800, 3), (300, 4), (100, 5)])
]


def history() -> Grid:
    """Four validators of rule-set 1 agree on rule-set 2; bonds, an election, a double vote, fees, a withdrawal."""
    grid = Grid(preset_with(report_epochs=8), farms=2, make_key=key_of, check_signature=verify, validators=4)
    grid.block()
    grid.ok(grid.faucet, grid.upgrade_body(20, 2, [1], grid.validators[:3]))
    while grid.height < 20:
        grid.block()
    owners = [key_of(f"owner-{number}") for number in range(4)]
    for number, owner in enumerate(owners):
        grid.ok(grid.faucet, Transfer(owner.public, 5_000 * TOKEN))
        validator = grid.validators[0] if number == 0 else key_of(f"elected-{number}")
        grid.ok(owner, grid.bond_body(owner, validator, (100 + 100 * number) * TOKEN))
    for _ in range(6):
        grid.next_epoch()
    grid.ok(owners[1], AddBond(key_of("elected-1").public, 50 * TOKEN))
    grid.ok(owners[2], WithdrawBond(key_of("elected-2").public, 150 * TOKEN))
    guilty = key_of("elected-3").public
    grid.block(faults=[Misbehavior(guilty, 200, grid.height, grid.now, 1, 600)])
    grid.ok(grid.faucet, ClaimFees(guilty))
    for _ in range(6):
        grid.next_epoch()
    return grid


def make() -> dict[str, Any]:
    grid = history()
    return {
        "source": "Freehold, rules version 2; ed25519 seeds are SHA-256 of 'golden ' and a name",
        "transactions": {
            type(body).__name__: {
                "tx": encode(transaction(body)).hex(),
                "id": tx_id(encode(transaction(body))).hex(),
                "signed": tx_signing_bytes(transaction(body)).hex(),
            }
            for body in BODIES
        },
        "signed": {
            "possession": validator_possession_bytes("golden", A, B, b"").hex(),
            "upgrade": upgrade_bytes("golden", 20, 2, [1]).hex(),
        },
        "address": validator_address(A).hex(),
        "elections": {
            name: {
                "values": election_values(preset),
                "elected": {key.hex()[:2]: power for key, power in (elect(preset, TABLE) or {}).items()},
            }
            for name, preset in ELECTIONS.items()
        },
        "history": {
            "blocks": len(grid.blocks),
            "sets": {
                str(height): sorted(members.values())
                for height, members in grid.engine.sets.items()
                if members != grid.engine.sets.get(height - 1)
            },
            "records": {family: value for family, value in records(grid).items() if family in "PECVUvw"},
            "digest": state_digest(grid.state),
        },
    }


def test_nothing_has_changed() -> None:
    assert make() == json.loads(FILE.read_text(encoding="utf-8"))


def test_every_body_and_family_has_a_vector() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    new = set(RULE_SETS[2].processes) - set(RULE_SETS[1].processes)
    assert set(stored["transactions"]) == {kind.__name__ for kind in new}
    assert set(stored["history"]["records"]) == set("PECVUvw")


def test_the_vectors_decode_and_their_signatures_hold() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    for body, vector in stored["transactions"].items():
        tx = decode_tx(bytes.fromhex(vector["tx"]))
        assert type(tx.body).__name__ == body
        [(public, signature)] = tx.signatures
        assert verify(public, bytes.fromhex(vector["signed"]), signature)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(make(), indent=1, sort_keys=True) + "\n")
