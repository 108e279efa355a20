"""Hypothesis drives the ledger and a simple model side by side: every balance agrees after every step."""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_grid import FEE, GENESIS_MS, ZERO, Grid, Key, preset_with
from ledger_model import Model, ModelLease, ModelReport

from freehold.base.amounts import TOKEN
from freehold.ledger import keys
from freehold.ledger.codes import Code
from freehold.ledger.events import Payment, TermDecided
from freehold.ledger.records import Lease
from freehold.ledger.transactions import (
    Accept,
    Challenge,
    Claim,
    Close,
    Deploy,
    Refund,
    Resolve,
    TopUp,
    Transfer,
    Verdict,
)

PRESET = preset_with(report_epochs=8)
TENANTS = st.integers(0, 1)
NUMBERS = st.integers(0, 5)


class LedgerMachine(RuleBasedStateMachine):
    """A number picks among the leases that stand; what may be refused is predicted by the model."""

    @initialize()
    def begin(self) -> None:
        self.grid = Grid(PRESET, farms=5, nodes_per_farm=1)
        self.model = Model(PRESET, dict(self.grid.owner))
        grid = self.grid
        people = [*grid.farms, *grid.tenants, *grid.nodes, grid.faucet]
        self.model.balance = {key.public: grid.balance(key.public) for key in people}
        self.model.treasury = grid.totals.treasury
        self.reported: set[int] = set()
        self.pending: dict[bytes, Any] = {}
        self.block(dt=1_000)
        self.deploy(0, [0, 1, 2, 3, 4], 3, 36 * TOKEN, 90_000, 1, -1)
        self.deploy(1, [3, 1, 0, 2, 4], 2, 20 * TOKEN, 50_000, 2, 1)
        self.time_passes(20, set())

    def block(self, *txs: bytes, dt: int) -> list[Code]:
        results = self.grid.block(*txs, dt=dt)
        self.model.times.append(self.grid.now)
        return [result.code for result in results]

    def run(self, key: Any, body: Any, dt: int = 100) -> Code:
        """One transaction in a block; the model books the fee when it succeeded."""
        code = self.block(self.grid.tx(key, body), dt=dt)[0]
        is_free = isinstance(body, Accept | Verdict | Claim)
        if code == Code.OK and not is_free:
            self.model.balance[key.public] -= FEE
            self.model.treasury += FEE
        return code

    # -- time and reports -----------------------------------------------------------------------------------------

    @rule(blocks=st.integers(1, 30), down=st.sets(st.integers(0, 4), max_size=3))
    def time_passes(self, blocks: int, down: set[int]) -> None:
        grid = self.grid
        grid.down = {grid.nodes[at].public for at in down}
        for _ in range(blocks):
            self.block(dt=1_000)
            self.report(grid.epoch - 1)

    @rule(gap=st.integers(5_000, 45_000))
    def the_ledger_halts(self, gap: int) -> None:
        self.block(dt=gap)

    def report(self, epoch: int) -> None:
        if epoch < 0 or epoch in self.reported or self.model.is_void(epoch):
            return
        self.reported.add(epoch)
        grid = self.grid
        up = [node for node in grid.nodes if node.public not in grid.down]
        bodies = [(node, grid.report_body(node.public, epoch)) for node in up]
        codes = self.block(*[grid.tx(node, body) for node, body in bodies], dt=50)
        late = grid.now >= GENESIS_MS + (epoch + 1) * PRESET.epoch_ms + PRESET.report_window_ms
        assert set(codes) <= {Code.OUTSIDE_WINDOW if late else Code.OK}
        if late:
            return
        row = {grid.node(node.public).slot: node.public for node in grid.nodes}
        for node, body in bodies:
            number = int.from_bytes(body.lease_bits, "little")
            served = {
                lease_id
                for lease_id in self.model.leases
                for member in grid.lease(lease_id).members
                if member.node == node.public and number >> member.slot & 1
            }
            self.model.reports[(node.public, epoch)] = ModelReport(
                served, [row[slot] for slot in body.witnesses], {row[slot] for slot in body.duty_targets}
            )

    # -- money ----------------------------------------------------------------------------------------------------

    @rule(sender=TENANTS, amount=st.integers(-1, 3_000 * TOKEN), new=st.booleans())
    def transfer(self, sender: int, amount: int, new: bool) -> None:
        key, model = self.grid.tenants[sender], self.model
        to = Key("newcomer").public if new else self.grid.tenants[1 - sender].public
        spare = model.balance[key.public] - PRESET.record_deposit - FEE
        least = 1 if to in model.balance else PRESET.record_deposit
        is_expected = least <= amount <= spare
        assert (self.run(key, Transfer(to, amount)) == Code.OK) == is_expected
        if is_expected:
            model.balance[key.public] -= amount
            model.balance[to] = model.balance.get(to, 0) + amount

    # -- leases ---------------------------------------------------------------------------------------------------

    def pick(self, number: int) -> bytes:
        """One of the leases that stand, oldest first."""
        return list(self.model.leases)[number % len(self.model.leases)]

    def has_leases(self) -> bool:
        return bool(self.model.leases)

    @rule(
        tenant=TENANTS,
        members=st.permutations(range(5)),
        size=st.integers(1, 3),
        price=st.integers(1_700_000 * 10, 40 * TOKEN),
        prepaid=st.integers(10_000, 90_000),
        count=st.integers(1, 2),
        late=st.integers(-1, 2),
    )
    def deploy(
        self, tenant: int, members: list[int], size: int, price: int, prepaid: int, count: int, late: int
    ) -> None:
        """Most members accept at once, `late` not."""
        before = list(self.model.leases)
        self.order(tenant, members[:size], price, prepaid, count)
        for number, lease in enumerate(self.model.leases):
            if lease not in before:
                for index in range(size):
                    if index != late:
                        self.accept(number, index)

    def order(self, tenant: int, members: list[int], price: int, prepaid: int, count: int) -> None:
        grid, model, key = self.grid, self.model, self.grid.tenants[tenant]
        orders = [grid.order(members, f"s{at}", price=price, prepaid_ms=prepaid) for at in range(count)]
        standbys = len(members) - 1
        escrow = price * prepaid // 3_600_000 + standbys * (price // 5 * prepaid // 3_600_000)
        bounty = TOKEN if standbys else 0
        charge = count * (escrow + bounty + PRESET.record_deposit) + PRESET.record_deposit
        code = self.run(key, Deploy("app", [], orders))
        if model.balance[key.public] + (FEE if code == Code.OK else 0) - PRESET.record_deposit - FEE < charge:
            assert code == Code.INSUFFICIENT_BALANCE
        if code != Code.OK:
            assert code in (Code.NO_CAPACITY, Code.INSUFFICIENT_BALANCE)
            return
        model.balance[key.public] -= charge
        deployment = grid.deployments_of(key.public)[-1]
        ids = grid.leases_of(deployment)
        model.deployments[deployment] = set(ids)
        nodes = [grid.nodes[at].public for at in members]
        for lease_id in ids:
            model.leases[lease_id] = ModelLease(key.public, nodes, price, prepaid, grid.now, escrow, bounty)

    @precondition(has_leases)
    @rule(number=NUMBERS, index=st.integers(0, 2))
    def accept(self, number: int, index: int) -> None:
        lease = self.pick(number)
        known = self.model.leases[lease]
        if index >= len(known.members):
            return
        code = self.run(self.grid.key[known.members[index]], Accept(lease, ZERO))
        if known.closed:
            assert code == Code.LEASE_CLOSED
        elif index in known.accepted:
            assert code == Code.ALREADY_ACCEPTED
        elif self.grid.now > known.created + PRESET.accept_deadline_ms:
            assert code == Code.DEADLINE_PASSED
        else:
            assert code == Code.OK
            known.accepted[index] = self.grid.now
            if index == 0:
                known.terms = [(0, self.grid.now)]
                known.next_epoch = self.grid.epoch

    @precondition(has_leases)
    @rule(number=NUMBERS)
    def refund(self, number: int) -> None:
        lease = self.pick(number)
        known = self.model.leases[lease]
        code = self.run(self.grid.faucet, Refund(lease))
        if 0 in known.accepted:
            assert code == Code.ALREADY_ACCEPTED
        elif self.grid.now <= known.created + PRESET.accept_deadline_ms:
            assert code == Code.DEADLINE_NOT_PASSED
        else:
            assert code == Code.OK
            self.model.remove(lease)

    @precondition(has_leases)
    @rule(number=NUMBERS, more=st.integers(1, 60_000))
    def top_up(self, number: int, more: int) -> None:
        lease = self.pick(number)
        known = self.model.leases[lease]
        tenant = self.grid.key[known.tenant]
        spare = self.model.balance[known.tenant] - PRESET.record_deposit - FEE
        standbys = len(known.members) - 1
        cost = self.model.cost(known.price, known.prepaid, known.prepaid + more)
        cost += standbys * self.model.cost(known.price // 5, known.prepaid, known.prepaid + more)
        code = self.run(tenant, TopUp(lease, more))
        is_open = not known.closed and (0 not in known.accepted or self.model.is_running(known, self.grid.now))
        assert (code == Code.OK) == (is_open and cost <= spare), code
        if code == Code.OK:
            known.prepaid += more
            known.escrow += cost
            self.model.balance[known.tenant] -= cost

    @precondition(has_leases)
    @rule(number=NUMBERS)
    def close(self, number: int) -> None:
        lease = self.pick(number)
        known = self.model.leases[lease]
        code = self.run(self.grid.key[known.tenant], Close(lease, "enough"))
        if known.closed or (0 in known.accepted and not self.model.is_running(known, self.grid.now)):
            assert code == Code.LEASE_CLOSED
            return
        assert code == Code.OK
        if 0 in known.accepted:
            known.closed = self.grid.now
        else:
            self.model.remove(lease)

    @precondition(has_leases)
    @rule(number=NUMBERS, count=st.integers(1, 9))
    def claim_what_is_due(self, number: int, count: int) -> None:
        known = self.model.leases[self.pick(number)]
        due = self.model.epoch(self.grid.now - PRESET.report_window_ms) - known.next_epoch
        self.claim(number, 0, max(1, min(count, due)))

    @precondition(has_leases)
    @rule(number=NUMBERS, skip=st.integers(-1, 2), count=st.integers(0, 25))
    def claim(self, number: int, skip: int, count: int) -> None:
        lease = self.pick(number)
        known = self.model.leases[lease]
        if 0 not in known.accepted:
            assert self.run(self.grid.faucet, Claim(lease, 0, 0)) == Code.LEASE_NOT_ACTIVE
            return
        now = self.grid.now + 100
        oldest = max(0, self.model.epoch(now) - PRESET.report_epochs + 1)
        first = max(known.next_epoch, oldest) + skip
        last = first + count - 1
        is_closed = now >= GENESIS_MS + (last + 1) * PRESET.epoch_ms + PRESET.report_window_ms
        is_in_order = count > 0 and known.next_epoch <= first <= max(known.next_epoch, oldest)
        before = self.grid.lease(lease)
        code = self.run(self.grid.faucet, Claim(lease, first, last))
        is_expected = is_closed and is_in_order and count <= 24
        assert (code == Code.OK) == is_expected, (code, first, last, known)
        if code == Code.OK:
            self.last_tenant = known.tenant
            self.forget_challenge(lease, before, self.model.claim(lease, first, last, now))

    def forget_challenge(self, lease: bytes, before: Lease, ended: bool) -> None:
        """A last claim resolves what is open: the model hears of it from the ledger's own record."""
        if ended:
            assert keys.lease_key(lease) not in self.grid.state
            if before.challenge:
                self.settle_challenge(before.challenge, None)

    # -- challenges -----------------------------------------------------------------------------------------------

    @precondition(has_leases)
    @rule(number=NUMBERS, who=st.integers(-1, 2), down=st.lists(st.booleans(), min_size=3, max_size=3))
    def challenge(self, number: int, who: int, down: list[bool]) -> None:
        lease = self.pick(number)
        grid, known = self.grid, self.model.leases[lease]
        if not known.terms or who >= len(known.members) or grid.lease(lease).challenge:
            return
        challenger = known.tenant if who < 0 else known.members[who]
        holder = known.terms[-1][0]
        taken = {member for member, _ in known.terms}
        code = self.run(grid.key[challenger], Challenge(lease, len(known.terms)))
        free = [at for at in known.accepted if at not in taken]
        is_expected = (
            self.model.is_running(known, grid.now)
            and known.terms[-1][1] <= grid.now
            and bool(free)
            and (who < 0 or (who in known.accepted and who not in taken))
            and self.model.balance[challenger] + (FEE if code == Code.OK else 0) >= TOKEN + FEE + PRESET.record_deposit
        )
        assert (code == Code.OK) == is_expected, (code, known, holder)
        if code != Code.OK:
            return
        self.model.balance[challenger] -= TOKEN
        bounty, known.bounty = known.bounty, 0
        challenge = grid.lease(lease).challenge
        self.block(dt=100)
        downs = 0
        spoke: list[bytes] = []
        for slot, is_down in zip(grid.challenge_witnesses(challenge), down, strict=False):
            assert self.run(grid.node_of_slot(slot), Verdict(challenge, is_down)) == Code.OK
            downs += is_down
            spoke.append(grid.owner[grid.node_of_slot(slot).public])
            if is_down and downs == 2 and self.model.is_running(known, grid.now):
                known.terms.append((min(free), grid.now + 6_000))
        self.pending[challenge] = (lease, challenger, bounty, downs >= 2, spoke, grid.now)

    @precondition(has_leases)
    @rule(number=NUMBERS, blocks=st.integers(1, 25))
    def a_holder_dies(self, number: int, blocks: int) -> None:
        """A failover as it should be, and time for its epochs to be claimed."""
        known = self.model.leases[self.pick(number)]
        if not known.terms:
            return
        dead = self.grid.nodes.index(self.grid.key[known.members[known.terms[-1][0]]])
        self.challenge(number, -1, [True, True, True])
        self.time_passes(blocks, {dead})
        self.time_passes(25, set())

    @rule()
    def resolve(self) -> None:
        if not self.pending:
            assert self.run(self.grid.faucet, Resolve(ZERO)) == Code.UNKNOWN_CHALLENGE
            return
        challenge = next(iter(self.pending))
        lease = self.pending[challenge][0]
        self.block(dt=5_100)
        assert self.run(self.grid.faucet, Resolve(challenge)) == Code.OK
        self.settle_challenge(challenge, self.model.leases[lease])

    def settle_challenge(self, challenge: bytes, lease: ModelLease | None) -> None:
        """Fees to the witnesses; bond and bounty where they belong."""
        lease_id, challenger, bounty, was_down, spoke, _ = self.pending.pop(challenge)
        del lease_id
        fee = TOKEN // 100
        for owner in spoke:
            self.model.balance[owner] += fee
        if was_down:
            self.model.balance[challenger] += TOKEN + bounty - fee * len(spoke)
        else:
            self.model.treasury += TOKEN - fee * len(spoke)
            if lease is not None:
                lease.bounty += bounty
            else:
                self.model.balance[self.last_tenant] += bounty

    # -- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def balances_agree(self) -> None:
        if not hasattr(self, "grid"):
            return
        grid, model = self.grid, self.model
        wrong = {
            account.hex()[:8]: (grid.balance(account), balance)
            for account, balance in model.balance.items()
            if grid.balance(account) != balance
        }
        assert not wrong
        assert grid.totals.treasury + grid.totals.fees == model.treasury
        assert {key[1:] for key in grid.state if key[:1] == b"l"} == set(model.leases)


def walk(seed: int, steps: int) -> LedgerMachine:
    """The same machine driven by plain chance: long histories, where hypothesis finds short ones."""
    chance, machine = random.Random(seed), LedgerMachine()
    machine.begin()
    for _ in range(steps):
        number = chance.randrange(6)
        roll = chance.randrange(100)
        if roll < 15:
            machine.time_passes(chance.randint(1, 30), set(chance.sample(range(5), chance.choice([0, 0, 1, 2]))))
        elif roll < 18:
            machine.the_ledger_halts(chance.randint(5_000, 45_000))
        elif roll < 28:
            members = chance.sample(range(5), 5)
            size, late = chance.randint(1, 3), chance.choice([-1, -1, 0, 1, 2])
            machine.deploy(chance.randrange(2), members, size, chance.randint(2 * TOKEN, 40 * TOKEN), 90_000, 1, late)
        elif roll < 32:
            machine.transfer(chance.randrange(2), chance.randint(-1, 50 * TOKEN), chance.random() < 0.2)
        elif roll < 38:
            machine.resolve()
        elif not machine.has_leases():
            continue
        elif roll < 65:
            machine.claim_what_is_due(number, chance.randint(1, 9))
        elif roll < 70:
            machine.claim(number, chance.randint(-1, 2), chance.randint(0, 25))
        elif roll < 78:
            machine.a_holder_dies(number, chance.randint(1, 25))
        elif roll < 84:
            machine.challenge(number, chance.randint(-1, 2), [chance.random() < 0.5 for _ in range(3)])
        elif roll < 88:
            machine.top_up(number, chance.randint(1, 60_000))
        elif roll < 92:
            machine.close(number)
        elif roll < 96:
            machine.refund(number)
        else:
            machine.accept(number, chance.randrange(3))
        machine.balances_agree()
    return machine


@pytest.mark.parametrize("seed", range(2))
def test_the_model_follows_long_histories(seed: int) -> None:
    machine = walk(seed, 120)
    pieces = [event for event in machine.grid.events if isinstance(event, TermDecided)]
    paid = {event.role for event in machine.grid.events if isinstance(event, Payment)}
    assert pieces
    assert paid == {"holder", "standby", "witness", "treasury", "refund"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 120))
def test_the_model_follows_many_histories(seed: int) -> None:
    walk(seed, 300)


_SETTINGS = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


class TestLedger(LedgerMachine.TestCase):  # type: ignore[name-defined,misc]
    settings = _SETTINGS


@pytest.mark.long
@pytest.mark.timeout(900)
class TestLedgerAtLength(LedgerMachine.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(_SETTINGS, max_examples=100, stateful_step_count=50, derandomize=False)
