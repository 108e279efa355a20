"""Whatever a proposer puts first makes the one beacon that the rule says, or is refused by the code that it earns."""

import functools
from fractions import Fraction
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from freehold.base.codec import encode
from freehold.base.presets import MINIMAL
from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey
from freehold.crypto.hashing import Purpose, sha256, tagged_hash
from freehold.ledger import keys
from freehold.ledger.beacons import VrfBeaconTx, make_extension, read_vrf_beacon, voters
from freehold.ledger.codes import Code
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.genesis_beacon import prove_possession
from freehold.ledger.lottery import cost
from freehold.ledger.records import Totals
from freehold.ledger.state import decode_record

POWERS = [50, 30, 20, 15, 10]
VALIDATORS = [PrivateKey.from_seed(sha256(b"p%d" % number)) for number in range(5)]
VRF = [PrivateKey.from_seed(sha256(b"q%d" % number)) for number in range(5)]


@functools.cache
def ledger() -> tuple[dict[bytes, bytes], list[tuple[bytes, int]], list[bytes]]:
    """The state after block 1, the voters in order, and each one's proof for height 1."""
    members = [prove_possession(vrf, key.public) for vrf, key in zip(VRF, VALIDATORS, strict=True)]
    powers = [(key.public, power) for key, power in zip(VALIDATORS, POWERS, strict=True)]
    state = initial_state(app_state_document(MINIMAL, [], [], vrf=members), "p", 1_700_000_000_000, powers)
    order = [(voter.validator, voter.power) for voter in voters(state, 1)]
    vrf_of = {key.public: vrf for vrf, key in zip(VRF, VALIDATORS, strict=True)}
    proofs = [make_extension(state, 1, validator, vrf_of[validator])[1:] for validator, _ in order]
    assert decode_record(state[keys.TOTALS], Totals).height == 0  # votes at 1 need no more than genesis
    return state, order, proofs


def expected(entries: list[tuple[int, int]]) -> Code | bytes:
    """By the page: of (place, whose proof) pairs."""
    _, order, proofs = ledger()
    places = [place for place, _ in entries]
    if any(left >= right for left, right in pairwise(places)):
        return Code.NOT_SORTED
    if any(place not in range(len(order)) for place in places):
        return Code.UNKNOWN_VALIDATOR
    if Fraction(sum(order[place][1] for place in places), sum(POWERS)) <= Fraction(2, 3):
        return Code.NOT_ENOUGH_POWER
    if any(place != whose for place, whose in entries):
        return Code.BAD_BEACON
    outputs = {place: ecvrf.proof_to_hash(proofs[place]) for place in places}
    taken = min(
        places,
        key=lambda place: (
            Fraction(cost(tagged_hash(Purpose.VRF_TICKET, outputs[place])), order[place][1]),
            order[place][0],
        ),
    )
    return tagged_hash(Purpose.VRF_BEACON, b"p", (2).to_bytes(8, "big"), outputs[taken])


def read(entries: list[tuple[int, int]], height: int = 2) -> Code | bytes:
    state, _, proofs = ledger()
    tx = VrfBeaconTx(height, [(place, proofs[whose]) for place, whose in entries])
    return read_vrf_beacon(state, 2, encode(tx))


@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(0, 4)), max_size=6))
def test_anything(entries: list[tuple[int, int]]) -> None:
    assert read(entries) == expected(entries)


@given(st.sets(st.integers(0, 4)))
@example({0, 1, 2, 3, 4})
def test_any_subset_in_order(places: set[int]) -> None:
    entries = [(place, place) for place in sorted(places)]
    assert read(entries) == expected(entries)


@given(st.permutations(range(5)))
def test_no_other_order_is_taken(order: list[int]) -> None:
    entries = [(place, place) for place in order]
    assert isinstance(read(entries), bytes) is (order == sorted(order))


@given(st.integers(0, 4), st.integers(0, 8 * ecvrf.PROOF_BYTES - 1))
def test_no_flipped_bit_of_a_proof_is_taken(place: int, bit: int) -> None:
    state, _, proofs = ledger()
    changed = bytearray(proofs[place])
    changed[bit // 8] ^= 1 << bit % 8
    sent = [(at, bytes(changed) if at == place else proof) for at, proof in enumerate(proofs)]
    assert read_vrf_beacon(state, 2, encode(VrfBeaconTx(2, sent))) == Code.BAD_BEACON


@given(st.binary(max_size=600))
def test_noise_makes_no_beacon(data: bytes) -> None:
    assert isinstance(read_vrf_beacon(ledger()[0], 2, data), Code)


@given(st.integers(-(1 << 62), 1 << 62).filter(lambda height: height != 2))
def test_another_height_makes_no_beacon(height: int) -> None:
    assert read([(place, place) for place in range(5)], height) in (Code.BEACON_HEIGHT, Code.MISPLACED_BEACON)
