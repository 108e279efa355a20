"""Lanes, fees, nonces and room, case by case; tests/property/test_mempool_model.py has the rest."""

import pytest
from msgspec.structs import replace

from freehold.consensus.application import CheckTxResponse, Lane
from freehold.consensus.errors import MempoolFullError
from freehold.consensus.mempool import Mempool


def user(sender: str, nonce: int, fee: int, *, next_nonce: int = 0, until: int = 1_000) -> CheckTxResponse:
    return CheckTxResponse(
        code=0, sender=sender.encode(), nonce=nonce, next_nonce=next_nonce, priority=fee, valid_until=until
    )


def report(sender: str, epoch: int) -> CheckTxResponse:
    return CheckTxResponse(code=0, lane=Lane.REPORTS, sender=sender.encode(), replay_key=b"%d" % epoch)


def names(pool: Mempool, *, max_txs: int = 100, max_bytes: int = 1 << 20, height: int = 1) -> list[str]:
    return [entry.id.decode() for entry in pool.select(height, max_txs=max_txs, max_bytes=max_bytes)]


def test_fees_order_senders_and_nonces_order_one() -> None:
    pool = Mempool()
    pool.add(b"a1", b"x", user("a", 1, 90), 0)
    pool.add(b"a0", b"x", user("a", 0, 10), 0)
    pool.add(b"b0", b"x", user("b", 0, 20), 0)
    pool.add(b"c0", b"x", user("c", 0, 20), 0)
    pool.add(b"d1", b"x", user("d", 1, 99), 0)  # its predecessor is missing
    assert names(pool) == ["b0", "c0", "a0", "a1"]
    assert names(pool, max_txs=3) == ["b0", "c0", "a0"]


def test_a_flood_of_dear_transactions_leaves_reports_their_share() -> None:
    pool = Mempool(max_txs=100, max_bytes=1 << 20)
    for n in range(70):
        try:
            pool.add(b"u%d" % n, b"x", user(f"s{n}", 0, 1_000), 0)
        except MempoolFullError:
            break
    assert len(pool) == 60  # the users' 30 and what nobody has reserved
    for n in range(30):
        pool.add(b"r%d" % n, b"x", report(f"n{n}", 1), 0)
    chosen = names(pool, max_txs=10)
    assert sum(name.startswith("r") for name in chosen) >= 3
    assert sum(name.startswith("u") for name in chosen) >= 3
    assert len(chosen) == 10


def test_exactly_its_share_of_a_block_is_a_lanes_own_and_no_byte_more() -> None:
    """Of 1,000 bytes users have 300, the first lane 300 and what nobody has reserved."""
    pool = Mempool()
    for number in range(10):
        pool.add(b"r%d" % number, bytes(92), report("n", number), 0)
    pool.add(b"exact", bytes(292), user("a", 0, 1), 0)
    assert "exact" in names(pool, max_bytes=1_000)
    assert "exact" not in names(pool, max_bytes=999)


def test_nobody_takes_the_place_of_its_own_predecessor() -> None:
    pool = Mempool(max_txs=10)  # users: 6
    pool.add(b"a0", b"x", user("a", 0, 1), 0)
    for number in range(5):
        pool.add(b"b%d" % number, b"x", user(f"b{number}", 0, 5), 0)
    with pytest.raises(MempoolFullError) as error:
        pool.add(b"a1", b"x", user("a", 1, 100), 0)
    assert error.value.code == "mempool_full"
    assert names(pool)[-1] == "a0" and len(pool) == 6


def test_what_lost_its_predecessor_keeps_nobody_out() -> None:
    pool = Mempool(max_txs=10)  # users: 6
    pool.add(b"a0", b"x", user("a", 0, 100, until=1), 0)
    for nonce in range(1, 6):
        pool.add(b"a%d" % nonce, b"x", user("a", nonce, 100), 0)
    assert [gone.id for gone in pool.remove_committed([], 1)] == [b"a0"]
    pool.add(b"b0", b"x", user("b", 0, 50), 1)
    assert [gone.id for gone in pool.add(b"c0", b"x", user("c", 0, 1), 1)] == [b"a5"]


