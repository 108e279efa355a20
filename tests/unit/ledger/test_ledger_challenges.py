"""Challenge, verdict, failover, resolve."""

from typing import Any

import pytest
from ledger_grid import FEE, ZERO, Grid, Key, preset_with

from freehold.base.amounts import TOKEN
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.records import ChallengeRecord, Lease, Term
from freehold.ledger.transactions import (
    Accept,
    Challenge,
    Close,
    Place,
    RegisterFarm,
    Resolve,
    Resources,
    Transfer,
    Verdict,
)

BOND = TOKEN
VERDICT_FEE = TOKEN // 100


@pytest.fixture
def grid() -> Grid:
    grid = Grid(farms=8)
    grid.block()
    return grid


def started(grid: Grid, members: list[int], **fields: Any) -> bytes:
    lease = grid.deploy(grid.tenants[0], [members], **fields)[0]
    grid.next_epoch()
    return lease


def challenged(grid: Grid, lease: bytes, by: Key, term: int = 1) -> tuple[bytes, list[Key]]:
    """Post a challenge; gives its id and its witnesses, once the next block's beacon is there."""
    challenge = grid.ok(by, Challenge(lease, term))
    grid.block(dt=100)
    return challenge, [grid.node_of_slot(slot) for slot in grid.challenge_witnesses(challenge)]


def test_a_dead_holder_is_replaced_at_the_t_th_verdict(grid: Grid) -> None:
    lease = started(grid, [0, 2, 4])
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    assert len(witnesses) == 3
    grid.ok(witnesses[0], Verdict(challenge, True))
    assert len(grid.lease(lease).terms) == 1
    grid.ok(witnesses[1], Verdict(challenge, True))
    record = grid.lease(lease)
    assert record.terms[1] == Term(1, grid.now, grid.now + 6_000)  # fence and allowance after the decision
    assert [member.lost for member in record.members] == [True, False, False]
    assert grid.node(grid.nodes[0].public).used == Resources(0, 0, 0)
    assert grid.need(keys.challenge_key(challenge), ChallengeRecord).decided_ms == grid.now
    grid.ok(witnesses[2], Verdict(challenge, False))  # timely, and earns its fee
    assert len(grid.lease(lease).terms) == 2


def test_down_pays_the_challenger_and_the_witnesses(grid: Grid) -> None:
    lease = started(grid, [0, 2])
    purse = grid.balance(grid.nodes[2].public)
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    assert grid.balance(grid.nodes[2].public) == purse - BOND - FEE
    assert grid.lease(lease).bounty == 0  # it is held by the challenge
    owners = [grid.owner[witness.public] for witness in witnesses]
    before = [grid.balance(owner) for owner in owners]
    for witness in witnesses:
        grid.ok(witness, Verdict(challenge, True))
    assert grid.run(grid.faucet, Resolve(challenge)) == Code.CHALLENGE_OPEN
    grid.block(dt=5_000)
    grid.ok(grid.faucet, Resolve(challenge))
    assert [grid.balance(owner) for owner in owners] == [amount + VERDICT_FEE for amount in before]
    assert grid.balance(grid.nodes[2].public) == purse - FEE + TOKEN - 3 * VERDICT_FEE
    record = grid.lease(lease)
    assert (record.challenge, record.bounty, record.bounty_epoch) == (b"", 0, grid.epoch)
    assert grid.run(grid.faucet, Resolve(challenge)) == Code.UNKNOWN_CHALLENGE


def test_not_down_loses_the_bond(grid: Grid) -> None:
    lease = started(grid, [0, 2])
    purse, treasury = grid.balance(grid.nodes[2].public), grid.totals.treasury
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    grid.ok(witnesses[0], Verdict(challenge, False))
    grid.ok(witnesses[1], Verdict(challenge, False))
    grid.ok(witnesses[2], Verdict(challenge, True))
    grid.block(dt=5_000)
    grid.ok(grid.faucet, Resolve(challenge))
    assert grid.balance(grid.nodes[2].public) == purse - BOND - FEE
    assert grid.totals.treasury - treasury == BOND - 3 * VERDICT_FEE
    record = grid.lease(lease)
    assert (len(record.terms), record.bounty, record.bounty_epoch) == (1, TOKEN, -1)


