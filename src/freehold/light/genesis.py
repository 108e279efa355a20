"""CometBFT's genesis document: read strictly, written in one form.

The document is JSON that people may edit, so white space and the order of keys are free when reading; keys that are
unknown, missing or repeated, fractions, and numbers outside CometBFT's text form are refused. What we write has sorted
keys and no white space. `app_state` is an object whose meaning belongs to the ledger.

Spec: docs/spec/light-client.md. Source: CometBFT types/genesis.go, types/params.go.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import msgspec

from freehold.base.errors import InvalidInputError
from freehold.base.limits import ID_BYTES, MAX_BLOCK_BYTES, MAX_CHAIN_ID_BYTES, MIB
from freehold.crypto.hashing import sha256
from freehold.light.headers import consensus_hash, make_validator, make_validator_set, validators_hash
from freehold.light.types import MAX_VALIDATORS, Timestamp, ValidatorSet

MAX_GENESIS_BYTES = 4 * MIB
MAX_POWER = ((1 << 63) - 1) // 8
ED25519_TYPE = "tendermint/PubKeyEd25519"

_INT = re.compile(r"(?:0|-?[1-9][0-9]{0,18})\Z", re.ASCII)
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?Z\Z", re.ASCII)
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 1 << 63


class ConsensusParams(msgspec.Struct, frozen=True, kw_only=True):
    """CometBFT's consensus parameters; durations in nanoseconds, as it writes them."""

    max_block_bytes: int = MAX_BLOCK_BYTES
    max_block_gas: int = -1
    evidence_max_age_blocks: int = 100_000
    evidence_max_age_ns: int = 172_800_000_000_000
    evidence_max_bytes: int = 64 * 1024
    app_version: int = 1
    vote_extensions_enable_height: int = 0

    @property
    def hash(self) -> bytes:
        """What a header's `consensus_hash` must be."""
        return consensus_hash(self.max_block_bytes, self.max_block_gas)


class TrustedGenesis(msgspec.Struct, frozen=True, kw_only=True):
    """A genesis document that was read and found valid: the root of trust.

    Attributes:
        chain_id: 1 to 50 bytes.
        validators: the fixed set, in normal form.
        validators_hash: its hash.
        genesis_time: as written.
        initial_height: at least 1.
        params: the consensus parameters.
        app_hash: the root of the state before the first block, or empty.
        app_state: the ledger's own, not looked into here.
        digest: SHA-256 of the document's bytes, which names it.
    """

    chain_id: str
    validators: ValidatorSet
    validators_hash: bytes
    genesis_time: Timestamp
    initial_height: int
    params: ConsensusParams
    app_hash: bytes
    app_state: dict[str, Any]
    digest: bytes

    @property
    def genesis_time_ms(self) -> int:
        """When epoch 0 began, milliseconds since the Unix epoch: the genesis time, or that of a carried ledger."""
        carried = self.app_state.get("carried")
        began = carried.get("genesis_ms") if isinstance(carried, dict) else None
        return began if type(began) is int else self.genesis_time.ms


def parse_genesis(data: bytes, *, max_bytes: int = MAX_GENESIS_BYTES) -> TrustedGenesis:
    """Read a genesis document.

    Args:
        data: JSON.
        max_bytes: refuse longer input before looking at it.

    Raises:
        InvalidInputError: `bad_genesis`, with what is wrong where.
    """
    document = _object(
        _parse_json(data, max_bytes),
        "genesis",
        "app_hash app_state chain_id consensus_params genesis_time initial_height validators",
    )
    chain_id = _text(document["chain_id"], "chain_id")
    if not 1 <= len(chain_id.encode()) <= MAX_CHAIN_ID_BYTES:
        _refuse(f"chain_id must have 1 to {MAX_CHAIN_ID_BYTES} bytes")
    app_state = document["app_state"]
    if not isinstance(app_state, dict):
        _refuse("app_state must be an object")
    validators = _parse_validators(document["validators"])
    return TrustedGenesis(
        chain_id=chain_id,
        validators=validators,
        validators_hash=validators_hash(validators.validators),
        genesis_time=parse_time(_text(document["genesis_time"], "genesis_time")),
        initial_height=_int(document["initial_height"], "initial_height", 1, _INT64 - 1),
        params=_parse_params(document["consensus_params"]),
        app_hash=_hex(document["app_hash"], "app_hash"),
        app_state=app_state,
        digest=sha256(data),
    )


