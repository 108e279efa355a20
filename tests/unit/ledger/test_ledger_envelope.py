"""The envelope of a transaction: each check has a code, and a refused transaction changes nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_grid import CHAIN, FEE, ZERO, Grid, Key, sign_tx, verify

from freehold.base.amounts import MAX_AMOUNT, TOKEN
from freehold.base.codec import encode
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.execute import MAX_NONCES_AHEAD, Lane, beacon_tx, check_tx
from freehold.ledger.records import Account
from freehold.ledger.transactions import (
    MAX_VALID_HEIGHTS,
    Accept,
    Claim,
    Report,
    SetSigners,
    Transfer,
    Tx,
    Verdict,
    decode_tx,
    received_signing_bytes,
    tx_signing_bytes,
)

TO = Key("someone").public


@pytest.fixture
def grid() -> Grid:
    grid = Grid()
    grid.block()
    return grid


def refused(grid: Grid, data: bytes, code: Code) -> None:
    """The mempool and the block refuse it alike, and the block leaves nothing but its own beacon and counters."""
    assert grid.check(data) == code
    before = dict(grid.state)
    result = grid.block(data, dt=1)[0]
    assert (result.code, result.data, result.events) == (code, b"", [])
    changed = {key for key in before.keys() | grid.state.keys() if before.get(key) != grid.state.get(key)}
    assert changed <= {keys.TOTALS, keys.beacon_key(grid.height)}


def pay(grid: Grid, **fields: object) -> bytes:
    return grid.tx(grid.tenants[0], Transfer(TO, TOKEN), **fields)


def test_a_transfer_moves_tokens_and_pays_its_fee(grid: Grid) -> None:
    before = grid.balance(grid.tenants[0].public)
    grid.ok(grid.tenants[0], Transfer(TO, TOKEN), fee=3 * FEE)
    assert grid.balance(grid.tenants[0].public) == before - TOKEN - 3 * FEE
    assert grid.balance(TO) == TOKEN
    assert grid.totals.fees == 3 * FEE
    assert grid.nonce(grid.tenants[0].public) == 1


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x98", b"\xff" * 100, encode([1, 2, 3])])
def test_garbage_is_undecodable(grid: Grid, data: bytes) -> None:
    refused(grid, data, Code.UNDECODABLE)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_check(data: bytes) -> None:
    assert check_tx(SHARED.state, data, 2, verify).code != Code.OK


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_byte_is_accepted(at: int, flip: int) -> None:
    data = bytearray(pay(SHARED))
    data[at % len(data)] ^= flip
    assert check_tx(SHARED.state, bytes(data), 2, verify).code != Code.OK


def test_another_encoding_of_the_same_value_is_undecodable(grid: Grid) -> None:
    data = pay(grid)
    assert data[:2] == b"\x98\x01"  # an array of eight, version 1
    refused(grid, b"\x98\xcc\x01" + data[2:], Code.UNDECODABLE)
    refused(grid, b"\xdc\x00\x08" + data[1:], Code.UNDECODABLE)
    refused(grid, data + b"\x00", Code.UNDECODABLE)


def test_an_unknown_body_is_undecodable(grid: Grid) -> None:
    data = pay(grid)
    at = data.index(b"\x93\x01\xc4 " + TO)
    refused(grid, data[: at + 1] + b"\x63" + data[at + 2 :], Code.UNDECODABLE)


def test_size_and_version(grid: Grid) -> None:
    refused(grid, bytes(17_000), Code.OVERSIZED)
    refused(grid, pay(grid, version=2), Code.UNKNOWN_VERSION)


def test_another_chain(grid: Grid) -> None:
    refused(grid, pay(grid, chain_id="other"), Code.WRONG_CHAIN)
    # The chain id is under the signature too: rewriting it does not help.
    foreign = decode_tx(pay(grid, chain_id="other"))
    refused(grid, encode(msgspec.structs.replace(foreign, chain_id=CHAIN)), Code.BAD_SIGNATURE)


def test_validity(grid: Grid) -> None:
    refused(grid, pay(grid, valid_until=grid.height), Code.EXPIRED)
    refused(grid, pay(grid, valid_until=-1), Code.EXPIRED)
    refused(grid, pay(grid, valid_until=grid.height + 3 + MAX_VALID_HEIGHTS), Code.VALID_UNTIL_TOO_FAR)
    grid.ok(grid.tenants[0], Transfer(TO, TOKEN), valid_until=grid.height + 1)


def test_sender_and_account(grid: Grid) -> None:
    refused(grid, pay(grid, sender=b"short"), Code.BAD_FIELD)
    refused(grid, grid.tx(Key("nobody"), Transfer(TO, TOKEN)), Code.UNKNOWN_ACCOUNT)


def test_replay_and_reorder(grid: Grid) -> None:
    first, second = pay(grid, nonce=0), pay(grid, nonce=1)
    assert grid.check(second) == Code.OK  # it may wait for the first
    assert grid.block(second, dt=1)[0].code == Code.WRONG_NONCE
    assert grid.account(TO) is None
    assert [result.code for result in grid.block(first, second, dt=1)] == [0, 0]
    refused(grid, first, Code.WRONG_NONCE)
    refused(grid, second, Code.WRONG_NONCE)


def test_a_nonce_too_far_ahead_or_negative(grid: Grid) -> None:
    assert grid.check(pay(grid, nonce=MAX_NONCES_AHEAD)) == Code.OK
    assert grid.check(pay(grid, nonce=MAX_NONCES_AHEAD + 1)) == Code.WRONG_NONCE
    refused(grid, pay(grid, nonce=-1), Code.WRONG_NONCE)


def test_a_later_nonce_is_not_judged_by_a_balance_that_may_still_come(grid: Grid) -> None:
    too_much = Transfer(TO, 5_000 * TOKEN)
    assert grid.check(grid.tx(grid.tenants[0], too_much, nonce=0)) == Code.INSUFFICIENT_BALANCE
    later = grid.tx(grid.tenants[0], too_much, nonce=1)
    assert grid.check(later) == Code.OK
    gift = grid.tx(grid.faucet, Transfer(grid.tenants[0].public, 5_000 * TOKEN))
    assert [result.code for result in grid.block(gift, pay(grid), later, dt=1)] == [0, 0, 0]


def test_fees_and_balance(grid: Grid) -> None:
    refused(grid, pay(grid, fee=FEE - 1), Code.FEE_TOO_LOW)
    refused(grid, pay(grid, fee=-1), Code.FEE_TOO_LOW)
    refused(grid, pay(grid, fee=MAX_AMOUNT), Code.INSUFFICIENT_BALANCE)
    balance = grid.balance(grid.tenants[0].public)
    deposit = grid.preset.record_deposit
    body = Transfer(TO, balance - deposit - FEE + 1)
    refused(grid, grid.tx(grid.tenants[0], body), Code.INSUFFICIENT_BALANCE)
    grid.ok(grid.tenants[0], Transfer(TO, balance - deposit - FEE))
    assert grid.balance(grid.tenants[0].public) == deposit


@pytest.mark.parametrize("amount", [0, -1, -MAX_AMOUNT, MAX_AMOUNT + 1, (1 << 64) - 1])
def test_amounts_out_of_range(grid: Grid, amount: int) -> None:
    refused(grid, grid.tx(grid.tenants[0], Transfer(TO, amount)), Code.BAD_AMOUNT)


def test_signatures_of_others_or_none(grid: Grid) -> None:
    refused(grid, pay(grid, signers=()), Code.BAD_SIGNATURE)
    refused(grid, pay(grid, signers=(grid.tenants[1],)), Code.BAD_SIGNATURE)
    refused(grid, pay(grid, signers=(grid.tenants[0], grid.tenants[1])), Code.BAD_SIGNATURE)
    tx = decode_tx(pay(grid))
    wrong = (grid.tenants[0].public, grid.tenants[1].sign(tx_signing_bytes(tx)))
    refused(grid, encode(msgspec.structs.replace(tx, signatures=[wrong])), Code.BAD_SIGNATURE)
    short = (grid.tenants[0].public, b"x")
    refused(grid, encode(msgspec.structs.replace(tx, signatures=[short])), Code.BAD_SIGNATURE)
    refused(grid, encode(msgspec.structs.replace(tx, fee=tx.fee + 1)), Code.BAD_SIGNATURE)


def test_an_account_with_signers(grid: Grid) -> None:
    owner, one, two, three = grid.tenants[0], Key("one"), Key("two"), Key("three")
    signers = sorted([(one.public, 1), (two.public, 2), (three.public, 1)])
    grid.ok(owner, SetSigners(signers, 2))
    refused(grid, pay(grid), Code.BAD_SIGNATURE)  # the old key is no longer a signer
    refused(grid, pay(grid, signers=(one,)), Code.NOT_ENOUGH_WEIGHT)
    refused(grid, pay(grid, signers=()), Code.NOT_ENOUGH_WEIGHT)
    refused(grid, pay(grid, signers=(two, owner)), Code.BAD_SIGNATURE)
    twice = decode_tx(pay(grid, signers=(one,)))
    refused(grid, encode(msgspec.structs.replace(twice, signatures=twice.signatures * 2)), Code.NOT_SORTED)
    unsorted = decode_tx(pay(grid, signers=(one, three)))
    refused(grid, encode(msgspec.structs.replace(unsorted, signatures=unsorted.signatures[::-1])), Code.NOT_SORTED)
    half = decode_tx(pay(grid, signers=(one, three)))
    bad = [half.signatures[0], (half.signatures[1][0], bytes(64))]
    refused(grid, encode(msgspec.structs.replace(half, signatures=bad)), Code.BAD_SIGNATURE)
    many = [(bytes([at]) * 32, bytes(64)) for at in range(21)]
    refused(grid, encode(msgspec.structs.replace(half, signatures=many)), Code.TOO_MANY)
    grid.ok(owner, Transfer(TO, TOKEN), signers=(two,))
    grid.ok(owner, Transfer(TO, TOKEN), signers=(one, three))
    grid.ok(owner, SetSigners([], 0), signers=(two,))
    grid.ok(owner, Transfer(TO, TOKEN))


def test_free_bodies_need_a_node_and_its_own_key_only(grid: Grid) -> None:
    node, body = grid.nodes[0], Accept(ZERO, ZERO)
    refused(grid, grid.tx(node, body), Code.UNKNOWN_LEASE)
    refused(grid, grid.tx(node, body, nonce=1), Code.WRONG_NONCE)
    refused(grid, grid.tx(node, body, fee=1), Code.BAD_AMOUNT)
    refused(grid, grid.tx(node, body, signers=(grid.nodes[1],)), Code.BAD_SIGNATURE)
    refused(grid, grid.tx(node, body, signers=(node, grid.nodes[1])), Code.BAD_SIGNATURE)
    refused(grid, grid.tx(node, body, signers=()), Code.BAD_SIGNATURE)
    refused(grid, grid.tx(Key("nobody"), body), Code.UNKNOWN_NODE)
    refused(grid, grid.tx(grid.tenants[0], Verdict(ZERO, True)), Code.UNKNOWN_NODE)


def test_nobodys_signature_is_never_checked(grid: Grid) -> None:
    def never(*_: bytes) -> bool:
        raise AssertionError

    for data in (grid.tx(Key("nobody"), Accept(ZERO, ZERO)), pay(grid, fee=1), pay(grid, chain_id="x")):
        assert check_tx(grid.state, data, grid.height + 1, never).code != Code.OK


def test_lanes(grid: Grid) -> None:
    def lane(data: bytes) -> Lane:
        return check_tx(grid.state, data, grid.height + 1, verify).lane

    assert lane(pay(grid)) == Lane.USERS
    assert lane(grid.tx(grid.nodes[0], Accept(ZERO, ZERO))) == Lane.REPORTS
    assert lane(grid.tx(grid.nodes[0], Report(0, ZERO, ZERO, [], [], ZERO, 0, []))) == Lane.REPORTS
    assert lane(grid.tx(grid.tenants[0], Claim(ZERO, 0, 0))) == Lane.USERS


def test_a_check_changes_nothing_and_gives_the_transaction(grid: Grid) -> None:
    before = dict(grid.state)
    data = pay(grid, fee=2 * FEE)
    result = check_tx(grid.state, data, grid.height + 1, verify)
    assert grid.state == before
    assert (result.code, result.tx, result.next_nonce) == (0, decode_tx(data), 0)


def test_a_claims_fee_is_the_least_and_never_the_senders(grid: Grid) -> None:
    for fee, code in ((FEE - 1, Code.FEE_TOO_LOW), (FEE + 1, Code.BAD_AMOUNT), (FEE, Code.UNKNOWN_LEASE)):
        refused(grid, grid.tx(grid.tenants[0], Claim(ZERO, 0, 0), fee=fee), code)


def test_a_second_beacon_is_misplaced(grid: Grid) -> None:
    refused(grid, beacon_tx(grid.height + 1, grid.validator.sign(b"any")), Code.MISPLACED_BEACON)


def test_a_refused_body_leaves_nothing_behind(grid: Grid) -> None:
    """The fee and nonce are booked before the body runs; a refusal takes them back, also from the next one's view."""
    tenant = grid.tenants[0]
    broke = grid.tx(tenant, Transfer(TO, 10**17), nonce=0)
    good = grid.tx(tenant, Transfer(TO, TOKEN), nonce=0)
    assert [result.code for result in grid.block(broke, good, dt=1)] == [Code.INSUFFICIENT_BALANCE, Code.OK]
    assert grid.totals.fees == FEE