def test_silence_is_not_down(grid: Grid) -> None:
    lease = started(grid, [0, 2])
    treasury = grid.totals.treasury
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    grid.ok(witnesses[0], Verdict(challenge, True))
    grid.block(dt=5_000)
    assert grid.run(witnesses[1], Verdict(challenge, True)) == Code.OUTSIDE_WINDOW
    grid.ok(grid.faucet, Resolve(challenge))
    assert len(grid.lease(lease).terms) == 1
    assert grid.totals.treasury - treasury == BOND - VERDICT_FEE


def test_the_verdict_window_ends_with_its_last_instant(grid: Grid) -> None:
    lease = started(grid, [0, 2])
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    posted = grid.need(keys.challenge_key(challenge), ChallengeRecord).posted_ms
    grid.block(dt=posted + 5_000 - grid.now - 1)
    assert grid.run(grid.faucet, Resolve(challenge), dt=1) == Code.CHALLENGE_OPEN
    assert grid.run(witnesses[0], Verdict(challenge, True), dt=1) == Code.OUTSIDE_WINDOW
    grid.ok(grid.faucet, Resolve(challenge), dt=1)


def test_a_verdict_in_the_last_instant_counts(grid: Grid) -> None:
    lease = started(grid, [0, 2])
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    posted = grid.need(keys.challenge_key(challenge), ChallengeRecord).posted_ms
    grid.block(dt=posted + 5_000 - grid.now - 1)
    grid.ok(witnesses[0], Verdict(challenge, True), dt=1)
    assert grid.now == posted + 5_000


def test_a_term_can_be_challenged_from_its_first_instant(grid: Grid) -> None:
    lease = started(grid, [0, 2, 4])
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    for witness in witnesses:
        grid.ok(witness, Verdict(challenge, True), dt=1)
    start = grid.lease(lease).terms[1].from_ms
    grid.block(dt=start - grid.now - 2)
    assert grid.run(grid.nodes[4], Challenge(lease, 2), dt=1) == Code.LEASE_NOT_ACTIVE
    grid.ok(grid.nodes[4], Challenge(lease, 2), dt=1)


def test_who_may_challenge(grid: Grid) -> None:
    lease = grid.deploy(grid.tenants[0], [[0, 2, 4]], accept=False)[0]
    assert grid.run(grid.nodes[2], Challenge(lease, 1)) == Code.LEASE_NOT_ACTIVE
    assert grid.run(grid.nodes[2], Challenge(ZERO, 1)) == Code.UNKNOWN_LEASE
    grid.ok(grid.nodes[0], Accept(lease, ZERO))
    assert grid.run(grid.tenants[0], Challenge(lease, 1)) == Code.NO_STANDBY
    grid.ok(grid.nodes[2], Accept(lease, ZERO))
    assert grid.run(grid.nodes[0], Challenge(lease, 1)) == Code.NOT_MEMBER  # the holder itself
    assert grid.run(grid.nodes[4], Challenge(lease, 1)) == Code.NOT_MEMBER  # has not accepted
    assert grid.run(grid.nodes[6], Challenge(lease, 1)) == Code.NOT_MEMBER
    assert grid.run(grid.tenants[1], Challenge(lease, 1)) == Code.NOT_MEMBER
    for term in (-1, 0, 2, 1 << 40):
        assert grid.run(grid.nodes[2], Challenge(lease, term)) == Code.STALE_TERM
    grid.ok(grid.tenants[0], Challenge(lease, 1))
    assert grid.run(grid.nodes[2], Challenge(lease, 1)) == Code.CHALLENGE_OPEN


def test_a_closed_or_ended_lease_is_not_challenged(grid: Grid) -> None:
    closed, ended = grid.deploy(grid.tenants[0], [[0, 2], [4, 6]], prepaid_ms=10_000)
    grid.ok(grid.tenants[0], Close(closed, ""))
    assert grid.run(grid.nodes[2], Challenge(closed, 1)) == Code.LEASE_CLOSED
    grid.next_epoch()
    grid.next_epoch()
    assert grid.run(grid.nodes[6], Challenge(ended, 1)) == Code.LEASE_NOT_ACTIVE


@pytest.mark.parametrize(
    ("volume", "empty", "code"),
    [(False, False, Code.OK), (True, False, Code.NO_STANDBY), (True, True, Code.OK), (False, True, Code.OK)],
)
def test_a_local_volume_fails_over_only_when_it_may_start_empty(
    grid: Grid, volume: bool, empty: bool, code: Code
) -> None:
    lease = started(grid, [0, 2], local_volume=volume, failover_empty=empty)
    assert grid.run(grid.nodes[2], Challenge(lease, 1)) == code


