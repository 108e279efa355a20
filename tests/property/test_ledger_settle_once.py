"""For any history, settling once within R gives what settling after every block gives; so does nobody acting at all."""

import random

import pytest
from ledger_grid import FEE, GENESIS_MS, ZERO, Grid, Key, preset_with

from freehold.base.amounts import TOKEN
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.events import TermDecided
from freehold.ledger.records import Lease
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import Accept, Challenge, Claim, Close, TopUp, Verdict

PRESET = preset_with(report_epochs=64)


def claims_in_every_block(grid: Grid, claimer: Key, chunk: int) -> None:
    """Let each block hold a claim for every lease of which `chunk` more epochs have closed."""

    def extra() -> list[bytes]:
        closed = (grid.now - PRESET.report_window_ms - GENESIS_MS) // PRESET.epoch_ms - 1
        found: list[bytes] = []
        nonce = grid.nonce(claimer.public)
        for key in sorted(grid.state):
            if key[:1] == b"l":
                lease = decode_record(grid.state[key], Lease)
                last = lease.settled_epoch + chunk - 1
                if lease.started_ms and last <= closed:
                    found.append(grid.tx(claimer, Claim(key[1:], lease.settled_epoch, last), nonce=nonce))
                    nonce += 1
        return found

    grid.extra = extra


def history(seed: int, chunk: int) -> dict[str, int]:
    """One history, decided by the seed alone, with claims of `chunk` epochs; 0 claims once at the end."""
    chance = random.Random(seed)
    grid = Grid(PRESET, farms=6, nodes_per_farm=1, is_checked=False)
    claimer = grid.faucet
    if chunk:
        claims_in_every_block(grid, claimer, chunk)
    grid.block()
    leases: list[bytes] = []
    tenant_of: dict[bytes, Key] = {}
    for tenant in grid.tenants:
        members = [chance.sample(range(6), chance.randint(1, 3)) for _ in range(2)]
        ids = grid.deploy(
            tenant, members, price=chance.randint(2 * TOKEN, 30 * TOKEN), accept=False, prepaid_ms=150_000
        )
        leases += ids
        tenant_of |= dict.fromkeys(ids, tenant)
        for new_id, numbers in zip(ids, members, strict=True):
            for number in numbers:
                if number == numbers[0] or chance.random() < 0.8:
                    grid.ok(grid.nodes[number], Accept(new_id, ZERO), dt=chance.randint(1, 900))
    for _ in range(22):
        roll = chance.random()
        grid.down = {node.public for node in grid.nodes if chance.random() < 0.1}
        if roll < 0.1:
            grid.block(dt=chance.randint(10_000, 40_000))
        elif roll < 0.25:
            lease = chance.choice(leases)
            grid.run(tenant_of[lease], TopUp(lease, chance.randint(1, 50_000)))
        elif roll < 0.3:
            lease = chance.choice(leases)
            grid.run(tenant_of[lease], Close(lease, "x"))
        elif roll < 0.55:
            lease = chance.choice(leases)
            fail_over(grid, tenant_of[lease], lease)
        grid.next_epoch()
    grid.extra = list
    grid.down = set()
    for _ in range(3):
        grid.next_epoch()
    for lease in leases:
        if keys.lease_key(lease) in grid.state:
            grid.claim_all(lease)
    people = {f"farm-{at}": key for at, key in enumerate(grid.farms)}
    people |= {f"node-{at}": key for at, key in enumerate(grid.nodes)}
    people |= {f"tenant-{at}": key for at, key in enumerate(grid.tenants)}
    final = {name: grid.balance(key.public) for name, key in people.items()}
    final["treasury and fees"] = grid.totals.treasury + grid.totals.fees
    final["faucet"] = grid.balance(claimer.public)
    final["failovers"] = sum(isinstance(event, TermDecided) for event in grid.events)
    return final


def fail_over(grid: Grid, tenant: Key, lease: bytes) -> None:
    """Challenge and be believed; a lease that has ended refuses, whether or not its last claim has removed it."""
    term = len(grid.lease(lease).terms) if keys.lease_key(lease) in grid.state else 1
    if grid.block(grid.tx(tenant, Challenge(lease, term)), dt=100)[0].code != Code.OK:
        return
    challenge = grid.lease(lease).challenge
    grid.block(dt=100)
    for slot in grid.challenge_witnesses(challenge):
        grid.run(grid.node_of_slot(slot), Verdict(challenge, True), dt=10)


@pytest.mark.parametrize("seed", range(4))
def test_once_is_as_good_as_after_every_block(seed: int) -> None:
    once = history(seed, 0)
    assert history(seed, 1) == once
    assert history(seed, 3) == once


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 140))
def test_once_is_as_good_as_after_every_block_for_many(seed: int) -> None:
    once = history(seed, 0)
    for chunk in (1, 2, 5):
        assert history(seed, chunk) == once


def test_the_histories_hold_failovers() -> None:
    assert sum(history(seed, 0)["failovers"] for seed in range(4)) >= 3


def test_with_all_agents_dead_for_10_000_blocks_the_tenant_gets_all_back() -> None:
    """No reports, no claims: nothing is earned, and whoever touches the lease last returns it all."""
    for chunk in (0, 1):
        grid = Grid(PRESET, is_checked=False)
        if chunk:
            claims_in_every_block(grid, grid.faucet, chunk)
        grid.block()
        before = {key.public: grid.balance(key.public) for key in [*grid.tenants, *grid.farms]}
        lease = grid.deploy(grid.tenants[0], [[0, 2]])[0]
        for _ in range(10_000):
            grid.block()
        grid.extra = list
        grid.claim_all(lease)
        assert keys.lease_key(lease) not in grid.state
        after = {key: grid.balance(key) for key in before}
        assert after == before | {grid.tenants[0].public: before[grid.tenants[0].public] - FEE}
