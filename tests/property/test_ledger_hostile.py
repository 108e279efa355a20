"""Well-formed transactions with hostile contents: whatever the numbers and bytes, the ledger answers with a code."""

import sys
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_grid import FEE, Grid, Key, state_digest

from freehold.base.codec import encode
from freehold.base.presets import MINIMAL_ELECTIONS, ElectionPreset
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.records import Params
from freehold.ledger.rules import RULE_SETS
from freehold.ledger.transactions import Body, Deploy, LeaseOrder, Probe, Report, Resources, Transfer

BODIES: tuple[type, ...] = get_args(Body)
U64 = (1 << 64) - 1
I64 = -(1 << 63)


def build(rules: int = 3, elections: ElectionPreset | None = MINIMAL_ELECTIONS) -> Grid:
    grid = Grid(validators=4, elections=elections)
    grid.state[keys.PARAMS] = encode(msgspec.structs.replace(grid.need(keys.PARAMS, Params), rules=[(1, rules)]))
    grid.block()
    grid.deploy(grid.tenants[0], [[0, 2]])
    grid.next_epoch()
    return grid


GRID = build()
LEASE = GRID.leases_of(GRID.deployments_of(GRID.tenants[0].public)[0])[0]

INTS = st.one_of(
    st.sampled_from([I64, -1, 0, 1, 2, 31, 32, 255, 256, 1 << 31, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, U64]),
    st.integers(I64, U64),
)
KNOWN = [
    LEASE,
    *(key.public for key in [*GRID.nodes[:3], *GRID.farms[:2], *GRID.tenants, GRID.faucet, *GRID.validators[:2]]),
]
BYTES = st.one_of(st.sampled_from(KNOWN), st.binary(max_size=40), st.just(bytes(32)), st.just(bytes(64)))
TEXTS = st.one_of(st.sampled_from(["", "web", "DE", "192.0.2.1:80", "/", "\x00"]), st.text(max_size=70))


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    if kind is int:
        return INTS
    if kind is bytes:
        return BYTES
    if kind is str:
        return TEXTS
    if kind is bool:
        return st.booleans()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.builds(kind, *[values(field.type) for field in msgspec.structs.fields(kind)])
    args = get_args(kind)
    if kind.__origin__ is list:
        return st.lists(values(args[0]), max_size=4)
    return st.tuples(*[values(arg) for arg in args])


NEWER = sorted(set(RULE_SETS[3].processes) - set(RULE_SETS[1].processes), key=lambda kind: kind.__name__)
BARE = {rules: build(rules, None) for rules in (2, 3)}


def attempts(grid: Grid, body_type: type) -> None:
    senders = [grid.tenants[0], grid.faucet, grid.farms[0], grid.nodes[0], grid.nodes[2], *grid.operators[:1]]

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(values(body_type), st.sampled_from(senders))
    def attempt(body: Any, sender: Key) -> None:
        before = dict(grid.state), grid.height, grid.now
        try:
            data = grid.tx(sender, body)
            code = grid.check(data)
            result = grid.block(data, dt=10)[0]  # the invariants are checked
            assert isinstance(code, Code)
            assert result.code == code
        finally:
            grid.state, grid.height, grid.now = before

    attempt()


@pytest.mark.parametrize("body_type", BODIES, ids=lambda kind: kind.__name__)
def test_any_contents_get_a_code(body_type: type) -> None:
    attempts(GRID, body_type)


@pytest.mark.parametrize("rules", BARE)
@pytest.mark.parametrize("body_type", NEWER, ids=lambda kind: kind.__name__)
def test_any_contents_get_a_code_where_nobody_is_elected(body_type: type, rules: int) -> None:
    attempts(BARE[rules], body_type)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(INTS, INTS, INTS)
def test_any_envelope_gets_a_code(nonce: int, fee: int, valid_until: int) -> None:
    data = GRID.tx(GRID.tenants[0], Transfer(bytes(32), 1), nonce=nonce, fee=fee, valid_until=valid_until)
    digest = state_digest(GRID.state)
    assert isinstance(GRID.check(data), Code)
    assert state_digest(GRID.state) == digest


def test_the_largest_numbers_do_not_overflow_what_is_stored() -> None:
    """The state's integers must fit the codec: a total above int64 would halt every node."""
    grid = build()
    order = grid.order([4], price=(1 << 62) // 1_000, resources=Resources(1, 1, 0))
    assert grid.run(grid.faucet, Deploy("x", [], [order])) == Code.INSUFFICIENT_BALANCE
    huge = msgspec.structs.replace(order, price_per_hour=(1 << 63) - 1, prepaid_ms=10**11)
    assert grid.run(grid.faucet, Deploy("x", [], [huge])) == Code.BAD_AMOUNT
    assert grid.run(grid.faucet, Transfer(grid.tenants[0].public, (1 << 63) - 1)) == Code.INSUFFICIENT_BALANCE
    assert grid.run(grid.faucet, Transfer(grid.tenants[0].public, 1 << 63)) == Code.BAD_AMOUNT


def test_every_body_is_tried() -> None:
    assert {Deploy, Report, Transfer} < set(BODIES)
    assert len(BODIES) == 25
    assert msgspec.structs.fields(LeaseOrder)
    assert msgspec.structs.fields(Probe)
    assert FEE > 0
    assert sys.maxsize > 1 << 32
