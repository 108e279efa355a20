"""Beacons, epochs, void time, halts of any length."""

import pytest
from ledger_grid import CHAIN, GENESIS_MS, Grid, Key, preset_with, verify

from freehold.base.errors import InvariantError, LocalProtocolError
from freehold.base.presets import MAINNET, MINIMAL
from freehold.crypto.hashing import Purpose, tagged_hash
from freehold.ledger import keys, schedule
from freehold.ledger.codes import Code
from freehold.ledger.epochs import beacon_value
from freehold.ledger.execute import BlockInput, beacon_tx, check_proposal, execute_block
from freehold.ledger.records import BeaconRecord
from freehold.ledger.transactions import beacon_signing_bytes


class CountingState(dict[bytes, bytes]):
    reads = 0

    def get(self, key: bytes, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
        self.reads += 1
        return super().get(key, default)


def block(grid: Grid, *txs: bytes, height: int = 1, proposer: Key | None = None) -> BlockInput:
    return BlockInput(height, GENESIS_MS + 5, (proposer or grid.validator).public, list(txs))


def signed_beacon(grid: Grid, height: int = 1, key: Key | None = None, chain: str = CHAIN) -> bytes:
    return beacon_tx(height, (key or grid.validator).sign(beacon_signing_bytes(chain, height)))


def test_the_beacon_is_the_hash_of_the_proposers_signature() -> None:
    grid = Grid()
    grid.block()
    signature = grid.validator.sign(beacon_signing_bytes(CHAIN, 1))
    value = tagged_hash(Purpose.BEACON, CHAIN.encode(), (1).to_bytes(8, "big"), signature)
    assert grid.need(keys.beacon_key(1), BeaconRecord) == BeaconRecord(1, 1, value)
    assert beacon_value(CHAIN, 1, signature) == value
    record = grid.epoch_record(0)
    assert record is not None
    assert record.beacon == value


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda grid: block(grid), Code.MISPLACED_BEACON),
        (lambda grid: block(grid, b"junk"), Code.MISPLACED_BEACON),
        (lambda grid: block(grid, grid.tx(grid.nodes[0], None) if False else b"\x93"), Code.MISPLACED_BEACON),
        (lambda grid: block(grid, signed_beacon(grid, height=2)), Code.BAD_BEACON),
        (lambda grid: block(grid, signed_beacon(grid, chain="other")), Code.BAD_BEACON),
        (lambda grid: block(grid, signed_beacon(grid, key=Key("other"))), Code.BAD_BEACON),
        (lambda grid: block(grid, beacon_tx(1, b"")), Code.BAD_BEACON),
        (lambda grid: block(grid, signed_beacon(grid, key=Key("x")), proposer=Key("x")), Code.BAD_BEACON),
        (lambda grid: block(grid, signed_beacon(grid), *[b"x"] * 1_001), Code.TOO_MANY),
        (lambda grid: block(grid, signed_beacon(grid), *[b"x"] * 1_000), Code.OK),
        (lambda grid: block(grid, signed_beacon(grid)), Code.OK),
    ],
)
def test_proposals(make: object, code: Code) -> None:
    grid = Grid()
    proposal = make(grid)  # type: ignore[operator]
    assert check_proposal(grid.state, proposal, verify) == code
    if code not in (Code.OK, Code.TOO_MANY):
        with pytest.raises(LocalProtocolError):
            execute_block(grid.state, proposal, verify)


def test_beacons_of_64_heights_stay() -> None:
    grid = Grid()
    for _ in range(130):
        grid.block(dt=1)
    kept = {grid.need(b"b" + bytes([at]), BeaconRecord).height for at in range(64)}
    assert kept == set(range(67, 131))


def test_height_and_time_must_follow() -> None:
    grid = Grid()
    grid.block()
    for height, time_ms in ((1, grid.now + 1), (3, grid.now + 1), (2, grid.now), (2, grid.now - 1)):
        wrong = BlockInput(height, time_ms, grid.validator.public, [signed_beacon(grid, height)])
        with pytest.raises(InvariantError):
            execute_block(grid.state, wrong, verify)


def test_the_first_block_may_carry_the_time_of_genesis() -> None:
    grid = Grid()
    grid.block(dt=0)
    assert (grid.epoch, grid.totals.void_ms) == (0, 0)


