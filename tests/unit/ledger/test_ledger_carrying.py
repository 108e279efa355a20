"""A state that is not left for CometBFT yet: work in flight, each told by its own code and what to wait for."""

import pytest
from ledger_grid import Grid

from freehold.base.errors import InvalidInputError
from freehold.base.presets import MINIMAL_ELECTIONS
from freehold.ledger import keys
from freehold.ledger.carrying import check_leavable
from freehold.ledger.codes import Code
from freehold.ledger.transactions import Challenge, Close, Resolve
from freehold.ledger.upgrades import NOTICE_BLOCKS


def refusal(grid: Grid, *without: bytes) -> InvalidInputError:
    """What leaving the grid's state says, but for families of records that are gone."""
    records = {key: value for key, value in grid.state.items() if key[:1] not in without}
    with pytest.raises(InvalidInputError) as caught:
        check_leavable(records)
    assert caught.value.message and caught.value.hint and caught.value.exit_code == 2
    return caught.value


def test_a_quiet_ledger_may_be_left() -> None:
    grid = Grid()
    for _ in range(3):
        grid.next_epoch()
    check_leavable(grid.state)


def test_a_lease_is_told_before_its_challenge_and_an_open_challenge_by_itself() -> None:
    grid = Grid(farms=8)
    grid.block()
    (lease,) = grid.deploy(grid.tenants[0], [[0, 2, 4]])
    grid.next_epoch()
    challenge = grid.ok(grid.nodes[2], Challenge(lease, 1))
    assert refusal(grid).code == "deployments_run"
    # Its lease was taken down and paid out meanwhile.
    error = refusal(grid, keys.lease_key(b""), keys.deployment_key(b""))
    assert error.code == "challenges_open" and "wait until it is resolved" in error.hint
    grid.ok(grid.tenants[0], Close(lease, "done"))
    for _ in range(3):
        grid.next_epoch()
    assert grid.run(grid.nodes[2], Resolve(challenge)) == Code.OK
    assert keys.challenge_key(challenge) not in grid.state
    assert refusal(grid, keys.lease_key(b"")).code == "deployments_run"  # a name alone holds it too


def test_agreed_rules_are_waited_for() -> None:
    grid = Grid(validators=4)
    grid.block()
    at = grid.height + 1 + NOTICE_BLOCKS
    grid.ok(grid.tenants[0], grid.upgrade_body(at, 2, [], grid.validators))
    error = refusal(grid)
    assert error.code == "upgrade_pending" and f"begin at height {at}" in error.message
    assert "wait until they have begun" in error.hint
    while grid.height < at - 1:
        assert refusal(grid).code == "upgrade_pending"
        grid.block()
    grid.block()
    assert grid.height == at
    check_leavable(grid.state)


def test_a_ledger_with_elections_is_where_it_should_be() -> None:
    grid = Grid(validators=4, elections=MINIMAL_ELECTIONS)
    grid.block()
    error = refusal(grid)
    assert error.code == "not_embedded" and "nothing has to be done" in error.hint
    began = Grid(validators=4)
    began.block()
    began.ok(began.tenants[0], began.upgrade_body(began.height + 1 + NOTICE_BLOCKS, 2, [1], began.validators))
    for _ in range(NOTICE_BLOCKS):
        began.block()
    assert refusal(began).code == "not_embedded"
