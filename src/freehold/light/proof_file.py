"""The proof file `freehold-proof/1`: facts about a chain's state that anyone checks offline, with genesis alone.

It is JSON in one form: sorted keys, no white space, no unknown or repeated fields, lower-case hex, canonical base64.
Each light block is listed once, by ascending height, in normal form; each proof is listed once, by ascending
(height, key), and has its light block. Light blocks without a proof are hops: they lead from what is trusted to the
proven heights while validator sets change. So every byte is either signed, hashed into what is signed, or fixed by the
format.

What keys and values mean, and whether `witness` entries stand under a proven root, is for the layer above.

Spec: docs/spec/state-proofs.md.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NoReturn

import msgspec

from freehold.base.decoders import json_decoder
from freehold.base.errors import CodecError, InvalidInputError, NotVerifiedError
from freehold.base.limits import (
    KIB,
    MAX_CHAIN_ID_BYTES,
    MAX_EVIDENCE_LEAF_BYTES,
    MAX_PROOF_FILE_BYTES,
    MAX_PROOF_HOPS_BYTES,
)
from freehold.light.genesis import TrustedGenesis
from freehold.light.ics23 import (
    MAX_KEY_BYTES,
    SMT,
    CommitmentProof,
    decode_proof,
    verify_absence,
    verify_existence,
)
from freehold.light.proof_hops import normal_form, verify_hops
from freehold.light.skipping import TrustedState
from freehold.light.trust import GENESIS_TRUST, NO_OWNERS, Forgers, Trust, fewest_forgers, trust_bounds
from freehold.light.types import LightBlock
from freehold.light.verify import VerifiedHeader

FORMAT = "freehold-proof/1"
MAX_LIGHT_BLOCKS = 64
MAX_PROOFS = 256
MAX_WITNESS = 256
_MAX_HEIGHT = (1 << 53) - 1  # what every JSON reader holds exactly
_MAX_LIGHT_BLOCK_BYTES = 32 * KIB
_HOP_TEXT = len('"",')


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
        trust: the mode.
        trace: the trusted states, from the root of trust to the highest proven one.
        headers: the header of every proven height, with who signed it.
        values: by (height, key); None where the key is proven absent.
        witness: raw entries, not verified here.
    """

    trusted: TrustedGenesis
    trust: Trust
    trace: tuple[TrustedState, ...]
    headers: Mapping[int, VerifiedHeader]
    values: Mapping[tuple[int, bytes], bytes | None]
    witness: tuple[bytes, ...]

    def forgers(self, owners: Mapping[bytes, bytes] = NO_OWNERS) -> Forgers | None:
        """The smallest group that could have made the highest header up; None when it is itself what is trusted.

        Args:
            owners: of validators, by public key, as far as they are known.
        """
        return fewest_forgers(self.trace, trust_bounds(self.trust, self.trusted), owners)

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


_decoder = json_decoder(_File)
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
    hops: Iterable[LightBlock] = (),
) -> bytes:
    """Write a proof file in its one form; light blocks that no statement uses are left out, but for `hops`.

    Args:
        trusted: the chain's genesis.
        light_blocks: of the heights of the statements, in any order.
        statements: in any order.
        witness: raw entries, 1 to `MAX_EVIDENCE_LEAF_BYTES` bytes each; their order is kept.
        hops: light blocks that lead to those of the statements, lower than the highest of them.

    Raises:
        InvalidInputError: `oversized`, or whatever reading it back refuses.
    """
    ordered = sorted(set(statements), key=lambda item: (item.height, item.key))
    used = {item.height for item in ordered}
    blocks = {block.header.height: block for block in light_blocks if block.header.height in used}
    blocks |= {hop.header.height: hop for hop in hops if hop.header.height not in used}
    data = _encoder.encode(
        _File(
            chain_id=trusted.chain_id,
            format=FORMAT,
            light_blocks=[_to_base64(normal_form(blocks[height]).encode()) for height in sorted(blocks)],
            proofs=[
                _Entry(_to_base64(item.proof.encode()), item.height, item.key.hex(), (item.value or b"").hex())
                for item in ordered
            ],
            witness=[_to_base64(entry) for entry in witness],
        )
    )
    try:
        parse_proof_file(data)
    except CodecError as error:
        if error.code != "oversized":
            raise
        raise InvalidInputError(
            f"the proof is too large: {error.message}", code="oversized", hint="ask for fewer hours"
        ) from None
    return data


def parse_proof_file(data: bytes) -> ProofFile:
    """Read a proof file from its one form.

    Args:
        data: at most `MAX_PROOF_FILE_BYTES`, and `MAX_PROOF_HOPS_BYTES` of hops.

    Raises:
        CodecError: any other form.
    """
    _check_size(len(data), MAX_PROOF_FILE_BYTES + MAX_PROOF_HOPS_BYTES)
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
    proven = {item.height for item in statements}
    hops = [
        len(text) + _HOP_TEXT
        for text, block in zip(file.light_blocks, blocks, strict=True)
        if block.header.height not in proven
    ]
    _check_size(len(data) - sum(hops), MAX_PROOF_FILE_BYTES)
    if len(blocks) != len(hops) + len(proven) or blocks[-1].header.height not in proven:
        _refuse("a proof has no light block, or a light block stands above all proofs")
    return ProofFile(file.chain_id, blocks, statements, tuple(_parse_witness(text) for text in file.witness))


def verify_proof_file(
    data: bytes, trusted: TrustedGenesis, now_ms: int | None = None, *, trust: Trust = GENESIS_TRUST
) -> VerifiedFacts:
    """Check a proof file from genesis, or from a header that the reader trusts.

    Args:
        data: the file.
        trusted: the chain's genesis.
        now_ms: the reader's clock; None when there is none to trust, which a pinned header does not allow.
        trust: where trust begins.

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
    proven = {item.height for item in file.statements}
    trace = verify_hops(file.light_blocks, trusted, trust, now_ms)
    headers = {state.height: state.verified for state in trace if state.height in proven and state.verified is not None}
    values: dict[tuple[int, bytes], bytes | None] = {}
    for item in file.statements:
        if item.height not in headers:
            raise NotVerifiedError(
                f"the proof speaks of height {item.height}, below the trusted one",
                code="below_trusted",
                hint="trust genesis or an older HEIGHT:HASH",
            )
        root = headers[item.height].app_hash
        if item.value is None:
            verify_absence(SMT, root, item.key, item.proof)
        else:
            verify_existence(SMT, root, item.key, item.value, item.proof)
        values[item.height, item.key] = item.value
    return VerifiedFacts(trusted, trust, trace, headers, values, file.witness)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise CodecError(f"the proof has {size} bytes, at most {limit} allowed", code="oversized")


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
