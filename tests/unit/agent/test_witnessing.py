"""A witness's duties: when one passes, and which services it says were silent."""

from freehold.agent.core.witnessing import Duties, rank_slots, set_bit, set_bits
from freehold.base.presets import MINIMAL
from freehold.protocol.evidence import IdentityAnswer, ProbeSeen, WorkloadSeen

WEB, DB = b"w" * 32, b"d" * 32
ANSWER = IdentityAnswer(b"n" * 32, b"w" * 32, 3, b"nonce", 10, b"h" * 32, b"s" * 64)


def probe(**oks: bool) -> ProbeSeen:
    leases = {"web": WEB, "db": DB}
    return ProbeSeen(1_000, ANSWER, [WorkloadSeen(leases[name], 1, ok) for name, ok in oks.items()])


def duties(*probes: ProbeSeen) -> Duties:
    made = Duties(3, b"w" * 32)
    made.invite(7)
    for seen in probes:
        made.record(7, seen, {WEB: 0, DB: 4})
    return made


def test_a_node_that_answers_often_enough_has_passed() -> None:
    assert duties(probe()).passed(MINIMAL) == []
    assert [leaf.target_slot for leaf in duties(probe(), probe()).passed(MINIMAL)] == [7]
    assert duties(probe(), probe()).failed(MINIMAL) == []


def test_a_silent_service_is_named_and_its_node_still_passes() -> None:
    made = duties(probe(web=True, db=False), probe(web=True, db=False), probe(web=False, db=True))
    assert len(made.passed(MINIMAL)) == 1
    assert made.failed(MINIMAL) == [(7, 4)]


def test_one_silence_in_two_is_not_most() -> None:
    assert duties(probe(web=False), probe(web=True)).failed(MINIMAL) == []


def test_nothing_is_said_of_a_node_that_did_not_pass() -> None:
    assert duties(probe(web=False)).failed(MINIMAL) == []


def test_one_lease_on_two_nodes_is_told_of_each_where_it_was() -> None:
    made = Duties(3, b"w" * 32)
    for target, lease_slot in ((7, 4), (8, 9)):  # it moved within the epoch
        made.invite(target)
        for _ in range(2):
            made.record(target, probe(db=False), {DB: lease_slot})
    assert made.failed(MINIMAL) == [(7, 4), (8, 9)]


def test_a_lease_slot_with_two_silent_services_is_told_once() -> None:
    made = Duties(3, b"w" * 32)
    made.invite(7)
    made.record(7, probe(web=False), {WEB: 4})
    made.record(7, probe(db=False), {DB: 4})
    assert made.failed(MINIMAL) == [(7, 4)]  # twice would not be sorted: the whole report would be refused


def test_nobody_records_what_was_not_taken_on() -> None:
    made = Duties(3, b"w" * 32)
    made.record(9, probe(web=True), {WEB: 0})
    assert made.passed(MINIMAL) == []


def test_the_nonce_orders_the_slots() -> None:
    slots = list(range(20))
    one, other = rank_slots(slots, b"a"), rank_slots(slots, b"b")
    assert sorted(one) == sorted(other) == slots
    assert one != other
    assert rank_slots(slots[::-1], b"a") == one


def test_bits_go_there_and_back() -> None:
    bits = bytes(32)
    for index in (0, 7, 8, 255):
        bits = set_bit(bits, index)
    assert set_bits(bits) == [0, 7, 8, 255]