def genesis_document(
    *,
    chain_id: str,
    genesis_time: Timestamp,
    validators: Iterable[tuple[bytes, int, str]],
    app_state: dict[str, Any],
    app_hash: bytes = b"",
    initial_height: int = 1,
    params: ConsensusParams | None = None,
) -> bytes:
    """Write a genesis document, in the one form: sorted keys, no white space, UTF-8.

    Args:
        chain_id: 1 to 50 bytes.
        genesis_time: of the chain's beginning.
        validators: public key (32 bytes), power (above 0) and name of each.
        app_state: JSON values only, no fractions.
        app_hash: the root of the state before the first block, or empty.
        initial_height: at least 1.
        params: the consensus parameters; None for the defaults.

    Raises:
        InvalidInputError: `bad_genesis`: what was given would not be read back.
    """
    params = params or ConsensusParams()
    document = {
        "app_hash": app_hash.hex().upper(),
        "app_state": app_state,
        "chain_id": chain_id,
        "consensus_params": {
            "abci": {"vote_extensions_enable_height": str(params.vote_extensions_enable_height)},
            "block": {"max_bytes": str(params.max_block_bytes), "max_gas": str(params.max_block_gas)},
            "evidence": {
                "max_age_duration": str(params.evidence_max_age_ns),
                "max_age_num_blocks": str(params.evidence_max_age_blocks),
                "max_bytes": str(params.evidence_max_bytes),
            },
            "validator": {"pub_key_types": ["ed25519"]},
            "version": {"app": str(params.app_version)},
        },
        "genesis_time": format_time(genesis_time),
        "initial_height": str(initial_height),
        "validators": [
            {
                "address": make_validator(key, power).address.hex().upper(),
                "name": name,
                "power": str(power),
                "pub_key": {"type": ED25519_TYPE, "value": base64.b64encode(key).decode()},
            }
            for key, power, name in validators
        ],
    }
    try:
        text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
        data = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"genesis cannot be written: {error}", code="bad_genesis") from None
    parse_genesis(data)
    return data


