from typing import Any, cast

from freehold.transport.admission import FLOOD_REFUSALS, Admission, Guest
from freehold.transport.methods import ServerLimits
from freehold.transport.ports import ConnectionPort

ALICE, BOB, CAROL = (name * 8 for name in (b"alic", b"bob_", b"caro"))


class Fake:
    def __init__(self, remote_id: bytes) -> None:
        self.remote_id = remote_id


def enter(admission: Admission, remote_id: bytes, now_s: float = 0.0) -> tuple[Guest | None, list[Guest]]:
    return admission.enter(remote_id, cast("ConnectionPort", Fake(remote_id)), now_s)


def let_in(admission: Admission, remote_id: bytes, now_s: float = 0.0) -> Any:
    guest, leaving = enter(admission, remote_id, now_s)
    assert guest is not None
    assert leaving == []
    return guest, admission.account(remote_id, now_s)


def test_one_peer_cannot_take_the_slots_of_another() -> None:
    admission = Admission(ServerLimits(calls_per_peer=2, calls=3))
    alice, alices = let_in(admission, ALICE)
    bob, bobs = let_in(admission, BOB)
    assert [admission.begin_call(alices, alice, 0.0) for _ in range(3)] == [True, True, False]
    assert [admission.begin_call(bobs, bob, 0.0) for _ in range(2)] == [True, False], "the total holds too"
    admission.end_call(alices, alice)
    assert admission.begin_call(bobs, bob, 0.0)


def test_the_rate_refills_with_time() -> None:
    admission = Admission(ServerLimits(calls_per_second=10, calls_burst=5, calls_per_peer=100))
    guest, account = let_in(admission, ALICE)
    assert [admission.begin_call(account, guest, 0.0) for _ in range(6)] == [True] * 5 + [False]
    assert not admission.begin_call(account, guest, 0.05)
    assert admission.begin_call(account, guest, 0.2)
    assert [admission.begin_call(account, guest, 100.0) for _ in range(6)] == [True] * 5 + [False]


def test_the_bounds_follow_the_key_over_a_reconnect() -> None:
    admission = Admission(ServerLimits(calls_burst=2, calls_per_second=1))
    guest, account = let_in(admission, ALICE)
    assert [admission.begin_call(account, guest, 0.0) for _ in range(3)] == [True, True, False]
    admission.end_call(account, guest)
    admission.end_call(account, guest)
    admission.leave(ALICE, guest, 0.0)
    guest, account = let_in(admission, ALICE)
    assert not admission.begin_call(account, guest, 0.0)


def test_splices_have_their_own_slots() -> None:
    admission = Admission(ServerLimits(splices_per_peer=1, splices=2))
    alice, alices = let_in(admission, ALICE)
    bob, bobs = let_in(admission, BOB)
    carol, carols = let_in(admission, CAROL)
    assert admission.begin_splice(alices, alice)
    assert not admission.begin_splice(alices, alice)
    assert admission.begin_splice(bobs, bob)
    assert not admission.begin_splice(carols, carol)
    admission.end_splice(alices, alice)
    assert admission.begin_splice(carols, carol)
    assert alice.active == 0


def test_a_peer_that_reconnects_drops_its_own_idle_connection() -> None:
    admission = Admission(ServerLimits(connections_per_peer=2))
    first, account = let_in(admission, ALICE, 1.0)
    second, _ = let_in(admission, ALICE, 2.0)
    assert admission.begin_call(account, first, 3.0)
    guest, leaving = enter(admission, ALICE, 4.0)
    assert guest is not None
    assert leaving == [second], "the one that is in use stays"
    admission.leave(ALICE, second, 4.0)
    admission.leave(ALICE, second, 4.0)
    assert admission.connections == 2


def test_a_full_house_makes_room_by_the_longest_idle_and_never_by_one_in_use() -> None:
    admission = Admission(ServerLimits(connections=2))
    alice, alices = let_in(admission, ALICE, 1.0)
    bob, bobs = let_in(admission, BOB, 2.0)
    guest, leaving = enter(admission, CAROL, 3.0)
    assert leaving == [alice]
    assert guest is not None
    admission.leave(ALICE, alice, 3.0)
    assert admission.begin_call(bobs, bob, 3.0)
    assert admission.begin_call(admission.account(CAROL, 3.0), guest, 3.0)
    assert enter(admission, ALICE, 4.0) == (None, [])
    assert alices.guests == []


def test_a_flood_is_forgiven_when_its_bucket_is_half_full() -> None:
    admission = Admission(ServerLimits(calls_per_second=10, calls_burst=100, calls_per_peer=1_000, calls=1_000))
    guest, account = let_in(admission, ALICE)
    for _ in range(100 + FLOOD_REFUSALS):
        admission.begin_call(account, guest, 0.0)
    assert admission.is_flooding(account, 0.0)
    assert admission.is_flooding(account, 4.9)
    assert not admission.is_flooding(account, 5.1)


def test_strangers_are_forgotten_and_guests_are_not() -> None:
    admission = Admission(ServerLimits(peers_remembered=3))
    _, account = let_in(admission, ALICE)
    for number in range(100):
        admission.account(number.to_bytes(32, "big"), 0.0)
    assert admission.account(ALICE, 0.0) is account
    assert len(admission._accounts) <= 4
