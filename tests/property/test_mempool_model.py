"""The mempool under random submissions, blocks and rechecks."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from freehold.consensus.application import CheckTxResponse, Lane
from freehold.consensus.errors import MempoolFullError
from freehold.consensus.mempool import MAX_PER_SENDER, RESERVED_PERMILL, TX_OVERHEAD_BYTES, Entry, Mempool

MAX_TXS, MAX_BYTES = 24, 2_000
senders = st.sampled_from([b"a", b"b", b"c", b"d"])


class MempoolMachine(RuleBasedStateMachine):
    """A chain of nonces beside the pool; a transaction's fate is known at every moment."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Mempool(max_txs=MAX_TXS, max_bytes=MAX_BYTES)
        self.height = 0
        self.nonces = dict.fromkeys([b"a", b"b", b"c", b"d"], 0)
        self.waiting: dict[bytes, tuple[CheckTxResponse, int]] = {}
        self.governance: set[bytes] = set()  # change to that lane when their nonce is due
        self.count = 0

    def check(self, sender: bytes, nonce: int, fee: int, lane: Lane, until: int) -> CheckTxResponse:
        return CheckTxResponse(
            code=0,
            lane=lane,
            sender=sender,
            nonce=nonce,
            next_nonce=self.nonces[sender],
            priority=fee,
            valid_until=until,
        )

    def add(self, check: CheckTxResponse, size: int) -> None:
        self.count += 1
        tx_id = b"%d" % self.count
        before = dict(self.waiting)
        try:
            dropped = self.pool.add(tx_id, bytes(size), check, self.height)
        except MempoolFullError as error:
            assert error.code in (
                "mempool_full",
                "fee_too_low_to_replace",
                "already_waiting",
                "nonce_too_far",
                "nonce_used",
            )
            assert set(before) == set(self.pool._entries)
            return
        for gone in dropped:
            old, _ = self.waiting.pop(gone.id)
            if gone.code == "replaced":
                assert (old.sender, old.nonce) == (check.sender, check.nonce)
                assert check.priority > old.priority
            else:
                assert gone.code == "evicted"
        self.waiting[tx_id] = (check, size)

    @rule(
        sender=senders,
        ahead=st.integers(-1, 4),
        fee=st.integers(0, 30),
        lane=st.sampled_from([Lane.USERS, Lane.USERS, Lane.GOVERNANCE]),
        size=st.integers(1, 400),
        lives=st.integers(1, 6),
    )
    def submit(self, sender: bytes, ahead: int, fee: int, lane: Lane, size: int, lives: int) -> None:
        nonce = max(0, self.nonces[sender] + ahead)
        self.add(self.check(sender, nonce, fee, lane, self.height + lives), size)

    @rule(sender=senders, ahead=st.integers(0, 3), fee=st.integers(0, 30), size=st.integers(1, 400))
    def govern(self, sender: bytes, ahead: int, fee: int, size: int) -> None:
        lane = Lane.USERS if ahead else Lane.GOVERNANCE
        self.add(self.check(sender, self.nonces[sender] + ahead, fee, lane, self.height + 6), size)
        self.governance.add(b"%d" % self.count)

    @rule(sender=senders, key=st.integers(0, 20), size=st.integers(1, 400))
    def report(self, sender: bytes, key: int, size: int) -> None:
        self.add(CheckTxResponse(code=0, lane=Lane.REPORTS, sender=sender, replay_key=b"%d" % key), size)

    @rule(max_txs=st.integers(0, 12), max_bytes=st.integers(0, 1_500), fails=st.booleans())
    def block(self, max_txs: int, max_bytes: int, *, fails: bool) -> None:
        chosen = self.pool.select(self.height + 1, max_txs=max_txs, max_bytes=max_bytes)
        self.check_choice(chosen, max_txs, max_bytes)
        self.height += 1
        for entry in chosen:
            sender, nonce = entry.check.sender, entry.check.nonce
            self.waiting.pop(entry.id)
            if nonce is not None and not fails:
                self.nonces[sender] = max(self.nonces[sender], nonce + 1)
        for gone in self.pool.remove_committed([entry.id for entry in chosen], self.height):
            assert gone.code == "expired"
            assert self.waiting.pop(gone.id)[0].valid_until <= self.height
        assert all(check.valid_until > self.height for check, _ in self.waiting.values())
        self.recheck()

    def recheck(self) -> None:
        for entry in self.pool.stale(self.height, 1_000):
            check, _ = self.waiting[entry.id]
            if check.nonce is None:
                answer = check
            else:
                is_due = entry.id in self.governance and check.nonce == self.nonces[check.sender]
                lane = Lane.GOVERNANCE if is_due else check.lane
                answer = self.check(check.sender, check.nonce, check.priority, lane, check.valid_until)
            gone = self.pool.recheck(entry.id, answer, self.height)
            assert (gone is not None) == (check.nonce is not None and check.nonce < self.nonces[check.sender])
            if gone:
                del self.waiting[entry.id]
        assert self.pool.stale(self.height, 1_000) == []

    def check_choice(self, chosen: list[Entry], max_txs: int, max_bytes: int) -> None:
        assert len(chosen) <= max_txs
        assert sum(entry.size for entry in chosen) <= max_bytes
        assert len({entry.id for entry in chosen}) == len(chosen)
        expected = dict(self.nonces)
        for entry in chosen:
            assert entry.check.valid_until > self.height
            if entry.check.nonce is not None:
                assert entry.check.nonce == expected[entry.check.sender]
                expected[entry.check.sender] += 1
        # nothing that would fit was left out, and so nobody can keep a lane from its share
        left = max_bytes - sum(entry.size for entry in chosen)
        if len(chosen) < max_txs:
            taken = {entry.id for entry in chosen}
            for tx_id, (check, size) in self.waiting.items():
                goes_next = check.nonce is None or check.nonce == expected[check.sender]
                if tx_id not in taken and goes_next and check.valid_until > self.height:
                    assert size + TX_OVERHEAD_BYTES > left
        for lane in Lane:
            self.check_share(lane, chosen, max_txs, max_bytes)

    def check_share(self, lane: Lane, chosen: list[Entry], max_txs: int, max_bytes: int) -> None:
        """What follows nothing that waits is left out only when its lane has (nearly) its share."""
        taken = {entry.id for entry in chosen}
        mine = [entry for entry in chosen if entry.check.lane is lane]
        share_txs = max_txs * RESERVED_PERMILL[lane] // 1000
        share_bytes = max_bytes * RESERVED_PERMILL[lane] // 1000
        for tx_id, entry in self.pool._entries.items():
            check = entry.check
            goes_first = check.nonce is None or check.nonce == self.nonces[check.sender]
            if check.lane is lane and tx_id not in taken and goes_first and check.valid_until > self.height:
                full = len(mine) >= share_txs
                assert full or sum(one.size for one in mine) + entry.size > share_bytes

    @invariant()
    def counts_and_bounds(self) -> None:
        assert set(self.pool._entries) == set(self.waiting)
        assert len(self.pool) <= MAX_TXS
        size = sum(size + TX_OVERHEAD_BYTES for _, size in self.waiting.values())
        assert self.pool.total_bytes == size <= MAX_BYTES
        slots = [(c.sender, c.replay_key if c.nonce is None else c.nonce) for c, _ in self.waiting.values()]
        assert len(set(slots)) == len(slots)
        for sender in self.nonces:
            queue = [c.nonce for c, _ in self.waiting.values() if c.sender == sender and c.nonce is not None]
            assert len(queue) <= MAX_PER_SENDER

    @invariant()
    def readiness_is_told(self) -> None:
        chosen = self.pool.select(self.height + 1, max_txs=1_000, max_bytes=1 << 20)
        assert self.pool.has_ready(self.height + 1) == bool(chosen)


TestMempool = MempoolMachine.TestCase
TestMempool.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


def test_a_follower_in_an_earlier_lane_goes_into_the_same_block() -> None:
    machine = MempoolMachine()
    machine.submit(b"a", 0, 0, Lane.USERS, 1, 1)
    machine.submit(b"a", 1, 0, Lane.GOVERNANCE, 1, 1)
    machine.block(max_txs=2, max_bytes=2 * (1 + TX_OVERHEAD_BYTES), fails=False)
    assert machine.nonces[b"a"] == 2 and not machine.waiting
