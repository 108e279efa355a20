"""The genesis document: one form written, strictly read."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from light_chain import GENESIS_MS, Chain

from freehold.base.errors import InvalidInputError
from freehold.light.genesis import MAX_GENESIS_BYTES, format_time, genesis_document, parse_genesis, parse_time
from freehold.light.headers import address_of
from freehold.light.types import ZERO_TIME, Timestamp

DOCUMENT = Chain((10, 20)).document


def refused(data: bytes, code: str = "bad_genesis") -> str:
    with pytest.raises(InvalidInputError) as caught:
        parse_genesis(data)
    assert caught.value.code == code
    return caught.value.message


def edited(change: Callable[[Any], object]) -> bytes:
    document = json.loads(DOCUMENT)
    change(document)
    return json.dumps(document).encode()


def test_what_is_written_is_read_back() -> None:
    trusted = parse_genesis(DOCUMENT)
    assert trusted.chain_id == "test-chain"
    assert trusted.genesis_time_ms == GENESIS_MS
    assert [member.voting_power for member in trusted.validators.validators] == [20, 10]
    assert trusted.app_state == {"rules": 1}
    assert trusted.initial_height == 1
    assert trusted.params.hash
    assert json.dumps(json.loads(DOCUMENT), sort_keys=True, separators=(",", ":")).encode() == DOCUMENT


def test_golden_bytes() -> None:
    data = genesis_document(
        chain_id="c",
        genesis_time=Timestamp(1_767_225_600, 5_000_000),
        validators=[(bytes(32), 7, "näme")],
        app_state={"b": [1, None, "ü"], "a": {}},
        app_hash=b"\xab",
        initial_height=3,
    )
    address = address_of(bytes(32)).hex().upper()
    assert data.decode() == (
        '{"app_hash":"AB","app_state":{"a":{},"b":[1,null,"ü"]},"chain_id":"c","consensus_params":{'
        '"abci":{"vote_extensions_enable_height":"0"},"block":{"max_bytes":"1048576","max_gas":"-1"},'
        '"evidence":{"max_age_duration":"172800000000000","max_age_num_blocks":"100000","max_bytes":"65536"},'
        '"validator":{"pub_key_types":["ed25519"]},"version":{"app":"1"}},'
        '"genesis_time":"2026-01-01T00:00:00.005Z","initial_height":"3","validators":[{"address":"' + address + '",'
        '"name":"näme","power":"7","pub_key":{"type":"tendermint/PubKeyEd25519",'
        '"value":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}]}'
    )


def setter(path: str, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        *steps, last = path.split(".")
        for step in steps:
            document = document[int(step) if step.isdigit() else step]
        document[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("chain_id", ""),
        ("chain_id", "x" * 51),
        ("chain_id", 5),
        ("app_state", []),
        ("app_state", None),
        ("app_hash", "ABC"),
        ("app_hash", "A B0"),
        ("app_hash", "00" * 65),
        ("initial_height", 1),
        ("initial_height", "0"),
        ("initial_height", "01"),
        ("initial_height", "+1"),
        ("initial_height", " 1"),
        ("initial_height", "１"),
        ("initial_height", str(1 << 63)),
        ("genesis_time", "2026-01-01"),
        ("genesis_time", "2026-02-30T00:00:00Z"),
        ("genesis_time", "2026-01-01T00:00:00+01:00"),
        ("genesis_time", "2026-01-01T00:00:00Z\n"),
        ("extra", 1),
        ("validators", []),
        ("validators", {}),
        ("validators.0.power", "0"),
        ("validators.0.power", "-1"),
        ("validators.0.power", str(1 << 62)),
        ("validators.0.power", str((1 << 60) - 1)),  # the sum is too much
        ("validators.0.address", "00" * 20),
        ("validators.0.name", None),
        ("validators.0.pub_key.type", "tendermint/PubKeySecp256k1"),
        ("validators.0.pub_key.value", "AAAA"),
        ("validators.0.pub_key.value", "A" * 43),
        ("validators.0.pub_key.value", "A" * 42 + "B="),
        ("validators.0.pub_key.more", 1),
        ("consensus_params.block.max_bytes", "0"),
        ("consensus_params.block.max_bytes", "-2"),
        ("consensus_params.block.max_bytes", str(101 << 20)),
        ("consensus_params.validator.pub_key_types", ["secp256k1"]),
        ("consensus_params.version", {}),
    ],
)
def test_a_wrong_value_is_refused(path: str, value: Any) -> None:
    refused(edited(setter(path, value)))


@pytest.mark.parametrize("key", sorted(json.loads(DOCUMENT)))
def test_a_missing_key_is_named(key: str) -> None:
    assert key in refused(edited(lambda document: document.pop(key)))


def test_a_validator_stands_once() -> None:
    refused(edited(lambda document: document["validators"].append(document["validators"][0])))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        DOCUMENT[:-1],
        DOCUMENT + b"{}",
        b'{"chain_id":"test-chain",' + DOCUMENT[1:],  # a key twice
        DOCUMENT.replace(b'"rules":1', b'"rules":1.5'),
        DOCUMENT.replace(b'"rules":1', b'"rules":1e3'),
        DOCUMENT.replace(b'"rules":1', b'"rules":NaN'),
        DOCUMENT.replace(b'"rules":1', b'"rules":1,"rules":2'),
        DOCUMENT.replace(b'"rules":1', b'"rules":"\\ud800"'),
        DOCUMENT.replace(b'"rules":1', b'"rules":' + b"9" * 5000),
        DOCUMENT.replace(b"test-chain", b"\\ud800"),
    ],
)
def test_bad_json_is_refused(data: bytes) -> None:
    refused(data)


def test_too_long_a_document_is_refused() -> None:
    refused(bytes(MAX_GENESIS_BYTES + 1), "oversized")


def test_what_would_not_be_read_back_is_not_written() -> None:
    good: dict[str, Any] = {
        "chain_id": "c",
        "genesis_time": Timestamp(0),
        "validators": [(bytes(32), 1, "")],
        "app_state": {},
    }
    genesis_document(**good)
    for change in (
        {"chain_id": ""},
        {"validators": []},
        {"validators": [(bytes(31), 1, "")]},
        {"validators": [(bytes(32), 0, "")]},
        {"app_state": {"x": 1.5}},
        {"app_state": {"x": float("nan")}},
        {"app_state": {"x": b"bytes"}},
        {"app_state": {"x": "\ud800"}},
        {"initial_height": 0},
    ):
        with pytest.raises(InvalidInputError):
            genesis_document(**(good | change))


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1970-01-01T00:00:00Z", Timestamp(0)),
        ("2026-01-01T00:00:00.123456789Z", Timestamp(1_767_225_600, 123_456_789)),
        ("0001-01-01T00:00:00Z", ZERO_TIME),
        ("1969-12-31T23:59:59.5Z", Timestamp(-1, 500_000_000)),
        ("9999-12-31T23:59:59Z", Timestamp(253_402_300_799)),
    ],
)
def test_times(text: str, time: Timestamp) -> None:
    assert parse_time(text) == time
    assert format_time(time) == text
