"""The beacon of a ledger with VRF keys: outputs that came with the votes of the height before, one taken by lottery.

A validator's vote at a height carries its VRF proof over that height and the beacon of the height before. The next
block's first transaction carries proofs of more than 2/3 of the power, each checked by everyone; the lottery by power
takes one of their outputs. Spec: docs/spec/beacon.md, which says how far this can be bent.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from freehold.base.codec import Record, decode, encode
from freehold.base.errors import CodecError, check
from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import Purpose, signing_bytes, tagged_hash
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.context import load_params
from freehold.ledger.lottery import ranking
from freehold.ledger.records import BeaconRecord, Carried, Totals, ValidatorBond, VrfKeys
from freehold.ledger.state import View, read
from freehold.ledger.validator_sets import set_at

EXTENSION_VERSION: Final = b"\x01"
EXTENSION_BYTES: Final = 1 + ecvrf.PROOF_BYTES
PROOF_ROOM_BYTES: Final = 96  # what one proof takes of a block at most
_ROOM_BYTES: Final = 64


class VrfBeaconTx(Record, tag="vrf"):
    """A block's first transaction where votes carry VRF proofs.

    `proofs` are (place in the set of the height before, ordered by public key; proof of 80 bytes), ascending by place;
    none in the first block.
    """

    height: int
    proofs: list[tuple[int, bytes]]


class Voter(Record):
    """A member of a set, with its VRF key; empty when it has none."""

    validator: bytes
    power: int
    vrf_key: bytes


def has_vrf(view: View) -> bool:
    """Whether the ledger's genesis chose this form of the beacon."""
    return view.get(keys.VRF_KEYS) is not None


def first_height(view: View) -> int:
    """Give the height of this chain's first block, which follows no votes."""
    carried = read(view, keys.CARRIED, Carried)
    return 1 if carried is None else carried.height + 1


def vote_input(chain_id: str, height: int, seed: bytes, validator: bytes) -> bytes:
    """Give what a validator's VRF takes in at a height: one input, so one output, whatever the round or the block.

    Args:
        chain_id: of the ledger.
        height: of the vote.
        seed: the beacon of the height before.
        validator: its consensus key; another's proof is of no use to it.
    """
    return signing_bytes(Purpose.VRF_INPUT, chain_id, height.to_bytes(8, "big"), seed, validator)


def possession_input(validator: bytes) -> bytes:
    """Give what a VRF key proves once, so that it is known to be held by whoever runs this validator."""
    return tagged_hash(Purpose.VRF_POSSESSION, validator)


def voters(view: View, height: int) -> list[Voter]:
    """Give the validators that vote at a height in the order of their keys.

    Genesis' keys stay those of genesis; an elected validator's is in its bond. Neither can change while it votes.
    """
    known = read(view, keys.VRF_KEYS, VrfKeys)
    named = dict(known.keys) if known is not None else {}
    found = []
    for validator, power in sorted(set_at(view, height)):
        vrf_key = named.get(validator, b"")
        if not vrf_key:
            bond = read(view, keys.bond_key(validator), ValidatorBond)
            vrf_key = bond.vrf_key if bond is not None else b""
        found.append(Voter(validator, power, vrf_key))
    return found


def seed_at(view: View, height: int) -> bytes:
    """Give the beacon that votes at a height build on: that of the height before.

    Args:
        view: the state after that height or the next.
        height: of the votes.
    """
    params, _ = load_params(view)
    if height == 1:
        genesis = view.get(keys.VRF_KEYS) or b""
        return tagged_hash(Purpose.VRF_GENESIS, params.chain_id.encode(), params.genesis_ms.to_bytes(8, "big"), genesis)
    record = read(view, keys.beacon_key(height - 1), BeaconRecord)
    check(record is not None and record.height == height - 1, "beacon_of_the_height_before", height=height)
    return record.value if record is not None else b""


def make_extension(view: View, height: int, validator: bytes, key: PrivateKey) -> bytes:
    """Make what goes with a validator's vote: version 1, then its proof.

    Args:
        view: the state after the height before.
        height: of the vote.
        validator: its consensus key.
        key: its VRF key.
    """
    params, _ = load_params(view)
    return EXTENSION_VERSION + ecvrf.prove(key, vote_input(params.chain_id, height, seed_at(view, height), validator))


