"""Golden bytes of rule-set 3: its transaction and record, and a history that begins with it.

`python tests/vectors/test_ledger_golden_3.py` prints the vectors anew: a difference is a change of consensus, and needs
a new version of the rules or of a record, not new vectors.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "property"), str(HERE)]

from ledger_grid import GENESIS_MS, Grid, preset_with, state_digest  # noqa: E402
from msgspec.structs import replace  # noqa: E402
from test_ledger_golden import A, key_of, records, transaction  # noqa: E402

from freehold.base.amounts import TOKEN  # noqa: E402
from freehold.base.codec import encode  # noqa: E402
from freehold.base.presets import ATTENDANCE, ELECTIONS  # noqa: E402
from freehold.crypto.ed25519 import verify  # noqa: E402
from freehold.ledger.attendance import attendance_values  # noqa: E402
from freehold.ledger.rules import RULE_SETS  # noqa: E402
from freehold.ledger.transactions import (  # noqa: E402
    Rejoin,
    ReleaseBond,
    WithdrawBond,
    decode_tx,
    tx_id,
    tx_signing_bytes,
)

FILE = HERE / "ledger_rules_3.json"


def history() -> Grid:
    """Five validators; one is away for an era, is put out and comes back; another is away at the end."""
    grid = Grid(
        preset_with(report_epochs=8),
        farms=2,
        make_key=key_of,
        check_signature=verify,
        validators=5,
        elections=ELECTIONS["minimal"],
    )
    grid.block()
    idle, operator = grid.validators[4], grid.operators[4]
    grid.away = {idle.public}
    for _ in range(6):
        grid.next_epoch()
    grid.away = set()
    for _ in range(6):
        grid.next_epoch()
    grid.ok(operator, Rejoin(idle.public))
    grid.away = {grid.validators[1].public}
    for _ in range(6):
        grid.next_epoch()
    grid.away = {grid.validators[2].public}
    grid.block()
    return grid


def withdrawals() -> Grid:
    """Parts of one bond on their way back: of the middle of an era, of its last block, and one that is paid out."""
    grid = Grid(
        preset_with(report_epochs=8),
        farms=2,
        make_key=key_of,
        check_signature=verify,
        validators=4,
        elections=replace(ELECTIONS["minimal"], unbonding_ms=60_000, unbonding_blocks=5),
        bond=1_000 * TOKEN,
    )
    validator, operator = grid.validators[0].public, grid.operators[0]
    grid.block()
    grid.ok(operator, WithdrawBond(validator, 200 * TOKEN), dt=30_001)
    for _ in range(70):
        grid.block(dt=400)
    grid.ok(operator, WithdrawBond(validator, 100 * TOKEN), dt=GENESIS_MS + 60_000 - grid.now - 1)
    grid.block(dt=61_000)
    grid.ok(operator, ReleaseBond(validator), dt=1)
    grid.ok(operator, WithdrawBond(validator, 700 * TOKEN), dt=1)
    return grid


def make() -> dict[str, Any]:
    grid, body, parts = history(), transaction(Rejoin(A)), withdrawals()
    return {
        "source": "Freehold, rules version 3; ed25519 seeds are SHA-256 of 'golden ' and a name",
        "transactions": {
            "Rejoin": {
                "tx": encode(body).hex(),
                "id": tx_id(encode(body)).hex(),
                "signed": tx_signing_bytes(body).hex(),
            }
        },
        "attendance": {name: attendance_values(preset) for name, preset in ATTENDANCE.items()},
        "history": {
            "blocks": len(grid.blocks),
            "sets": {
                str(height): sorted(members.values())
                for height, members in grid.engine.sets.items()
                if members != grid.engine.sets.get(height - 1)
            },
            "records": {family: value for family, value in records(grid).items() if family in "APECVvw"},
            "digest": state_digest(grid.state),
        },
        "withdrawals": {
            "blocks": len(parts.blocks),
            "records": {family: value for family, value in records(parts).items() if family in "ECVv"},
            "digest": state_digest(parts.state),
        },
    }


def test_nothing_has_changed() -> None:
    assert make() == json.loads(FILE.read_text(encoding="utf-8"))


def test_every_body_and_family_has_a_vector() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    new = set(RULE_SETS[3].processes) - set(RULE_SETS[2].processes)
    assert set(stored["transactions"]) == {kind.__name__ for kind in new}
    assert "A" in stored["history"]["records"]
    assert {height: len(powers) for height, powers in stored["history"]["sets"].items()} == {"1": 5, "67": 4, "200": 4}


def test_the_vectors_decode_and_their_signatures_hold() -> None:
    for body, vector in json.loads(FILE.read_text(encoding="utf-8"))["transactions"].items():
        tx = decode_tx(bytes.fromhex(vector["tx"]))
        assert type(tx.body).__name__ == body
        [(public, signature)] = tx.signatures
        assert verify(public, bytes.fromhex(vector["signed"]), signature)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(make(), indent=1, sort_keys=True) + "\n")
