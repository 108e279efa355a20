"""Transfers and signers."""

import pytest
from ledger_grid import Grid, Key

from freehold.base.amounts import MAX_AMOUNT, TOKEN
from freehold.ledger.codes import Code
from freehold.ledger.transactions import SetSigners, Transfer


@pytest.fixture
def grid() -> Grid:
    grid = Grid()
    grid.block()
    return grid


def test_a_new_account_must_cover_its_own_deposit(grid: Grid) -> None:
    to = Key("new").public
    deposit = grid.preset.record_deposit
    assert grid.run(grid.tenants[0], Transfer(to, deposit - 1)) == Code.BAD_AMOUNT
    assert grid.account(to) is None
    grid.ok(grid.tenants[0], Transfer(to, deposit))
    grid.ok(grid.tenants[0], Transfer(to, 1))  # afterwards any amount will do
    assert grid.balance(to) == deposit + 1


def test_a_transfer_to_oneself_costs_its_fee_alone(grid: Grid) -> None:
    tenant = grid.tenants[0]
    before = grid.balance(tenant.public)
    grid.ok(tenant, Transfer(tenant.public, TOKEN))
    assert grid.balance(tenant.public) == before - grid.preset.min_fee


def test_the_smallest_and_the_largest_amount(grid: Grid) -> None:
    tenant, to = grid.tenants[0], grid.tenants[1].public
    grid.ok(tenant, Transfer(to, 1))
    assert grid.run(tenant, Transfer(to, MAX_AMOUNT)) == Code.INSUFFICIENT_BALANCE
    assert grid.run(tenant, Transfer(to, MAX_AMOUNT + 1)) == Code.BAD_AMOUNT


def test_a_malformed_destination(grid: Grid) -> None:
    assert grid.run(grid.tenants[0], Transfer(b"short", TOKEN)) == Code.BAD_FIELD
    assert grid.run(grid.tenants[0], Transfer(bytes(33), TOKEN)) == Code.BAD_FIELD


@pytest.mark.parametrize(
    ("signers", "threshold", "code"),
    [
        ([(b"a" * 32, 1)], 1, Code.OK),
        ([(b"a" * 32, 1), (b"b" * 32, 255)], 256, Code.OK),
        ([], 0, Code.OK),
        ([], 1, Code.BAD_FIELD),
        ([(b"a" * 32, 1)], 0, Code.BAD_FIELD),
        ([(b"a" * 32, 1)], -1, Code.BAD_FIELD),
        ([(b"a" * 32, 1)], 2, Code.BAD_FIELD),  # nobody could ever sign again
        ([(b"a" * 32, 0)], 1, Code.BAD_FIELD),
        ([(b"a" * 32, 256)], 1, Code.BAD_FIELD),
        ([(b"a", 1)], 1, Code.BAD_FIELD),
        ([(b"b" * 32, 1), (b"a" * 32, 1)], 1, Code.NOT_SORTED),
        ([(b"a" * 32, 1), (b"a" * 32, 1)], 1, Code.NOT_SORTED),
        ([(bytes([at]) * 32, 1) for at in range(20)], 20, Code.OK),
        ([(bytes([at]) * 32, 1) for at in range(21)], 1, Code.TOO_MANY),
    ],
)
def test_signers(grid: Grid, signers: list[tuple[bytes, int]], threshold: int, code: Code) -> None:
    assert grid.run(grid.tenants[0], SetSigners(signers, threshold)) == code
    account = grid.account(grid.tenants[0].public)
    assert account is not None
    assert (account.signers, account.threshold) == ((signers, threshold) if code == Code.OK else ([], 0))
