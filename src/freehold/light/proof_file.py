"""The proof file `freehold-proof/1`: facts about a chain's state that anyone checks offline, with genesis alone.

It is JSON in one form: sorted keys, no white space, no unknown or repeated fields, lower-case hex, canonical base64.
Each light block is listed once, by ascending height, in normal form, and is used by a proof; each proof is listed once,
by ascending (height, key). So every byte is either signed, hashed into what is signed, or fixed by the format.

What keys and values mean, and whether `witness` entries stand under a proven root, is for the layer above.

Spec: docs/spec/state-proofs.md.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NoReturn

import msgspec

from freehold.base.errors import CodecError, InvalidInputError, NotVerifiedError
from freehold.base.limits import KIB, MAX_CHAIN_ID_BYTES, MAX_EVIDENCE_LEAF_BYTES, MAX_PROOF_FILE_BYTES
from freehold.light.genesis import TrustedGenesis
from freehold.light.headers import make_validator_set
from freehold.light.ics23 import (
    MAX_KEY_BYTES,
    SMT,
    CommitmentProof,
    decode_proof,
    verify_absence,
    verify_existence,
)
from freehold.light.types import LightBlock
from freehold.light.verify import VerifiedHeader, verify_light_block

FORMAT = "freehold-proof/1"
MAX_LIGHT_BLOCKS = 64
MAX_PROOFS = 256
MAX_WITNESS = 256
_MAX_HEIGHT = (1 << 53) - 1  # what every JSON reader holds exactly
_MAX_LIGHT_BLOCK_BYTES = 32 * KIB


class Statement(msgspec.Struct, frozen=True):
    """One claim with its proof: key has value in the state whose root the header of `height` carries.

    Attributes:
        height: of the light block; the state is that after block `height` - 1.
        key: not empty.
        value: None when the key is absent.
        proof: ICS-23's.
    """

    height: int
    key: bytes
    value: bytes | None
    proof: CommitmentProof


class VerifiedFacts(msgspec.Struct, frozen=True):
    """What a proof file shows.

    Attributes:
        trusted: the genesis it was checked against.
        headers: every light block's header by height, with who signed it.
        values: by (height, key); None where the key is proven absent.
        witness: raw entries, not verified here.
    """

    trusted: TrustedGenesis
    headers: Mapping[int, VerifiedHeader]
    values: Mapping[tuple[int, bytes], bytes | None]
    witness: tuple[bytes, ...]

    @property
    def validators(self) -> int:
        """How many validators the chain has."""
        return len(self.trusted.validators.validators)

    @property
    def fewest_signers(self) -> int:
        """The lowest number of validators that signed one of the headers."""
        return min(header.signers.count for header in self.headers.values())

    def value(self, height: int, key: bytes) -> bytes | None:
        """The proven value of a key, None when it is proven absent.

        Raises:
            NotVerifiedError: `not_in_proof`: the file says nothing about this key at this height.
        """
        if (height, key) not in self.values:
            raise NotVerifiedError(f"the proof says nothing about this key at height {height}", code="not_in_proof")
        return self.values[height, key]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    commitment_proof: str
    height: int
    key: str
    value: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields stand in the order of their names: msgspec writes them so."""

    chain_id: str
    format: str
    light_blocks: list[str]
    proofs: list[_Entry]
    witness: list[str]


_decoder = msgspec.json.Decoder(_File)
_encoder = msgspec.json.Encoder()


class ProofFile(msgspec.Struct, frozen=True):
    """A proof file that was read and not yet verified."""

    chain_id: str
    light_blocks: tuple[LightBlock, ...]
    statements: tuple[Statement, ...]
    witness: tuple[bytes, ...]


def write_proof_file(
    trusted: TrustedGenesis,
    light_blocks: Iterable[LightBlock],
    statements: Iterable[Statement],
    witness: Iterable[bytes] = (),
) -> bytes:
    """Write a proof file in its one form; light blocks that no statement uses are left out.

    Args:
        trusted: the chain's genesis.
        light_blocks: of the heights of the statements, in any order.
        statements: in any order.
        witness: raw entries, 1 to `MAX_EVIDENCE_LEAF_BYTES` bytes each; their order is kept.

    Raises:
        InvalidInputError: `oversized`, or whatever reading it back refuses.
    """
    ordered = sorted(set(statements), key=lambda item: (item.height, item.key))
    used = {item.height for item in ordered}
    blocks = {block.header.height: _normal_form(block, trusted) for block in light_blocks}
    data = _encoder.encode(
        _File(
            chain_id=trusted.chain_id,
            format=FORMAT,
            light_blocks=[_to_base64(blocks[height].encode()) for height in sorted(used & blocks.keys())],
            proofs=[
                _Entry(_to_base64(item.proof.encode()), item.height, item.key.hex(), (item.value or b"").hex())
                for item in ordered
            ],
            witness=[_to_base64(entry) for entry in witness],
        )
    )
    if len(data) > MAX_PROOF_FILE_BYTES:
        raise InvalidInputError(
            f"the proof would have {len(data)} bytes, at most {MAX_PROOF_FILE_BYTES} are allowed",
            code="oversized",
            hint="ask for fewer hours",
        )
    parse_proof_file(data)
    return data


