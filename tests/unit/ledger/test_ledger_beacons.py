"""VRF keys in genesis, in bonds and at work in a state of plain records."""

from collections.abc import Callable
from typing import Any

import pytest

from freehold.base.errors import InvalidInputError
from freehold.base.presets import MINIMAL
from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey
from freehold.ledger import keys
from freehold.ledger.beacons import has_vrf, make_extension, possession_input, seed_at, vote_input, voters
from freehold.ledger.genesis import app_state_document, initial_state
from freehold.ledger.genesis_beacon import GenesisVrf, is_possessed, prove_possession

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
