"""VRF keys in genesis, in bonds and at work in a state of plain records."""

from collections.abc import Callable
from typing import Any

import pytest
from ledger_grid import Grid, Key

from freehold.base.amounts import TOKEN
from freehold.base.codec import decode, encode
from freehold.base.errors import InvalidInputError
from freehold.base.presets import MINIMAL, MINIMAL_ELECTIONS
from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey, verify
from freehold.ledger import keys
from freehold.ledger.beacons import (
    VrfBeaconTx,
    check_extension,
    has_vrf,
    make_extension,
    possession_input,
    seed_at,
    vote_input,
    voters,
    vrf_beacon_tx,
)
from freehold.ledger.bonds import new_bond
from freehold.ledger.codes import Code
from freehold.ledger.execute import BlockInput, check_proposal, execute_block
from freehold.ledger.fee_shares import NO_FEES
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.genesis_beacon import GenesisVrf, is_possessed, prove_possession
from freehold.ledger.records import BeaconRecord, ValidatorSets
from freehold.ledger.state import decode_record
from freehold.ledger.validator_sets import set_at

GENESIS_MS = 1_700_000_000_000
VALIDATORS = [PrivateKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3)]
VRF = [PrivateKey.from_seed(bytes([number]) * 32) for number in (11, 12, 13)]


def document() -> dict[str, Any]:
    members = [prove_possession(vrf, key.public) for vrf, key in zip(VRF, VALIDATORS, strict=True)]
    return app_state_document(MINIMAL, [], [], vrf=members)


def begin(app_state: dict[str, Any], chain_id: str = "c") -> dict[bytes, bytes]:
    return initial_state(app_state, chain_id, GENESIS_MS, [(key.public, 10) for key in VALIDATORS])


def test_genesis_chooses_the_form() -> None:
    assert has_vrf(begin(document()))
    assert not has_vrf(begin(app_state_document(MINIMAL, [], [])))


def test_voters_stand_in_the_order_of_their_keys() -> None:
    found = voters(begin(document()), 1)
    assert [voter.validator for voter in found] == sorted(key.public for key in VALIDATORS)
    by_key = {voter.validator: voter for voter in found}
    for vrf, key in zip(VRF, VALIDATORS, strict=True):
        assert by_key[key.public].vrf_key == vrf.public
        assert by_key[key.public].power == 10


def test_the_first_seed_depends_on_chain_time_and_keys() -> None:
    state = begin(document())
    others = [
        begin(document(), "d"),
        initial_state(document(), "c", GENESIS_MS + 1, [(k.public, 10) for k in VALIDATORS]),
    ]
    assert len({seed_at(view, 1) for view in (state, *others)}) == 3
    extension = make_extension(state, 1, VALIDATORS[0].public, VRF[0])
    alpha = vote_input("c", 1, seed_at(state, 1), VALIDATORS[0].public)
    assert ecvrf.verify(VRF[0].public, alpha, extension[1:]) is not None
    assert len(extension) == 81 and extension[:1] == b"\x01"


def test_possession_is_of_one_key_for_one_validator() -> None:
    entry = prove_possession(VRF[0], VALIDATORS[0].public)
    assert is_possessed(entry)
    assert not is_possessed(GenesisVrf(VALIDATORS[1].public, entry.vrf_key, entry.possession))
    assert not is_possessed(GenesisVrf(entry.validator, VRF[1].public, entry.possession))
    assert not is_possessed(GenesisVrf(entry.validator, bytes(32), entry.possession))
    own = VALIDATORS[0]
    assert not is_possessed(GenesisVrf(own.public, own.public, ecvrf.prove(own, possession_input(own.public))))


def changed(change: Callable[[list[dict[str, str]]], object]) -> dict[str, Any]:
    made = document()
    change(made["vrf"])
    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda vrf: vrf.pop(),
        lambda vrf: vrf.append(vrf[0]),
        lambda vrf: vrf.__setitem__(0, vrf[1]),
        lambda vrf: vrf[0].update(possession=vrf[1]["possession"]),
        lambda vrf: vrf[0].update(vrf_key=vrf[1]["vrf_key"], possession=vrf[1]["possession"]),
        lambda vrf: vrf[0].update(possession="zz"),
        lambda vrf: vrf[0].update(possession=""),
        lambda vrf: vrf[0].update(vrf_key="00" * 32),
        lambda vrf: vrf[0].update(other="1"),
        lambda vrf: vrf.clear(),
    ],
)
def test_what_genesis_refuses(change: Callable[[list[dict[str, str]]], object]) -> None:
    with pytest.raises(InvalidInputError) as error:
        begin(changed(change))
    assert error.value.code == "bad_genesis"


def test_one_vrf_key_for_two_validators_is_refused() -> None:
    members = [prove_possession(VRF[0], key.public) for key in VALIDATORS]
    with pytest.raises(InvalidInputError, match="same VRF key"):
        begin(app_state_document(MINIMAL, [], [], vrf=members))


def test_the_order_of_the_document_is_not_the_ledgers() -> None:
    made = document()
    made["vrf"].reverse()
    assert begin(made)[keys.VRF_KEYS] == begin(document())[keys.VRF_KEYS]