def test_what_changed_its_lane_gives_way_there() -> None:
    pool = Mempool(max_txs=10)  # governance: 1, and what nobody has reserved
    pool.add(b"a0", b"x", user("a", 0, 1), 0)
    assert pool.recheck(b"a0", replace(user("a", 0, 1), lane=Lane.GOVERNANCE), 1) is None
    for number in range(3):
        pool.add(b"b%d" % number, b"x", replace(user(f"b{number}", 0, 5), lane=Lane.GOVERNANCE), 1)
    assert [gone.id for gone in pool.add(b"c0", b"x", replace(user("c", 0, 3), lane=Lane.GOVERNANCE), 1)] == [b"a0"]


def test_what_was_used_leaves_whatever_is_said_of_it() -> None:
    pool = Mempool()
    pool.add(b"a0", b"x", user("a", 0, 1), 0)
    gone = pool.recheck(b"a0", user("a", 0, 1, next_nonce=1), 1)
    assert gone is not None and gone.code == "invalid" and len(pool) == 0


def test_a_replacement_offers_a_tenth_more() -> None:
    pool = Mempool()
    pool.add(b"old", b"x", user("a", 0, 100), 0)
    with pytest.raises(MempoolFullError) as error:
        pool.add(b"new", b"y", user("a", 0, 109), 0)
    assert error.value.code == "fee_too_low_to_replace"
    assert [gone.code for gone in pool.add(b"new", b"y", user("a", 0, 110), 0)] == ["replaced"]
    assert names(pool) == ["new"]


def test_a_cheap_sender_makes_room_with_all_that_follows() -> None:
    pool = Mempool(max_txs=10, max_bytes=1 << 20)  # users may have 6
    for nonce in range(3):
        pool.add(b"a%d" % nonce, b"x", user("a", nonce, 5 if nonce == 1 else 50), 0)
        pool.add(b"b%d" % nonce, b"x", user("b", nonce, 20), 0)
    with pytest.raises(MempoolFullError) as error:
        pool.add(b"c", b"x", user("c", 0, 5), 0)
    assert error.value.code == "mempool_full"
    assert [gone.id for gone in pool.add(b"c", b"x", user("c", 0, 30), 0)] == [b"a1", b"a2"]
    assert names(pool) == ["a0", "c", "b0", "b1", "b2"]


def test_one_statement_waits_once() -> None:
    pool = Mempool()
    pool.add(b"r", b"x", report("n", 7), 0)
    assert pool.add(b"r", b"x", report("n", 7), 0) == []
    with pytest.raises(MempoolFullError) as error:
        pool.add(b"other", b"y", report("n", 7), 0)
    assert error.value.code == "already_waiting"


def test_nonces_far_ahead_and_behind_are_refused() -> None:
    pool = Mempool()
    for nonce, code in ((64 + 5, "nonce_too_far"), (4, "nonce_used")):
        with pytest.raises(MempoolFullError) as error:
            pool.add(b"x", b"x", user("a", nonce, 1, next_nonce=5), 0)
        assert error.value.code == code


def test_a_block_moves_the_nonce_and_a_recheck_corrects_it() -> None:
    pool = Mempool()
    pool.add(b"a0", b"x", user("a", 0, 1), 0)
    pool.add(b"a1", b"x", user("a", 1, 1), 0)
    pool.remove_committed([b"a0"], 1)
    assert names(pool, height=2) == ["a1"]
    # the block held it, but it failed and used no nonce
    assert pool.recheck(b"a1", user("a", 1, 1, next_nonce=0), 1) is None
    assert names(pool, height=2) == []
    gone = pool.recheck(b"a1", CheckTxResponse(code=11, log="insufficient_balance"), 1)
    assert gone is not None
    assert (gone.code, gone.message) == ("invalid", "insufficient_balance")
    assert len(pool) == 0


def test_expired_transactions_leave() -> None:
    pool = Mempool()
    pool.add(b"a", b"x", user("a", 0, 1, until=5), 0)
    assert names(pool, height=5) == ["a"]
    assert names(pool, height=6) == []
    assert not pool.has_ready(6)
    assert pool.remove_committed([], 4) == []
    assert [gone.code for gone in pool.remove_committed([], 5)] == ["expired"]


