"""Signed headers of the light client's model-based runs: hashes and commits, as a start for verification by hops.

Source: tendermint/tendermint light/mbt/json at a14f6f45, read from FREEHOLD_VECTORS; without it one header is checked.
"""

import base64
import json
import os
from pathlib import Path
from typing import Any

from test_light_cometbft import parse_block_id, parse_header, parse_time

from freehold.base.errors import NotVerifiedError
from freehold.light.headers import header_hash, make_validator, make_validator_set, validators_hash
from freehold.light.types import ABSENT_SIG, Commit, CommitSig, Header, ValidatorSet
from freehold.light.verify import verify_commit

# MC4_4_faulty_TestSuccess.json, initial state
KNOWN: dict[str, Any] = {
    "header": {
        "version": {"block": "11", "app": "0"},
        "chain_id": "test-chain",
        "height": "1",
        "time": "1970-01-01T00:00:01Z",
        "last_block_id": None,
        "last_commit_hash": None,
        "data_hash": None,
        "validators_hash": "5A69ACB73672274A2C020C7FAE539B2086D30F3B7E5B168A8031A21931FCA07D",
        "next_validators_hash": "AAFE392AA939DA2A051F3C57707569B1836F93ACC8F35B57BB3CDF615B649013",
        "consensus_hash": "5A69ACB73672274A2C020C7FAE539B2086D30F3B7E5B168A8031A21931FCA07D",
        "app_hash": "",
        "last_results_hash": None,
        "evidence_hash": None,
        "proposer_address": "0616A636E7D0579A632EC37ED3C3F2B7E8522A0A",
    },
    "hash": "1C7FFFFB7BA0E2AA68FD6C9AB0F5E177A78AA392A60C9ECC89CAD3DAE1C80E57",
}


def parse_commit(data: dict[str, Any]) -> Commit:
    entries = (
        CommitSig(
            entry["block_id_flag"],
            bytes.fromhex(entry["validator_address"]),
            parse_time(entry["timestamp"]),
            base64.b64decode(entry["signature"]),
        )
        if entry["block_id_flag"] != 1
        else ABSENT_SIG
        for entry in data["signatures"] or []
    )
    return Commit(int(data["height"]), data["round"], parse_block_id(data["block_id"]), tuple(entries))


def parse_set(data: dict[str, Any]) -> ValidatorSet:
    return make_validator_set(
        make_validator(base64.b64decode(member["pub_key"]["value"]), int(member["voting_power"]))
        for member in data["validators"]
    )


def check(header: Header, commit: Commit, validators: ValidatorSet) -> None:
    assert header_hash(header) == commit.block_id.hash
    assert validators_hash(validators.validators) == header.validators_hash
    verify_commit(header.chain_id, validators, commit.block_id, header.height, commit)


def test_the_header_written_here() -> None:
    header = parse_header(KNOWN["header"])
    assert header_hash(header).hex().upper() == KNOWN["hash"]


def test_accepted_blocks_have_good_commits() -> None:
    folder = os.environ.get("FREEHOLD_VECTORS")
    files = sorted((Path(folder) / "light-client").glob("*.json")) if folder else []
    accepted = refused = 0
    for file in files:
        for step in json.loads(file.read_text())["input"]:
            block = step["block"]
            if not (block["validator_set"] and block["validator_set"].get("validators")):
                continue
            signed = block["signed_header"]
            parts = parse_header(signed["header"]), parse_commit(signed["commit"]), parse_set(block["validator_set"])
            if step["verdict"] == "SUCCESS":
                check(*parts)
                accepted += 1
                continue
            try:
                check(*parts)
            except (NotVerifiedError, AssertionError):
                refused += 1
    print(f"{len(files)} files: {accepted} accepted blocks have good commits, {refused} refused ones have bad ones")
    assert not files or (accepted, refused) == (42, 12)