def test_a_signed_transaction_survives_decoding() -> None:
    data = sign_tx(Key("a"), Transfer(TO, 1), 7)
    tx = decode_tx(data)
    assert isinstance(tx, Tx)
    assert encode(tx) == data
    assert tx.nonce == 7


@pytest.mark.parametrize("signers", [0, 1, 3, 16, 20])
def test_signing_bytes_cut_from_the_data_are_those_that_were_signed(signers: int) -> None:
    keys_of = [Key(f"s{at}") for at in range(signers)]
    for body in (Transfer(TO, 1), Claim(ZERO, 0, 23), SetSigners([(TO, 1)] * 20, 1)):
        data = sign_tx(Key("a"), body, 7, signers=keys_of)
        tx = decode_tx(data)
        assert received_signing_bytes(tx, data) == tx_signing_bytes(tx)


SHARED = Grid()
SHARED.block()


def test_accounts_hold_what_they_reserve(grid: Grid) -> None:
    grid.ok(grid.tenants[0], Transfer(TO, grid.preset.record_deposit))
    account = grid.account(TO)
    assert account == Account(1, grid.preset.record_deposit, 0, grid.preset.record_deposit, 0, [])
    key = Key("someone")
    refused(grid, grid.tx(key, Transfer(grid.tenants[0].public, 1)), Code.INSUFFICIENT_BALANCE)
