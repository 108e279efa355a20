"""What waits in the engine's queue: bounds of what must leave, and what is forgotten."""

from hashlib import sha256

import pytest
from msgspec.structs import replace

from freehold.consensus.abci.waiting import QUEUE, WaitingTxs
from freehold.consensus.application import CheckTxResponse, Lane
from freehold.consensus.errors import MempoolFullError
from freehold.consensus.mempool import MAX_PER_SENDER, Room


def user(sender: str, nonce: int, fee: int) -> CheckTxResponse:
    return CheckTxResponse(code=0, sender=sender.encode(), nonce=nonce, next_nonce=0, priority=fee, valid_until=1_000)


def report(sender: str, epoch: int) -> CheckTxResponse:
    return CheckTxResponse(code=0, lane=Lane.REPORTS, sender=sender.encode(), replay_key=b"%d" % epoch)


def code_of(waiting: WaitingTxs, tx: bytes, answer: CheckTxResponse, height: int = 0) -> str:
    try:
        waiting.admit(tx, answer, height)
    except MempoolFullError as error:
        return error.code
    return ""


def test_a_lane_that_replaces_too_much_replaces_no_more_until_the_next_block_and_takes_what_has_room() -> None:
    waiting = WaitingTxs(max_txs=100, max_bytes=1 << 20)  # users may make 60 leave, one of them 1
    held, full = [], False
    for sender in map(str, range(60)):
        for fee in (10, 20, 40):
            full = bool(code_of(waiting, b"%s at %d" % (sender.encode(), fee), user(sender, 0, fee)))
            if full:
                break
            held.append(b"%s at %d" % (sender.encode(), fee))
        if full:
            break
    assert len(held) == 30 * 3 + 2 and all(
        map(waiting.holds, held)
    )  # 31 wait, and the bound is passed by one: 61 leave
    assert code_of(waiting, b"last", user("0", 0, 1_000)) == "mempool_full"
    assert code_of(waiting, b"b", user("b", 0, 1)) == ""
    assert code_of(waiting, b"b2", user("b", 0, 10)) == "mempool_full"
    assert code_of(waiting, b"r", report("n", 1)) == ""
    assert code_of(waiting, b"g", replace(user("g", 0, 1), lane=Lane.GOVERNANCE)) == ""
    assert (
        code_of(waiting, b"g2", replace(user("g", 0, 2), lane=Lane.GOVERNANCE)) == ""
    )  # its lane has replaced nothing
    assert code_of(waiting, held[0], user("0", 0, 1_000)) == "mempool_full"  # it must leave first
    waiting.committed([], 1)
    gone = [one for one in map(waiting.let_go, held) if one is not None]
    assert [one.code for one in gone] == ["replaced"] * 61
    assert waiting.let_go(b"g") is not None and waiting._left == {}
    assert waiting.recheck(b"b", user("b", 0, 1), 1) is None
    assert code_of(waiting, b"b2", user("b", 0, 10), 1) == ""
    assert code_of(waiting, held[0], user("0", 0, 1_000), 1) == ""


def test_what_must_leave_does_not_come_back_before_it_left() -> None:
    waiting = WaitingTxs()
    assert code_of(waiting, b"old", user("a", 0, 1)) == code_of(waiting, b"new", user("a", 0, 2)) == ""
    assert code_of(waiting, b"old", user("a", 0, 9)) == "mempool_full"
    assert waiting.let_go(b"old") is not None
    assert code_of(waiting, b"old", user("a", 0, 9)) == ""


def test_a_full_lane_that_has_evicted_too_much_takes_nobody_elses_place() -> None:
    waiting = WaitingTxs(max_txs=100, max_bytes=1 << 20, permill_of_one=1_000)
    for number in range(60):  # users' own share and what nobody has reserved
        waiting.admit(b"cheap%d" % number, user(f"c{number}", 0, 1), 0)
    for number in range(61):
        assert code_of(waiting, b"dear%d" % number, user(f"d{number}", 0, number + 10)) == ""
    assert len(waiting) == 60 and waiting._left[Lane.USERS].txs == 61
    assert code_of(waiting, b"dearest", user("x", 0, 1_000)) == "mempool_full"
    assert code_of(waiting, b"r", report("n", 1)) == ""