def parse_time(text: str) -> Timestamp:
    """Read a time as CometBFT writes it: RFC 3339 in UTC with up to nine decimals.

    Raises:
        InvalidInputError: `bad_genesis`.
    """
    match = _TIME.match(text)
    try:
        moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC) if match else None
    except ValueError:
        moment = None
    if match is None or moment is None:
        _refuse(f"{text[:40]!r} is not a time such as 2026-01-02T03:04:05.678Z")
    nanos = int((match[2] or "").ljust(9, "0"))
    return Timestamp((moment - _UNIX) // timedelta(seconds=1), nanos)


def format_time(time: Timestamp) -> str:
    """Write a time as CometBFT does: RFC 3339 in UTC without trailing zeros."""
    text = (_UNIX + timedelta(seconds=time.seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    year, rest = text.split("-", 1)
    decimals = f"{time.nanos:09d}".rstrip("0")
    return f"{year:0>4}-{rest}{'.' + decimals if decimals else ''}Z"


def _parse_validators(value: Any) -> ValidatorSet:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALIDATORS:
        _refuse(f"validators must be a list of 1 to {MAX_VALIDATORS}")
    members = []
    for index, item in enumerate(value):
        where = f"validators[{index}]"
        entry = _object(item, where, "address name power pub_key")
        pub_key = _object(entry["pub_key"], f"{where}.pub_key", "type value")
        if pub_key["type"] != ED25519_TYPE:
            _refuse(f"{where}.pub_key.type must be {ED25519_TYPE}")
        key = _base64(pub_key["value"], f"{where}.pub_key.value")
        if len(key) != ID_BYTES:
            _refuse(f"{where}.pub_key.value must be the base64 of {ID_BYTES} bytes")
        _text(entry["name"], f"{where}.name")
        member = make_validator(key, _int(entry["power"], f"{where}.power", 1, MAX_POWER))
        if _hex(entry["address"], f"{where}.address") != member.address:
            _refuse(f"{where}.address does not belong to its pub_key")
        members.append(member)
    if len({member.address for member in members}) != len(members):
        _refuse("a validator stands twice in validators")
    if sum(member.voting_power for member in members) > MAX_POWER:
        _refuse("the validators' powers add up to more than CometBFT allows")
    return make_validator_set(members)


def _parse_params(value: Any) -> ConsensusParams:
    params = _object(value, "consensus_params", "abci block evidence validator version")
    abci = _object(params["abci"], "consensus_params.abci", "vote_extensions_enable_height")
    block = _object(params["block"], "consensus_params.block", "max_bytes max_gas")
    evidence = _object(params["evidence"], "consensus_params.evidence", "max_age_duration max_age_num_blocks max_bytes")
    validator = _object(params["validator"], "consensus_params.validator", "pub_key_types")
    if validator["pub_key_types"] != ["ed25519"]:
        _refuse('consensus_params.validator.pub_key_types must be ["ed25519"]')
    version = _object(params["version"], "consensus_params.version", "app")
    high = _INT64 - 1
    max_bytes = _int(block["max_bytes"], "consensus_params.block.max_bytes", -1, 100 * MIB)
    if max_bytes == 0:
        _refuse("consensus_params.block.max_bytes must not be 0")
    return ConsensusParams(
        max_block_bytes=max_bytes,
        max_block_gas=_int(block["max_gas"], "consensus_params.block.max_gas", -1, high),
        evidence_max_age_blocks=_int(evidence["max_age_num_blocks"], "max_age_num_blocks", 1, high),
        evidence_max_age_ns=_int(evidence["max_age_duration"], "max_age_duration", 1, high),
        evidence_max_bytes=_int(evidence["max_bytes"], "consensus_params.evidence.max_bytes", 0, 100 * MIB),
        app_version=_int(version["app"], "consensus_params.version.app", 0, high),
        vote_extensions_enable_height=_int(
            abci["vote_extensions_enable_height"], "vote_extensions_enable_height", 0, high
        ),
    )


def _parse_json(data: bytes, max_bytes: int) -> Any:
    if len(data) > max_bytes:
        raise InvalidInputError(f"genesis has {len(data)} bytes, at most {max_bytes} allowed", code="oversized")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_float=_no_fraction, parse_constant=_no_fraction
        )
        json.dumps(value, ensure_ascii=False).encode()  # refuses lone surrogates, which have no bytes
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"genesis is not valid JSON: {str(error)[:120]}", code="bad_genesis", hint="fetch the genesis file again"
        ) from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


def _no_fraction(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not a whole number")


def _refuse(message: str) -> NoReturn:
    raise InvalidInputError(message, code="bad_genesis", hint="fetch the genesis file again from its source")


def _object(value: Any, where: str, keys: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(f"{where} must be an object")
    wanted = set(keys.split())
    for key in sorted(wanted ^ value.keys()):
        _refuse(f"{where}.{key[:40]} is {'missing' if key in wanted else 'unknown'}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        _refuse(f"{where} must be a text")
    return value


def _int(value: Any, where: str, low: int, high: int) -> int:
    text = _text(value, where)
    if _INT.match(text) is None or not low <= int(text) <= high:
        _refuse(f"{where} must be a whole number from {low} to {high}, written as a text")
    return int(text)


def _hex(value: Any, where: str) -> bytes:
    text = _text(value, where)
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = None
    if raw is None or raw.hex() != text.lower() or len(raw) > 64:
        _refuse(f"{where} must be hex of at most 64 bytes")
    return raw


def _base64(value: Any, where: str) -> bytes:
    text = _text(value, where)
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = None
    if raw is None or base64.b64encode(raw).decode() != text:
        _refuse(f"{where} must be base64")
    return raw
