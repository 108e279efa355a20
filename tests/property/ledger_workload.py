"""A seeded workload over a whole grid: every kind of transaction, good and bad, through epochs, halts and failovers.

    work = Workload(Grid(...), seed=7)
    work.run(10_000)      # transactions; work.grid.blocks then holds every block, for replay

Two runs of one seed make the same bytes; only `random.Random(seed)` decides anything.
"""

import random
from collections import Counter
from collections.abc import Callable

from ledger_grid import CAPACITY, CHAIN, FEE, OFFER, SMALL, ZERO, Grid, Key, Signer

from freehold.base.amounts import TOKEN
from freehold.ledger import keys, schedule
from freehold.ledger.codes import Code
from freehold.ledger.records import ChallengeRecord, Lease
from freehold.ledger.state import decode_record
from freehold.ledger.transactions import (
    Accept,
    AddStake,
    Challenge,
    Claim,
    Close,
    Deploy,
    Place,
    Refund,
    RegisterFarm,
    RegisterNode,
    ReleaseNode,
    Resolve,
    RetireNode,
    SetSigners,
    TopUp,
    Transfer,
    UpdateNode,
    Verdict,
    possession_bytes,
)

MAX_LEASES = 40


class Workload:
    """Drives a grid by chance; `codes` counts what became of each transaction."""

    def __init__(self, grid: Grid, seed: int) -> None:
        self.grid = grid
        self.random = random.Random(seed)
        self.codes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.nonces: dict[bytes, int] = {}
        self.pending: list[bytes] = []
        self.people: list[Signer] = [grid.faucet, *grid.tenants, *grid.farms]
        self.makers: list[tuple[int, Callable[[], None]]] = [
            (70, self.transfer),
            (3, self.deploy),
            (3, self.top_up),
            (2, self.close),
            (3, self.claim),
            (2, self.challenge),
            (2, self.bad),
            (1, self.stake),
            (1, self.signers),
            (1, self.refund),
            (1, self.join_or_leave),
        ]

    def run(self, transactions: int) -> None:
        """Go on until at least so many transactions were put into blocks."""
        reported = self.grid.epoch
        while sum(self.codes.values()) < transactions:
            grid = self.grid
            self.duties()
            for _ in range(self.random.randint(0, 40)):
                self.random.choices([maker for _, maker in self.makers], [share for share, _ in self.makers])[0]()
            self.flush(self.step())
            if grid.epoch != reported and grid.epoch > 0:
                reported = grid.epoch
                self.report(grid.epoch - 1)
            if self.random.random() < 0.05:
                grid.down = {node.public for node in grid.nodes if self.random.random() < 0.15}

    def step(self) -> int:
        """Mostly a tick; sometimes at once; rarely a halt of some epochs."""
        roll = self.random.random()
        if roll < 0.03:
            return self.random.randint(10_000, 60_000)
        return 1_000 if roll < 0.7 else self.random.randint(1, 999)

    def flush(self, dt: int) -> None:
        waiting, self.pending = self.pending, []
        for result in self.grid.block(*waiting, dt=dt):
            self.codes[result.code.name] += 1
        self.nonces.clear()

    def add(self, key: Signer, body: object, **fields: object) -> None:
        """Sign with the sender's next nonce, counting those that wait."""
        self.kinds[type(body).__name__] += 1
        if isinstance(body, Accept | Verdict):
            self.pending.append(self.grid.tx(key, body))
            return
        nonce = self.nonces.get(key.public, self.grid.nonce(key.public))
        self.nonces[key.public] = nonce + 1
        self.pending.append(self.grid.tx(key, body, **({"nonce": nonce} | fields)))  # type: ignore[arg-type]

    def leases(self) -> list[tuple[bytes, Lease]]:
        state = self.grid.state
        return [(key[1:], decode_record(state[key], Lease)) for key in sorted(state) if key[:1] == b"l"]

    def pick(self) -> tuple[bytes, Lease] | None:
        found = self.leases()
        return self.random.choice(found) if found else None

    # -- what people and nodes do ---------------------------------------------------------------------------------

    def transfer(self) -> None:
        sender = self.random.choice(self.people)
        to = self.random.choice(self.people).public
        if self.random.random() < 0.1:
            to = Key(f"stranger-{self.random.randint(0, 200)}").public
        self.add(sender, Transfer(to, self.random.choice([1, 1_000, TOKEN // 10, TOKEN])), fee=FEE)

    def deploy(self) -> None:
        if len(self.leases()) >= MAX_LEASES:
            return
        tenant = self.random.choice(self.grid.tenants)
        orders = []
        for at in range(self.random.randint(1, 3)):
            farms = self.random.sample(range(len(self.grid.farms)), self.random.randint(1, 3))
            per_farm = len(self.grid.nodes) // len(self.grid.farms)
            members = [farm * per_farm + self.random.randrange(per_farm) for farm in farms]
            orders.append(
                self.grid.order(
                    members,
                    f"s{at}",
                    price=self.random.randint(2 * TOKEN, 20 * TOKEN),
                    prepaid_ms=self.random.randint(10_000, 400_000),
                    local_volume=self.random.random() < 0.2,
                )
            )
        self.add(tenant, Deploy("app", [], orders))

    def duties(self) -> None:
        """Members accept, most of them; drawn witnesses speak."""
        for lease_id, lease in self.leases():
            for member in lease.members:
                if not member.accepted_ms and member.node not in self.grid.down and self.random.random() < 0.5:
                    self.add(self.grid.key[member.node], Accept(lease_id, ZERO))
        for key in sorted(self.grid.state):
            if key[:1] == b"c" and self.random.random() < 0.7:
                self.speak(key[1:])

    def speak(self, challenge: bytes) -> None:
        record = self.grid.need(keys.challenge_key(challenge), ChallengeRecord)
        is_over = self.grid.now > record.posted_ms + self.grid.preset.verdict_window_ms
        if is_over or self.grid.height <= record.posted_height:
            return
        lease = self.grid.lease(record.lease)
        is_down = lease.members[lease.terms[record.term - 1].member].node in self.grid.down
        heard = {slot for slot, _ in record.verdicts}
        for slot in self.grid.challenge_witnesses(challenge):
            witness = self.grid.node_of_slot(slot)
            if slot not in heard and witness.public not in self.grid.down:
                self.add(witness, Verdict(challenge, is_down))

    def report(self, epoch: int) -> None:
        record = self.grid.epoch_record(epoch)
        if record is None or not schedule.is_covered(self.grid.preset, record):
            return
        self.kinds["Report"] += len(self.grid.nodes) - len(self.grid.down)
        self.pending.extend(self.grid.reports(epoch))
        self.flush(100)

    def top_up(self) -> None:
        found = self.pick()
        if found:
            self.add(self.grid.key[found[1].tenant], TopUp(found[0], self.random.randint(1, 60_000)))

    def close(self) -> None:
        found = self.pick()
        if found:
            self.add(self.grid.key[found[1].tenant], Close(found[0], "done"))

    def claim(self) -> None:
        found = self.pick()
        if found and found[1].started_ms:
            oldest = schedule.oldest_claimable(self.grid.preset, self.grid.epoch)
            first = max(found[1].settled_epoch, oldest)
            last = min(first + self.random.randint(0, 23), max(first, self.grid.epoch - 2))
            self.add(self.random.choice(self.people), Claim(found[0], first, last))

    def challenge(self) -> None:
        found = self.pick()
        if found and found[1].terms:
            lease_id, lease = found
            who = self.random.choice([lease.tenant, *(member.node for member in lease.members)])
            self.add(self.grid.key[who], Challenge(lease_id, len(lease.terms)))
            if lease.challenge and self.random.random() < 0.5:
                self.add(self.grid.faucet, Resolve(lease.challenge))

    def refund(self) -> None:
        found = self.pick()
        if found:
            self.add(self.grid.faucet, Refund(found[0]))

    def stake(self) -> None:
        at = self.random.randrange(len(self.grid.nodes))
        node = self.grid.nodes[at]
        farm = self.grid.key[self.grid.owner[node.public]]
        self.add(farm, AddStake(node.public, TOKEN))
        record = self.grid.node(node.public)
        self.add(farm, UpdateNode(node.public, ["192.0.2.2:1"], record.capacity, record.offer))

    def join_or_leave(self) -> None:
        """A tenant becomes a farmer; its nodes come, retire and are released, and come again."""
        tenant = self.grid.tenants[0]
        node = self.grid.make_key(f"extra-{self.random.randrange(4)}")
        self.grid.key[node.public] = node
        self.grid.owner[node.public] = tenant.public
        possession = node.sign(possession_bytes(CHAIN, node.public, tenant.public, ZERO))
        bodies = [
            RegisterFarm("late-farm", Place("NL", "")),
            RegisterNode(node.public, ZERO, possession, [], CAPACITY, OFFER, 100 * TOKEN, TOKEN),
            RetireNode(node.public),
            ReleaseNode(node.public),
        ]
        self.add(tenant, self.random.choice(bodies))

    def signers(self) -> None:
        """An account that shares itself with itself: its own key stays enough."""
        person = self.random.choice(self.people)
        self.add(person, SetSigners([(person.public, 1)], 1))

    def bad(self) -> None:
        """What must be refused: replays, gaps, strangers, overflows, other chains."""
        person = self.random.choice(self.people)
        body = Transfer(self.random.choice(self.people).public, TOKEN)
        nonce = self.grid.nonce(person.public)
        if self.pending:
            self.pending.append(self.random.choice(self.pending))
        self.pending.append(
            self.random.choice(
                [
                    self.grid.tx(person, body, nonce=nonce + 500),
                    self.grid.tx(person, body, chain_id="elsewhere"),
                    self.grid.tx(person, Transfer(body.to, -1)),
                    self.grid.tx(person, Transfer(body.to, 1 << 62)),
                    self.grid.tx(Key("nobody"), body),
                    self.grid.tx(person, body, valid_until=self.grid.height),
                    self.grid.tx(person, Deploy("x", [], [self.grid.order([0], resources=SMALL, price=1)])),
                    b"noise",
                ]
            )
        )


def accepted(codes: Counter[str]) -> int:
    return codes[Code.OK.name]