@pytest.mark.parametrize(("size", "leave"), [(0, 3), (5_000, 3), (30_000, 1)])
def test_one_sender_makes_few_leave_and_keeps_others_from_nothing(size: int, leave: int) -> None:
    waiting = WaitingTxs(max_txs=200, max_bytes=1_500_000)  # one may make 2 or 15,000 bytes leave, and pass it by one
    sizes = [b"%02d" % number + bytes(size if number < 2 else 0) for number in range(9)]
    codes = [code_of(waiting, tx, user("a", 0, 2**number)) for number, tx in enumerate(sizes)]
    assert codes.index("mempool_full") == leave + 1 and set(codes[leave + 1 :]) == {"mempool_full"}
    assert code_of(waiting, b"more", user("a", 1, 1)) == ""  # it takes nobody's place
    assert code_of(waiting, b"b", user("b", 0, 1)) == code_of(waiting, b"b2", user("b", 0, 2)) == ""


def test_what_a_block_holds_or_the_engine_did_not_recheck_counts_no_more() -> None:
    waiting = WaitingTxs(max_txs=20, max_bytes=1 << 20, permill_of_one=600)
    for number in range(13):
        waiting.admit(b"tx%d" % number, user("a", 0, 2 ** (number + 1)), 0)
    assert waiting._left == {Lane.USERS: Room(12, 134), b"a": Room(12, 134)}
    waiting.admit(b"r", report("n", 1), 0)
    waiting.committed([b"tx0", b"r", b"unknown"], 1)
    assert not waiting.holds(b"tx0") and not waiting.holds(b"r") and waiting.holds(b"tx5")
    assert waiting._left == {Lane.USERS: Room(11, 123), b"a": Room(11, 123)}
    waiting.committed([], 2)  # the engine is another one, and holds nothing
    assert len(waiting) == 0 and not any(waiting.holds(b"tx%d" % number) for number in range(13))
    assert waiting._left == {}


def test_what_the_engine_holds_and_is_unknown_here_is_taken_in_when_it_is_rechecked() -> None:
    waiting = WaitingTxs(max_txs=20, max_bytes=1 << 20)
    assert waiting.recheck(b"a", user("a", 0, 5), 1) is None and waiting.holds(b"a")
    other = waiting.recheck(b"b", user("a", 0, 5), 1)
    assert other is not None and (other.id, other.code) == (sha256(b"b").digest(), "fee_too_low_to_replace")
    refused = waiting.recheck(b"c", CheckTxResponse(code=7, log="wrong_nonce"), 1)
    assert refused is not None and (refused.code, refused.message) == ("invalid", "wrong_nonce")
    refused = waiting.recheck(b"a", CheckTxResponse(code=7, log="wrong_nonce"), 2)
    assert refused is not None and not waiting.holds(b"a")


def test_one_sender_has_few_places() -> None:
    waiting = WaitingTxs()
    for nonce in range(MAX_PER_SENDER):
        waiting.admit(b"tx%d" % nonce, user("a", nonce, 1), 0)
    assert code_of(waiting, b"far", user("a", MAX_PER_SENDER, 1)) == "nonce_too_far"


def test_the_engines_queue_holds_what_may_wait_and_all_that_may_have_to_leave() -> None:
    """Each lane may pass its bound by what one transaction makes leave: those of a sender, of the largest size."""
    waiting = WaitingTxs()
    leaving = [sum(getattr(room, name) for room in waiting._most.values()) for name in ("txs", "bytes")]
    assert 10_000 + leaving[0] + 3 * MAX_PER_SENDER < QUEUE.txs
    assert (32 << 20) + leaving[1] + 3 * MAX_PER_SENDER * (16 << 10) < QUEUE.bytes


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_is_chosen_from_all_that_waits(fails: bool) -> None:
    waiting = WaitingTxs()
    for number in range(50):
        waiting.admit(b"tx%02d" % number, user(f"s{number}", 0, number), 0)
    chosen = waiting.select(1, 10 * (4 + 8))
    assert chosen == tuple(b"tx%02d" % number for number in range(49, 39, -1))
    waiting.committed([] if fails else chosen, 1)
    assert len(waiting) == (50 if fails else 40)
