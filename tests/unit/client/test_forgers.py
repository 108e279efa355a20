"""Who signs and who could forge: by the power and the owners of the set that signed the header in question."""

import sys
from pathlib import Path

import pytest
from proof_grid import ProofGrid

sys.path.insert(0, str(Path(__file__).parents[1] / "light"))

from light_history import History, key, make_set

from freehold.base.codec import encode
from freehold.client.forgers import beacon_line, forger_document, forger_lines, group_text, rewriter_warning
from freehold.client.verifying import Verdict
from freehold.crypto.strkey import encode_account
from freehold.ledger import keys
from freehold.ledger.elections import CANDIDATES_VERSION
from freehold.ledger.records import Candidates
from freehold.light.genesis import genesis_document, parse_genesis
from freehold.light.skipping import TrustBounds, TrustedState
from freehold.light.trust import fewest_forgers, fewest_signers
from freehold.light.types import Timestamp
from freehold.light.verify import Signers, VerifiedHeader

ALICE, BOB = b"a" * 32, b"b" * 32
GENESIS = TrustBounds(trust_period_ms=1, clock_drift_ms=0, trust_numerator=2)
PINNED = TrustBounds(trust_period_ms=1, clock_drift_ms=0)


def public(*numbers: int) -> tuple[bytes, ...]:
    return tuple(key(number).public for number in numbers)


def owned(**owners: tuple[int, ...]) -> dict[bytes, bytes]:
    names = {"alice": ALICE, "bob": BOB}
    return {key(number).public: names[name] for name, numbers in owners.items() for number in numbers}


@pytest.mark.parametrize(
    ("powers", "owners", "count", "power"),
    [
        ((1, 1, 1, 1), {}, 3, 3),
        ((1, 1, 1), {}, 3, 3),  # exactly two thirds are too little
        ((7, 1, 1, 1), {}, 1, 7),  # one of four, where a count of heads says three
        ((2, 1), {}, 2, 3),
        ((5, 3, 1, 1), {}, 2, 8),
        ((1, 1, 1, 1), owned(alice=(0, 1, 2)), 1, 3),
        ((3, 1, 1, 1, 1), owned(alice=(1, 2), bob=(3, 4)), 2, 5),
        ((1, 1, 1, 1, 1, 1), owned(alice=(0, 1), bob=(2, 3)), 3, 5),
    ],
)
def test_the_fewest_are_counted_by_power_and_by_owner(
    powers: tuple[int, ...], owners: dict[bytes, bytes], count: int, power: int
) -> None:
    found = fewest_signers(make_set(dict(enumerate(powers))), 9, owners)
    assert (found.count, found.power, found.total_power, found.height) == (count, power, sum(powers), 9)
    assert found.validators == len(powers)
    assert found.parties == len({owners.get(public_key, public_key) for public_key in public(*range(len(powers)))})
    assert len(set(found.members)) == len(found.members) and set(found.members) <= set(public(*range(len(powers))))


def trace_of(*heights: int, sets: list[dict[int, int]]) -> list[TrustedState]:
    history = History(sets)
    blocks = [history.block(height) for height in heights]
    return [TrustedState.of(block, VerifiedHeader(block.header, b"", Signers(0, 0, 0, 0))) for block in blocks]


def test_any_set_on_the_way_can_vouch_for_a_later_one_but_not_for_the_next_height() -> None:
    sets = [{0: 9, 1: 1, 2: 1}, {0: 1, 1: 1, 2: 1}, {0: 1, 1: 1, 2: 1}]
    far, near = trace_of(1, 3, sets=sets), trace_of(1, 2, sets=sets)
    for bounds in (GENESIS, PINNED):
        found = fewest_forgers(far, bounds)
        assert found is not None and (found.count, found.height, found.members) == (1, 1, public(0))
        found = fewest_forgers(near, bounds)
        assert found is not None and (found.count, found.height) == (3, 2)
    assert fewest_forgers(far[:1], PINNED) is None
    even = trace_of(1, 3, sets=[{0: 1, 1: 1, 2: 1}])
    found = fewest_forgers(even, PINNED)  # more than a third vouches, exactly a third does not
    assert found is not None and (found.count, found.power) == (2, 2)


def test_words_name_the_group_and_its_share() -> None:
    four = make_set({0: 7, 1: 1, 2: 1, 3: 1})
    alone = fewest_signers(four, 12)
    lines = forger_lines(4, alone, {})
    assert lines[0] == "validators: 4; 1 of them alone could have forged it"
    assert lines[1] == f"that group: validator {public(0)[0].hex()[:8]}; 70 % of the power of height 12"
    assert "one of them may run several more" in lines[2]
    owners = owned(alice=(0, 1, 2, 3))
    lines = forger_lines(4, fewest_signers(four, 12, owners), owners)
    assert lines == [
        "validators: 4; 1 of the 1 owners of the 4 validators of height 12 alone could have forged it",
        f"that group: owner {encode_account(ALICE)[:12]} (4 validators); 100 % of the power of height 12",
    ]
    assert forger_lines(4, None, {}) == [
        "validators: 4; nobody could have forged it: its hash is the one that you trust"
    ]
    one = make_set({5: 3})
    assert forger_lines(1, fewest_signers(one, 2), {}) == ["validators: 1: its operator can rewrite this ledger"]
    # A chain that began with one validator and has four now: the one is named with its height.
    assert forger_lines(4, fewest_signers(one, 2), {})[0] == (
        "validators: 4; 1 of the 1 validators of height 2 alone could have forged it"
    )
    many = fewest_signers(make_set({number: 1 for number in range(30)}), 3)
    assert "and 13 more; 70 %" in group_text(many, {})


