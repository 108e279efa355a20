"""What CometBFT v0.38.25 itself encodes and hashes, byte for byte: blocks, parts, commits, evidence, results."""

import json
from pathlib import Path

from freehold.light.blocks import Block, Data, DuplicateVoteEvidence, Evidence, EvidenceList, Vote
from freehold.light.canonical import ExecTxResult
from freehold.light.genesis import parse_genesis
from freehold.light.headers import (
    block_id,
    commit_hash,
    consensus_hash,
    data_hash,
    evidence_hash,
    header_hash,
    make_validator,
    make_validator_set,
    part_set_header,
    precommit_sign_bytes,
    results_hash,
    validators_hash,
)
from freehold.light.types import (
    ABSENT_SIG,
    EMPTY_COMMIT,
    BlockID,
    BlockIDFlag,
    Commit,
    CommitSig,
    Header,
    LightBlock,
    PartSetHeader,
    SignedHeader,
    SignedMsgType,
    Timestamp,
    Version,
)

GOLDEN = json.loads((Path(__file__).parent / "light_cometbft_v0_38_25.json").read_text())
SET = make_validator_set(
    make_validator(bytes.fromhex(GOLDEN[f"key{n}"]), power) for n, power in enumerate((30, 20, 20))
)
TIME = Timestamp(1767225600, 123456789)
BLOCK_ID = BlockID(bytes([1]) * 32, PartSetHeader(3, bytes([2]) * 32))
COMMIT = Commit(
    41,
    2,
    BLOCK_ID,
    (
        CommitSig(BlockIDFlag.COMMIT, SET.validators[0].address, TIME, bytes([9]) * 64),
        ABSENT_SIG,
        CommitSig(BlockIDFlag.NIL, SET.validators[2].address, TIME, bytes([8]) * 64),
    ),
)
TXS = (b"one", b"", bytes([5]) * 70000)
VOTE = Vote(SignedMsgType.PRECOMMIT, 40, 1, BLOCK_ID, TIME, SET.validators[0].address, 0, bytes([7]) * 64)
OTHER_VOTE = Vote(
    SignedMsgType.PRECOMMIT,
    40,
    1,
    BlockID(bytes([3]) * 32, PartSetHeader(1, bytes([4]) * 32)),
    TIME,
    SET.validators[0].address,
    0,
    bytes([7]) * 64,
)
EVIDENCE = EvidenceList((Evidence(DuplicateVoteEvidence(VOTE, OTHER_VOTE, 70, 30, TIME)),))
HEADER = Header(
    Version(11, 1),
    "test-chain",
    42,
    TIME,
    BLOCK_ID,
    commit_hash(COMMIT),
    data_hash(TXS),
    validators_hash(SET.validators),
    validators_hash(SET.validators),
    consensus_hash(22020096, -1),
    bytes([6]) * 32,
    bytes([10]) * 32,
    evidence_hash(EVIDENCE),
    SET.validators[0].address,
)
BLOCK = Block(HEADER, Data(TXS), EVIDENCE, COMMIT)


def test_hashes() -> None:
    assert validators_hash(SET.validators).hex() == GOLDEN["validators_hash"]
    assert commit_hash(COMMIT).hex() == GOLDEN["commit_hash"]
    assert commit_hash(EMPTY_COMMIT).hex() == GOLDEN["empty_commit_hash"]
    assert evidence_hash(EVIDENCE).hex() == GOLDEN["evidence_hash"]
    assert evidence_hash(EvidenceList()).hex() == GOLDEN["no_evidence_hash"]
    assert data_hash(TXS).hex() == GOLDEN["data_hash"]
    assert data_hash([]).hex() == GOLDEN["no_data_hash"]
    assert header_hash(HEADER).hex() == GOLDEN["header_hash"]
    assert consensus_hash(22020096, -1).hex() == GOLDEN["consensus_hash"]
    assert consensus_hash(1 << 20, 5).hex() == GOLDEN["consensus_hash_2"]


def test_results_hash() -> None:
    results = [ExecTxResult(), ExecTxResult(7, b"data", 3, 2), ExecTxResult(gas_used=-1)]
    assert results_hash(results).hex() == GOLDEN["results_hash"]
    assert results_hash([]).hex() == GOLDEN["no_results_hash"]


def test_encodings() -> None:
    assert COMMIT.encode().hex() == GOLDEN["commit"]
    assert EMPTY_COMMIT.encode().hex() == GOLDEN["empty_commit"]
    assert HEADER.encode().hex() == GOLDEN["header"]
    for message in (COMMIT, EMPTY_COMMIT, HEADER, BLOCK):
        assert type(message).decode(message.encode()) == message


def test_sign_bytes() -> None:
    assert precommit_sign_bytes("test-chain", 41, 2, BLOCK_ID, TIME).hex() == GOLDEN["sign_bytes_0"]
    assert precommit_sign_bytes("test-chain", 41, 2, None, TIME).hex() == GOLDEN["sign_bytes_2"]


def test_parts_of_a_block() -> None:
    assert part_set_header(BLOCK.encode()) == PartSetHeader(
        GOLDEN["part_set_total"], bytes.fromhex(GOLDEN["part_set_hash"])
    )
    assert block_id(BLOCK) == BlockID(header_hash(HEADER), part_set_header(BLOCK.encode()))


def test_the_first_block_of_a_chain() -> None:
    raw = bytes.fromhex(GOLDEN["first_block"])
    block = Block.decode(raw)
    assert block.encode() == raw
    assert block.last_commit == EMPTY_COMMIT
    assert block.header.last_commit_hash == commit_hash(EMPTY_COMMIT)


def test_a_light_block_with_priorities() -> None:
    raw = bytes.fromhex(GOLDEN["light_block"])
    block = LightBlock.decode(raw)
    assert block.encode() == raw
    assert block.signed_header == SignedHeader(HEADER, COMMIT)
    assert [member.proposer_priority for member in block.validator_set.validators] == [-40, 20, 20]
    assert validators_hash(block.validator_set.validators) == validators_hash(SET.validators)


def test_a_genesis_document_of_cometbft() -> None:
    """As `GenesisDoc.SaveAs` writes it, indented and in its own order of keys."""
    document = {
        "genesis_time": "2026-01-01T00:00:00.123456789Z",
        "chain_id": "test-chain",
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": "22020096", "max_gas": "-1"},
            "evidence": {
                "max_age_num_blocks": "100000",
                "max_age_duration": "172800000000000",
                "max_bytes": "1048576",
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": "0"},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [
            {
                "address": "E3DE5B0E722E746438764491C6BED192894B2FE1",
                "pub_key": {
                    "type": "tendermint/PubKeyEd25519",
                    "value": "BNO+JWxYyqg/hwCNNTf+OSi4FPLvb+CdCgDNCQp0z6E=",
                },
                "power": "10",
                "name": "n",
            }
        ],
        "app_hash": "",
        "app_state": {"a": 1},
    }
    trusted = parse_genesis(json.dumps(document, indent=2).encode())
    assert trusted.genesis_time == TIME
    assert trusted.params.hash.hex() == GOLDEN["consensus_hash"]
    assert trusted.validators.validators[0].pub_key.ed25519.hex() == GOLDEN["key0"]
    assert trusted.app_state == {"a": 1}