def test_an_epochs_record_is_written_by_its_first_block() -> None:
    grid = Grid()
    grid.block()
    grid.block()
    record = grid.epoch_record(0)
    assert record is not None
    assert (record.first_height, record.first_ms, record.node_slots) == (1, GENESIS_MS + 1_000, 10)
    assert (record.ticks_covered, record.last_tick, record.void_ms_before) == (2, 2, 0)
    grid.block(dt=10)  # in the same tick
    record = grid.epoch_record(0)
    assert record is not None
    assert record.ticks_covered == 2


@pytest.mark.parametrize(("ticks", "is_void"), [(10, False), (5, False), (4, True), (1, True)])
def test_an_epoch_with_fewer_than_half_its_ticks_is_void(ticks: int, is_void: bool) -> None:
    grid = Grid()
    for tick in range(ticks):
        grid.block(dt=GENESIS_MS + tick * 1_000 + 1 - grid.now)
    grid.block(dt=GENESIS_MS + 10_001 - grid.now)
    assert grid.totals.void_ms == (10_000 if is_void else 0)
    record = grid.epoch_record(1)
    assert record is not None
    assert record.void_ms_before == grid.totals.void_ms


def test_epochs_without_a_block_are_void() -> None:
    grid = Grid()
    for _ in range(10):
        grid.block(dt=900)
    grid.block(dt=GENESIS_MS + 70_001 - grid.now)  # epoch 7: 1 to 6 had none
    assert grid.totals.void_ms == 60_000
    for epoch in range(1, 7):
        assert grid.epoch_record(epoch) is None


@pytest.mark.parametrize("epochs", [2, 359, 360, 361, 100_000, 10**9])
def test_a_halt_of_any_length_costs_the_same(epochs: int) -> None:
    grid = Grid(is_checked=False)
    for _ in range(9):
        grid.block()
    state = CountingState(grid.state)
    time_ms = GENESIS_MS + epochs * 10_000 + 1
    after = BlockInput(10, time_ms, grid.validator.public, [signed_beacon(grid, 10)])
    result = execute_block(state, after, verify)
    assert state.reads <= 7
    assert len(result.changes) == 3  # beacon, epoch, counters
    state.update({key: value for key, value in result.changes.items() if value is not None})
    grid.state = state
    assert grid.totals.void_ms == (epochs - 1) * 10_000
    assert grid.totals.epoch == epochs


def test_the_ring_of_epochs_forgets_after_r() -> None:
    grid = Grid(preset_with(report_epochs=4))
    for _ in range(6):
        grid.next_epoch(reports=False)
    assert [epoch for epoch in range(7) if grid.epoch_record(epoch)] == [3, 4, 5, 6]
    assert schedule.oldest_claimable(grid.preset, 6) == 3
    assert schedule.oldest_claimable(grid.preset, 2) == 0


def test_times_of_epochs() -> None:
    assert schedule.epoch_at(MINIMAL, 1_000, 999) == -1
    assert schedule.epoch_at(MINIMAL, 1_000, 1_000) == 0
    assert schedule.epoch_at(MINIMAL, 1_000, 10_999) == 0
    assert schedule.epoch_at(MINIMAL, 1_000, 11_000) == 1
    assert schedule.epoch_start_ms(MINIMAL, 1_000, 3) == 31_000
    assert schedule.epoch_end_ms(MINIMAL, 1_000, 3) == 41_000
    assert schedule.window_end_ms(MINIMAL, 1_000, 3) == 51_000
    assert schedule.ticks_per_epoch(MAINNET) == 720
    assert schedule.ticks_per_epoch(preset_with(tick_ms=3_000)) == 4
    assert schedule.tick_at(MINIMAL, 1_000, 20_999) == 9


def test_reporting_slots_are_spread_and_fixed() -> None:
    nodes = [Key(str(at)).public for at in range(500)]
    offsets = [schedule.report_due_ms(MINIMAL, 0, node, 7) - 80_000 for node in nodes]
    assert 0 <= min(offsets) < 100
    assert 5_900 < max(offsets) < 6_000
    assert offsets == [schedule.report_due_ms(MINIMAL, 0, node, 7) - 80_000 for node in nodes]
    assert offsets != [schedule.report_due_ms(MINIMAL, 0, node, 8) - 90_000 for node in nodes]
