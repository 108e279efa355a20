"""The beacon of many validators through ABCI: what is refused by which code, and four applications that agree."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vrf_chain import CHAIN, Validator, VrfChain, validator_key, vrf_genesis, vrf_key

from freehold.base.codec import decode, encode
from freehold.base.errors import InvalidInputError
from freehold.consensus.abci.commits import AbciValidator, ExtendedVoteInfo
from freehold.consensus.ledger_application import LedgerApplication
from freehold.consensus.ledger_engine import open_ledger_engine
from freehold.crypto import ecvrf
from freehold.crypto.ed25519 import PrivateKey, verify
from freehold.ledger.beacons import VrfBeaconTx, check_extension, vote_input
from freehold.ledger.codes import Code
from freehold.ledger.execute import BlockInput, beacon_tx, check_proposal
from freehold.ledger.transactions import beacon_signing_bytes
from freehold.light.types import BlockIDFlag


def three_blocks(folder: Path) -> Iterator[VrfChain]:
    made = VrfChain(folder, [10, 10, 10, 10])
    for _ in range(3):
        made.step()
    yield made
    made.close()


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[VrfChain]:
    """Three blocks, to go on from."""
    yield from three_blocks(tmp_path)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VrfChain]:
    """Three blocks, to look at only."""
    yield from three_blocks(tmp_path_factory.mktemp("still"))


def proofs_of(data: bytes) -> list[tuple[int, bytes]]:
    return decode(data, VrfBeaconTx, max_bytes=4_096).proofs


def test_four_agree_over_fifty_heights_while_one_withholds(tmp_path: Path) -> None:
    chain = VrfChain(tmp_path, [10, 10, 10, 10])
    chain.change = lambda height, number, extension: b"" if number == 2 and height > 10 else extension
    absent: Counter[int] = Counter()
    for height in range(1, 51):
        assert len(chain.step()) == 1
        assert len({member.beacon(height) for member in chain.members}) == 1
        absent.update(n for n, vote in enumerate(chain.votes) if vote.block_id_flag == BlockIDFlag.ABSENT)
    assert len({chain.members[0].beacon(height) for height in range(1, 51)}) == 50
    # what withholding costs: its part in each decision, and nobody else anything
    assert absent == {2: 40}
    chain.close()


def test_two_of_four_that_withhold_stop_the_chain_and_nothing_is_forged(chain: VrfChain) -> None:
    chain.change = lambda height, number, extension: b"" if number < 2 else extension
    chain.step()
    author = chain.members[0]
    txs = author.prepare(5, chain.votes)  # the proposer does not halt: its block is refused, the next may have more
    assert [member.accepts(5, txs, author, chain.held()) for member in chain.members] == [False] * 4
    assert {height: chain.members[0].beacon(height) for height in (1, 4)}  # what was decided stands
    for number in range(2):  # they speak at last: late votes join the commit, and the next proposer carries them
        who = AbciValidator(chain.members[number].address, 10)
        chain.votes[number] = ExtendedVoteInfo(who, chain.members[number].extend(4), BlockIDFlag.COMMIT)
    assert len(chain.step()) == 1


def other_height(chain: VrfChain, member: Validator, number: int) -> bytes:
    return b"\x01" + ecvrf.prove(vrf_key(number), vote_input(CHAIN, 3, member.beacon(3), member.public))


def other_seed(chain: VrfChain, member: Validator, number: int) -> bytes:
    return b"\x01" + ecvrf.prove(vrf_key(number), vote_input(CHAIN, 4, member.beacon(2), member.public))


def other_chain(chain: VrfChain, member: Validator, number: int) -> bytes:
    return b"\x01" + ecvrf.prove(vrf_key(number), vote_input("vrf-2", 4, member.beacon(3), member.public))


def other_key(chain: VrfChain, member: Validator, number: int) -> bytes:
    return b"\x01" + ecvrf.prove(validator_key(number), vote_input(CHAIN, 4, member.beacon(3), member.public))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda chain, member, number: member.extend(4), Code.OK),
        (lambda chain, member, number: b"", Code.BAD_BEACON),
        (lambda chain, member, number: member.extend(4)[1:], Code.BAD_BEACON),
        (lambda chain, member, number: member.extend(4) + b"\0", Code.BAD_BEACON),
        (lambda chain, member, number: b"\x02" + member.extend(4)[1:], Code.BAD_BEACON),
        (lambda chain, member, number: chain.members[1].extend(4), Code.BAD_BEACON),
        (lambda chain, member, number: bytes(81), Code.BAD_BEACON),
        (other_height, Code.BAD_BEACON),
        (other_seed, Code.BAD_BEACON),
        (other_chain, Code.BAD_BEACON),
        (other_key, Code.BAD_BEACON),
    ],
)
def test_extensions(still: VrfChain, make: Callable[[VrfChain, Validator, int], bytes], code: Code) -> None:
    member = still.members[0]
    extension = make(still, member, 0)
    assert check_extension(still.members[3].app.state, 4, member.public, extension) == code
    assert still.members[3].verifies(4, member, extension) is (code == Code.OK)


def test_an_extension_of_nobody_or_of_another_time_is_refused(still: VrfChain) -> None:
    view = still.members[0].app.state
    extension = still.members[1].extend(4)
    assert check_extension(view, 4, bytes(32), extension) == Code.UNKNOWN_VALIDATOR
    for height in (3, 5):
        assert check_extension(view, height, still.members[1].public, extension) == Code.BEACON_HEIGHT


def test_nobody_uses_anothers_vrf_key(still: VrfChain) -> None:
    """Its input names the validator: a copied key without its secret proves nothing, a copied proof neither."""
    member = still.members[0]
    stolen = ecvrf.prove(vrf_key(1), vote_input(CHAIN, 4, member.beacon(3), still.members[1].public))
    assert not member.verifies(4, member, b"\x01" + stolen)


def forged(data: bytes, place: int) -> bytes:
    proofs = [(at, bytes([proof[0] ^ 1]) + proof[1:] if at == place else proof) for at, proof in proofs_of(data)]
    return encode(VrfBeaconTx(4, proofs))


def with_proofs(change: Callable[[list[tuple[int, bytes]]], list[tuple[int, bytes]]]) -> Callable[[bytes], bytes]:
    return lambda data: encode(VrfBeaconTx(4, change(proofs_of(data))))


def last_heights(chain: VrfChain) -> bytes:
    return chain.members[0].prepare(4, chain.votes)[0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data, Code.OK),
        (with_proofs(lambda proofs: proofs[:3]), Code.OK),
        (with_proofs(lambda proofs: proofs[1:]), Code.OK),
        (with_proofs(lambda proofs: proofs[:2]), Code.NOT_ENOUGH_POWER),
        (with_proofs(lambda proofs: []), Code.NOT_ENOUGH_POWER),
        (with_proofs(lambda proofs: [proofs[0], proofs[0], *proofs[1:]]), Code.NOT_SORTED),
        (with_proofs(lambda proofs: [proofs[0]] * 4), Code.NOT_SORTED),
        (with_proofs(lambda proofs: proofs[::-1]), Code.NOT_SORTED),
        (with_proofs(lambda proofs: [*proofs[:3], (4, proofs[3][1])]), Code.UNKNOWN_VALIDATOR),
        (with_proofs(lambda proofs: [(-1, proofs[0][1]), *proofs[1:]]), Code.UNKNOWN_VALIDATOR),
        (with_proofs(lambda proofs: [(0, proofs[1][1]), (1, proofs[0][1]), *proofs[2:]]), Code.BAD_BEACON),
        (with_proofs(lambda proofs: [*proofs[:3], (3, b"")]), Code.BAD_BEACON),
        (lambda data: forged(data, 3), Code.BAD_BEACON),
        (lambda data: encode(VrfBeaconTx(5, proofs_of(data))), Code.BEACON_HEIGHT),
        (lambda data: encode(VrfBeaconTx(3, proofs_of(data))), Code.BEACON_HEIGHT),
        (lambda data: data + b"\0", Code.MISPLACED_BEACON),
        (lambda data: b"", Code.MISPLACED_BEACON),
        (lambda data: b"\x93" + data[1:] + b"\x80", Code.MISPLACED_BEACON),
        (
            lambda data: beacon_tx(4, validator_key(0).sign(beacon_signing_bytes(CHAIN, 4))),
            Code.MISPLACED_BEACON,
        ),
    ],
)
def test_proposals(still: VrfChain, change: Callable[[bytes], bytes], code: Code) -> None:
    author, data = still.members[0], change(last_heights(still))
    view = still.members[1].app.state
    block = BlockInput(4, 1_790_000_004_000, author.public, [data])
    assert check_proposal(view, block, verify) == code
    assert {member.accepts(4, (data,), author, still.held()) for member in still.members} == {code == Code.OK}


def test_a_strangers_block_and_an_empty_one_are_refused(still: VrfChain) -> None:
    view, data = still.members[0].app.state, last_heights(still)
    stranger = PrivateKey.from_seed(bytes(32)).public
    assert check_proposal(view, BlockInput(4, 1_790_000_004_000, stranger, [data]), verify) == Code.BAD_BEACON
    assert check_proposal(view, BlockInput(4, 1_790_000_004_000, stranger, []), verify) == Code.MISPLACED_BEACON


def test_proofs_of_the_height_before_or_of_another_chain_are_refused(chain: VrfChain, tmp_path: Path) -> None:
    old = proofs_of(last_heights(chain))
    chain.step()
    author = chain.members[0]
    replayed = encode(VrfBeaconTx(5, old))
    view = chain.members[1].app.state
    assert check_proposal(view, BlockInput(5, 1_790_000_005_000, author.public, [replayed]), verify) == Code.BAD_BEACON
    (tmp_path / "other").mkdir()
    other = VrfChain(tmp_path / "other", [10, 10, 10, 10], "vrf-2")
    for _ in range(4):
        other.step()
    foreign = other.members[0].prepare(5, other.votes)[0]
    assert len(proofs_of(foreign)) == 4
    assert check_proposal(view, BlockInput(5, 1_790_000_005_000, author.public, [foreign]), verify) == Code.BAD_BEACON
    other.close()


def test_a_late_vote_that_nobody_checked_is_left_out_by_the_proposer(still: VrfChain) -> None:
    late = ExtendedVoteInfo(still.votes[2].validator, b"\x01" + bytes(80), BlockIDFlag.COMMIT)
    twice = [*still.votes[:2], late, still.votes[3]]
    data = still.members[0].prepare(4, twice)[0]
    assert len(proofs_of(data)) == 3
    assert all(member.accepts(4, (data,), still.members[0], still.held(twice)) for member in still.members)
    nil = ExtendedVoteInfo(still.votes[1].validator, still.votes[1].vote_extension, BlockIDFlag.NIL)
    stranger = ExtendedVoteInfo(AbciValidator(bytes(20), 99), still.votes[1].vote_extension, BlockIDFlag.COMMIT)
    data = still.members[0].prepare(4, [still.votes[0], nil, *still.votes[2:], stranger])[0]
    assert len(proofs_of(data)) == 3


def test_power_counts_not_heads(tmp_path: Path) -> None:
    chain = VrfChain(tmp_path, [6, 1, 1, 1])
    chain.step()
    chain.step()
    order = sorted(range(4), key=lambda number: chain.members[number].public)
    proofs = proofs_of(chain.members[0].prepare(3, chain.votes)[0])
    heavy = order.index(0)
    view, author = chain.members[0].app.state, chain.members[0].public

    def code(places: set[int]) -> Code:
        data = encode(VrfBeaconTx(3, [proof for proof in proofs if proof[0] in places]))
        return check_proposal(view, BlockInput(3, 1_790_000_003_000, author, [data]), verify)

    light = [place for place in range(4) if place != heavy]
    assert code({heavy}) == Code.NOT_ENOUGH_POWER  # exactly two thirds
    assert code({heavy, light[0]}) == Code.OK
    assert code(set(light)) == Code.NOT_ENOUGH_POWER
    chain.close()


def test_a_new_round_gives_no_new_output(still: VrfChain) -> None:
    member = still.members[0]
    first = member.extend(4)
    member.prepare(4, [*still.votes[:3], ExtendedVoteInfo(still.votes[3].validator, b"", BlockIDFlag.ABSENT)])
    assert member.extend(4) == first


def test_the_wrong_key_or_engine_is_told_before_anything_is_signed(tmp_path: Path) -> None:
    genesis = vrf_genesis([10])
    for wrong in (None, vrf_key(5), validator_key(0)):
        with pytest.raises(InvalidInputError) as error:
            LedgerApplication.open(tmp_path / "a", genesis, validator_key(0), vrf_key=wrong)
        assert error.value.code == "other_vrf_key"
    with pytest.raises(InvalidInputError) as error:
        open_ledger_engine(tmp_path / "b", genesis, validator_key(0))
    assert error.value.code == "needs_comet"
