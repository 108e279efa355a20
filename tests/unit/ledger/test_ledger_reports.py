"""Reports: one for each node and epoch, in its window, with the draw that the beacon made."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_grid import GENESIS_MS, ZERO, Grid, Key, preset_with

from freehold.base.amounts import TOKEN
from freehold.crypto import mmr
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.records import NodeHistory, ReportRecord
from freehold.ledger.reports import check_report_fields, report_leaf
from freehold.ledger.transactions import Offer, RegisterNode, Report, Resources, RetireNode, possession_bytes


@pytest.fixture
def grid() -> Grid:
    grid = Grid()
    grid.block()
    grid.next_epoch(reports=False)
    return grid


def test_a_report_is_stored_once(grid: Grid) -> None:
    node = grid.nodes[0]
    body = grid.report_body(node.public, 0)
    grid.ok(node, body)
    stored = grid.report(node.public, 0)
    assert stored is not None
    assert (stored.witnesses, stored.duty_targets, stored.received_ms) == (body.witnesses, body.duty_targets, grid.now)
    assert stored.threshold == 2
    assert grid.run(node, body) == Code.DUPLICATE_REPORT
    assert grid.run(node, msgspec.structs.replace(body, evidence_root=b"x" * 32)) == Code.DUPLICATE_REPORT


def test_reports_for_other_epochs(grid: Grid) -> None:
    node = grid.nodes[0]
    body = grid.report_body(node.public, 0)
    for epoch in (-1, grid.epoch, grid.epoch + 1, 1 << 62):
        assert grid.run(node, msgspec.structs.replace(body, epoch=epoch)) == Code.WRONG_EPOCH


def test_the_window(grid: Grid) -> None:
    first, second = grid.nodes[:2]
    bodies = [grid.report_body(node.public, 0) for node in (first, second)]
    end = GENESIS_MS + 20_000
    while grid.now + 1_000 < end - 2:
        grid.block()
    grid.block(dt=end - 2 - grid.now)
    grid.ok(first, bodies[0], dt=1)
    assert grid.run(second, bodies[1], dt=1) == Code.OUTSIDE_WINDOW


def test_a_void_epoch_takes_no_reports() -> None:
    grid = Grid()
    grid.block()
    grid.block(dt=10_000)
    body = Report(0, ZERO, ZERO, [], [], ZERO, 0, [])
    assert grid.run(grid.nodes[0], body) == Code.VOID_EPOCH


def test_the_draw_is_checked(grid: Grid) -> None:
    node = grid.nodes[0]
    body = grid.report_body(node.public, 0)
    drawn = body.witnesses
    assert len(drawn) == 3
    for wrong in (drawn[::-1], drawn[:2], [*drawn[:2], 9], [], [*drawn, 9]):
        if wrong != drawn:
            assert grid.run(node, msgspec.structs.replace(body, witnesses=wrong)) == Code.WRONG_DRAW
    other = grid.witnesses(grid.nodes[1].public, 0)
    assert grid.run(node, msgspec.structs.replace(body, witnesses=other)) == Code.WRONG_DRAW or other == drawn


def test_shapes() -> None:
    body = Report(0, ZERO, ZERO, [1, 2, 3], [4, 5], ZERO, 2, [])
    assert check_report_fields(body) == Code.OK
    cases: list[tuple[dict[str, Any], Code]] = [
        ({"evidence_root": b""}, Code.BAD_FIELD),
        ({"duty_root": bytes(31)}, Code.BAD_FIELD),
        ({"lease_bits": bytes(31)}, Code.BAD_FIELD),
        ({"lease_bits": bytes(33)}, Code.BAD_FIELD),
        ({"witnesses": [0] * 15}, Code.OK),
        ({"witnesses": [0] * 16}, Code.TOO_MANY),
        ({"duty_targets": [0, (1 << 32) - 1], "duty_count": (1 << 32) - 1}, Code.OK),
        ({"duty_targets": list(range(1_025))}, Code.TOO_MANY),
        ({"duty_targets": list(range(1_024))}, Code.OK),
        ({"duty_targets": [5, 4]}, Code.NOT_SORTED),
        ({"duty_targets": [4, 4]}, Code.NOT_SORTED),
        ({"duty_targets": [-1, 4]}, Code.BAD_FIELD),
        ({"duty_targets": [1 << 32]}, Code.BAD_FIELD),
        ({"duty_failed": [(4, 0), (4, 255), (5, 0)]}, Code.OK),
        ({"duty_failed": [(4, 1), (4, 0)]}, Code.NOT_SORTED),
        ({"duty_failed": [(4, 1), (4, 1)]}, Code.NOT_SORTED),
        ({"duty_failed": [(4, 256)]}, Code.BAD_FIELD),
        ({"duty_failed": [(-1, 0)]}, Code.BAD_FIELD),
        ({"duty_failed": [(1 << 32, 0)]}, Code.BAD_FIELD),
        ({"duty_failed": [(number, 0) for number in range(1_025)]}, Code.TOO_MANY),
        ({"duty_count": -1}, Code.BAD_FIELD),
        ({"duty_count": 1 << 32}, Code.BAD_FIELD),
    ]
    for changes, code in cases:
        assert check_report_fields(msgspec.structs.replace(body, **changes)) == code, changes


def test_a_malformed_report_is_refused_by_the_block(grid: Grid) -> None:
    body = msgspec.structs.replace(grid.report_body(grid.nodes[0].public, 0), lease_bits=b"")
    assert grid.run(grid.nodes[0], body) == Code.BAD_FIELD


def test_the_ring_overwrites_after_r() -> None:
    grid = Grid(preset_with(report_epochs=4))
    grid.block()
    for _ in range(5):
        grid.next_epoch()
    held = [grid.report(grid.nodes[0].public, epoch) is not None for epoch in range(5)]
    assert held == [False, True, True, True, True]
    assert len([key for key in grid.state if key[:1] == b"r"]) == 4 * len(grid.nodes)


def test_every_report_stays_provable(grid: Grid) -> None:
    node = grid.nodes[0].public
    for _ in range(5):
        grid.next_epoch()
    leaves: list[bytes] = []
    for epoch in range(1, grid.epoch):
        report = grid.report(node, epoch)
        assert report is not None
        leaves.append(report_leaf(report))
    record, history = grid.node(node), grid.need(keys.node_history_key(node), NodeHistory)
    assert (record.history_count, record.last_report_epoch) == (len(leaves), grid.epoch - 1)
    assert record.history_root == mmr.root(mmr.from_leaves(leaves))
    assert (history.count, len(history.peaks)) == (5, 2)
    assert mmr.verify(record.history_root, 5, 2, leaves[2], mmr.prove(leaves, 2))


def test_a_new_node_reports_from_its_second_epoch(grid: Grid) -> None:
    farm, node = grid.farms[0], Key("new-node")
    possession = node.sign(possession_bytes("freehold-test", node.public, farm.public, ZERO))
    capacity, offer = Resources(1, 1, 1), Offer(1, 1, 1)
    body = RegisterNode(node.public, ZERO, possession, [], capacity, offer, 100 * TOKEN, TOKEN)
    grid.ok(farm, body)
    joined = grid.epoch
    grid.nodes.append(node)
    grid.owner[node.public] = farm.public
    grid.key[node.public] = node
    grid.down = {node.public}
    for expected in (Code.WRONG_EPOCH, Code.WRONG_EPOCH, Code.OK):
        grid.next_epoch()
        report = grid.report_body(node.public, grid.epoch - 1)
        assert grid.run(node, report) == expected, grid.epoch
    assert grid.epoch - 1 == joined + 2


def test_a_retired_node_reports_for_its_last_epoch_only(grid: Grid) -> None:
    grid.ok(grid.farms[0], RetireNode(grid.nodes[0].public))
    last = grid.epoch
    grid.next_epoch()
    assert grid.report(grid.nodes[0].public, last) is not None
    grid.down = {grid.nodes[0].public}
    grid.next_epoch()
    body = Report(last + 1, ZERO, ZERO, [], [], ZERO, 0, [])
    assert grid.run(grid.nodes[0], body) == Code.WRONG_EPOCH


def test_a_retired_node_is_drawn_to_the_end_of_its_last_epoch_and_no_longer(grid: Grid) -> None:
    """Retiring must not change the draws of an epoch whose beacon is known."""
    epoch = grid.epoch
    before = [grid.witnesses(node.public, epoch) for node in grid.nodes]
    grid.ok(grid.farms[0], RetireNode(grid.nodes[0].public))
    assert [grid.witnesses(node.public, epoch) for node in grid.nodes] == before
    assert any(0 in drawn for drawn in before)
    for _ in range(3):
        grid.next_epoch(reports=False)
        assert not any(0 in grid.witnesses(node.public, grid.epoch) for node in grid.nodes[1:])


@given(st.binary(min_size=32, max_size=32), st.integers(0, 255))
def test_lease_bits_count_from_the_least(bits: bytes, number: int) -> None:
    from freehold.ledger.settlement import has_bit

    assert has_bit(bits, number) == bool(int.from_bytes(bits, "little") >> number & 1)


def test_records_of_reports_have_a_golden_shape() -> None:
    assert ReportRecord.__struct_fields__[:2] == ("version", "epoch")