def test_a_bond_is_needed(grid: Grid) -> None:
    lease = started(grid, [0, 2])
    node = grid.nodes[2]
    spare = grid.balance(node.public) - grid.preset.record_deposit - FEE - BOND - FEE + 1
    grid.ok(node, Transfer(grid.faucet.public, spare))
    assert grid.run(node, Challenge(lease, 1)) == Code.INSUFFICIENT_BALANCE


def test_witnesses_have_no_part_in_the_lease() -> None:
    grid = Grid(farms=8)
    grid.block()
    grid.ok(grid.tenants[0], RegisterFarm("tenants-own", Place("DE", "")))
    lease = started(grid, [0, 2, 4])
    excluded = {grid.farms[at].public for at in (0, 1, 2)} | {grid.tenants[0].public}
    for _ in range(4):
        challenge, witnesses = challenged(grid, lease, grid.tenants[0])
        assert witnesses
        assert not excluded & {grid.owner[witness.public] for witness in witnesses}
        grid.block(dt=6_000)
        grid.ok(grid.faucet, Resolve(challenge))


def test_a_tenant_who_is_a_farmer_does_not_judge_its_own_lease() -> None:
    grid = Grid(farms=4)
    grid.block()
    farmer = grid.farms[3]
    lease = grid.deploy(farmer, [[0, 2]])[0]
    grid.next_epoch()
    _, witnesses = challenged(grid, lease, farmer)
    assert {grid.owner[witness.public] for witness in witnesses} == {grid.farms[2].public}


def test_only_drawn_witnesses_speak_and_once(grid: Grid) -> None:
    lease = started(grid, [0, 2])
    challenge = grid.ok(grid.nodes[2], Challenge(lease, 1))
    record = grid.need(keys.challenge_key(challenge), ChallengeRecord)
    assert (record.witnesses, record.threshold, record.posted_height) == ([], 0, grid.height)
    early = [grid.tx(node, Verdict(challenge, True)) for node in grid.nodes]
    assert {grid.check(data) for data in early} == {Code.NOT_DRAWN}  # the beacon is not there yet
    grid.block(dt=100)
    drawn = [grid.node_of_slot(slot) for slot in grid.challenge_witnesses(challenge)]
    for node in grid.nodes:
        if node not in drawn:
            assert grid.run(node, Verdict(challenge, True), dt=1) == Code.NOT_DRAWN
    grid.ok(drawn[0], Verdict(challenge, True), dt=1)
    assert grid.run(drawn[0], Verdict(challenge, True), dt=1) == Code.DUPLICATE_VERDICT
    assert grid.run(drawn[0], Verdict(challenge, False), dt=1) == Code.DUPLICATE_VERDICT
    assert grid.run(drawn[1], Verdict(ZERO, True), dt=1) == Code.UNKNOWN_CHALLENGE
    assert len(grid.lease(lease).terms) == 1  # two of one voice are not two voices


def test_a_new_term_cannot_be_challenged_before_it_is_in_force(grid: Grid) -> None:
    lease = started(grid, [0, 2, 4])
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    for witness in witnesses:
        grid.ok(witness, Verdict(challenge, True), dt=1)
    assert grid.run(grid.nodes[4], Challenge(lease, 1)) == Code.STALE_TERM
    assert grid.run(grid.nodes[4], Challenge(lease, 2)) == Code.LEASE_NOT_ACTIVE
    assert grid.run(grid.nodes[2], Challenge(lease, 2)) == Code.LEASE_NOT_ACTIVE
    grid.block(dt=6_100)
    assert grid.run(grid.nodes[2], Challenge(lease, 2)) == Code.NOT_MEMBER  # it is the holder now
    assert grid.run(grid.nodes[0], Challenge(lease, 2)) == Code.NOT_MEMBER  # it was lost