def test_the_document_names_members_by_owner() -> None:
    owners = owned(alice=(1, 2))
    found = fewest_signers(make_set({0: 3, 1: 2, 2: 2}), 4, owners)
    document = forger_document(found, owners)
    assert (document["count"], document["parties"], document["validators"], document["power"]) == (2, 2, 3, 7)
    first, second = document["members"]
    assert first["owner"] == encode_account(ALICE)
    assert set(first["validators"]) == {public_key.hex() for public_key in public(1, 2)}
    assert second == {"owner": None, "validators": [public(0)[0].hex()]}


@pytest.mark.parametrize(
    ("powers", "owners", "words"),
    [
        ((1,), {}, "one validator: its operator can rewrite it and choose the witnesses"),
        ((7, 1, 1, 1), {}, "more than two thirds of this ledger's power are in one hand"),
        ((1, 1, 1, 1), owned(alice=(0, 1, 2)), "(3 validators); 75 % of the power of height 6"),
        ((1, 1, 1, 1), owned(alice=(0, 1)), ""),
        ((2, 1), {}, ""),
    ],
)
def test_a_tenant_is_warned_of_one_hand_not_of_one_name(
    powers: tuple[int, ...], owners: dict[bytes, bytes], words: str
) -> None:
    warning = rewriter_warning(fewest_signers(make_set(dict(enumerate(powers))), 6, owners), owners)
    assert words in warning and bool(warning) == bool(words)


def test_the_draw_is_bent_by_those_who_sign_now_not_by_genesis() -> None:
    document = genesis_document(
        chain_id="c",
        genesis_time=Timestamp.from_ms(1),
        validators=[(key(0).public, 10, "v0")],
        app_state={"vrf": []},
    )
    trusted = parse_genesis(document)
    assert beacon_line(trusted, trusted.validators) == "the validator knows the witnesses of every epoch in advance"
    assert "at most 3 draws" in beacon_line(trusted, make_set({0: 6, 1: 1, 2: 1, 3: 1}))


# -- in a proof -------------------------------------------------------------------------------------------------------


def proven(powers: tuple[int, ...], owners: list[bytes]) -> tuple[Verdict, bytes]:
    """A proof whose ledger names the owners of its validators, in the order of their numbers."""
    grid = ProofGrid(powers=powers)
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    if owners:
        names = [signer.public for signer in grid.chain.keys.values()]
        rows = [(100 - at, name, owner) for at, (name, owner) in enumerate(zip(names, owners, strict=False))]
        grid.state[keys.CANDIDATES] = encode(Candidates(CANDIDATES_VERSION, rows))
    grid.next_epoch()
    data = grid.export(lease)
    return grid.verify(data), data


def test_a_proof_tells_who_could_have_forged_it_by_owner() -> None:
    verdict, _ = proven((10, 10, 10, 10), [ALICE, ALICE, ALICE, BOB])
    assert verdict.problem is None
    document = verdict.document()
    assert (document["forgers"]["count"], document["forgers"]["parties"]) == (1, 2)
    assert document["forgers"]["members"][0]["owner"] == encode_account(ALICE)
    assert "validators: 4; 1 of the 2 owners of the 4 validators of height" in "\n".join(document["assumes"])
    unnamed, _ = proven((10, 10, 10, 10), [])
    assert unnamed.document()["forgers"]["count"] == 3
    assert any("one of them may run several more" in line for line in unnamed.assumes)


def test_a_proof_counts_power_not_heads() -> None:
    verdict, _ = proven((70, 10, 10, 10), [])
    assert verdict.document()["forgers"]["count"] == 1
    assert "validators: 4; 1 of them alone could have forged it" in verdict.assumes


@pytest.mark.parametrize("rows", [[(9, bytes([1]) * 32, b"short")], [(9, b"", ALICE)], [(9, ALICE, BOB)] * 2])
def test_a_table_that_the_rules_never_write_is_refused(rows: list[tuple[int, bytes, bytes]]) -> None:
    grid = ProofGrid(powers=(10, 10))
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    grid.state[keys.CANDIDATES] = encode(Candidates(CANDIDATES_VERSION, rows))
    problem = grid.verify(grid.file_of([keys.PARAMS, keys.TOTALS, keys.lease_key(lease), keys.CANDIDATES])).problem
    assert problem is not None and problem.code == "bad_record"


def test_a_long_table_takes_only_the_room_that_is_left() -> None:
    grid = ProofGrid(powers=(10,))
    grid.next_epoch()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 3]])
    for _ in range(3):
        grid.next_epoch()
    plain = grid.verify(grid.export(lease))
    names = [bytes([at]) * 32 for at in range(1, 129)]
    rows = [(10**12 - at, name, ALICE) for at, name in enumerate(names)]
    grid.state[keys.CANDIDATES] = encode(Candidates(CANDIDATES_VERSION, rows))
    full = grid.verify(grid.export(lease))
    assert full.problem is None
    assert [statement.word for statement in full.statements] == [statement.word for statement in plain.statements]