class Ledger:
    """Blocks over plain records, each with the proofs of those who voted for the one before."""

    def __init__(self) -> None:
        self.state = begin(document())
        self.height = 0
        self.votes: dict[bytes, bytes] = {}
        self.keys = {key.public: vrf for key, vrf in zip(VALIDATORS, VRF, strict=True)}

    def block(self, first: bytes, proposer: bytes | None = None) -> BlockInput:
        height = self.height + 1
        author = proposer or set_at(self.state, height)[0][0]
        return BlockInput(height, GENESIS_MS + height * 1_000, author, [first])

    def first(self, *left_out: bytes) -> bytes:
        votes = [(voter, extension) for voter, extension in self.votes.items() if voter not in left_out]
        return vrf_beacon_tx(self.state, self.height + 1, votes)

    def step(self) -> None:
        block = self.block(self.first())
        extensions = {
            voter.validator: make_extension(self.state, block.height, voter.validator, self.keys[voter.validator])
            for voter in voters(self.state, block.height)
            if voter.vrf_key
        }
        for voter, extension in extensions.items():
            assert check_extension(self.state, block.height, voter, extension) == Code.OK
        result = execute_block(self.state, block, verify)
        for key, value in result.changes.items():
            assert value is not None
            self.state[key] = value
        self.height, self.votes = block.height, extensions


def change_set(ledger: Ledger, height: int, vrf_key: bytes, power: int = 10) -> bytes:
    """From a height on a newcomer votes in place of the last of genesis' validators."""
    newcomer = PrivateKey.from_seed(bytes([4]) * 32)
    before = [(key.public, 10) for key in VALIDATORS]
    after = sorted([*before[:2], (newcomer.public, power)])
    bond = new_bond(bytes(32), TOKEN, 0, vrf_key=vrf_key, fee_mark=NO_FEES, height=0)
    ledger.state[keys.VALIDATOR_SETS] = encode(ValidatorSets(1, [(0, sorted(before)), (height, after)]))
    ledger.state[keys.bond_key(newcomer.public)] = encode(bond)
    return newcomer.public


def test_a_change_of_the_set_takes_effect_in_votes_first_and_in_proofs_a_block_later() -> None:
    ledger, vrf = Ledger(), PrivateKey.from_seed(bytes([14]) * 32)
    newcomer, gone = change_set(ledger, 3, vrf.public), VALIDATORS[2].public
    ledger.keys[newcomer] = vrf
    ledger.step()
    ledger.step()
    assert set(ledger.votes) == {key.public for key in VALIDATORS}
    assert check_extension(ledger.state, 3, gone, bytes(81)) == Code.UNKNOWN_VALIDATOR
    late = make_extension(ledger.state, 3, newcomer, vrf)
    assert check_extension(ledger.state, 3, newcomer, late) == Code.OK
    ledger.step()  # block 3 carries the old set's proofs, the new set votes for it
    assert set(ledger.votes) == {VALIDATORS[0].public, VALIDATORS[1].public, newcomer}
    order = sorted(ledger.votes)
    places = [place for place, _ in decode(ledger.first(), VrfBeaconTx, max_bytes=4_096).proofs]
    assert places == [0, 1, 2]
    assert check_proposal(ledger.state, ledger.block(ledger.first(order[0])), verify) == Code.NOT_ENOUGH_POWER
    assert check_proposal(ledger.state, ledger.block(ledger.first(), gone), verify) == Code.BAD_BEACON
    for _ in range(3):
        ledger.step()


def test_a_member_without_a_vrf_key_cannot_vote_and_is_not_counted() -> None:
    ledger = Ledger()
    newcomer = change_set(ledger, 2, b"", power=1_000)
    ledger.step()
    assert check_extension(ledger.state, 2, newcomer, bytes(81)) == Code.UNKNOWN_VALIDATOR
    ledger.step()
    assert newcomer not in ledger.votes
    place = [voter.validator for voter in voters(ledger.state, 2)].index(newcomer)
    proofs = decode(ledger.first(), VrfBeaconTx, max_bytes=4_096).proofs
    assert len(proofs) == 2
    assert check_proposal(ledger.state, ledger.block(ledger.first()), verify) == Code.OK
    spoilt = encode(VrfBeaconTx(3, sorted([*proofs, (place, proofs[0][1])])))
    assert check_proposal(ledger.state, ledger.block(spoilt), verify) == Code.UNKNOWN_VALIDATOR


def test_the_seed_is_the_beacon_of_the_height_before() -> None:
    ledger = Ledger()
    for height in range(1, 67):  # beyond the ring of 64
        assert seed_at(ledger.state, height) != seed_at(begin(document(), "other"), 1)
        if height > 1:
            record = decode_record(ledger.state[keys.beacon_key(height - 1)], BeaconRecord)
            assert (record.height, record.value) == (height - 1, seed_at(ledger.state, height))
        ledger.step()


def test_a_bond_on_such_a_ledger_needs_a_proper_vrf_key() -> None:
    grid = Grid(elections=MINIMAL_ELECTIONS, validators=4)
    owner, validator = grid.tenants[0], Key("v")
    assert grid.run(owner, grid.bond_body(owner, Key("free"), 100 * TOKEN)) == Code.OK  # nobody asks without the record
    grid.state[keys.VRF_KEYS] = begin(document())[keys.VRF_KEYS]
    for wrong in (b"", bytes(32), b"\x01" + bytes(31)):
        body = grid.bond_body(owner, validator, 100 * TOKEN, vrf_key=wrong)
        assert grid.check(grid.tx(owner, body)) == Code.BAD_FIELD
    good = grid.bond_body(owner, validator, 100 * TOKEN, vrf_key=VRF[0].public)
    assert grid.check(grid.tx(owner, good)) == Code.OK
