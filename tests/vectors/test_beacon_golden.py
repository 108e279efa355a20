"""Golden bytes of the beacon by VRF: a difference is a change of consensus.

`python tests/vectors/test_beacon_golden.py` prints the vectors anew.
"""

import json
import sys
from pathlib import Path
from typing import Any

from freehold.base.codec import encode
from freehold.base.presets import MINIMAL
from freehold.crypto.ed25519 import PrivateKey, verify
from freehold.crypto.hashing import sha256
from freehold.ledger import keys
from freehold.ledger.beacons import make_extension, seed_at, voters, vrf_beacon_tx
from freehold.ledger.execute import BlockInput, execute_block
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.genesis_beacon import prove_possession
from freehold.ledger.records import BeaconRecord
from freehold.ledger.state import decode_record

FILE = Path(__file__).parent / "beacon_vrf.json"
GENESIS_MS = 1_700_000_000_000
POWERS = [40, 30, 20, 10]
VALIDATORS = [PrivateKey.from_seed(sha256(b"golden validator %d" % number)) for number in range(4)]
VRF = [PrivateKey.from_seed(sha256(b"golden vrf %d" % number)) for number in range(4)]


def make() -> dict[str, Any]:
    """Three blocks: the first, one with every proof, one without the lightest voter's."""
    members = [prove_possession(vrf, key.public) for vrf, key in zip(VRF, VALIDATORS, strict=True)]
    powers = [(key.public, power) for key, power in zip(VALIDATORS, POWERS, strict=True)]
    state = initial_state(app_state_document(MINIMAL, [], [], vrf=members), "golden", GENESIS_MS, powers)
    blocks, extensions = [], []
    votes: list[tuple[bytes, bytes]] = []
    for height in (1, 2, 3):
        first = vrf_beacon_tx(state, height, votes if height < 3 else votes[:3])
        mine = [
            (key.public, make_extension(state, height, key.public, vrf))
            for key, vrf in zip(VALIDATORS, VRF, strict=True)
        ]
        result = execute_block(state, BlockInput(height, GENESIS_MS + height * 1_000, powers[0][0], [first]), verify)
        for key, value in result.changes.items():
            assert value is not None
            state[key] = value
        beacon = decode_record(state[keys.beacon_key(height)], BeaconRecord)
        blocks.append({"height": height, "first_tx": first.hex(), "beacon": beacon.value.hex()})
        extensions.append([extension.hex() for _, extension in mine])
        votes = mine
    return {
        "possession": [member.possession.hex() for member in members],
        "order": [voter.validator.hex() for voter in voters(state, 3)],
        "keys": state[keys.VRF_KEYS].hex(),
        "seeds": [seed_at(state, height).hex() for height in (1, 2, 3, 4)],
        "extensions": extensions,
        "blocks": blocks,
        "state": sha256(encode(sorted(state.items()))).hex(),
    }


def test_the_bytes_are_those_of_the_first_day() -> None:
    assert make() == json.loads(FILE.read_text("utf-8"))


if __name__ == "__main__":
    json.dump(make(), sys.stdout, indent=1)
