"""Golden bytes of rule-set 1: what was once on a ledger means the same for ever.

`python tests/vectors/test_ledger_golden.py` prints the vectors anew: a difference is a change of consensus, and needs a
new version of the rules or of a record, not new vectors.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "property"))

from ledger_grid import CAPACITY, GENESIS_MS, OFFER, PROBE, SMALL, ZERO, Grid, preset_with, state_digest  # noqa: E402

from freehold.base.amounts import TOKEN  # noqa: E402
from freehold.base.codec import encode  # noqa: E402
from freehold.crypto.ed25519 import PrivateKey, verify  # noqa: E402
from freehold.ledger import keys  # noqa: E402
from freehold.ledger.codes import Code  # noqa: E402
from freehold.ledger.epochs import beacon_value  # noqa: E402
from freehold.ledger.rules import RULE_SETS  # noqa: E402
from freehold.ledger.schedule import report_due_ms  # noqa: E402
from freehold.ledger.transactions import (  # noqa: E402
    Accept,
    AddStake,
    Challenge,
    Claim,
    Close,
    Deploy,
    LeaseOrder,
    Place,
    Refund,
    RegisterFarm,
    RegisterNode,
    ReleaseNode,
    Report,
    Resolve,
    Resources,
    RetireNode,
    SetSigners,
    TopUp,
    Transfer,
    Tx,
    UpdateNode,
    Upgrade,
    Verdict,
    beacon_signing_bytes,
    challenge_id,
    decode_tx,
    deployment_id,
    lease_id,
    possession_bytes,
    tx_id,
    tx_signing_bytes,
)

FILE = HERE / "ledger_rules_1.json"
A, B, C = (bytes([value]) * 32 for value in (0xAA, 0xBB, 0xCC))
ORDER = LeaseOrder("web", 1, [A, B], SMALL, C, ZERO, PROBE, [80, 443], 10 * TOKEN, 3_600_000, False, True)
BODIES = [
    Transfer(A, 12_345_678),
    SetSigners([(A, 1), (B, 255)], 2),
    RegisterFarm("alpha", Place("BE", "Gent")),
    RegisterNode(A, B, bytes(64), ["192.0.2.1:7000"], CAPACITY, OFFER, 100 * TOKEN, 10 * TOKEN),
    UpdateNode(A, [], Resources(1, 2, 3), OFFER),
    AddStake(A, TOKEN),
    RetireNode(A),
    ReleaseNode(A),
    Deploy("shop", [C], [ORDER]),
    Accept(A, B),
    Refund(A),
    TopUp(A, 60_000),
    Close(A, "moving"),
    Claim(A, 3, 26),
    Report(7, A, bytes(31) + b"\x01", [2, 0, 1], [0, 5, 300], B, 3, [(5, 0), (5, 255)]),
    Challenge(A, 1),
    Verdict(A, True),
    Resolve(A),
    Upgrade(1_000, 2, [1], [(A, bytes(64)), (B, bytes(64))]),
]


def key_of(name: str) -> PrivateKey:
    return PrivateKey.from_seed(hashlib.sha256(b"golden " + name.encode()).digest())


def transaction(body: Any) -> Tx:
    key = key_of("sender")
    unsigned = Tx(1, "golden", key.public, 7, 10_000, 99, body, [])
    return Tx(1, "golden", key.public, 7, 10_000, 99, body, [(key.public, key.sign(tx_signing_bytes(unsigned)))])


def history() -> Grid:
    """A fixed history with real keys: deploy, serve, fail over, claim, close."""
    grid = Grid(preset_with(report_epochs=8), farms=4, make_key=key_of, check_signature=verify)
    grid.block()
    lease = grid.deploy(grid.tenants[0], [[0, 2]], price=20 * TOKEN)[0]
    for _ in range(3):
        grid.next_epoch()
    grid.claim_all(lease)
    grid.down = {grid.nodes[0].public}
    challenge = grid.ok(grid.nodes[2], Challenge(lease, 1))
    grid.block(dt=100)
    for slot in grid.challenge_witnesses(challenge):
        if grid.node_of_slot(slot).public not in grid.down:
            grid.ok(grid.node_of_slot(slot), Verdict(challenge, True))
    grid.block(dt=45_000)
    for _ in range(3):
        grid.next_epoch()
    grid.ok(grid.tenants[0], Close(lease, "golden"))
    grid.next_epoch()
    return grid


def records(grid: Grid) -> dict[str, str]:
    """One encoded record of each family."""
    found: dict[str, str] = {}
    for key in sorted(grid.state):
        found.setdefault(chr(key[0]), f"{key.hex()} {grid.state[key].hex()}")
    return found


def make() -> dict[str, Any]:
    genesis = Grid(preset_with(report_epochs=8), farms=4, make_key=key_of, check_signature=verify)
    grid = history()
    signature = key_of("validator").sign(beacon_signing_bytes("golden", 5))
    return {
        "source": "Freehold, rules version 1; ed25519 seeds are SHA-256 of 'golden ' and a name",
        "transactions": {
            type(body).__name__: {
                "tx": encode(transaction(body)).hex(),
                "id": tx_id(encode(transaction(body))).hex(),
                "signed": tx_signing_bytes(transaction(body)).hex(),
            }
            for body in BODIES
        },
        "ids": {
            "deployment": deployment_id("golden", A, 3).hex(),
            "lease": lease_id(A, "web", 2).hex(),
            "challenge": challenge_id(A, 1, B, 77).hex(),
            "possession": possession_bytes("golden", A, B, C).hex(),
            "beacon": beacon_value("golden", 5, signature).hex(),
            "report_due_ms": report_due_ms(grid.preset, GENESIS_MS, A, 3) - GENESIS_MS,
        },
        "codes": {code.name: int(code) for code in Code},
        "genesis_digest": state_digest(genesis.state),
        "history": {
            "blocks": len(grid.blocks),
            "draws": [grid.witnesses(node.public, grid.epoch) for node in grid.nodes],
            "records": records(grid),
            "digest": state_digest(grid.state),
        },
    }


def test_nothing_has_changed() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    made = make()
    for section, value in stored.items():
        if section != "codes":
            assert made[section] == value, section
    # Codes are append-only.
    assert stored["codes"].items() <= made["codes"].items()


def test_every_body_and_family_has_a_vector() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    assert set(stored["transactions"]) == {kind.__name__ for kind in RULE_SETS[1].processes}
    assert set(stored["history"]["records"]) == set("PTabcdefklmnrst")
    assert keys.PARAMS == b"P"


def test_the_vectors_decode_and_their_signatures_hold() -> None:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    for body, vector in stored["transactions"].items():
        tx = decode_tx(bytes.fromhex(vector["tx"]))
        assert type(tx.body).__name__ == body
        [(public, signature)] = tx.signatures
        assert verify(public, bytes.fromhex(vector["signed"]), signature)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(make(), indent=1, sort_keys=True) + "\n")