def test_what_waits_behind_a_gap_keeps_nobody_out() -> None:
    pool = Mempool(max_txs=100, max_bytes=1 << 20)
    for n in range(60):  # all the room there is for users, offered much, and never paid: nonce 0 does not come
        pool.add(b"g%d" % n, b"x", user(f"s{n % 10}", 1 + n // 10, 1_000_000), 0)
    with pytest.raises(MempoolFullError):
        pool.add(b"gap", b"x", user("h", 3, 2_000_000), 0)
    assert [gone.code for gone in pool.add(b"h0", b"x", user("h", 0, 1), 0)] == ["evicted"]
    assert pool.add(b"h1", b"x", user("h", 1, 1), 0)
    assert names(pool) == ["h0", "h1"]


def test_what_can_go_is_not_driven_out_by_what_cannot() -> None:
    pool = Mempool(max_txs=100, max_bytes=1 << 20)
    for n in range(60):
        pool.add(b"h%d" % n, b"x", user(f"s{n}", 0, 1), 0)
    with pytest.raises(MempoolFullError):
        pool.add(b"gap", b"x", user("g", 1, 1_000_000), 0)
    assert [gone.id for gone in pool.add(b"dear", b"x", user("g", 0, 2), 0)] == [b"h59"]


def test_a_gap_that_was_closed_is_none() -> None:
    pool = Mempool(max_txs=100, max_bytes=1 << 20)
    for n in reversed(range(60)):
        pool.add(b"h%d" % n, b"x", user("s", n, 5), 0)
    with pytest.raises(MempoolFullError):
        pool.add(b"o0", b"x", user("other", 0, 5), 0)
    assert len(names(pool)) == 60


def test_a_transaction_whose_nonce_came_due_gets_the_lane_of_governance_when_it_has_room() -> None:
    """What waits in one lane never takes another's room, so the pool stays within its own."""
    pool = Mempool(max_txs=10, max_bytes=1 << 20)  # one for governance, three for users, three for all
    pool.add(b"a0", b"x", user("a", 0, 50), 0)
    pool.add(b"a1", b"x", user("a", 1, 1), 0)
    for name in ("b", "c", "d", "e"):
        pool.add(name.encode(), b"x", user(name, 0, 20), 0)
    pool.remove_committed([b"a0"], 1)
    due = replace(user("a", 1, 1, next_nonce=1), lane=Lane.GOVERNANCE)
    assert pool.recheck(b"a1", due, 1) is None
    assert names(pool, max_txs=2, height=2) == ["a1", "b"]  # before those who offer more
    assert pool.add(b"g", b"x", replace(user("g", 0, 9), lane=Lane.GOVERNANCE), 1) == []
    pool.add(b"f", b"x", user("f", 0, 20), 1)
    with pytest.raises(MempoolFullError):  # users have their three and all that is free but one, which governance took
        pool.add(b"i", b"x", user("i", 0, 20), 1)
    assert [gone.id for gone in pool.add(b"k", b"x", user("k", 0, 30), 1)] == [b"f"]  # never a1, which left the lane


def test_a_full_lane_takes_nobody_over() -> None:
    pool = Mempool(max_txs=10, max_bytes=1 << 20)
    for number in range(4):  # governance's one and all that is free
        pool.add(b"g%d" % number, b"x", replace(user(f"g{number}", 0, 5), lane=Lane.GOVERNANCE), 0)
    pool.add(b"a", b"x", user("a", 0, 50), 0)
    pool.recheck(b"a", replace(user("a", 0, 50), lane=Lane.GOVERNANCE), 1)
    for name in ("b", "c"):
        pool.add(name.encode(), b"x", user(name, 0, 60), 1)
    assert [gone.id for gone in pool.add(b"d", b"x", user("d", 0, 60), 1)] == [b"a"]  # a user's still
    assert len(pool) == 7


def test_what_found_no_room_in_its_share_goes_on_by_lane_also_where_it_was_offered_late() -> None:
    pool = Mempool(max_txs=100, max_bytes=1 << 20)
    pool.add(b"a0", bytes(500), user("a", 0, 90), 0)  # more than a share of users
    pool.add(b"b0", b"x", user("b", 0, 50), 0)
    pool.add(b"b1", bytes(400), replace(user("b", 1, 1), lane=Lane.GOVERNANCE), 0)  # more than a share of governance
    chosen = pool.select(1, max_txs=10, max_bytes=600)  # room for one of the two
    assert [entry.id for entry in chosen] == [b"b0", b"b1"]