def check_extension(view: View, height: int, validator: bytes, extension: bytes) -> Code:
    """Judge what came with a vote; whoever withholds its output is refused its vote.

    Args:
        view: the state after the height before.
        height: of the vote.
        validator: the voter's consensus key.
        extension: from outside.
    """
    totals = read(view, keys.TOTALS, Totals)
    if totals is None or totals.height != height - 1:
        return Code.BEACON_HEIGHT
    voter = next((voter for voter in voters(view, height) if voter.validator == validator), None)
    if voter is None or not voter.vrf_key:
        return Code.UNKNOWN_VALIDATOR
    if len(extension) != EXTENSION_BYTES or extension[:1] != EXTENSION_VERSION:
        return Code.BAD_BEACON
    params, _ = load_params(view)
    alpha = vote_input(params.chain_id, height, seed_at(view, height), validator)
    return Code.BAD_BEACON if _output(voter.vrf_key, alpha, extension[1:]) is None else Code.OK


def vrf_beacon_tx(view: View, height: int, extensions: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Make a proposer's first transaction of all the valid extensions that it has.

    The engine asks nobody about a vote that comes late, so what does not hold is left out here.

    Args:
        view: the state after the height before.
        height: of the block.
        extensions: voter's consensus key and extension of each vote for the block before.
    """
    if height == first_height(view):
        return encode(VrfBeaconTx(height, []))
    params, _ = load_params(view)
    given, seed = dict(extensions), seed_at(view, height - 1)
    proofs = []
    for place, voter in enumerate(voters(view, height - 1)):
        extension = given.get(voter.validator, b"")
        alpha = vote_input(params.chain_id, height - 1, seed, voter.validator)
        if extension[:1] == EXTENSION_VERSION and _output(voter.vrf_key, alpha, extension[1:]) is not None:
            proofs.append((place, extension[1:]))
    return encode(VrfBeaconTx(height, proofs))


def read_vrf_beacon(view: View, height: int, data: bytes) -> bytes | Code:
    """Give the beacon that a block's first transaction makes, or why it makes none.

    Args:
        view: the state after the height before.
        height: of the block.
        data: the transaction.
    """
    is_first = height == first_height(view)
    members = [] if is_first else voters(view, height - 1)
    try:
        tx = decode(data, VrfBeaconTx, max_bytes=_ROOM_BYTES + PROOF_ROOM_BYTES * len(members))
    except CodecError:
        return Code.MISPLACED_BEACON
    if tx.height != height:
        return Code.BEACON_HEIGHT
    params, _ = load_params(view)
    if is_first:
        if tx.proofs:
            return Code.UNKNOWN_VALIDATOR
        seed = seed_at(view, height)
        return tagged_hash(Purpose.VRF_BEACON, params.chain_id.encode(), height.to_bytes(8, "big"), seed)
    places = [place for place, _ in tx.proofs]
    if places != sorted(set(places)):
        return Code.NOT_SORTED
    if any(not 0 <= place < len(members) or not members[place].vrf_key for place in places):
        return Code.UNKNOWN_VALIDATOR
    carried = sum(members[place].power for place in places)
    if 3 * carried <= 2 * sum(voter.power for voter in members if voter.vrf_key):
        return Code.NOT_ENOUGH_POWER
    outputs = _read_outputs(view, height - 1, [(members[place], proof) for place, proof in tx.proofs])
    return outputs if isinstance(outputs, Code) else take(params.chain_id, height, outputs)


def _read_outputs(view: View, height: int, proofs: list[tuple[Voter, bytes]]) -> list[tuple[Voter, bytes]] | Code:
    """Check every proof of the votes at a height."""
    params, _ = load_params(view)
    seed, found = seed_at(view, height), []
    for voter, proof in proofs:
        output = _output(voter.vrf_key, vote_input(params.chain_id, height, seed, voter.validator), proof)
        if output is None:
            return Code.BAD_BEACON
        found.append((voter, output))
    return found


def take(chain_id: str, height: int, outputs: list[tuple[Voter, bytes]]) -> bytes:
    """Take one of several outputs by lottery and give the beacon that it makes.

    Args:
        chain_id: of the ledger.
        height: of the block that carries them.
        outputs: each voter with its VRF output of 64 bytes; at least one.
    """
    first = ranking(
        (voter.validator, voter.power, tagged_hash(Purpose.VRF_TICKET, output)) for voter, output in outputs
    )[0]
    output = next(output for voter, output in outputs if voter.validator == first)
    return tagged_hash(Purpose.VRF_BEACON, chain_id.encode(), height.to_bytes(8, "big"), output)


@lru_cache(maxsize=4_096)
def _output(vrf_key: bytes, alpha: bytes, proof: bytes) -> bytes | None:
    """Verify once: the same proof is met when its vote comes, in the proposal, and in the decided block."""
    return ecvrf.verify(vrf_key, alpha, proof)