def test_an_expired_challenge_is_resolved_when_touched_and_the_next_can_succeed(grid: Grid) -> None:
    lease = started(grid, [0, 2, 4])
    first, witnesses = challenged(grid, lease, grid.nodes[2])
    for witness in witnesses:
        grid.ok(witness, Verdict(first, True), dt=1)
    grid.block(dt=7_000)
    purse = grid.balance(grid.nodes[2].public)
    second, witnesses = challenged(grid, lease, grid.nodes[4], term=2)
    assert keys.challenge_key(first) not in grid.state
    assert grid.balance(grid.nodes[2].public) == purse + BOND + TOKEN - 3 * VERDICT_FEE
    assert grid.need(keys.challenge_key(second), ChallengeRecord).bounty == 0  # the one bounty was earned
    for witness in witnesses:
        grid.ok(witness, Verdict(second, True), dt=1)
    record = grid.lease(lease)
    assert [term.member for term in record.terms] == [0, 1, 2]
    purse = grid.balance(grid.nodes[4].public)
    grid.block(dt=7_000)
    grid.ok(grid.faucet, Resolve(second))
    assert grid.balance(grid.nodes[4].public) == purse + BOND - 3 * VERDICT_FEE  # without a bounty the bond pays fees
    assert grid.run(grid.tenants[0], Challenge(lease, 3)) == Code.NO_STANDBY


def test_a_lease_that_closed_meanwhile_stays_where_it_was(grid: Grid) -> None:
    lease = started(grid, [0, 2])
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    grid.ok(grid.tenants[0], Close(lease, ""))
    for witness in witnesses:
        grid.ok(witness, Verdict(challenge, True), dt=1)
    assert len(grid.lease(lease).terms) == 1
    purse = grid.balance(grid.nodes[2].public)
    for _ in range(3):
        grid.next_epoch()
    grid.claim_all(lease)  # the last claim resolves what is open
    assert grid.read(keys.lease_key(lease), Lease) is None
    assert grid.balance(grid.nodes[2].public) == purse + BOND + TOKEN - 3 * VERDICT_FEE


def test_too_few_witnesses_never_decide() -> None:
    grid = Grid(farms=3)  # all owners but one are members
    grid.block()
    lease = grid.deploy(grid.tenants[0], [[0, 2]])[0]
    grid.next_epoch()
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    assert len(witnesses) == 2
    for witness in witnesses:
        grid.ok(witness, Verdict(challenge, True), dt=1)
    assert len(grid.lease(lease).terms) == 2  # two of two
    small = Grid(farms=3, nodes_per_farm=1)
    small.block()
    lease = small.deploy(small.tenants[0], [[0, 1]])[0]
    small.next_epoch()
    challenge, witnesses = challenged(small, lease, small.nodes[1])
    assert len(witnesses) == 1
    small.ok(witnesses[0], Verdict(challenge, True), dt=1)
    assert len(small.lease(lease).terms) == 1  # nobody else saw it


def test_the_drawing_beacon_must_still_be_in_the_ring() -> None:
    grid = Grid(preset_with(min_block_gap_ms=100), farms=8)
    grid.block()
    lease = grid.deploy(grid.tenants[0], [[0, 2]])[0]
    grid.next_epoch()
    challenge = grid.ok(grid.nodes[2], Challenge(lease, 1))
    grid.block(dt=1)
    drawn = grid.challenge_witnesses(challenge)
    for _ in range(64):
        grid.block(dt=1)
    assert grid.run(grid.node_of_slot(drawn[0]), Verdict(challenge, True), dt=1) == Code.NOT_DRAWN


def test_pay_is_split_where_the_term_changes(grid: Grid) -> None:
    price = 36_000_000
    lease = started(grid, [0, 2], price=price)
    challenge, witnesses = challenged(grid, lease, grid.nodes[2])
    for witness in witnesses:
        grid.ok(witness, Verdict(challenge, True), dt=1)
    record = grid.lease(lease)
    change = record.terms[1].from_ms
    epoch = grid.epoch
    for _ in range(3):
        grid.next_epoch()
    grid.claim_all(lease)
    entry = next(entry for entry in grid.lease(lease).settlements if entry.epoch == epoch)
    end = grid.epoch_record(epoch + 1).first_ms - 1  # type: ignore[union-attr]
    assert end - 10_000 < change < end

    # Both served: the old holder to the change, the new one after; and its reserve until then.
    def clock(instant: int) -> int:
        return instant - record.started_ms

    reserve = price // 5
    expected = (
        sum(
            price * clock(b) // 3_600_000 - price * clock(a) // 3_600_000
            for a, b in ((end - 10_000, change), (change, end))
        )
        + reserve * clock(change) // 3_600_000
        - reserve * clock(end - 10_000) // 3_600_000
    )
    assert (entry.paid, entry.member, entry.term) == (expected, 1, 2)