def parse_proof_file(data: bytes) -> ProofFile:
    """Read a proof file from its one form.

    Args:
        data: at most `MAX_PROOF_FILE_BYTES`.

    Raises:
        CodecError: any other form.
    """
    if len(data) > MAX_PROOF_FILE_BYTES:
        raise CodecError(f"the proof has {len(data)} bytes, at most {MAX_PROOF_FILE_BYTES} allowed", code="oversized")
    try:
        file = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CodecError(f"not a proof file: {error}", code="undecodable") from None
    if _encoder.encode(file) != data:
        _refuse("the proof file is not in its one form: sorted keys, no white space, nothing twice")
    if file.format != FORMAT:
        raise CodecError(
            f"the format is {file.format[:40]!r}, not {FORMAT}",
            code="unknown_format",
            hint="use a newer freehold to read it",
        )
    if not 1 <= len(file.chain_id.encode()) <= MAX_CHAIN_ID_BYTES:
        _refuse(f"chain_id must have 1 to {MAX_CHAIN_ID_BYTES} bytes")
    if not 1 <= len(file.light_blocks) <= MAX_LIGHT_BLOCKS or not 1 <= len(file.proofs) <= MAX_PROOFS:
        _refuse(f"a proof file has 1 to {MAX_LIGHT_BLOCKS} light blocks and 1 to {MAX_PROOFS} proofs")
    if len(file.witness) > MAX_WITNESS:
        _refuse(f"a proof file has at most {MAX_WITNESS} witness entries")
    blocks = tuple(
        LightBlock.decode(_from_base64(text), max_bytes=_MAX_LIGHT_BLOCK_BYTES) for text in file.light_blocks
    )
    statements = tuple(_parse_entry(entry) for entry in file.proofs)
    _check_order([block.header.height for block in blocks], "light blocks")
    _check_order([(item.height, item.key) for item in statements], "proofs")
    unused = {block.header.height for block in blocks} ^ {item.height for item in statements}
    if unused:
        _refuse(f"height {min(unused)} has a light block without a proof, or a proof without a light block")
    return ProofFile(file.chain_id, blocks, statements, tuple(_parse_witness(text) for text in file.witness))


def verify_proof_file(
    data: bytes, trusted: TrustedGenesis, now_ms: int | None = None, *, allowance_ms: int = 0
) -> VerifiedFacts:
    """Check a proof file against genesis.

    Args:
        data: the file.
        trusted: where trust comes from.
        now_ms: the reader's clock; None when there is none to trust.
        allowance_ms: how far a header may be ahead of that clock.

    Raises:
        CodecError: not a proof file in its one form.
        NotVerifiedError: a light block or a proof does not verify.
    """
    file = parse_proof_file(data)
    if file.chain_id != trusted.chain_id:
        raise NotVerifiedError(
            f"the proof is of chain {file.chain_id!r}, genesis of {trusted.chain_id!r}",
            code="wrong_chain",
            hint="use the genesis file of the grid that made this proof",
        )
    headers: dict[int, VerifiedHeader] = {}
    for block in file.light_blocks:
        header = verify_light_block(block, trusted, now_ms, allowance_ms=allowance_ms)
        if _normal_form(block, trusted) != block:
            _refuse(f"the validator set of light block {header.height} is not in normal form")
        headers[header.height] = header
    values: dict[tuple[int, bytes], bytes | None] = {}
    for item in file.statements:
        root = headers[item.height].app_hash
        if item.value is None:
            verify_absence(SMT, root, item.key, item.proof)
        else:
            verify_existence(SMT, root, item.key, item.value, item.proof)
        values[item.height, item.key] = item.value
    return VerifiedFacts(trusted, headers, values, file.witness)


def _normal_form(block: LightBlock, trusted: TrustedGenesis) -> LightBlock:
    """Priorities and proposer of a set are not signed, so a file has them in one form: 0, and the header's proposer."""
    validators = make_validator_set(trusted.validators.validators, block.header.proposer_address)
    return LightBlock(block.signed_header, validators)


def _parse_entry(entry: _Entry) -> Statement:
    if not 1 <= entry.height <= _MAX_HEIGHT:
        _refuse("a proof's height is out of range")
    key, value = _from_hex(entry.key), _from_hex(entry.value)
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        _refuse(f"a proof's key must have 1 to {MAX_KEY_BYTES} bytes")
    proof = decode_proof(_from_base64(entry.commitment_proof))
    if proof.nonexist is not None and (proof.nonexist.key != key or value):
        _refuse("a proof of absence names another key, or a value")
    if proof.nonexist is None and not value:
        _refuse("a proof of a value is given for an absent key")
    return Statement(entry.height, key, value or None, proof)


def _parse_witness(text: str) -> bytes:
    raw = _from_base64(text)
    if not 1 <= len(raw) <= MAX_EVIDENCE_LEAF_BYTES:
        _refuse(f"a witness entry must have 1 to {MAX_EVIDENCE_LEAF_BYTES} bytes")
    return raw


def _check_order(items: list[Any], what: str) -> None:
    if any(after <= before for before, after in pairwise(items)):
        _refuse(f"the {what} are not in order, or one stands twice")


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = None
    if raw is None or _to_base64(raw) != text:
        _refuse(f"{text[:24]!r} is not canonical base64")
    return raw


def _from_hex(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = None
    if raw is None or raw.hex() != text:
        _refuse(f"{text[:24]!r} is not lower-case hex")
    return raw


def _refuse(message: str) -> NoReturn:
    raise CodecError(message, code="not_canonical", hint="export the proof again")
