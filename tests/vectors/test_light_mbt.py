"""The light client's model-based runs: hashes and commits, and the verdict of each step by verification by hops.

Source: tendermint/tendermint light/mbt/json at a14f6f45, read from FREEHOLD_VECTORS; without it one header is checked.
"""

import base64
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from test_light_cometbft import parse_block_id, parse_header, parse_time

from freehold.base.errors import CodecError, NotVerifiedError
from freehold.light.headers import header_hash, make_validator, make_validator_set, validators_hash
from freehold.light.skipping import NotEnoughTrustError, TrustBounds, TrustedState, verify_hop
from freehold.light.types import (
    ABSENT_SIG,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PublicKey,
    SignedHeader,
    Validator,
    ValidatorSet,
)
from freehold.light.verify import verify_commit
from freehold.light.wire import Message

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


# In these either refusal is right: the block is bad, and nobody whom we trust vouches for it.
EITHER = ("TestEmptyCommitEmptyValset", "TestEmptyCommitNonEmptyValset", "TestLessThanTwoThirdsCommit")


def decoded(message: Message) -> Any:
    """As it comes from a server: through the strict codec, which refuses what ValidateBasic refuses."""
    return type(message).decode(message.encode())


def parse_light_block(block: dict[str, Any]) -> LightBlock:
    signed = block["signed_header"]
    members = (block["validator_set"] or {}).get("validators") or ()
    validators = (
        parse_set({"validators": members})
        if members
        else ValidatorSet((), Validator(bytes(20), PublicKey(bytes(32)), 1))
    )
    header, commit = parse_header(signed["header"]), parse_commit(signed["commit"])
    light_block: LightBlock = decoded(LightBlock(SignedHeader(header, commit), validators))
    return light_block


def initial_state(initial: dict[str, Any]) -> TrustedState:
    signed = initial["signed_header"]
    header, commit = parse_header(signed["header"]), parse_commit(signed["commit"])
    own = parse_set(initial["next_validator_set"])
    state = TrustedState(
        chain_id=header.chain_id,
        height=header.height,
        time=header.time,
        next_validators_hash=header.next_validators_hash,
        validators=own,
    )
    assert header_hash(header) == commit.block_id.hash
    return state.with_next_validators(own)


def play(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Verdict recorded and verdict given, of each step."""
    bounds = TrustBounds(trust_period_ms=int(data["initial"]["trusting_period"]) // 1_000_000, clock_drift_ms=1_000)
    state, verdicts = initial_state(data["initial"]), []
    for step in data["input"]:
        try:
            block = parse_light_block(step["block"])
            state = verify_hop(state, block, bounds, parse_time(step["now"]).ms)
            state = state.with_next_validators(parse_set(step["block"]["next_validator_set"]))
            given = "SUCCESS"
        except NotEnoughTrustError:
            given = "NOT_ENOUGH_TRUST"
        except (NotVerifiedError, CodecError):
            given = "INVALID"
        verdicts.append((step["verdict"], given))
    return verdicts


def test_every_step_has_its_recorded_verdict() -> None:
    folder = os.environ.get("FREEHOLD_VECTORS")
    files = sorted((Path(folder) / "light-client").glob("*.json")) if folder else []
    counts: Counter[str] = Counter()
    for file in files:
        for recorded, given in play(json.loads(file.read_text())):
            either = any(name in file.name for name in EITHER) and given == "NOT_ENOUGH_TRUST"
            assert given == recorded or (either and recorded == "INVALID"), file.name
            counts[recorded] += 1
    print(f"{len(files)} files: {dict(counts)}")
    assert not files or (len(files), counts.total()) == (48, 104)
